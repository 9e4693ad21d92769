-- The stages of inactive jobs. SQLite stores the stage in the row of the job. Here, the table of jobs is Minion's, and only
-- jobs that are not plain (see schema/0009_tables.sql) have a row in minion_server_waiting.
--
-- Query plans must be good for any number of rows, even before the first ANALYZE. In all functions, therefore:
-- 1. Plans that read more than needed are disabled (SET enable_... = off), and a statement is planned once (force_generic_plan):
--    in PL/pgSQL once per session, even behind a pooler that does not support prepared statements.
-- 2. Where jobs are looked up by id, their state is compared as text, so that no index by state is used.
-- 3. The order of claims is an expression that no index of Minion's has (see schema/0009_tables.sql).
--
-- Functions that stage jobs return JSON: {"ready": [[queue, task, highest priority, count]], "expired": [job], "left": count},
-- which they add to `p_answer`, if it is a parameter. `left` is the number of jobs that stay undecided because others have
-- locked their parents.

-- Returns whether an existing parent blocks its child; the first two parameters are the parent's, `lax` is the child's.
CREATE OR REPLACE FUNCTION minion_server_blocks(state minion_state, expires TIMESTAMPTZ, lax BOOL) RETURNS BOOL
  LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT $1 = 'active' OR ($1 = 'failed' AND NOT $3) OR ($1 = 'inactive' AND ($2 IS NULL OR $2 > now()))
$$;

-- Returns the seconds until a time, or null. Times are limited to those of Python, since PostgreSQL before version 17 cannot
-- subtract from infinite ones, and JSON has no infinite numbers.
CREATE OR REPLACE FUNCTION minion_server_seconds_until(p_time TIMESTAMPTZ) RETURNS FLOAT8
  LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN $1 IS NOT NULL
    THEN extract(EPOCH FROM least(greatest($1, '0001-01-01 00:00:00Z'), '9999-12-31 23:59:59Z') - now())::FLOAT8 END
$$;

-- Gives each of these jobs a row in minion_server_waiting, or removes it from there.
CREATE OR REPLACE FUNCTION minion_server_place(p_jobs BIGINT[]) RETURNS VOID LANGUAGE plpgsql
  SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  INSERT INTO minion_server_waiting (job, queue, task, priority, stage, due, expires)
  SELECT id, queue, task, priority,
    CASE WHEN delayed > now() THEN 'delayed' WHEN parents <> '{}' THEN 'undecided' ELSE 'ready' END, delayed, expires
  FROM minion_jobs
  WHERE id = ANY (p_jobs) AND state::TEXT = 'inactive' AND NOT (delayed <= created AND parents = '{}' AND expires IS NULL)
  ON CONFLICT (job) DO UPDATE SET queue = excluded.queue, task = excluded.task, priority = excluded.priority,
    stage = excluded.stage, blocker = NULL, due = excluded.due, expires = excluded.expires;
  DELETE FROM minion_server_waiting WHERE job = ANY (p_jobs) AND NOT EXISTS (
    SELECT 1 FROM minion_jobs AS j WHERE j.id = minion_server_waiting.job AND j.state::TEXT = 'inactive'
      AND NOT (j.delayed <= j.created AND j.parents = '{}' AND j.expires IS NULL));
END $$;

-- Makes the jobs that watch these parents undecided, and returns whether there were any.
CREATE OR REPLACE FUNCTION minion_server_release(p_parents BIGINT[]) RETURNS BOOL LANGUAGE plpgsql
  SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  UPDATE minion_server_waiting SET stage = 'undecided', blocker = NULL WHERE blocker = ANY (p_parents);
  RETURN FOUND;
END $$;

-- Stages jobs that have expired, and releases their children.
CREATE OR REPLACE FUNCTION minion_server_stage_expired(p_most INT) RETURNS BIGINT[] LANGUAGE plpgsql AS $$
DECLARE
  expired BIGINT[];
BEGIN
  WITH due AS (
    SELECT w.job FROM minion_server_waiting AS w
    WHERE w.expires IS NOT NULL AND w.stage <> 'expired' AND w.expires <= now()
    ORDER BY w.expires LIMIT p_most FOR UPDATE SKIP LOCKED
  ), staged AS (
    UPDATE minion_server_waiting AS w SET stage = 'expired', blocker = NULL FROM due WHERE w.job = due.job RETURNING w.job
  )
  SELECT array_agg(staged.job) INTO expired FROM staged;
  IF expired IS NOT NULL THEN
    PERFORM minion_server_release(expired);
  END IF;
  RETURN coalesce(expired, '{}');
END $$;

-- Makes delayed jobs that have become due ready or undecided, and returns the ready ones.
CREATE OR REPLACE FUNCTION minion_server_stage_delayed(p_most INT) RETURNS BIGINT[] LANGUAGE plpgsql AS $$
DECLARE
  ready BIGINT[];
BEGIN
  WITH due AS (
    SELECT w.job FROM minion_server_waiting AS w WHERE w.stage = 'delayed' AND w.due <= now()
    ORDER BY w.due LIMIT p_most FOR UPDATE SKIP LOCKED
  ), staged AS (
    UPDATE minion_server_waiting AS w
    SET stage = CASE WHEN j.id IS NULL THEN 'expired' WHEN j.parents = '{}' THEN 'ready' ELSE 'undecided' END
    FROM due LEFT JOIN minion_jobs AS j ON j.id = due.job WHERE w.job = due.job
    RETURNING w.job, w.stage
  )
  SELECT array_agg(staged.job) INTO ready FROM staged WHERE staged.stage = 'ready';
  RETURN coalesce(ready, '{}');
END $$;

-- Makes an undecided job blocked or ready, and returns its stage.
--
-- It does not wait for locks, and so cannot deadlock: a job whose parents others have locked stays undecided. The parent that
-- blocks it is locked until the commit, so that a later transaction that ends the parent sees the jobs that watch it. Any
-- blocking parent would do; with a random one, a job with n parents looks for the next about ln(n) times.
CREATE OR REPLACE FUNCTION minion_server_decide(p_job BIGINT, p_parents BIGINT[], p_lax BOOL) RETURNS TEXT LANGUAGE plpgsql AS $$
DECLARE
  parent BIGINT;
BEGIN
  SELECT p.id INTO parent FROM minion_jobs AS p
  WHERE p.id = ANY (p_parents) AND minion_server_blocks(p.state, p.expires, p_lax)
  ORDER BY random() LIMIT 1 FOR SHARE OF p SKIP LOCKED;
  IF FOUND THEN
    UPDATE minion_server_waiting SET stage = 'blocked', blocker = parent WHERE job = p_job;
    RETURN 'blocked';
  ELSIF EXISTS (SELECT 1 FROM minion_jobs AS p
      WHERE p.id = ANY (p_parents) AND minion_server_blocks(p.state, p.expires, p_lax)) THEN
    RETURN 'undecided';
  END IF;
  UPDATE minion_server_waiting SET stage = 'ready' WHERE job = p_job;
  RETURN 'ready';
END $$;

-- Stages up to `p_most` expired, due and undecided jobs each, and returns the result added to `p_answer`.
CREATE OR REPLACE FUNCTION minion_server_stage(p_answer JSONB, p_most INT) RETURNS JSONB LANGUAGE plpgsql
  SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
  SET enable_mergejoin = off SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  expired BIGINT[] := minion_server_stage_expired(p_most);
  ready   BIGINT[] := minion_server_stage_delayed(p_most);
  undecided INT := 0;
  one     RECORD;
  stage   TEXT;
  grouped JSONB;
BEGIN
  FOR one IN
    SELECT w.job, j.parents, j.lax FROM minion_server_waiting AS w LEFT JOIN minion_jobs AS j ON j.id = w.job
    WHERE w.stage = 'undecided' ORDER BY w.due LIMIT p_most FOR UPDATE OF w SKIP LOCKED
  LOOP
    stage := minion_server_decide(one.job, one.parents, one.lax);
    IF stage = 'ready' THEN
      ready := ready || one.job;
    ELSIF stage = 'undecided' THEN
      undecided := undecided + 1;
    END IF;
  END LOOP;
  SELECT coalesce(jsonb_agg(jsonb_build_array(g.queue, g.task, g.priority, g.jobs)), '[]') INTO grouped FROM (
    SELECT w.queue, w.task, max(w.priority) AS priority, count(*) AS jobs
    FROM minion_server_waiting AS w WHERE w.job = ANY (ready) GROUP BY w.queue, w.task
  ) AS g;
  RETURN p_answer || jsonb_build_object('ready', coalesce(p_answer -> 'ready', '[]') || grouped,
    'expired', coalesce(p_answer -> 'expired', '[]') || to_jsonb(expired),
    'left', greatest((p_answer ->> 'left')::INT, undecided));
END $$;

-- Returns whether there are jobs to stage.
CREATE OR REPLACE FUNCTION minion_server_unstaged() RETURNS BOOL LANGUAGE plpgsql STABLE
  SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN EXISTS (SELECT 1 FROM minion_server_waiting WHERE stage = 'undecided')
    OR EXISTS (SELECT 1 FROM minion_server_waiting WHERE stage = 'delayed' AND due <= now())
    OR EXISTS (SELECT 1 FROM minion_server_waiting
      WHERE expires IS NOT NULL AND stage <> 'expired' AND expires <= now());
END $$;

-- Releases the children of these parents, stages jobs if there are any, and returns the result added to `p_answer`.
CREATE OR REPLACE FUNCTION minion_server_stage_children(p_answer JSONB, p_parents BIGINT[]) RETURNS JSONB LANGUAGE plpgsql AS $$
BEGIN
  IF minion_server_release(p_parents) THEN RETURN minion_server_stage(p_answer, 1000); END IF;
  RETURN p_answer;
END $$;
