-- The functions of locks.py. Locks are rows of Minion's table, and made by its function, which Perl Minion uses, too.

-- Acquires a lock. Returns its id; 0 if it was only checked, without a duration; null if the limit is reached.
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
  -- minion_lock has locked the table, so that the last lock is ours. It supports only whole seconds.
  UPDATE minion_locks SET expires = now() + p_seconds * INTERVAL '1 second'
  WHERE id = (SELECT max(l.id) FROM minion_locks AS l WHERE l.name = p_name) RETURNING id INTO taken;
  RETURN minion_server_remember(p_lane, p_token, to_jsonb(taken));
END $$;

-- Releases a lock; without an id, the one of that name that expires first.
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
