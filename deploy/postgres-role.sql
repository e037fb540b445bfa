-- The role that walvault connects with. Run as a superuser, connected to the database "postgres"
-- (the dbname of the agent's conninfo). May be run again. `walvault init --print-sql` prints this too.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'walvault') THEN
        CREATE ROLE walvault;
    END IF;
END
$$;
ALTER ROLE walvault LOGIN REPLICATION;
-- Settings, the state of slots, and statistics.
GRANT pg_monitor TO walvault;
-- For `walvault point NAME`.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO walvault;
