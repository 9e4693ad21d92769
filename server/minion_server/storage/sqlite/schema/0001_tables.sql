-- Times are seconds since the epoch. Columns are named as Perl Minion's; those of our own are `stage` and `blocker`.
--
-- `stage` says of an inactive job, and of no other, what it waits for:
--   ready    for a worker
--   delayed  for its time; what comes then is decided then
--   blocked  for parents; `blocker` is one of those that block
--   expired  for removal
-- so that a claim reads only jobs that it may take, however many others there are. A blocked job watches one of its
-- blocking parents only: just when that one stops blocking another is looked for, which keeps a job of many parents cheap.
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

-- What a claim reads, in its order, by queue and task: jobs of other tasks are never read.
CREATE INDEX jobs_ready ON jobs (queue, task, priority DESC, id) WHERE stage = 'ready';
-- When delayed jobs become due; how long the others have been.
CREATE INDEX jobs_due ON jobs (stage, delayed) WHERE stage IS NOT NULL;
CREATE INDEX jobs_expiring ON jobs (stage, expires) WHERE stage IS NOT NULL AND expires IS NOT NULL;
CREATE INDEX jobs_blocked ON jobs (blocker) WHERE blocker IS NOT NULL;
CREATE INDEX jobs_active ON jobs (worker) WHERE state = 'active';
-- Lists and counts by state.
CREATE INDEX jobs_state ON jobs (state);
-- History and removal.
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
