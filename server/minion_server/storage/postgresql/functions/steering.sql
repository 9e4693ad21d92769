-- What is done to single jobs, and notes. All answer {"missing": true} if there is no such job.

-- Answers [[worker, job, retries]] for a job that was active, having recorded that it was taken away; else [].
CREATE OR REPLACE FUNCTION minion_server_revoke(p_state minion_state, p_worker BIGINT, p_job BIGINT, p_retries INT) RETURNS JSONB
  LANGUAGE plpgsql AS $$
BEGIN
  IF p_state <> 'active' OR p_worker IS NULL THEN
    RETURN '[]';
  END IF;
  INSERT INTO minion_server_revocations (worker, job, retries) VALUES (p_worker, p_job, p_retries);
  RETURN jsonb_build_array(jsonb_build_array(p_worker, p_job, p_retries));
END
$$;

CREATE OR REPLACE FUNCTION minion_server_retry(
  p_lane TEXT, p_token BIGINT, p_job BIGINT, p_retries INT, p_attempts INT, p_delay FLOAT8, p_expire FLOAT8, p_lax BOOL,
  p_parents BIGINT[], p_priority INT, p_queue TEXT
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_recall(p_lane, p_token);
  old    RECORD;
  now_is RECORD;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  IF answer IS NOT NULL THEN
    RETURN answer;
  END IF;
  SELECT j.state, j.retries, j.worker INTO old FROM minion_jobs AS j WHERE j.id = p_job FOR UPDATE;
  IF NOT FOUND THEN
    RETURN '{"missing": true}';
  ELSIF old.retries <> p_retries THEN
    RETURN '{"accepted": false}';
  ELSIF old.retries = 2147483647 THEN
    RETURN '{"exhausted": true}';
  END IF;
  UPDATE minion_jobs AS j SET attempts = coalesce(p_attempts, j.attempts), delayed = now() + p_delay * INTERVAL '1 second',
    expires = coalesce(now() + p_expire * INTERVAL '1 second', j.expires), lax = coalesce(p_lax, j.lax),
    parents = coalesce(p_parents, j.parents), priority = coalesce(p_priority, j.priority),
    queue = coalesce(p_queue, j.queue), retried = now(), retries = j.retries + 1, state = 'inactive'
  WHERE j.id = p_job
  RETURNING j.queue, j.task, j.priority, j.parents, extract(EPOCH FROM j.expires - now())::FLOAT8 AS expires_in INTO now_is;
  PERFORM minion_server_place(ARRAY[p_job]);
  PERFORM minion_server_release(ARRAY[p_job]);
  answer := jsonb_build_object('accepted', TRUE, 'revoked', minion_server_revoke(old.state, old.worker, p_job, old.retries));
  IF now_is.expires_in > 0 THEN
    answer := answer || jsonb_build_object('due', now_is.expires_in);
  END IF;
  IF minion_server_unsettled() THEN
    answer := answer || minion_server_settled(1000);
  END IF;
  IF p_delay = 0 AND now_is.parents = '{}' AND coalesce(now_is.expires_in > 0, TRUE) THEN
    answer := answer || jsonb_build_object('ready', coalesce(answer -> 'ready', '[]')
      || jsonb_build_array(jsonb_build_array(now_is.queue, now_is.task, now_is.priority, 1)));
  END IF;
  RETURN minion_server_remember(p_lane, p_token, answer);
END
$$;

CREATE OR REPLACE FUNCTION minion_server_cancel(p_lane TEXT, p_token BIGINT, p_job BIGINT, p_result TEXT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_recall(p_lane, p_token);
  old    RECORD;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  IF answer IS NOT NULL THEN
    RETURN answer;
  END IF;
  SELECT j.state, j.retries, j.worker INTO old FROM minion_jobs AS j WHERE j.id = p_job FOR UPDATE;
  IF NOT FOUND THEN
    RETURN '{"missing": true}';
  ELSIF old.state NOT IN ('inactive', 'active') THEN
    RETURN '{"accepted": false}';
  END IF;
  answer := jsonb_build_object('accepted', TRUE, 'revoked', minion_server_revoke(old.state, old.worker, p_job, old.retries))
    || minion_server_fail(ARRAY[p_job], p_result);
  RETURN minion_server_remember(p_lane, p_token, answer);
END
$$;

-- Makes these jobs failed, whatever they were, without another attempt.
CREATE OR REPLACE FUNCTION minion_server_fail(p_jobs BIGINT[], p_result TEXT) RETURNS JSONB LANGUAGE plpgsql AS $$
BEGIN
  UPDATE minion_jobs SET state = 'failed', finished = now(), result = p_result::JSONB WHERE id = ANY (p_jobs);
  DELETE FROM minion_server_waiting WHERE job = ANY (p_jobs);
  IF minion_server_release(p_jobs) THEN
    RETURN minion_server_settled(1000);
  END IF;
  RETURN '{}';
END
$$;

-- Without a generation, whichever the job is in.
CREATE OR REPLACE FUNCTION minion_server_remove(p_lane TEXT, p_token BIGINT, p_job BIGINT, p_retries INT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_recall(p_lane, p_token);
  old    RECORD;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  IF answer IS NOT NULL THEN
    RETURN answer;
  END IF;
  SELECT j.state, j.retries INTO old FROM minion_jobs AS j WHERE j.id = p_job FOR UPDATE;
  IF NOT FOUND THEN
    RETURN '{"missing": true}';
  ELSIF old.state = 'active' OR old.retries <> p_retries THEN
    RETURN '{"accepted": false}';
  END IF;
  RETURN minion_server_remember(p_lane, p_token, '{"accepted": true}' || minion_server_delete(ARRAY[p_job]));
END
$$;

-- Deletes these jobs, whatever they are.
CREATE OR REPLACE FUNCTION minion_server_delete(p_jobs BIGINT[]) RETURNS JSONB LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM minion_jobs WHERE id = ANY (p_jobs);
  DELETE FROM minion_server_waiting WHERE job = ANY (p_jobs);
  IF minion_server_release(p_jobs) THEN
    RETURN minion_server_settled(1000);
  END IF;
  RETURN '{}';
END
$$;

-- The notes that a job has after some were added and others removed; an error, with the size as its text, if they make the
-- job larger than `p_most` bytes. To take some away is always possible.
CREATE OR REPLACE FUNCTION minion_server_merged(p_args JSONB, p_old JSONB, p_result JSONB, p_notes JSONB, p_gone TEXT[], p_most BIGINT)
  RETURNS JSONB LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  merged JSONB := (p_old || p_notes) - p_gone;
  size   BIGINT;
BEGIN
  -- What is stored may be compressed, to less than a 300th of its size as a message. The text of a value, times 5.5, is
  -- above that size (see minion_wire.sizes.upper_bound). Only then is it counted.
  IF (pg_column_size(p_args) + coalesce(pg_column_size(p_result), 0))::BIGINT * 300 + pg_column_size(merged) * 2 > p_most
      AND (octet_length(p_args::TEXT) + octet_length(merged::TEXT) + coalesce(octet_length(p_result::TEXT), 0)) * 5.5 + 16
        > p_most THEN
    size := minion_server_job_size(p_args, merged, p_result);
    IF size > p_most AND minion_server_content_size(merged) > minion_server_content_size(p_old) THEN
      RAISE EXCEPTION USING ERRCODE = 'MN002', MESSAGE = size::TEXT;
    END IF;
  END IF;
  RETURN merged;
END
$$;

-- Merges notes into those of jobs, each given once; a job that was noted is answered. `p_gone` are keys to remove.
-- To do so twice changes nothing.
CREATE OR REPLACE FUNCTION minion_server_note(p_jobs BIGINT[], p_notes TEXT[], p_gone TEXT[], p_most BIGINT)
  RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer JSONB;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  WITH noted AS (
    UPDATE minion_jobs AS j
    SET notes = minion_server_merged(j.args, j.notes, j.result, g.notes::JSONB,
      ARRAY (SELECT jsonb_array_elements_text(g.gone::JSONB)), p_most)
    FROM unnest(p_jobs, p_notes, p_gone) AS g (id, notes, gone) WHERE j.id = g.id
    RETURNING j.id
  )
  SELECT coalesce(jsonb_agg(n.id), '[]') INTO answer FROM noted AS n;
  RETURN answer;
END
$$;
