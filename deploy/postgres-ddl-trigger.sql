-- Marks DDL in the row journal, so that `walvault log` and `walvault show` tell which statement it was,
-- of what, and by whom. Not required. Run as a superuser in each journaled database whose DDL is to be
-- marked; PostgreSQL 14 to 18. May be run again.
--
-- Each statement adds a message (pg_logical_emit_message, prefix walvault.ddl) to its own transaction, and
-- one more where it drops something: the command tag, the objects' identities, session_user. Each costs a
-- subtransaction, and is rolled back with the statement. Temporary objects, and what the script of an
-- extension makes, are left out.
-- Whatever goes wrong in the function is told in the server's log, and the statement goes on. Anyone who
-- may connect can send such a message himself: it tells what happened, and proves nothing.
--
-- To take it away:
--   DROP EVENT TRIGGER IF EXISTS walvault_ddl;
--   DROP EVENT TRIGGER IF EXISTS walvault_drop;
--   DROP FUNCTION IF EXISTS walvault.mark_ddl();
--   DROP SCHEMA IF EXISTS walvault;

BEGIN;
DROP EVENT TRIGGER IF EXISTS walvault_ddl;
DROP EVENT TRIGGER IF EXISTS walvault_drop;
-- Both are made anew and owned by who runs this: whoever had made them before would otherwise have
-- his own code run by superusers.
CREATE SCHEMA IF NOT EXISTS walvault;
ALTER SCHEMA walvault OWNER TO CURRENT_USER;
DROP FUNCTION IF EXISTS walvault.mark_ddl();

CREATE FUNCTION walvault.mark_ddl() RETURNS event_trigger
LANGUAGE plpgsql SECURITY INVOKER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Of a statement with more objects the first ones, and how many there are.
    objects json;
    total bigint;
BEGIN
    IF pg_is_in_recovery() THEN
        RETURN;
    END IF;
    IF TG_EVENT = 'sql_drop' THEN
        -- What was named, and tables and views that went with it.
        SELECT count(*), json_agg(json_build_object('type', o.object_type, 'name', left(o.object_identity, 500)))
                         FILTER (WHERE o.place <= 20)
            INTO total, objects
            FROM (SELECT object_type, object_identity, row_number() OVER () AS place
                  FROM pg_event_trigger_dropped_objects()
                  WHERE NOT is_temporary AND strpos(coalesce(object_identity, ''), ' on pg_temp.') = 0
                    AND (original OR object_type IN
                        ('table', 'foreign table', 'view', 'materialized view'))) o;
    ELSE
        -- The statement itself, not what it did besides (the sequence of a serial column); of one that is
        -- made of others alone, these.
        SELECT count(*), json_agg(json_build_object('type', o.object_type, 'name', left(o.object_identity, 500)))
                         FILTER (WHERE o.place <= 20)
            INTO total, objects
            FROM (SELECT object_type, object_identity, row_number() OVER () AS place
                  FROM (SELECT *, bool_or(command_tag = TG_TAG) OVER () AS has_own
                        FROM pg_event_trigger_ddl_commands()) commands
                  WHERE (command_tag = TG_TAG OR NOT has_own) AND NOT in_extension
                    AND schema_name IS DISTINCT FROM 'pg_temp'
                    AND strpos(coalesce(object_identity, ''), ' on pg_temp.') = 0) o;
    END IF;
    IF total = 0 THEN
        RETURN;
    END IF;
    -- In UTF-8, as the journal has all text; SQL_ASCII has bytes that nobody can convert.
    PERFORM pg_logical_emit_message(true, 'walvault.ddl', convert_to(
        json_build_object('tag', TG_TAG, 'dropped', TG_EVENT = 'sql_drop', 'objects', objects, 'count', total,
                          'user', session_user)::text,
        CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END));
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'walvault: % was not marked: %', TG_TAG, SQLERRM;
END
$$;

CREATE EVENT TRIGGER walvault_ddl ON ddl_command_end EXECUTE FUNCTION walvault.mark_ddl();
CREATE EVENT TRIGGER walvault_drop ON sql_drop EXECUTE FUNCTION walvault.mark_ddl();
-- Also where session_replication_role is replica.
ALTER EVENT TRIGGER walvault_ddl ENABLE ALWAYS;
ALTER EVENT TRIGGER walvault_drop ENABLE ALWAYS;
COMMIT;
