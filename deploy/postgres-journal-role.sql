-- What the role of the agent needs besides deploy/postgres-role.sql for a row journal, where it is
-- no superuser. Run as a superuser in each database that is journaled, once for each role that
-- owns tables there; may be run again:
--
--   psql -d app -v owner=app_owner -f postgres-journal-role.sql
--
-- `walvault check` says what is missing.

\set ON_ERROR_STOP on
\if :{?owner}
\else
DO $$ BEGIN RAISE EXCEPTION 'it is not said whose tables are journaled' USING HINT = 'psql -v owner=ROLE'; END $$;
\endif

-- A member of a superuser can become one.
SELECT count(*) = 0 AS is_unknown, coalesce(bool_or(rolsuper), false) AS is_superuser
    FROM pg_catalog.pg_roles WHERE rolname = :'owner' \gset
\if :is_unknown
DO $$ BEGIN RAISE EXCEPTION 'there is no role of the name that owner gives'; END $$;
\endif
\if :is_superuser
DO $$ BEGIN RAISE EXCEPTION 'the owner is a superuser: who may publish its tables could become it'
    USING HINT = 'Give the tables to a role of their own, or let the agent connect as a superuser.'; END $$;
\endif

-- Its publications.
SELECT pg_catalog.format('GRANT CREATE ON DATABASE %I TO walvault', pg_catalog.current_database()) \gexec
-- A table can be published by its owner only.
GRANT :"owner" TO walvault;
-- The rows that a journal starts from; the rows of tables with row security, too.
GRANT pg_read_all_data TO walvault;
ALTER ROLE walvault BYPASSRLS;
