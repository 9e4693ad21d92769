-- What inactive jobs wait for, and how that changes.
--
-- The plans of these functions must be right for any number of rows, before the first ANALYZE as after a flood of jobs:
-- ways that read more than they need are switched off for the time of a function. In PL/pgSQL, a session plans a statement
-- once, also behind a pooler that lets no server prepare one.

-- Tells whether a parent that exists keeps its child waiting; $1 state, $2 expires of the parent, $3 lax of the child.
CREATE OR REPLACE FUNCTION minion_server_blocks(minion_state, TIMESTAMPTZ, BOOL) RETURNS BOOL LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT $1 = 'active' OR ($1 = 'failed' AND NOT $3) OR ($1 = 'inactive' AND ($2 IS NULL OR $2 > now()))
$$;

-- Gives each of these jobs the row that it needs, or none, from what it is now.
CREATE OR REPLACE FUNCTION minion_server_place(ids BIGINT[]) RETURNS VOID LANGUAGE plpgsql
  SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  INSERT INTO minion_server_waiting (job, queue, task, priority, stage, due, expires)
  SELECT id, queue, task, priority,
    CASE WHEN delayed > now() THEN 'delayed' WHEN parents <> '{}' THEN 'undecided' ELSE 'ready' END, delayed, expires
  FROM minion_jobs
  WHERE id = ANY (ids) AND state::TEXT = 'inactive'
    AND NOT (delayed <= created AND parents = '{}' AND expires IS NULL)
  ON CONFLICT (job) DO UPDATE SET queue = excluded.queue, task = excluded.task, priority = excluded.priority,
    stage = excluded.stage, blocker = NULL, due = excluded.due, expires = excluded.expires;
  DELETE FROM minion_server_waiting WHERE job = ANY (ids) AND NOT EXISTS (
    SELECT 1 FROM minion_jobs AS j WHERE j.id = minion_server_waiting.job AND j.state::TEXT = 'inactive'
      AND NOT (j.delayed <= j.created AND j.parents = '{}' AND j.expires IS NULL));
END
$$;

-- Has the jobs that watched these parents looked at again; answers whether there were any.
CREATE OR REPLACE FUNCTION minion_server_release(ids BIGINT[]) RETURNS BOOL LANGUAGE plpgsql
  SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  UPDATE minion_server_waiting SET stage = 'undecided', blocker = NULL WHERE blocker = ANY (ids);
  RETURN FOUND;
END
$$;

-- Lets out what has expired, lets in what is due, and decides what is undecided, at most so many of each.
--
-- It waits for nobody's lock, and so is part of no deadlock. A parent that somebody is about to change is left: its
-- child stays undecided. A parent that blocks is locked until the commit, so that whoever ends it afterwards sees who
-- watches it. Any blocking parent would do; a random one makes a job of n parents look for the next about ln(n) times.
--
-- Answers what became 'ready' and 'expired', and how many were 'left' undecided, in `priority`.
CREATE OR REPLACE FUNCTION minion_server_settle(most INT)
  RETURNS TABLE (kind TEXT, job BIGINT, queue TEXT, task TEXT, priority INT) LANGUAGE plpgsql
  SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
  SET enable_mergejoin = off SET enable_sort = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  expired BIGINT[] := '{}';
  one     RECORD;
  parent  BIGINT;
  undone  INT := 0;
BEGIN
  WITH due AS (
    SELECT w.job FROM minion_server_waiting AS w
    WHERE w.expires IS NOT NULL AND w.stage <> 'expired' AND w.expires <= now()
    ORDER BY w.expires LIMIT most FOR UPDATE SKIP LOCKED
  ), out AS (
    UPDATE minion_server_waiting AS w SET stage = 'expired', blocker = NULL FROM due WHERE w.job = due.job
    RETURNING w.job
  )
  SELECT coalesce(array_agg(out.job), '{}') INTO expired FROM out;
  IF expired <> '{}' THEN
    PERFORM minion_server_release(expired);
    RETURN QUERY SELECT 'expired', u.id, NULL::TEXT, NULL::TEXT, NULL::INT FROM unnest(expired) AS u (id);
  END IF;

  RETURN QUERY
  WITH due AS (
    SELECT w.job FROM minion_server_waiting AS w WHERE w.stage = 'delayed' AND w.due <= now()
    ORDER BY w.due LIMIT most FOR UPDATE SKIP LOCKED
  ), let_in AS (
    UPDATE minion_server_waiting AS w
    SET stage = CASE WHEN j.id IS NULL THEN 'expired' WHEN j.parents = '{}' THEN 'ready' ELSE 'undecided' END
    FROM due LEFT JOIN minion_jobs AS j ON j.id = due.job WHERE w.job = due.job
    RETURNING w.job, w.queue, w.task, w.priority, w.stage
  )
  SELECT 'ready', i.job, i.queue, i.task, i.priority FROM let_in AS i WHERE i.stage = 'ready';

  FOR one IN
    SELECT w.job, w.queue, w.task, w.priority, j.parents, j.lax
    FROM minion_server_waiting AS w LEFT JOIN minion_jobs AS j ON j.id = w.job
    WHERE w.stage = 'undecided' ORDER BY w.due LIMIT most FOR UPDATE OF w SKIP LOCKED
  LOOP
    SELECT p.id INTO parent FROM minion_jobs AS p
    WHERE p.id = ANY (one.parents) AND minion_server_blocks(p.state, p.expires, one.lax)
    ORDER BY random() LIMIT 1 FOR SHARE OF p SKIP LOCKED;
    IF FOUND THEN
      UPDATE minion_server_waiting AS w SET stage = 'blocked', blocker = parent WHERE w.job = one.job;
    ELSIF EXISTS (SELECT 1 FROM minion_jobs AS p
        WHERE p.id = ANY (one.parents) AND minion_server_blocks(p.state, p.expires, one.lax)) THEN
      undone := undone + 1;
    ELSE
      UPDATE minion_server_waiting AS w SET stage = 'ready' WHERE w.job = one.job;
      kind := 'ready'; job := one.job; queue := one.queue; task := one.task; priority := one.priority;
      RETURN NEXT;
    END IF;
  END LOOP;
  IF undone > 0 THEN
    RETURN QUERY SELECT 'left', NULL::BIGINT, NULL::TEXT, NULL::TEXT, undone;
  END IF;
END
$$;

-- Tells whether there is something to settle.
CREATE OR REPLACE FUNCTION minion_server_unsettled() RETURNS BOOL LANGUAGE plpgsql STABLE
  SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
BEGIN
  RETURN EXISTS (SELECT 1 FROM minion_server_waiting WHERE stage = 'undecided')
    OR EXISTS (SELECT 1 FROM minion_server_waiting WHERE stage = 'delayed' AND due <= now())
    OR EXISTS (SELECT 1 FROM minion_server_waiting
      WHERE expires IS NOT NULL AND stage <> 'expired' AND expires <= now());
END
$$;

-- Settles, and answers {"ready": [[queue, task, highest priority, count]], "expired": [job], "left": count}.
CREATE OR REPLACE FUNCTION minion_server_settled(most INT) RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
  answer JSONB;
BEGIN
  WITH done AS (SELECT * FROM minion_server_settle(most))
  SELECT jsonb_build_object(
    'ready', coalesce((SELECT jsonb_agg(jsonb_build_array(g.queue, g.task, g.top, g.jobs)) FROM (
      SELECT d.queue, d.task, max(d.priority) AS top, count(*) AS jobs FROM done AS d
      WHERE d.kind = 'ready' GROUP BY d.queue, d.task
    ) AS g), '[]'),
    'expired', coalesce((SELECT jsonb_agg(d.job) FROM done AS d WHERE d.kind = 'expired'), '[]'),
    'left', coalesce((SELECT max(d.priority) FROM done AS d WHERE d.kind = 'left'), 0)) INTO answer;
  RETURN answer;
END
$$;

-- What two steps settled, as one answer.
CREATE OR REPLACE FUNCTION minion_server_both(one JSONB, other JSONB) RETURNS JSONB LANGUAGE sql STABLE AS $$
  SELECT one || other || jsonb_build_object(
    'ready', coalesce(one -> 'ready', '[]') || coalesce(other -> 'ready', '[]'),
    'expired', coalesce(one -> 'expired', '[]') || coalesce(other -> 'expired', '[]'),
    'left', greatest((one ->> 'left')::INT, (other ->> 'left')::INT, 0))
$$;
