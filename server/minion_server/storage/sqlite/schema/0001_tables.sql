-- Times are seconds since the epoch. Columns have the names of Perl Minion's, except `stage` and `blocker`.
--
-- The stage of an inactive job, which other jobs do not have, is what it waits for:
--   ready    a worker
--   delayed  its time; then it gets another stage
--   blocked  parents; `blocker` is one of those that block it
--   expired  removal
-- A claim reads only jobs that it can take, however many others there are. A blocked job watches only one of its blocking
-- parents, and looks for another one when that one stops blocking it, which keeps jobs with many parents cheap.
CREATE TABLE jobs (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  args     TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  blocker  INTEGER,
  created  REAL NOT NULL,
  delayed  REAL NOT NULL,
  expires  REAL,
  finished REAL,
  lax      INTEGER NOT NULL,
  notes    TEXT NOT NULL,
  parents  TEXT NOT NULL,
  priority INTEGER NOT NULL,
  queue    TEXT NOT NULL,
  result   TEXT,
  retried  REAL,
  retries  INTEGER NOT NULL DEFAULT 0,
  stage    TEXT CHECK (stage IN ('ready', 'delayed', 'blocked', 'expired')),
  started  REAL,
  state    TEXT NOT NULL DEFAULT 'inactive' CHECK (state IN ('inactive', 'active', 'finished', 'failed')),
  task     TEXT NOT NULL,
  worker   INTEGER,
  CHECK ((state = 'inactive') = (stage IS NOT NULL)),
  CHECK ((stage IS 'blocked') = (blocker IS NOT NULL))
) STRICT;

-- For claims, in their order, by queue and task, so that jobs of other tasks are never read.
CREATE INDEX jobs_ready ON jobs (queue, task, priority DESC, id) WHERE stage = 'ready';
-- For delayed jobs that become due, and for stuck jobs.
CREATE INDEX jobs_due ON jobs (stage, delayed) WHERE stage IS NOT NULL;
CREATE INDEX jobs_expiring ON jobs (stage, expires) WHERE stage IS NOT NULL AND expires IS NOT NULL;
CREATE INDEX jobs_blocked ON jobs (blocker) WHERE blocker IS NOT NULL;
CREATE INDEX jobs_active ON jobs (worker) WHERE state = 'active';
-- For lists and counts by state.
CREATE INDEX jobs_state ON jobs (state);
-- For the history, and the removal of old jobs.
CREATE INDEX jobs_ended ON jobs (finished, state) WHERE state IN ('finished', 'failed');

CREATE TABLE dependencies (
  parent INTEGER NOT NULL,
  child  INTEGER NOT NULL,
  PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
  request_id TEXT PRIMARY KEY,
  job        INTEGER NOT NULL,
  created    REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_created ON requests (created);

CREATE TABLE workers (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  host     TEXT NOT NULL,
  inbox    TEXT NOT NULL DEFAULT '[]',
  notified REAL NOT NULL,
  pid      INTEGER NOT NULL,
  started  REAL NOT NULL,
  status   TEXT NOT NULL
) STRICT;

CREATE TABLE locks (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  name    TEXT NOT NULL,
  expires REAL NOT NULL
) STRICT;
CREATE INDEX locks_name ON locks (name, expires);

CREATE TABLE schedules (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  args     TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  created  REAL NOT NULL,
  cron     TEXT NOT NULL,
  expire   REAL,
  last_job INTEGER,
  last_run REAL,
  lax      INTEGER NOT NULL,
  name     TEXT NOT NULL UNIQUE,
  next_run REAL NOT NULL,
  notes    TEXT NOT NULL,
  paused   INTEGER NOT NULL DEFAULT 0,
  priority INTEGER NOT NULL,
  queue    TEXT NOT NULL,
  task     TEXT NOT NULL
) STRICT;
CREATE INDEX schedules_due ON schedules (next_run) WHERE NOT paused;
