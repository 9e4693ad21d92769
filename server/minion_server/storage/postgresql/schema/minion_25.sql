-- From version 24 of Minion's schema to 25.
CREATE TABLE minion_schedules (
  id       BIGSERIAL PRIMARY KEY,
  args     JSONB NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(args) = 'array'),
  attempts INT NOT NULL DEFAULT 1,
  created  TIMESTAMPTZ NOT NULL DEFAULT now(),
  cron     TEXT NOT NULL,
  expire   INT,
  last_job BIGINT,
  last_run TIMESTAMPTZ,
  lax      BOOL NOT NULL DEFAULT FALSE,
  name     TEXT NOT NULL UNIQUE,
  next_run TIMESTAMPTZ NOT NULL,
  notes    JSONB NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(notes) = 'object'),
  paused   BOOL NOT NULL DEFAULT FALSE,
  priority INT NOT NULL DEFAULT 0,
  queue    TEXT NOT NULL DEFAULT 'default',
  task     TEXT NOT NULL
);
CREATE INDEX minion_schedules_next_run_idx ON minion_schedules (next_run) WHERE NOT paused;
