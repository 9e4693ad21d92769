-- The steps of locks.py. Unlike SQLite's, locks are Minion's rows, made by its function, which Perl Minion's clients call.

-- Returns the id of the lock; 0 if none is taken because there is no duration, null if the limit is reached.
CREATE OR REPLACE FUNCTION minion_server_acquire_lock(
  p_lane TEXT, p_token BIGINT, p_name TEXT, p_seconds FLOAT8, p_limit INT
) RETURNS JSONB LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_begin(p_lane, p_token);
  taken  BIGINT;
BEGIN
  IF answer IS NOT NULL THEN RETURN answer; END IF;
  IF NOT minion_lock(p_name, least(ceil(p_seconds), 2000000000)::INT, p_limit) THEN
    RETURN 'null';
  END IF;
  IF p_seconds = 0 THEN RETURN '0'; END IF;
  -- It has locked the table: the last one is ours. It knows whole seconds only.
  UPDATE minion_locks SET expires = now() + p_seconds * INTERVAL '1 second'
  WHERE id = (SELECT max(l.id) FROM minion_locks AS l WHERE l.name = p_name) RETURNING id INTO taken;
  RETURN minion_server_remember(p_lane, p_token, to_jsonb(taken));
END $$;

-- Without an id, it is the lock of that name that expires first.
CREATE OR REPLACE FUNCTION minion_server_release_lock(p_lane TEXT, p_token BIGINT, p_name TEXT, p_id BIGINT) RETURNS JSONB
  LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
  answer JSONB := minion_server_begin(p_lane, p_token);
BEGIN
  IF answer IS NOT NULL THEN RETURN answer; END IF;
  DELETE FROM minion_locks WHERE id = (
    SELECT l.id FROM minion_locks AS l WHERE l.expires > now() AND l.name = p_name AND l.id = coalesce(p_id, l.id)
    ORDER BY l.expires LIMIT 1 FOR UPDATE);
  IF NOT FOUND THEN RETURN 'false'; END IF;
  RETURN minion_server_remember(p_lane, p_token, 'true');
END $$;
