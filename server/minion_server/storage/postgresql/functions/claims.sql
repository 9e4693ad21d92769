-- The functions of claims.py. In SQLite nobody else writes during a claim, and all jobs are staged. Here, others may have
-- locked jobs, which are skipped, and Perl Minion may have changed a parent since a job was staged.

-- Returns the tasks of claimable jobs in these queues, going from each task to the next by the indexes.
CREATE OR REPLACE FUNCTION minion_server_tasks(p_queues TEXT[]) RETURNS TABLE (queue TEXT, task TEXT) LANGUAGE plpgsql STABLE
  SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
  q     TEXT;
  last  TEXT;
  plain TEXT;
  other TEXT;
BEGIN
  FOREACH q IN ARRAY p_queues LOOP
    last := '';
    LOOP
      SELECT j.task INTO plain FROM minion_jobs AS j WHERE j.state = 'inactive' AND j.delayed <= j.created
        AND j.parents = '{}' AND j.expires IS NULL AND j.queue = q AND j.task > last
      ORDER BY j.task LIMIT 1;
      SELECT w.task INTO other FROM minion_server_waiting AS w
      WHERE w.stage = 'ready' AND w.queue = q AND w.task > last ORDER BY w.task LIMIT 1;
      last := least(plain, other);
      EXIT WHEN last IS NULL;
      queue := q; task := last;
      RETURN NEXT;
    END LOOP;
  END LOOP;
END $$;

-- Returns the first claimable jobs of pairs of a queue and a task, in the order of claims.
CREATE OR REPLACE FUNCTION minion_server_candidates(p_queues TEXT[], p_tasks TEXT[], p_floor INT, p_most INT)
  RETURNS TABLE (job BIGINT, priority INT, plain BOOL) LANGUAGE plpgsql
  SET search_path FROM CURRENT SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
  RETURN QUERY
  SELECT c.id, c.priority, c.plain FROM (
    SELECT f.id, f.priority, TRUE AS plain FROM unnest(p_queues, p_tasks) AS p (q, t) CROSS JOIN LATERAL (
      SELECT j.id, j.priority FROM minion_jobs AS j
      WHERE j.state = 'inactive' AND j.delayed <= j.created AND j.parents = '{}' AND j.expires IS NULL
        AND j.queue = p.q AND j.task = p.t AND (- j.priority::BIGINT) <= (- p_floor::BIGINT)
      ORDER BY (- j.priority::BIGINT), j.id LIMIT p_most
    ) AS f
    UNION ALL
    SELECT f.job, f.priority, FALSE FROM unnest(p_queues, p_tasks) AS p (q, t) CROSS JOIN LATERAL (
      SELECT w.job, w.priority FROM minion_server_waiting AS w
      WHERE w.stage = 'ready' AND w.queue = p.q AND w.task = p.t AND (- w.priority::BIGINT) <= (- p_floor::BIGINT)
      ORDER BY (- w.priority::BIGINT), w.job LIMIT p_most
    ) AS f
  ) AS c (id, priority, plain)
  ORDER BY c.priority DESC, c.id LIMIT p_most;
END $$;

-- Returns those of these jobs that a parent blocks, or null. The stage 'ready' is only a hint, which a claim checks.
CREATE OR REPLACE FUNCTION minion_server_blocked(p_jobs BIGINT[]) RETURNS BIGINT[] LANGUAGE plpgsql AS $$
BEGIN
  RETURN (SELECT array_agg(j.id) FROM minion_jobs AS j
    WHERE j.id = ANY (p_jobs) AND j.parents <> '{}' AND EXISTS (SELECT 1 FROM minion_jobs AS p
      WHERE p.id = ANY (j.parents) AND minion_server_blocks(p.state, p.expires, j.lax)));
END $$;

-- Makes the first `p_most` of these jobs active that others have not locked. `p_staged`, some of these jobs or null, are
-- deleted from minion_server_waiting, even if others claimed them meanwhile.
CREATE OR REPLACE FUNCTION minion_server_take(p_worker BIGINT, p_jobs BIGINT[], p_staged BIGINT[], p_most INT) RETURNS BIGINT[]
  LANGUAGE plpgsql AS $$
DECLARE
  taken BIGINT[];
BEGIN
  WITH locked AS (
    SELECT j.id FROM unnest(p_jobs) WITH ORDINALITY AS c (id, place) JOIN minion_jobs AS j ON j.id = c.id
    WHERE j.state::TEXT = 'inactive' AND j.delayed <= now() AND (j.expires IS NULL OR j.expires > now())
    ORDER BY c.place LIMIT p_most FOR UPDATE OF j SKIP LOCKED
  ), took AS (
    UPDATE minion_jobs AS j SET started = now(), state = 'active', worker = p_worker
    FROM locked WHERE j.id = locked.id RETURNING j.id
  )
  SELECT coalesce(array_agg(took.id), '{}') INTO taken FROM took;
  IF p_staged IS NOT NULL THEN
    DELETE FROM minion_server_waiting AS w WHERE w.job = ANY (p_staged) AND (w.job = ANY (taken)
      OR NOT EXISTS (SELECT 1 FROM minion_jobs AS j WHERE j.id = w.job AND j.state::TEXT = 'inactive'));
  END IF;
  RETURN taken;
END $$;

-- Claims a job if it has one of these queues and tasks, and returns the claimed jobs.
CREATE OR REPLACE FUNCTION minion_server_claim_one(
  p_worker BIGINT, p_queues TEXT[], p_tasks TEXT[], p_floor INT, p_job BIGINT
) RETURNS BIGINT[] LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM minion_jobs AS j WHERE j.id = p_job AND j.state::TEXT = 'inactive' AND j.queue = ANY (p_queues)
    AND j.priority >= p_floor AND (p_tasks IS NULL OR j.task = ANY (p_tasks));
  IF NOT FOUND OR minion_server_blocked(ARRAY[p_job]) IS NOT NULL THEN RETURN '{}'; END IF;
  RETURN minion_server_take(p_worker, ARRAY[p_job], ARRAY[p_job], 1);
END $$;

-- Claims the first jobs of these queues and tasks, null for any task. Returns `p_answer` with `taken`, the jobs, and
-- `locked`, [[queue, task]], if others had locked some.
CREATE OR REPLACE FUNCTION minion_server_claim_first(
  p_answer JSONB, p_worker BIGINT, p_queues TEXT[], p_tasks TEXT[], p_floor INT, p_most INT
) RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
  queues TEXT[];
  tasks  TEXT[];
  near   BIGINT[];
  staged BIGINT[];
  stale  BIGINT[];
  part   BIGINT[];
  taken  BIGINT[] := '{}';
  wanted INT := p_most;
  slack  INT := 0;
BEGIN
  IF p_tasks IS NULL THEN
    SELECT array_agg(t.queue), array_agg(t.task) INTO queues, tasks FROM minion_server_tasks(p_queues) AS t;
  ELSE
    SELECT array_agg(q), array_agg(t) INTO queues, tasks FROM unnest(p_queues) AS q CROSS JOIN unnest(p_tasks) AS t;
  END IF;
  LOOP
    SELECT array_agg(c.job), array_agg(c.job) FILTER (WHERE NOT c.plain) INTO near, staged
    FROM minion_server_candidates(queues, tasks, p_floor, wanted + slack) AS c;
    EXIT WHEN near IS NULL;
    stale := CASE WHEN staged IS NOT NULL THEN minion_server_blocked(staged) END;
    IF stale IS NOT NULL THEN
      UPDATE minion_server_waiting SET stage = 'undecided' WHERE job = ANY (stale) AND stage = 'ready';
      EXIT WHEN NOT FOUND;
      p_answer := minion_server_stage(p_answer, 1000);
      CONTINUE;
    END IF;
    part := minion_server_take(p_worker, near, staged, wanted);
    taken := taken || part;
    EXIT WHEN cardinality(part) >= wanted;
    IF cardinality(part) < cardinality(near) THEN
      SELECT p_answer || jsonb_build_object('locked', jsonb_agg(jsonb_build_array(p.q, p.t))) INTO p_answer
      FROM unnest(queues, tasks) AS p (q, t);
    END IF;
    EXIT WHEN cardinality(near) < wanted + slack OR slack > 4000;
    -- Look beyond the jobs that others have locked.
    wanted := wanted - cardinality(part);
    slack := slack * 4 + 16;
  END LOOP;
  RETURN p_answer || jsonb_build_object('taken', to_jsonb(taken));
END $$;

-- Claims jobs. Returns {"jobs": [[see CLAIMED in claims.py]]} in the order of claims, and `locked`; {"unknown": true} if the
-- worker is not registered.
CREATE OR REPLACE FUNCTION minion_server_claim(
  p_lane TEXT, p_token BIGINT, p_worker BIGINT, p_queues TEXT[], p_tasks TEXT[], p_floor INT, p_job BIGINT, p_most INT
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer JSONB := minion_server_begin(p_lane, p_token);
BEGIN
  IF answer IS NULL THEN
    IF NOT EXISTS (SELECT 1 FROM minion_workers WHERE id = p_worker) THEN RETURN '{"unknown": true}'; END IF;
    answer := '{}';
    IF minion_server_unstaged() THEN
      answer := minion_server_stage(answer, 1000);
    END IF;
    IF p_job IS NULL THEN
      answer := minion_server_claim_first(answer, p_worker, p_queues, p_tasks, p_floor, p_most);
    ELSE
      answer := answer || jsonb_build_object('taken',
        to_jsonb(minion_server_claim_one(p_worker, p_queues, p_tasks, p_floor, p_job)));
    END IF;
    IF answer -> 'taken' = '[]' THEN RETURN answer || '{"jobs": []}'; END IF;
    PERFORM minion_server_remember(p_lane, p_token, answer);
  END IF;
  RETURN (answer - 'taken') || jsonb_build_object('jobs', (
    SELECT coalesce(jsonb_agg(jsonb_build_array(j.id, j.task, j.args, j.retries, j.attempts, j.priority, j.queue, j.notes)
      ORDER BY j.priority DESC, j.id), '[]')
    FROM minion_jobs AS j
    WHERE j.id = ANY (ARRAY (SELECT jsonb_array_elements_text(answer -> 'taken')::BIGINT))
      AND j.state::TEXT = 'active' AND j.worker = p_worker));
END $$;

-- Finishes or fails jobs. Returns {"accepted": [place in the call, from 1], "again": [jobs that are retried]}.
CREATE OR REPLACE FUNCTION minion_server_end(
  p_lane TEXT, p_token BIGINT, p_ids BIGINT[], p_retries INT[], p_failed BOOL[], p_results TEXT[], p_delays FLOAT8[]
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer  JSONB := minion_server_begin(p_lane, p_token);
  places  BIGINT[];
  ended   BIGINT[];
  again   BIGINT[];
  delays  FLOAT8[];
BEGIN
  IF answer IS NOT NULL THEN RETURN answer; END IF;
  -- Of several outcomes of one generation the first counts: the job is no longer active for the others.
  WITH given AS (
    SELECT DISTINCT ON (g.id, g.retries) * FROM unnest(p_ids, p_retries, p_failed, p_results, p_delays) WITH ORDINALITY
      AS g (id, retries, failed, result, delay, place)
    ORDER BY g.id, g.retries, g.place
  ), done AS (
    UPDATE minion_jobs AS j SET finished = now(), result = g.result::JSONB,
      state = (CASE WHEN g.failed THEN 'failed' ELSE 'finished' END)::minion_state
    FROM given AS g WHERE j.id = g.id AND j.retries = g.retries AND j.state::TEXT = 'active'
    RETURNING j.id, g.place, g.failed AND j.attempts > 1 AND j.retries < 2147483647 AS again, g.delay
  )
  SELECT array_agg(d.place), array_agg(d.id), array_agg(d.id) FILTER (WHERE d.again),
    array_agg(d.delay) FILTER (WHERE d.again) INTO places, ended, again, delays FROM done AS d;
  answer := jsonb_build_object('accepted', coalesce(to_jsonb(places), '[]'), 'again', coalesce(to_jsonb(again), '[]'));
  IF places IS NULL THEN RETURN answer; END IF;
  -- A separate statement, because an update of `retries` wakes all of Perl Minion's workers.
  IF again IS NOT NULL THEN
    UPDATE minion_jobs AS j SET state = 'inactive', attempts = j.attempts - 1,
      delayed = now() + g.delay * INTERVAL '1 second', retried = now(), retries = j.retries + 1
    FROM unnest(again, delays) AS g (id, delay) WHERE j.id = g.id;
    PERFORM minion_server_place(again);
  END IF;
  -- Even a retried job may have expired meanwhile, and then no longer blocks its children.
  RETURN minion_server_remember(p_lane, p_token, minion_server_stage_children(answer, ended));
END $$;
