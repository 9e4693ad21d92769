-- A step is a call of a function that must not take effect twice. If the connection breaks before its result arrives, the
-- server repeats it with the same lane and token, and gets the result of the first attempt, if that was committed. SQLite has
-- no such table, since its connection cannot break.

-- Begins a step, and returns its result if it has been committed already.
CREATE OR REPLACE FUNCTION minion_server_begin(p_lane TEXT, p_token BIGINT) RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
  last RECORD;
BEGIN
  -- The first attempt may still be running, on a connection that only the server has lost.
  PERFORM pg_advisory_xact_lock(hashtextextended('minion_server ' || p_lane, 0));
  -- Until the end of the transaction, for the triggers in follow.sql.
  PERFORM set_config('minion_server.own', 'on', TRUE);
  SELECT r.token, r.answer INTO last FROM minion_server_receipts AS r WHERE r.lane = p_lane;
  IF last.token > p_token THEN
    RAISE EXCEPTION 'lane % has a newer step', p_lane;
  END IF;
  RETURN CASE WHEN last.token = p_token THEN last.answer END;
END $$;

-- Ends a step: stores its result, and returns it.
CREATE OR REPLACE FUNCTION minion_server_remember(p_lane TEXT, p_token BIGINT, p_answer JSONB) RETURNS JSONB LANGUAGE plpgsql AS $$
BEGIN
  -- Most often the lane exists.
  UPDATE minion_server_receipts SET token = p_token, answer = p_answer, given = now() WHERE lane = p_lane;
  IF NOT FOUND THEN
    INSERT INTO minion_server_receipts (lane, token, answer, given) VALUES (p_lane, p_token, p_answer, now());
  END IF;
  RETURN p_answer;
END $$;
