-- Perl Minion's own objects as its migrations leave them at version 23, the oldest supported one. Types, columns and their
-- order, defaults, checks, indexes and their names, trigger and functions are Perl Minion's, and must not be changed.
CREATE TYPE minion_state AS ENUM ('inactive', 'active', 'failed', 'finished');

CREATE TABLE minion_jobs (
  id       BIGSERIAL PRIMARY KEY,
  args     JSONB NOT NULL CHECK (jsonb_typeof(args) = 'array'),
  attempts INT NOT NULL DEFAULT 1,
  created  TIMESTAMPTZ NOT NULL DEFAULT now(),
  delayed  TIMESTAMPTZ NOT NULL,
  finished TIMESTAMPTZ,
  notes    JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(notes) = 'object'),
  parents  BIGINT[] NOT NULL DEFAULT '{}',
  priority INT NOT NULL,
  queue    TEXT NOT NULL DEFAULT 'default',
  result   JSONB,
  retried  TIMESTAMPTZ,
  retries  INT NOT NULL DEFAULT 0,
  started  TIMESTAMPTZ,
  state    minion_state NOT NULL DEFAULT 'inactive',
  task     TEXT NOT NULL,
  worker   BIGINT,
  expires  TIMESTAMPTZ,
  lax      BOOL NOT NULL DEFAULT FALSE
);
CREATE INDEX minion_jobs_state_priority_id_idx ON minion_jobs (state, priority DESC, id);
CREATE INDEX minion_jobs_parents_idx ON minion_jobs USING GIN (parents);
CREATE INDEX minion_jobs_notes_idx ON minion_jobs USING GIN (notes);
CREATE INDEX minion_jobs_expires_idx ON minion_jobs (expires);

CREATE UNLOGGED TABLE minion_workers (
  id       BIGSERIAL PRIMARY KEY,
  host     TEXT NOT NULL,
  inbox    JSONB NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(inbox) = 'array'),
  notified TIMESTAMPTZ NOT NULL DEFAULT now(),
  pid      INT NOT NULL,
  started  TIMESTAMPTZ NOT NULL DEFAULT now(),
  status   JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(status) = 'object')
);

CREATE UNLOGGED TABLE minion_locks (
  id      BIGSERIAL PRIMARY KEY,
  name    TEXT NOT NULL,
  expires TIMESTAMPTZ NOT NULL
);
CREATE INDEX minion_locks_name_expires_idx ON minion_locks (name, expires);

CREATE FUNCTION minion_jobs_notify_workers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.delayed <= now() THEN
    NOTIFY "minion.job";
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER minion_jobs_notify_workers_trigger AFTER INSERT OR UPDATE OF retries ON minion_jobs
  FOR EACH ROW EXECUTE FUNCTION minion_jobs_notify_workers();

-- name, seconds, limit
CREATE FUNCTION minion_lock(TEXT, INT, INT) RETURNS BOOL LANGUAGE plpgsql AS $$
DECLARE
  until TIMESTAMPTZ := now() + $2 * INTERVAL '1 second';
BEGIN
  LOCK TABLE minion_locks IN EXCLUSIVE MODE;
  DELETE FROM minion_locks WHERE expires < now();
  IF (SELECT count(*) FROM minion_locks WHERE name = $1) >= $3 THEN
    RETURN FALSE;
  END IF;
  IF until > now() THEN
    INSERT INTO minion_locks (name, expires) VALUES ($1, until);
  END IF;
  RETURN TRUE;
END
$$;
