-- Follows what others than this server's functions do: Perl Minion, and people. Ours say so by a setting, which holds until
-- the end of the transaction: each is one. (As an attribute of the functions only a superuser could set it.) They act as
-- the owner of the queue: others need rights to Minion's tables, and none to ours.

-- The channel of notifications. A channel is the database's; there may be a queue in each of its schemas.
CREATE OR REPLACE FUNCTION minion_server_channel() RETURNS TEXT LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
BEGIN
  RETURN 'minion_server_' || 'minion_jobs'::REGCLASS::OID;
END
$$;

CREATE OR REPLACE FUNCTION minion_server_heed_job() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  told JSONB;
BEGIN
  IF TG_OP = 'DELETE' THEN
    told := jsonb_build_object('jobs', jsonb_build_array(OLD.id));
    DELETE FROM minion_server_waiting WHERE job = OLD.id;
    IF minion_server_release(ARRAY[OLD.id]) THEN
      told := told || '{"due": 0}';
    END IF;
    PERFORM pg_notify(minion_server_channel(), told::TEXT);
    RETURN NULL;
  END IF;
  told := jsonb_build_object('jobs', jsonb_build_array(NEW.id));
  IF TG_OP = 'INSERT' OR OLD.state <> NEW.state OR OLD.retries <> NEW.retries OR OLD.queue <> NEW.queue
      OR OLD.task <> NEW.task OR OLD.priority <> NEW.priority OR OLD.delayed <> NEW.delayed OR OLD.parents <> NEW.parents
      OR OLD.lax <> NEW.lax OR OLD.expires IS DISTINCT FROM NEW.expires THEN
    IF TG_OP = 'UPDATE' THEN
      IF OLD.state = 'active' AND NEW.retries <> OLD.retries THEN
        INSERT INTO minion_server_revocations (worker, job, retries) VALUES (OLD.worker, OLD.id, OLD.retries);
        told := told || jsonb_build_object('revoked',
          jsonb_build_array(jsonb_build_array(OLD.worker, OLD.id, OLD.retries)));
      END IF;
      -- A parent that is retried blocks its children again: whoever claims one of those sees it.
      IF minion_server_release(ARRAY[NEW.id]) THEN
        told := told || '{"due": 0}';
      END IF;
    END IF;
    IF NEW.state = 'inactive' THEN
      IF TG_OP = 'UPDATE' OR NOT (NEW.delayed <= NEW.created AND NEW.parents = '{}' AND NEW.expires IS NULL) THEN
        PERFORM minion_server_place(ARRAY[NEW.id]);
      END IF;
      IF NEW.delayed > now() THEN
        told := '{"due": 0}' || told || jsonb_build_object('due', extract(EPOCH FROM NEW.delayed - now()));
      ELSIF NEW.parents <> '{}' OR NEW.expires IS NOT NULL THEN
        told := told || '{"due": 0}';
      ELSE
        told := told || jsonb_build_object('ready',
          jsonb_build_array(jsonb_build_array(NEW.queue, NEW.task, NEW.priority, 1)));
      END IF;
    ELSIF TG_OP = 'UPDATE' AND OLD.state = 'inactive' THEN
      DELETE FROM minion_server_waiting WHERE job = NEW.id;
    END IF;
  END IF;
  PERFORM pg_notify(minion_server_channel(), told::TEXT);
  RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS minion_server_heed_insert ON minion_jobs;
CREATE TRIGGER minion_server_heed_insert AFTER INSERT ON minion_jobs FOR EACH ROW
  WHEN (current_setting('minion_server.own', TRUE) IS DISTINCT FROM 'on') EXECUTE FUNCTION minion_server_heed_job();
DROP TRIGGER IF EXISTS minion_server_heed_update ON minion_jobs;
CREATE TRIGGER minion_server_heed_update AFTER UPDATE ON minion_jobs FOR EACH ROW
  WHEN (current_setting('minion_server.own', TRUE) IS DISTINCT FROM 'on') EXECUTE FUNCTION minion_server_heed_job();
DROP TRIGGER IF EXISTS minion_server_heed_delete ON minion_jobs;
CREATE TRIGGER minion_server_heed_delete AFTER DELETE ON minion_jobs FOR EACH ROW
  WHEN (current_setting('minion_server.own', TRUE) IS DISTINCT FROM 'on') EXECUTE FUNCTION minion_server_heed_job();

-- TRUNCATE, as of Minion's reset, is told of nothing else.
CREATE OR REPLACE FUNCTION minion_server_heed_truncate() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  DELETE FROM minion_server_waiting;
  DELETE FROM minion_server_requests;
  PERFORM pg_notify(minion_server_channel(), '{"look": true}');
  RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS minion_server_heed_truncate ON minion_jobs;
CREATE TRIGGER minion_server_heed_truncate AFTER TRUNCATE ON minion_jobs
  EXECUTE FUNCTION minion_server_heed_truncate();

-- Workers of either kind. A worker that was missing and is heard of again has not left.
CREATE OR REPLACE FUNCTION minion_server_heed_worker() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO minion_server_departures (worker, since) VALUES (OLD.id, '-infinity')
    ON CONFLICT (worker) DO UPDATE SET since = excluded.since;
  ELSE
    DELETE FROM minion_server_departures WHERE worker = NEW.id;
    UPDATE minion_server_marks SET worker = NEW.id WHERE worker < NEW.id;
    IF jsonb_typeof(NEW.status -> 'heartbeat_interval') = 'number' THEN
      INSERT INTO minion_server_heartbeats AS h (worker, seconds)
      VALUES (NEW.id, (NEW.status ->> 'heartbeat_interval')::FLOAT8)
      ON CONFLICT (worker) DO UPDATE SET seconds = excluded.seconds WHERE h.seconds <> excluded.seconds;
    END IF;
  END IF;
  RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS minion_server_heed_worker ON minion_workers;
CREATE TRIGGER minion_server_heed_worker AFTER INSERT OR DELETE OR UPDATE OF status ON minion_workers FOR EACH ROW
  EXECUTE FUNCTION minion_server_heed_worker();

-- A command by Perl Minion for workers that are ours.
CREATE OR REPLACE FUNCTION minion_server_heed_command() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_notify(minion_server_channel(), jsonb_build_object('commanded', jsonb_build_array(NEW.id))::TEXT);
  RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS minion_server_heed_command ON minion_workers;
CREATE TRIGGER minion_server_heed_command AFTER UPDATE OF inbox ON minion_workers FOR EACH ROW
  WHEN (NEW.inbox <> '[]' AND current_setting('minion_server.own', TRUE) IS DISTINCT FROM 'on')
  EXECUTE FUNCTION minion_server_heed_command();
