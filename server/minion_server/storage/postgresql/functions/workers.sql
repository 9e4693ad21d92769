-- The functions of workers.py.

-- Registers a worker. Without an id it gets one that no worker had before, even if a crash has reset the sequence:
-- minion_workers is unlogged.
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
END $$;

-- Restores the sequence after a crash, for Perl Minion's workers, which take their ids from it.
CREATE OR REPLACE FUNCTION minion_server_heal() RETURNS VOID LANGUAGE sql AS $$
  SELECT setval('minion_workers_id_seq', m.worker) FROM minion_server_marks AS m, minion_workers_id_seq AS s
  WHERE m.worker > s.last_value
$$;

-- Adds a command to inboxes. Returns {"commanded": [worker]}.
CREATE OR REPLACE FUNCTION minion_server_broadcast(p_lane TEXT, p_token BIGINT, p_command TEXT, p_workers BIGINT[]) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_begin(p_lane, p_token);
BEGIN
  IF answer IS NOT NULL THEN RETURN answer; END IF;
  WITH commanded AS (
    UPDATE minion_workers SET inbox = inbox || jsonb_build_array(p_command::JSONB)
    WHERE p_workers = '{}' OR id = ANY (p_workers) RETURNING id
  )
  SELECT jsonb_build_object('commanded', coalesce(jsonb_agg(id), '[]')) INTO answer FROM commanded;
  RETURN minion_server_remember(p_lane, p_token, answer);
END $$;

-- Removes commands from an inbox, and returns them: the first one, and others up to a total of `p_length` characters.
CREATE OR REPLACE FUNCTION minion_server_receive(p_lane TEXT, p_token BIGINT, p_worker BIGINT, p_length BIGINT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_begin(p_lane, p_token);
  rest   JSONB;
BEGIN
  IF answer IS NOT NULL THEN RETURN answer; END IF;
  PERFORM 1 FROM minion_workers AS w WHERE w.id = p_worker AND w.inbox <> '[]' FOR UPDATE;
  IF NOT FOUND THEN RETURN '[]'; END IF;
  SELECT jsonb_agg(c.entry ORDER BY c.place) FILTER (WHERE c.place = 1 OR c.total <= p_length),
    coalesce(jsonb_agg(c.entry ORDER BY c.place) FILTER (WHERE c.place > 1 AND c.total > p_length), '[]')
  INTO answer, rest FROM (
    SELECT e.entry, e.place, sum(length(e.entry::TEXT)) OVER (ORDER BY e.place) AS total
    FROM minion_workers AS w, jsonb_array_elements(w.inbox) WITH ORDINALITY AS e (entry, place) WHERE w.id = p_worker
  ) AS c;
  UPDATE minion_workers SET inbox = rest WHERE id = p_worker;
  RETURN minion_server_remember(p_lane, p_token, answer);
END $$;
