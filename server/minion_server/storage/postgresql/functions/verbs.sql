-- The steps of this server, each one statement for it to send. All answer JSON. `lane` and `token` make a step that is
-- asked for again, because its answer was lost, be taken once (see minion_server_receipts).

CREATE OR REPLACE FUNCTION minion_server_recall(p_lane TEXT, p_token BIGINT) RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
  last RECORD;
BEGIN
  -- The first attempt may still be under way, on a connection that only we have lost.
  PERFORM pg_advisory_xact_lock(hashtextextended('minion_server ' || p_lane, 0));
  SELECT r.token, r.answer INTO last FROM minion_server_receipts AS r WHERE r.lane = p_lane;
  IF last.token > p_token THEN
    RAISE EXCEPTION 'lane % has gone on', p_lane;
  END IF;
  IF last.token = p_token THEN
    RETURN last.answer;
  END IF;
  RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION minion_server_remember(p_lane TEXT, p_token BIGINT, p_answer JSONB) RETURNS JSONB LANGUAGE plpgsql AS $$
BEGIN
  UPDATE minion_server_receipts SET token = p_token, answer = p_answer, given = now() WHERE lane = p_lane;
  IF NOT FOUND THEN
    INSERT INTO minion_server_receipts (lane, token, answer, given) VALUES (p_lane, p_token, p_answer, now());
  END IF;
  RETURN p_answer;
END
$$;

-- Answers {"ids": [id], "duplicates": [place in the request, from 1]} and what it settled.
CREATE OR REPLACE FUNCTION minion_server_enqueue(
  p_lane TEXT, p_token BIGINT, p_tasks TEXT[], p_args TEXT[], p_queues TEXT[], p_priorities INT[], p_attempts INT[],
  p_delays FLOAT8[], p_expires FLOAT8[], p_laxes BOOL[], p_notes TEXT[], p_parents TEXT[], p_requests TEXT[]
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer JSONB := minion_server_recall(p_lane, p_token);
  ids    BIGINT[];
  known  BIGINT[] := '{}';
  placed BIGINT[];
  family BOOL;
  one    BIGINT;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  IF answer IS NOT NULL THEN
    RETURN answer;
  END IF;
  IF p_requests IS NULL THEN
    SELECT array_agg(nextval('minion_jobs_id_seq')) INTO ids FROM generate_subscripts(p_tasks, 1);
  ELSE
    FOR i IN 1 .. cardinality(p_tasks) LOOP
      one := NULL;
      IF p_requests[i] IS NOT NULL THEN
        SELECT r.job INTO one FROM minion_server_requests AS r
        WHERE r.request_id = p_requests[i] AND r.created > now() - INTERVAL '24 hours';
      END IF;
      IF one IS NULL THEN
        ids[i] := nextval('minion_jobs_id_seq');
        CONTINUE WHEN p_requests[i] IS NULL;
        INSERT INTO minion_server_requests AS r (request_id, job, created) VALUES (p_requests[i], ids[i], now())
        ON CONFLICT (request_id) DO UPDATE SET job = excluded.job, created = excluded.created
        WHERE r.created <= now() - INTERVAL '24 hours';
        CONTINUE WHEN FOUND;
        -- Another server was first, at this very moment.
        SELECT r.job INTO one FROM minion_server_requests AS r WHERE r.request_id = p_requests[i];
      END IF;
      ids[i] := one;
      known := known || i::BIGINT;
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
      answer := answer || minion_server_settled(1000);
    END IF;
  END IF;
  RETURN minion_server_remember(p_lane, p_token, answer);
END
$$;

-- Answers {"accepted": [place in the request, from 1]} and what it settled.
CREATE OR REPLACE FUNCTION minion_server_end(
  p_lane TEXT, p_token BIGINT, p_ids BIGINT[], p_retries INT[], p_failed BOOL[], p_results TEXT[], p_delays FLOAT8[]
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer  JSONB := minion_server_recall(p_lane, p_token);
  places  BIGINT[];
  ended   BIGINT[];
  again   BIGINT[];
  delays  FLOAT8[];
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  IF answer IS NOT NULL THEN
    RETURN answer;
  END IF;
  -- Of those that name the same generation the first wins: the job is not active for the others.
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
  IF places IS NULL THEN
    RETURN answer;
  END IF;
  -- A statement of its own: to name `retries` wakes all of Perl Minion's workers.
  IF again IS NOT NULL THEN
    UPDATE minion_jobs AS j SET state = 'inactive', attempts = j.attempts - 1,
      delayed = now() + g.delay * INTERVAL '1 second', retried = now(), retries = j.retries + 1
    FROM unnest(again, delays) AS g (id, delay) WHERE j.id = g.id;
    PERFORM minion_server_place(again);
  END IF;
  -- Even a job that is tried again may have expired meanwhile, and then blocks nobody.
  IF minion_server_release(ended) THEN
    answer := answer || minion_server_settled(1000);
  END IF;
  RETURN minion_server_remember(p_lane, p_token, answer);
END
$$;

-- As minion_server_end, for outcomes among which some have results of more than `p_long` characters: those fail whose
-- job would be larger than `p_most` bytes, unless the result is no larger than `p_small`. `p_text` is their result, as
-- JSON, with `{}` for the size.
CREATE OR REPLACE FUNCTION minion_server_end_large(
  p_lane TEXT, p_token BIGINT, p_ids BIGINT[], p_retries INT[], p_failed BOOL[], p_results TEXT[], p_delays FLOAT8[],
  p_long INT, p_small BIGINT, p_most BIGINT, p_text TEXT
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off AS $$
DECLARE
  one  RECORD;
  size BIGINT;
BEGIN
  FOR one IN
    SELECT g.place, j.args, j.notes, g.result::JSONB AS result
    FROM unnest(p_ids, p_retries, p_results) WITH ORDINALITY AS g (id, retries, result, place)
      JOIN minion_jobs AS j ON j.id = g.id AND j.retries = g.retries AND j.state::TEXT = 'active'
    WHERE length(g.result) > p_long ORDER BY g.place FOR UPDATE OF j
  LOOP
    size := minion_server_job_size(one.args, one.notes, one.result);
    IF size > p_most AND minion_server_result_size(one.result) > p_small THEN
      p_failed[one.place] := TRUE;
      p_results[one.place] := replace(p_text, '{}', size::TEXT);
    END IF;
  END LOOP;
  RETURN minion_server_end(p_lane, p_token, p_ids, p_retries, p_failed, p_results, p_delays);
END
$$;
