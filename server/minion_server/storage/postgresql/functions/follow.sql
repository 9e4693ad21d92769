-- Triggers that process changes by Perl Minion and by users. Our own functions disable them by minion_server.own until the end
-- of the transaction. (Only a superuser could set it as an attribute of the functions.) Triggers run as the owner of the
-- queue, so that others need privileges on Minion's tables only.

-- Returns the channel of notifications. The schemas of a database, each of which may have a queue, share its channels.
CREATE OR REPLACE FUNCTION minion_server_channel() RETURNS TEXT LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
  RETURN 'minion_server_' || 'minion_jobs'::REGCLASS::OID;
END $$;

CREATE OR REPLACE FUNCTION minion_server_follow_job() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  id      BIGINT := CASE WHEN TG_OP = 'DELETE' THEN OLD.id ELSE NEW.id END;
  payload JSONB := jsonb_build_object('jobs', jsonb_build_array(id));
BEGIN
  -- Notes and results do not affect what jobs wait for.
  IF TG_OP = 'UPDATE'
      AND (OLD.state, OLD.retries, OLD.queue, OLD.task, OLD.priority, OLD.delayed, OLD.parents, OLD.lax, OLD.expires)
      IS NOT DISTINCT FROM
      (NEW.state, NEW.retries, NEW.queue, NEW.task, NEW.priority, NEW.delayed, NEW.parents, NEW.lax, NEW.expires) THEN
    PERFORM pg_notify(minion_server_channel(), payload::TEXT);
    RETURN NULL;
  END IF;
  -- A retried parent blocks its children again, which is checked when they are claimed.
  IF TG_OP <> 'INSERT' AND minion_server_release(ARRAY[id]) THEN
    payload := payload || '{"due": 0}';
  END IF;
  IF TG_OP = 'UPDATE' AND OLD.state = 'active' AND NEW.retries <> OLD.retries AND OLD.worker IS NOT NULL THEN
    INSERT INTO minion_server_revocations (worker, job, retries) VALUES (OLD.worker, id, OLD.retries);
    payload := payload || jsonb_build_object('revoked', jsonb_build_array(jsonb_build_array(OLD.worker, id, OLD.retries)));
  END IF;
  IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.state <> 'inactive' AND OLD.state = 'inactive') THEN
    DELETE FROM minion_server_waiting WHERE job = id;
  ELSIF NEW.state = 'inactive' THEN
    IF TG_OP = 'UPDATE' OR NOT (NEW.delayed <= NEW.created AND NEW.parents = '{}' AND NEW.expires IS NULL) THEN
      PERFORM minion_server_place(ARRAY[id]);
    END IF;
    IF NEW.delayed > now() THEN
      payload := jsonb_build_object('due', minion_server_seconds_until(NEW.delayed)) || payload;
    ELSIF NEW.parents <> '{}' OR NEW.expires IS NOT NULL THEN
      payload := payload || '{"due": 0}';
    ELSE
      payload := payload || jsonb_build_object('ready',
        jsonb_build_array(jsonb_build_array(NEW.queue, NEW.task, NEW.priority, 1)));
    END IF;
  END IF;
  PERFORM pg_notify(minion_server_channel(), payload::TEXT);
  RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS minion_server_follow_job ON minion_jobs;
CREATE TRIGGER minion_server_follow_job AFTER INSERT OR UPDATE OR DELETE ON minion_jobs FOR EACH ROW
  WHEN (current_setting('minion_server.own', TRUE) IS DISTINCT FROM 'on') EXECUTE FUNCTION minion_server_follow_job();

-- TRUNCATE, which Minion's reset uses, fires no other trigger.
CREATE OR REPLACE FUNCTION minion_server_follow_truncate() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  DELETE FROM minion_server_waiting;
  DELETE FROM minion_server_requests;
  PERFORM pg_notify(minion_server_channel(), '{"look": true}');
  RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS minion_server_follow_truncate ON minion_jobs;
CREATE TRIGGER minion_server_follow_truncate AFTER TRUNCATE ON minion_jobs
  EXECUTE FUNCTION minion_server_follow_truncate();

-- For workers of both Perl Minion and this server. A missing worker that sends a heartbeat again has not left.
CREATE OR REPLACE FUNCTION minion_server_follow_worker() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO minion_server_departures (worker, since) VALUES (OLD.id, '-infinity')
    ON CONFLICT (worker) DO UPDATE SET since = excluded.since;
  ELSE
    DELETE FROM minion_server_departures WHERE worker = NEW.id;
    UPDATE minion_server_marks SET worker = NEW.id WHERE worker < NEW.id;
    IF jsonb_typeof(NEW.status -> 'heartbeat_interval') = 'number' THEN
      -- The number may have any number of digits. The limit is MAX_HEARTBEAT_SECONDS of domain/worker.py.
      INSERT INTO minion_server_heartbeats AS h (worker, seconds)
      VALUES (NEW.id, least(greatest(round((NEW.status ->> 'heartbeat_interval')::NUMERIC, 6), 0), 86400)::FLOAT8)
      ON CONFLICT (worker) DO UPDATE SET seconds = excluded.seconds WHERE h.seconds <> excluded.seconds;
    END IF;
  END IF;
  RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS minion_server_follow_worker ON minion_workers;
CREATE TRIGGER minion_server_follow_worker AFTER INSERT OR DELETE OR UPDATE OF status ON minion_workers FOR EACH ROW
  EXECUTE FUNCTION minion_server_follow_worker();

-- For commands by Perl Minion to workers of this server.
CREATE OR REPLACE FUNCTION minion_server_follow_command() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_notify(minion_server_channel(), jsonb_build_object('commanded', jsonb_build_array(NEW.id))::TEXT);
  RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS minion_server_follow_command ON minion_workers;
CREATE TRIGGER minion_server_follow_command AFTER UPDATE OF inbox ON minion_workers FOR EACH ROW
  WHEN (NEW.inbox <> '[]' AND current_setting('minion_server.own', TRUE) IS DISTINCT FROM 'on')
  EXECUTE FUNCTION minion_server_follow_command();
