-- A step is one call of a function by the server. `lane` and `token` make a step that is repeated, because the connection
-- broke before its answer came, be taken once. SQLite has no such table: its connection cannot break.

-- Begins a step; returns what it returned if it was taken already.
CREATE OR REPLACE FUNCTION minion_server_begin(p_lane TEXT, p_token BIGINT) RETURNS JSONB LANGUAGE plpgsql AS $$
DECLARE
  last RECORD;
BEGIN
  -- The first attempt may still run, on a connection that only the server has lost.
  PERFORM pg_advisory_xact_lock(hashtextextended('minion_server ' || p_lane, 0));
  -- Until the end of the transaction, for the triggers in follow.sql.
  PERFORM set_config('minion_server.own', 'on', TRUE);
  SELECT r.token, r.answer INTO last FROM minion_server_receipts AS r WHERE r.lane = p_lane;
  IF last.token > p_token THEN
    RAISE EXCEPTION 'lane % has gone on', p_lane;
  END IF;
  RETURN CASE WHEN last.token = p_token THEN last.answer END;
END $$;

-- Ends a step, and returns what it returns.
CREATE OR REPLACE FUNCTION minion_server_remember(p_lane TEXT, p_token BIGINT, p_answer JSONB) RETURNS JSONB LANGUAGE plpgsql AS $$
BEGIN
  -- Most often the lane is there.
  UPDATE minion_server_receipts SET token = p_token, answer = p_answer, given = now() WHERE lane = p_lane;
  IF NOT FOUND THEN
    INSERT INTO minion_server_receipts (lane, token, answer, given) VALUES (p_lane, p_token, p_answer, now());
  END IF;
  RETURN p_answer;
END $$;
