-- The functions of upkeep.py, which change a bounded number of jobs, with the query plans that stages.sql describes. They are
-- not steps, since repairs are idempotent. Each returns {"done": [job]}, and the jobs that it staged. Jobs that others have
-- locked are skipped.

-- Removes old finished jobs after a position in their order, except those that a child still needs. Also returns {"last":
-- [finished, job]}, the next position, if there may be more. SQLite starts from the beginning each time.
CREATE OR REPLACE FUNCTION minion_server_remove_old(p_seconds FLOAT8, p_finished TIMESTAMPTZ, p_job BIGINT, p_most INT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  jobs   BIGINT[];
  needed BIGINT[];
  last   JSONB;
  answer JSONB;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  SELECT coalesce(array_agg(o.id), '{}'), jsonb_agg(jsonb_build_array(o.finished, o.id)) -> (p_most - 1) INTO jobs, last FROM (
    SELECT j.id, j.finished FROM minion_jobs AS j
    WHERE j.state = 'finished' AND j.finished <= now() - p_seconds * INTERVAL '1 second'
      AND j.finished >= p_finished AND (j.finished > p_finished OR j.id > p_job)
    ORDER BY j.finished, j.id LIMIT p_most
  ) AS o;
  IF jobs <> '{}' THEN
    SELECT coalesce(array_agg(DISTINCT p.id), '{}') INTO needed FROM minion_jobs AS c, unnest(c.parents) AS p (id)
    WHERE c.parents && jobs AND c.state <> 'finished';
    SELECT coalesce(array_agg(j.id), '{}') INTO jobs FROM (
      SELECT id FROM minion_jobs WHERE id = ANY (jobs) AND id <> ALL (needed) AND state::TEXT = 'finished'
      FOR UPDATE SKIP LOCKED) AS j;
  END IF;
  answer := jsonb_strip_nulls(jsonb_build_object('done', to_jsonb(jobs), 'last', last));
  RETURN minion_server_delete(answer, jobs);
END $$;

-- Removes inactive jobs that have expired.
CREATE OR REPLACE FUNCTION minion_server_remove_expired(p_most INT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off
  SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer JSONB := minion_server_stage('{}', p_most);
  rows   BIGINT[];
  jobs   BIGINT[];
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  SELECT array_agg(e.job) INTO rows FROM (SELECT w.job FROM minion_server_waiting AS w WHERE w.stage = 'expired'
    ORDER BY w.due LIMIT p_most FOR UPDATE SKIP LOCKED) AS e;
  IF rows IS NULL THEN RETURN answer || '{"done": []}'; END IF;
  SELECT coalesce(array_agg(j.id), '{}') INTO jobs FROM (SELECT id FROM minion_jobs
    WHERE id = ANY (rows) AND state::TEXT = 'inactive' AND expires <= now() FOR UPDATE SKIP LOCKED) AS j;
  answer := minion_server_delete(answer, jobs);
  DELETE FROM minion_server_waiting AS w WHERE w.job = ANY (rows)
    AND NOT EXISTS (SELECT 1 FROM minion_jobs AS j WHERE j.id = w.job AND j.state::TEXT = 'inactive');
  RETURN answer || jsonb_build_object('done', to_jsonb(jobs));
END $$;

-- Fails inactive jobs that have been due for too long.
CREATE OR REPLACE FUNCTION minion_server_fail_stuck(p_seconds FLOAT8, p_result TEXT, p_most INT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off
  SET enable_bitmapscan = off SET enable_sort = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  before TIMESTAMPTZ := now() - p_seconds * INTERVAL '1 second';
  jobs   BIGINT[];
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  SELECT coalesce(array_agg(j.id), '{}') INTO jobs FROM (
    SELECT id FROM minion_jobs WHERE id = ANY (ARRAY (
      (SELECT j.id FROM minion_jobs AS j WHERE j.state = 'inactive' AND j.delayed <= j.created AND j.parents = '{}'
        AND j.expires IS NULL AND j.delayed < before ORDER BY j.delayed LIMIT p_most)
      UNION ALL (SELECT w.job FROM unnest('{ready,delayed,blocked,undecided}'::TEXT[]) AS s (stage)
        CROSS JOIN LATERAL (SELECT w.job FROM minion_server_waiting AS w WHERE w.stage = s.stage AND w.due < before
          ORDER BY w.due LIMIT p_most) AS w)
    )) AND state::TEXT = 'inactive' ORDER BY id LIMIT p_most FOR UPDATE SKIP LOCKED
  ) AS j;
  RETURN minion_server_fail(jsonb_build_object('done', to_jsonb(jobs)), jobs, p_result);
END $$;
