-- The tables and indexes that this server needs in addition to Minion's, whose names begin with minion_server_.
--
-- Versions 1 to 8 were those of programs before the first release, with the same tables, so that all of them may exist already.
CREATE TABLE IF NOT EXISTS minion_server_schema (version INT NOT NULL);
-- A digest of the source of the installed functions.
ALTER TABLE minion_server_schema ADD COLUMN IF NOT EXISTS functions TEXT NOT NULL DEFAULT '';

-- An inactive job is *plain* if it has no parents and no expiry, and was not delayed:
--   delayed <= created AND parents = '{}' AND expires IS NULL
-- This depends only on its row, and does not change with time. An index has plain jobs in the order of claims, at the cost of
-- one entry per job. Every other inactive job has a row in minion_server_waiting, whose stage is what it waits for:
--   delayed    its time
--   undecided  a check of its parents
--   blocked    parents; `blocker` is one of those that block it
--   ready      a worker
--   expired    removal
-- A claim reads only jobs that it can take, however many others there are. A blocked job watches only one of its blocking
-- parents, and is undecided again when that one stops blocking it.
--
-- A claim checks the parents of a ready job again. The stage 'ready' is only a hint, but jobs in other stages are not claimed.
--
-- The order is an expression that no index of Minion's has. Otherwise the planner, which may have no statistics yet, could use
-- one of those, and read the jobs of all other queues and tasks.
CREATE INDEX IF NOT EXISTS minion_server_jobs_plain ON minion_jobs (queue, task, (- priority::BIGINT), id)
  WHERE state = 'inactive' AND delayed <= created AND parents = '{}' AND expires IS NULL;
-- For plain jobs that are stuck.
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

-- Request ids, and the jobs that they enqueued.
CREATE TABLE IF NOT EXISTS minion_server_requests (
  request_id TEXT PRIMARY KEY,
  job        BIGINT NOT NULL,
  created    TIMESTAMPTZ NOT NULL
);
CREATE INDEX IF NOT EXISTS minion_server_requests_created ON minion_server_requests (created);

-- The result of the last step of each lane (see functions/receipts.sql), which runs one step at a time.
CREATE TABLE IF NOT EXISTS minion_server_receipts (
  lane   TEXT PRIMARY KEY,
  token  BIGINT NOT NULL,
  answer JSONB NOT NULL,
  given  TIMESTAMPTZ NOT NULL
) WITH (fillfactor = 20);
CREATE INDEX IF NOT EXISTS minion_server_receipts_given ON minion_server_receipts USING BRIN (given);

-- Running jobs that their workers must stop, for servers that missed the notification.
CREATE TABLE IF NOT EXISTS minion_server_revocations (
  id      BIGSERIAL PRIMARY KEY,
  worker  BIGINT NOT NULL,
  job     BIGINT NOT NULL,
  retries INT NOT NULL,
  created TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- Workers that left or were found missing, and since when. minion_workers is unlogged: after a crash of the database it is
-- empty, although no worker has left.
CREATE TABLE IF NOT EXISTS minion_server_departures (
  worker BIGINT PRIMARY KEY,
  since  TIMESTAMPTZ NOT NULL
);

-- Heartbeat intervals, in seconds, of the workers whose status has one. They survive a crash.
CREATE TABLE IF NOT EXISTS minion_server_heartbeats (
  worker  BIGINT PRIMARY KEY,
  seconds FLOAT8 NOT NULL
);

-- The highest id that a worker had, since a crash resets the sequence of an unlogged table.
CREATE TABLE IF NOT EXISTS minion_server_marks (
  only_row   BOOL PRIMARY KEY DEFAULT TRUE CHECK (only_row),
  worker     BIGINT NOT NULL
);
INSERT INTO minion_server_marks (worker) SELECT greatest(
  (SELECT coalesce(max(id), 0) FROM minion_workers), (SELECT coalesce(max(worker), 0) FROM minion_jobs))
ON CONFLICT DO NOTHING;

-- Jobs that exist already.
INSERT INTO minion_server_waiting (job, queue, task, priority, stage, due, expires)
SELECT id, queue, task, priority,
  CASE WHEN delayed > now() THEN 'delayed' WHEN parents <> '{}' THEN 'undecided' ELSE 'ready' END, delayed, expires
FROM minion_jobs
WHERE state = 'inactive' AND NOT (delayed <= created AND parents = '{}' AND expires IS NULL)
ON CONFLICT DO NOTHING;

-- Functions have no versions but are replaced (see schema.py). Those of earlier programs, which had other names, are dropped,
-- except the one that closes a database.
DO $$ DECLARE one RECORD; BEGIN
  FOR one IN SELECT oid::regprocedure AS function FROM pg_proc
    WHERE proname LIKE 'minion\_server\_%' AND proname <> 'minion_server_refuse' AND pronamespace = current_schema()::regnamespace
  LOOP
    EXECUTE format('DROP FUNCTION IF EXISTS %s CASCADE', one.function);
  END LOOP;
END $$;
