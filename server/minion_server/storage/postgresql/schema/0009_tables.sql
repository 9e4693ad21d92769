-- The tables and indexes that this server needs beyond Minion's own; the names of all of it begin with minion_server_.
--
-- Versions 1 to 8 were those of programs before the first release, whose tables were these: all of it may be there already.
CREATE TABLE IF NOT EXISTS minion_server_schema (version INT NOT NULL);
-- Which functions are in place: a digest of their source.
ALTER TABLE minion_server_schema ADD COLUMN IF NOT EXISTS functions TEXT NOT NULL DEFAULT '';

-- An inactive job is *plain* if it has neither parents nor a time to expire at, and was never to wait: that is
--   delayed <= created AND parents = '{}' AND expires IS NULL
-- which is seen from its row alone, and does not change with time. An index finds those in the order of claims, at the
-- cost of one entry a job. Every other inactive job has a row in minion_server_waiting, whose stage is what it waits for:
--   delayed    for its time
--   undecided  for a look at its parents
--   blocked    for parents; `blocker` is one of those that block
--   ready      for a worker
--   expired    for removal
-- so that a claim reads only what it may take, however many others there are. A blocked job watches one blocking parent
-- only: when that one stops blocking, it is undecided again.
--
-- A claim looks at the parents of a ready job once more: that it is ready is a hint, that it is not is what counts.
--
-- The order is spelled as an expression that no index of Minion's has: the planner must not take one of those for it, and
-- walk through all that others wait for, when there are many queues or tasks that it has no statistics of yet.
CREATE INDEX IF NOT EXISTS minion_server_jobs_plain ON minion_jobs (queue, task, (- priority::BIGINT), id)
  WHERE state = 'inactive' AND delayed <= created AND parents = '{}' AND expires IS NULL;
-- Which of them nobody takes.
CREATE INDEX IF NOT EXISTS minion_server_jobs_plain_age ON minion_jobs (delayed)
  WHERE state = 'inactive' AND delayed <= created AND parents = '{}' AND expires IS NULL;

CREATE TABLE IF NOT EXISTS minion_server_waiting (
  job      BIGINT PRIMARY KEY,
  queue    TEXT NOT NULL,
  task     TEXT NOT NULL,
  priority INT NOT NULL,
  stage    TEXT NOT NULL CHECK (stage IN ('delayed', 'undecided', 'blocked', 'ready', 'expired')),
  blocker  BIGINT,
  due      TIMESTAMPTZ NOT NULL,
  expires  TIMESTAMPTZ,
  CHECK ((stage = 'blocked') = (blocker IS NOT NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX IF NOT EXISTS minion_server_waiting_ready ON minion_server_waiting (queue, task, (- priority::BIGINT), job)
  WHERE stage = 'ready';
CREATE INDEX IF NOT EXISTS minion_server_waiting_due ON minion_server_waiting (stage, due);
CREATE INDEX IF NOT EXISTS minion_server_waiting_blocker ON minion_server_waiting (blocker) WHERE blocker IS NOT NULL;
CREATE INDEX IF NOT EXISTS minion_server_waiting_expires ON minion_server_waiting (expires)
  WHERE expires IS NOT NULL AND stage <> 'expired';

-- Request ids, and the jobs that came with them.
CREATE TABLE IF NOT EXISTS minion_server_requests (
  request_id TEXT PRIMARY KEY,
  job        BIGINT NOT NULL,
  created    TIMESTAMPTZ NOT NULL
);
CREATE INDEX IF NOT EXISTS minion_server_requests_created ON minion_server_requests (created);

-- What the last step of each lane returned (see functions/receipts.sql). A lane takes one step after the other.
CREATE TABLE IF NOT EXISTS minion_server_receipts (
  lane   TEXT PRIMARY KEY,
  token  BIGINT NOT NULL,
  answer JSONB NOT NULL,
  given  TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 20);
CREATE INDEX IF NOT EXISTS minion_server_receipts_given ON minion_server_receipts USING BRIN (given);

-- Running jobs that were taken from their workers, for servers that missed the notification.
CREATE TABLE IF NOT EXISTS minion_server_revocations (
  id      BIGSERIAL PRIMARY KEY,
  worker  BIGINT NOT NULL,
  job     BIGINT NOT NULL,
  retries INT NOT NULL,
  created TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Workers that left, or were found missing, and since when. minion_workers is unlogged: after a crash of the database it
-- is empty, and then no worker has left.
CREATE TABLE IF NOT EXISTS minion_server_departures (
  worker BIGINT PRIMARY KEY,
  since  TIMESTAMPTZ NOT NULL
);

-- How often, in seconds, workers are heard of whose status says so; known even after a crash.
CREATE TABLE IF NOT EXISTS minion_server_heartbeats (
  worker  BIGINT PRIMARY KEY,
  seconds FLOAT8 NOT NULL
);

-- The highest id that a worker had, which the sequence of an unlogged table forgets in a crash.
CREATE TABLE IF NOT EXISTS minion_server_marks (
  only_row   BOOL PRIMARY KEY DEFAULT TRUE CHECK (only_row),
  worker     BIGINT NOT NULL
);
INSERT INTO minion_server_marks (worker) SELECT greatest(
  (SELECT coalesce(max(id), 0) FROM minion_workers), (SELECT coalesce(max(worker), 0) FROM minion_jobs))
ON CONFLICT DO NOTHING;

-- The jobs that are there already.
INSERT INTO minion_server_waiting (job, queue, task, priority, stage, due, expires)
SELECT id, queue, task, priority,
  CASE WHEN delayed > now() THEN 'delayed' WHEN parents <> '{}' THEN 'undecided' ELSE 'ready' END, delayed, expires
FROM minion_jobs
WHERE state = 'inactive' AND NOT (delayed <= created AND parents = '{}' AND expires IS NULL)
ON CONFLICT DO NOTHING;

-- Functions are not kept by versions but replaced (see schema.py); those of earlier programs had other names. Not the one that
-- seals a database.
DO $$ DECLARE one RECORD; BEGIN
  FOR one IN SELECT oid::regprocedure AS function FROM pg_proc
    WHERE proname LIKE 'minion\_server\_%' AND proname <> 'minion_server_refuse' AND pronamespace = current_schema()::regnamespace
  LOOP
    EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', one.function);
  END LOOP;
END $$;
