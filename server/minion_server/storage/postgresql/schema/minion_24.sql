-- From version 23 of Minion's schema to 24.
CREATE INDEX minion_jobs_finished_state_idx ON minion_jobs (finished, state);
DROP INDEX IF EXISTS minion_server_jobs_finished;
