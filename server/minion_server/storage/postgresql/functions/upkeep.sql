-- Workers, locks, and keeping in order.

-- A worker without an id gets one that no worker had before, even if the sequence has forgotten those in a crash.
CREATE OR REPLACE FUNCTION minion_server_register(p_id BIGINT, p_host TEXT, p_pid INT, p_status TEXT) RETURNS BIGINT
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  mark BIGINT;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  IF p_id IS NULL THEN
    SELECT m.worker INTO mark FROM minion_server_marks AS m FOR UPDATE;
    p_id := nextval('minion_workers_id_seq');
    IF p_id <= mark THEN
      PERFORM setval('minion_workers_id_seq', mark);
      p_id := nextval('minion_workers_id_seq');
    END IF;
  END IF;
  INSERT INTO minion_workers AS w (id, host, pid, status, started, notified)
  VALUES (p_id, p_host, p_pid, p_status::JSONB, now(), now())
  ON CONFLICT (id) DO UPDATE SET notified = excluded.notified, status = excluded.status;
  RETURN p_id;
END
$$;

-- For Perl Minion's workers, which take their ids from the sequence themselves.
CREATE OR REPLACE FUNCTION minion_server_heal() RETURNS VOID LANGUAGE sql AS $$
  SELECT setval('minion_workers_id_seq', m.worker) FROM minion_server_marks AS m, minion_workers_id_seq AS s
  WHERE m.worker > s.last_value
$$;

-- Answers the workers that were told.
CREATE OR REPLACE FUNCTION minion_server_broadcast(p_lane TEXT, p_token BIGINT, p_command TEXT, p_workers BIGINT[]) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_recall(p_lane, p_token);
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  IF answer IS NOT NULL THEN
    RETURN answer;
  END IF;
  WITH told AS (
    UPDATE minion_workers SET inbox = inbox || jsonb_build_array(p_command::JSONB)
    WHERE p_workers = '{}' OR id = ANY (p_workers) RETURNING id
  )
  SELECT jsonb_build_object('commanded', coalesce(jsonb_agg(id), '[]')) INTO answer FROM told;
  RETURN minion_server_remember(p_lane, p_token, answer);
END
$$;

-- Takes commands out of an inbox, the first one and others while they have `p_length` characters in all.
CREATE OR REPLACE FUNCTION minion_server_receive(p_lane TEXT, p_token BIGINT, p_worker BIGINT, p_length BIGINT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_recall(p_lane, p_token);
  rest   JSONB;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  IF answer IS NOT NULL THEN
    RETURN answer;
  END IF;
  PERFORM 1 FROM minion_workers AS w WHERE w.id = p_worker AND w.inbox <> '[]' FOR UPDATE;
  IF NOT FOUND THEN
    RETURN '[]';
  END IF;
  SELECT jsonb_agg(c.entry ORDER BY c.place) FILTER (WHERE c.place = 1 OR c.total <= p_length),
    coalesce(jsonb_agg(c.entry ORDER BY c.place) FILTER (WHERE c.place > 1 AND c.total > p_length), '[]')
  INTO answer, rest FROM (
    SELECT e.entry, e.place, sum(length(e.entry::TEXT)) OVER (ORDER BY e.place) AS total
    FROM minion_workers AS w, jsonb_array_elements(w.inbox) WITH ORDINALITY AS e (entry, place) WHERE w.id = p_worker
  ) AS c;
  UPDATE minion_workers SET inbox = rest WHERE id = p_worker;
  RETURN minion_server_remember(p_lane, p_token, answer);
END
$$;

-- Returns the id of the lock; 0 if none is taken because there is no duration, null if the limit is reached.
CREATE OR REPLACE FUNCTION minion_server_acquire_lock(
  p_lane TEXT, p_token BIGINT, p_name TEXT, p_seconds FLOAT8, p_limit INT
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_recall(p_lane, p_token);
  taken  BIGINT;
BEGIN
  IF answer IS NOT NULL THEN
    RETURN answer;
  END IF;
  IF NOT minion_lock(p_name, least(ceil(p_seconds), 2000000000)::INT, p_limit) THEN
    RETURN 'null';
  END IF;
  IF p_seconds = 0 THEN
    RETURN '0';
  END IF;
  -- It has locked the table: the last one is ours. It knows whole seconds only.
  UPDATE minion_locks SET expires = now() + p_seconds * INTERVAL '1 second'
  WHERE id = (SELECT max(l.id) FROM minion_locks AS l WHERE l.name = p_name) RETURNING id INTO taken;
  RETURN minion_server_remember(p_lane, p_token, to_jsonb(taken));
END
$$;

-- Without an id, the lock of that name that expires first.
CREATE OR REPLACE FUNCTION minion_server_release_lock(p_lane TEXT, p_token BIGINT, p_name TEXT, p_id BIGINT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_recall(p_lane, p_token);
BEGIN
  IF answer IS NOT NULL THEN
    RETURN answer;
  END IF;
  DELETE FROM minion_locks WHERE id = (
    SELECT l.id FROM minion_locks AS l WHERE l.expires > now() AND l.name = p_name AND l.id = coalesce(p_id, l.id)
    ORDER BY l.expires LIMIT 1 FOR UPDATE);
  IF NOT FOUND THEN
    RETURN 'false';
  END IF;
  RETURN minion_server_remember(p_lane, p_token, 'true');
END
$$;

-- Repair goes in steps of bounded size; each answers how many it did, or which.

-- Old finished jobs, from a place in their order on, without those that a child needs still.
-- Answers {"removed": [job], "last": [finished, job]}, without `last` if there are no more.
CREATE OR REPLACE FUNCTION minion_server_remove_old(p_seconds FLOAT8, p_finished TIMESTAMPTZ, p_job BIGINT, p_most INT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  jobs   BIGINT[];
  needed BIGINT[];
  last   JSONB;
  answer JSONB := '{}';
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  SELECT array_agg(o.id), jsonb_agg(jsonb_build_array(o.finished, o.id)) -> (p_most - 1) INTO jobs, last FROM (
    SELECT j.id, j.finished FROM minion_jobs AS j
    WHERE j.state = 'finished' AND j.finished <= now() - p_seconds * INTERVAL '1 second'
      AND j.finished >= p_finished AND (j.finished > p_finished OR j.id > p_job)
    ORDER BY j.finished, j.id LIMIT p_most
  ) AS o;
  IF jobs IS NOT NULL THEN
    SELECT array_agg(DISTINCT p.id) INTO needed FROM minion_jobs AS c, unnest(c.parents) AS p (id)
    WHERE c.parents && jobs AND c.state <> 'finished';
    IF needed IS NOT NULL THEN
      SELECT array_agg(o.id) INTO jobs FROM unnest(jobs) AS o (id) WHERE o.id <> ALL (needed);
    END IF;
    SELECT array_agg(j.id) INTO jobs FROM (
      SELECT id FROM minion_jobs WHERE id = ANY (jobs) AND state::TEXT = 'finished' FOR UPDATE SKIP LOCKED) AS j;
    IF jobs IS NOT NULL THEN
      answer := minion_server_delete(jobs);
    END IF;
  END IF;
  RETURN answer || jsonb_strip_nulls(jsonb_build_object('removed', coalesce(to_jsonb(jobs), '[]'), 'last', last));
END
$$;

CREATE OR REPLACE FUNCTION minion_server_remove_expired(p_most INT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off
  SET enable_bitmapscan = off SET enable_sort = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  answer JSONB := minion_server_settled(p_most);
  rows   BIGINT[];
  jobs   BIGINT[];
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  SELECT array_agg(e.job) INTO rows FROM (SELECT w.job FROM minion_server_waiting AS w WHERE w.stage = 'expired'
    ORDER BY w.due LIMIT p_most FOR UPDATE SKIP LOCKED) AS e;
  IF rows IS NOT NULL THEN
    SELECT array_agg(j.id) INTO jobs FROM (SELECT id FROM minion_jobs
      WHERE id = ANY (rows) AND state::TEXT = 'inactive' AND expires <= now() FOR UPDATE SKIP LOCKED) AS j;
    answer := minion_server_both(answer, minion_server_delete(coalesce(jobs, '{}')));
    DELETE FROM minion_server_waiting AS w WHERE w.job = ANY (rows)
      AND NOT EXISTS (SELECT 1 FROM minion_jobs AS j WHERE j.id = w.job AND j.state::TEXT = 'inactive');
  END IF;
  RETURN answer || jsonb_build_object('removed', coalesce(to_jsonb(jobs), '[]'));
END
$$;

-- Answers [[job, retries, worker]] of active jobs whose worker left, or has been missing for so long, or for so many of
-- its own heartbeats, while the caller could have heard it.
CREATE OR REPLACE FUNCTION minion_server_abandoned(p_seconds FLOAT8, p_beats INT, p_foreground TEXT, p_most INT, p_heard FLOAT8)
  RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB;
BEGIN
  INSERT INTO minion_server_departures (worker, since)
  SELECT DISTINCT coalesce(j.worker, 0), now() FROM minion_jobs AS j
  WHERE j.state = 'active' AND j.queue <> p_foreground
    AND NOT EXISTS (SELECT 1 FROM minion_workers AS w WHERE w.id = j.worker)
    AND NOT EXISTS (SELECT 1 FROM minion_server_departures AS d WHERE d.worker = coalesce(j.worker, 0))
  ON CONFLICT DO NOTHING;
  SELECT coalesce(jsonb_agg(jsonb_build_array(a.id, a.retries, a.worker) ORDER BY a.id), '[]') INTO answer FROM (
    SELECT j.id, j.retries, coalesce(j.worker, 0) AS worker
    FROM minion_jobs AS j JOIN minion_server_departures AS d ON d.worker = coalesce(j.worker, 0)
      LEFT JOIN minion_server_heartbeats AS h ON h.worker = d.worker
    WHERE j.state = 'active' AND j.queue <> p_foreground
      AND d.since < now() - greatest(p_seconds, p_beats * coalesce(h.seconds, 0)) * INTERVAL '1 second'
      AND (d.since = '-infinity' OR p_heard > greatest(p_seconds, p_beats * coalesce(h.seconds, 0)))
      AND NOT EXISTS (SELECT 1 FROM minion_workers AS w WHERE w.id = j.worker)
    ORDER BY j.id LIMIT p_most
  ) AS a;
  RETURN answer;
END
$$;

CREATE OR REPLACE FUNCTION minion_server_fail_stuck(p_seconds FLOAT8, p_result TEXT, p_most INT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_seqscan = off
  SET enable_bitmapscan = off SET enable_sort = off SET jit = off
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  before TIMESTAMPTZ := now() - p_seconds * INTERVAL '1 second';
  jobs   BIGINT[];
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  SELECT array_agg(j.id) INTO jobs FROM (
    SELECT id FROM minion_jobs WHERE id = ANY (ARRAY (
      (SELECT j.id FROM minion_jobs AS j WHERE j.state = 'inactive' AND j.delayed <= j.created AND j.parents = '{}'
        AND j.expires IS NULL AND j.delayed < before ORDER BY j.delayed LIMIT p_most)
      UNION ALL (SELECT w.job FROM unnest('{ready,delayed,blocked,undecided}'::TEXT[]) AS s (stage)
        CROSS JOIN LATERAL (SELECT w.job FROM minion_server_waiting AS w WHERE w.stage = s.stage AND w.due < before
          ORDER BY w.due LIMIT p_most) AS w)
    )) AND state::TEXT = 'inactive' ORDER BY id LIMIT p_most FOR UPDATE SKIP LOCKED
  ) AS j;
  IF jobs IS NULL THEN
    RETURN '{"failed": []}';
  END IF;
  RETURN minion_server_fail(jobs, p_result) || jsonb_build_object('failed', to_jsonb(jobs));
END
$$;

-- What nobody will ask for again; answers how many request ids.
CREATE OR REPLACE FUNCTION minion_server_forget(p_most INT) RETURNS INT LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  requests INT;
BEGIN
  DELETE FROM minion_server_requests WHERE request_id IN (SELECT r.request_id FROM minion_server_requests AS r
    WHERE r.created <= now() - INTERVAL '24 hours' ORDER BY r.created LIMIT p_most FOR UPDATE SKIP LOCKED);
  GET DIAGNOSTICS requests = ROW_COUNT;
  DELETE FROM minion_server_receipts WHERE given < now() - INTERVAL '24 hours';
  DELETE FROM minion_server_revocations WHERE created < now() - INTERVAL '24 hours';
  DELETE FROM minion_server_departures AS d
  WHERE NOT EXISTS (SELECT 1 FROM minion_jobs AS j WHERE j.state = 'active' AND coalesce(j.worker, 0) = d.worker);
  DELETE FROM minion_server_heartbeats AS h WHERE NOT EXISTS (SELECT 1 FROM minion_workers AS w WHERE w.id = h.worker)
    AND NOT EXISTS (SELECT 1 FROM minion_jobs AS j WHERE j.state = 'active' AND j.worker = h.worker);
  RETURN requests;
END
$$;

-- Answers what was active, as revocations.
CREATE OR REPLACE FUNCTION minion_server_reset() RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  revoked JSONB;
BEGIN
  PERFORM set_config('minion_server.own', 'on', TRUE);
  LOCK TABLE minion_jobs IN ACCESS EXCLUSIVE MODE;
  SELECT coalesce(jsonb_agg(jsonb_build_array(worker, id, retries)), '[]') INTO revoked
  FROM minion_jobs WHERE state = 'active' AND worker IS NOT NULL;
  TRUNCATE minion_jobs, minion_locks, minion_workers, minion_server_waiting, minion_server_requests,
    minion_server_departures RESTART IDENTITY;
  IF to_regclass('minion_schedules') IS NOT NULL THEN
    TRUNCATE minion_schedules RESTART IDENTITY;
  ELSE
    TRUNCATE minion_server_schedules RESTART IDENTITY;
  END IF;
  UPDATE minion_server_marks SET worker = 0;
  RETURN jsonb_build_object('revoked', revoked);
END
$$;
