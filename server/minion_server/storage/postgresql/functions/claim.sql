-- The tasks that jobs of some queues wait for, found by leaping from each to the next.
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
END
$$;

-- The first jobs that may be taken, in the order of claims, of pairs of a queue and a task.
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
END
$$;

-- Where jobs are looked up by id, their state is compared as text: no index knows that, and so none of those by state is
-- taken for the look-up.
--
-- Answers {"jobs": [...]} in the order of claims, what it settled, and "locked": [[queue, task]] if others were just
-- changing jobs of those that it might have taken.
CREATE OR REPLACE FUNCTION minion_server_claim(
  p_lane TEXT, p_token BIGINT, p_worker BIGINT, p_queues TEXT[], p_tasks TEXT[], p_floor INT, p_job BIGINT, p_most INT
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer JSONB := minion_server_recall(p_lane, p_token);
  queues TEXT[];
  tasks  TEXT[];
  near  BIGINT[];
  plain  BOOL[];
  staged BIGINT[];
  stale  BIGINT[];
  part   BIGINT[];
  taken  BIGINT[] := '{}';
  slack  INT := 0;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  IF answer IS NULL THEN
    IF NOT EXISTS (SELECT 1 FROM minion_workers WHERE id = p_worker) THEN
      RETURN '{"unknown": true}';
    END IF;
    answer := '{}';
    IF minion_server_unsettled() THEN
      answer := minion_server_settled(1000);
    END IF;
    IF p_job IS NULL AND p_tasks IS NULL THEN
      SELECT array_agg(t.queue), array_agg(t.task) INTO queues, tasks FROM minion_server_tasks(p_queues) AS t;
    ELSIF p_job IS NULL THEN
      SELECT array_agg(q), array_agg(t) INTO queues, tasks FROM unnest(p_queues) AS q CROSS JOIN unnest(p_tasks) AS t;
    END IF;
    LOOP
      IF p_job IS NULL THEN
        SELECT array_agg(c.job), array_agg(c.plain) INTO near, plain
        FROM minion_server_candidates(queues, tasks, p_floor, p_most - cardinality(taken) + slack) AS c;
      ELSE
        SELECT array_agg(j.id), array_agg(FALSE) INTO near, plain FROM minion_jobs AS j
        WHERE j.id = p_job AND j.state::TEXT = 'inactive' AND j.queue = ANY (p_queues) AND j.priority >= p_floor
          AND (p_tasks IS NULL OR j.task = ANY (p_tasks));
      END IF;
      EXIT WHEN near IS NULL;
      IF FALSE = ANY (plain) THEN
        SELECT array_agg(c.id) INTO staged FROM unnest(near, plain) AS c (id, plain) WHERE NOT c.plain;
        SELECT array_agg(j.id) INTO stale FROM minion_jobs AS j
        WHERE j.id = ANY (staged) AND j.parents <> '{}' AND EXISTS (SELECT 1 FROM minion_jobs AS p
          WHERE p.id = ANY (j.parents) AND minion_server_blocks(p.state, p.expires, j.lax));
        IF stale IS NOT NULL THEN
          EXIT WHEN p_job IS NOT NULL;
          UPDATE minion_server_waiting SET stage = 'undecided' WHERE job = ANY (stale) AND stage = 'ready';
          EXIT WHEN NOT FOUND;
          answer := minion_server_both(answer, minion_server_settled(1000));
          CONTINUE;
        END IF;
      ELSE
        staged := NULL;
      END IF;
      WITH locked AS (
        SELECT j.id FROM unnest(near) WITH ORDINALITY AS c (id, place) JOIN minion_jobs AS j ON j.id = c.id
        WHERE j.state::TEXT = 'inactive' AND j.delayed <= now() AND (j.expires IS NULL OR j.expires > now())
        ORDER BY c.place LIMIT p_most - cardinality(taken) FOR UPDATE OF j SKIP LOCKED
      ), took AS (
        UPDATE minion_jobs AS j SET started = now(), state = 'active', worker = p_worker
        FROM locked WHERE j.id = locked.id RETURNING j.id
      )
      SELECT coalesce(array_agg(took.id), '{}') INTO part FROM took;
      taken := taken || part;
      IF staged IS NOT NULL THEN
        DELETE FROM minion_server_waiting AS w WHERE w.job = ANY (staged) AND (w.job = ANY (part)
          OR NOT EXISTS (SELECT 1 FROM minion_jobs AS j WHERE j.id = w.job AND j.state::TEXT = 'inactive'));
      END IF;
      EXIT WHEN cardinality(taken) >= p_most OR p_job IS NOT NULL;
      IF cardinality(part) < cardinality(near) THEN
        SELECT answer || jsonb_build_object('locked', jsonb_agg(jsonb_build_array(p.q, p.t))) INTO answer
        FROM unnest(queues, tasks) AS p (q, t);
      END IF;
      EXIT WHEN cardinality(near) < p_most - cardinality(taken) + cardinality(part) + slack OR slack > 4000;
      slack := slack * 4 + 16;
    END LOOP;
    IF taken <> '{}' THEN
      PERFORM minion_server_remember(p_lane, p_token, answer || jsonb_build_object('taken', to_jsonb(taken)));
    END IF;
  ELSE
    SELECT array_agg(id::BIGINT) INTO taken FROM jsonb_array_elements_text(answer -> 'taken') AS id;
  END IF;
  IF taken = '{}' THEN
    RETURN answer || '{"jobs": []}';
  END IF;
  RETURN (answer - 'taken') || jsonb_build_object('jobs', (
    SELECT coalesce(jsonb_agg(jsonb_build_array(j.id, j.task, j.args, j.retries, j.attempts, j.priority, j.queue, j.notes)
      ORDER BY j.priority DESC, j.id), '[]')
    FROM minion_jobs AS j WHERE j.id = ANY (taken) AND j.state::TEXT = 'active' AND j.worker = p_worker));
END
$$;
