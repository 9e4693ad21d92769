-- The functions of jobs.py.

-- Enqueues jobs. Returns {"ids": [id], "duplicates": [place in the call, from 1]}.
CREATE OR REPLACE FUNCTION minion_server_enqueue(
  p_lane TEXT, p_token BIGINT, p_tasks TEXT[], p_args TEXT[], p_queues TEXT[], p_priorities INT[], p_attempts INT[],
  p_delays FLOAT8[], p_expires FLOAT8[], p_laxes BOOL[], p_notes TEXT[], p_parents TEXT[], p_requests TEXT[],
  p_lifetime INTERVAL
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer JSONB := minion_server_begin(p_lane, p_token);
  ids    BIGINT[];
  known  BIGINT[] := '{}';
  placed BIGINT[];
  family BOOL;
  one    RECORD;
BEGIN
  IF answer IS NOT NULL THEN RETURN answer; END IF;
  IF p_requests IS NULL THEN
    SELECT array_agg(nextval('minion_jobs_id_seq')) INTO ids FROM generate_subscripts(p_tasks, 1);
  ELSE
    FOR place IN 1 .. cardinality(p_tasks) LOOP
      SELECT * INTO one FROM minion_server_request(p_requests[place], p_lifetime);
      ids[place] := one.id;
      IF one.known THEN
        known := known || place::BIGINT;
      END IF;
    END LOOP;
  END IF;

  WITH given AS (
    SELECT * FROM unnest(ids, p_tasks, p_args, p_queues, p_priorities, p_attempts, p_delays, p_expires, p_laxes, p_notes,
      p_parents) WITH ORDINALITY
      AS g (id, task, args, queue, priority, attempts, delay, expire, lax, notes, parents, place)
    WHERE known = '{}' OR g.place <> ALL (known)
  ), added AS (
    INSERT INTO minion_jobs (id, args, attempts, created, delayed, expires, lax, notes, parents, priority, queue, task)
    SELECT g.id, g.args::JSONB, g.attempts, now(), now() + g.delay * INTERVAL '1 second',
      now() + g.expire * INTERVAL '1 second', g.lax, g.notes::JSONB, g.parents::BIGINT[], g.priority, g.queue, g.task
    FROM given AS g ORDER BY g.place
  )
  SELECT array_agg(g.id), bool_or(g.parents <> '{}') INTO placed, family
  FROM given AS g WHERE g.delay > 0 OR g.expire IS NOT NULL OR g.parents <> '{}';
  answer := jsonb_build_object('ids', to_jsonb(ids), 'duplicates', to_jsonb(known));
  IF placed IS NOT NULL THEN
    PERFORM minion_server_place(placed);
    IF family THEN
      answer := minion_server_stage(answer, 1000);
    END IF;
  END IF;
  RETURN minion_server_remember(p_lane, p_token, answer);
END $$;

-- Returns the job of a request id, and whether that is known; if not, it is stored with a new id.
CREATE OR REPLACE FUNCTION minion_server_request(p_request TEXT, p_lifetime INTERVAL, OUT id BIGINT, OUT known BOOL)
  LANGUAGE plpgsql AS $$
BEGIN
  SELECT r.job, TRUE INTO id, known FROM minion_server_requests AS r
  WHERE r.request_id = p_request AND r.created > now() - p_lifetime;
  IF FOUND THEN
    RETURN;
  END IF;
  id := nextval('minion_jobs_id_seq');
  known := FALSE;
  IF p_request IS NULL THEN
    RETURN;
  END IF;
  INSERT INTO minion_server_requests AS r (request_id, job, created) VALUES (p_request, id, now())
  ON CONFLICT (request_id) DO UPDATE SET job = excluded.job, created = excluded.created
  WHERE r.created <= now() - p_lifetime;
  IF NOT FOUND THEN
    -- Another server has just stored the request id. SQLite, with one writer, has no such race.
    SELECT r.job, TRUE INTO id, known FROM minion_server_requests AS r WHERE r.request_id = p_request;
  END IF;
END $$;

-- Functions that change one job return {"missing": true} if it does not exist, otherwise {"accepted": whether it changed}, and
-- {"revoked": [[worker, job, retries]]} if it was active.

-- Records that a worker must stop a job, for servers that miss the notification.
CREATE OR REPLACE FUNCTION minion_server_revoke(p_state minion_state, p_worker BIGINT, p_job BIGINT, p_retries INT) RETURNS JSONB
  LANGUAGE plpgsql AS $$
BEGIN
  IF p_state <> 'active' OR p_worker IS NULL THEN RETURN '{"accepted": true}'; END IF;
  INSERT INTO minion_server_revocations (worker, job, retries) VALUES (p_worker, p_job, p_retries);
  RETURN jsonb_build_object('accepted', TRUE,
    'revoked', jsonb_build_array(jsonb_build_array(p_worker, p_job, p_retries)));
END $$;

CREATE OR REPLACE FUNCTION minion_server_retry(
  p_lane TEXT, p_token BIGINT, p_job BIGINT, p_retries INT, p_attempts INT, p_delay FLOAT8, p_expire FLOAT8, p_lax BOOL,
  p_parents BIGINT[], p_priority INT, p_queue TEXT
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_begin(p_lane, p_token);
  old    RECORD;
  job    RECORD;
BEGIN
  IF answer IS NOT NULL THEN RETURN answer; END IF;
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
  RETURNING j.queue, j.task, j.priority, j.parents, minion_server_seconds_until(j.expires) AS expires_in INTO job;
  PERFORM minion_server_place(ARRAY[p_job]);
  PERFORM minion_server_release(ARRAY[p_job]);
  answer := minion_server_revoke(old.state, old.worker, p_job, old.retries) || jsonb_strip_nulls(jsonb_build_object(
    'due', least(CASE WHEN p_delay > 0 THEN p_delay END, CASE WHEN job.expires_in > 0 THEN job.expires_in END)));
  IF minion_server_unstaged() THEN
    answer := minion_server_stage(answer, 1000);
  END IF;
  IF p_delay = 0 AND job.parents = '{}' AND coalesce(job.expires_in > 0, TRUE) THEN
    answer := answer || jsonb_build_object('ready', coalesce(answer -> 'ready', '[]')
      || jsonb_build_array(jsonb_build_array(job.queue, job.task, job.priority, 1)));
  END IF;
  RETURN minion_server_remember(p_lane, p_token, answer);
END $$;

CREATE OR REPLACE FUNCTION minion_server_cancel(p_lane TEXT, p_token BIGINT, p_job BIGINT, p_result TEXT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_begin(p_lane, p_token);
  old    RECORD;
BEGIN
  IF answer IS NOT NULL THEN RETURN answer; END IF;
  SELECT j.state, j.retries, j.worker INTO old FROM minion_jobs AS j WHERE j.id = p_job FOR UPDATE;
  IF NOT FOUND THEN
    RETURN '{"missing": true}';
  ELSIF old.state NOT IN ('inactive', 'active') THEN
    RETURN '{"accepted": false}';
  END IF;
  answer := minion_server_revoke(old.state, old.worker, p_job, old.retries);
  RETURN minion_server_remember(p_lane, p_token, minion_server_fail(answer, ARRAY[p_job], p_result));
END $$;

CREATE OR REPLACE FUNCTION minion_server_remove(p_lane TEXT, p_token BIGINT, p_job BIGINT, p_retries INT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_begin(p_lane, p_token);
  old    RECORD;
BEGIN
  IF answer IS NOT NULL THEN RETURN answer; END IF;
  SELECT j.state, j.retries INTO old FROM minion_jobs AS j WHERE j.id = p_job FOR UPDATE;
  IF NOT FOUND THEN
    RETURN '{"missing": true}';
  ELSIF old.state = 'active' OR old.retries <> p_retries THEN
    RETURN '{"accepted": false}';
  END IF;
  RETURN minion_server_remember(p_lane, p_token, minion_server_delete('{"accepted": true}', ARRAY[p_job]));
END $$;

-- Fails these jobs, in any state, without another attempt.
CREATE OR REPLACE FUNCTION minion_server_fail(p_answer JSONB, p_jobs BIGINT[], p_result TEXT) RETURNS JSONB LANGUAGE plpgsql AS $$
BEGIN
  UPDATE minion_jobs SET state = 'failed', finished = now(), result = p_result::JSONB WHERE id = ANY (p_jobs);
  DELETE FROM minion_server_waiting WHERE job = ANY (p_jobs);
  RETURN minion_server_stage_children(p_answer, p_jobs);
END $$;

-- Deletes these jobs, in any state.
CREATE OR REPLACE FUNCTION minion_server_delete(p_answer JSONB, p_jobs BIGINT[]) RETURNS JSONB LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM minion_jobs WHERE id = ANY (p_jobs);
  DELETE FROM minion_server_waiting WHERE job = ANY (p_jobs);
  RETURN minion_server_stage_children(p_answer, p_jobs);
END $$;

-- Merges notes into those of jobs, each of which is given once, and returns the changed jobs. Jobs that may become larger than
-- `p_most` bytes, if given, are not changed. `p_gone` are keys to remove. Not a step, since merging is idempotent.
CREATE OR REPLACE FUNCTION minion_server_note(p_jobs BIGINT[], p_notes TEXT[], p_gone TEXT[], p_most BIGINT)
  RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer JSONB;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  WITH given AS (
    SELECT g.id, g.notes::JSONB AS notes, ARRAY (SELECT jsonb_array_elements_text(g.gone::JSONB)) AS gone
    FROM unnest(p_jobs, p_notes, p_gone) AS g (id, notes, gone)
  ), noted AS (
    UPDATE minion_jobs AS j SET notes = (j.notes || g.notes) - g.gone
    -- Compressed values are stored in no less than a 300th of their size in a message, which is also at most 5.5 times that of
    -- their text (see minion_wire.sizes.upper_bound).
    FROM given AS g WHERE j.id = g.id AND (p_most IS NULL
      OR (pg_column_size(j.args) + coalesce(pg_column_size(j.result), 0))::BIGINT * 300 + pg_column_size(j.notes || g.notes) * 2
        <= p_most
      OR (octet_length(j.args::TEXT) + octet_length((j.notes || g.notes)::TEXT) + coalesce(octet_length(j.result::TEXT), 0))
        * 5.5 + 16 <= p_most)
    RETURNING j.id
  )
  SELECT coalesce(jsonb_agg(n.id), '[]') INTO answer FROM noted AS n;
  RETURN answer;
END $$;
