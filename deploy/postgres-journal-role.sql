-- What the role of the agent needs besides deploy/postgres-role.sql for a row journal, where it is
-- no superuser. Run as a superuser in each database that is journaled, once for each role that
-- owns tables there; may be run again:
--
--   psql -d app -v owner=app_owner -f postgres-journal-role.sql
--
-- `walvault check` says what is missing.

\if :{?owner}
\else
\echo 'say whose tables are journaled: -v owner=ROLE'
\quit
\endif

-- Its publications.
SELECT pg_catalog.format('GRANT CREATE ON DATABASE %I TO walvault', pg_catalog.current_database()) \gexec
-- A table can be published by its owner only.
GRANT :"owner" TO walvault;
-- The rows that a journal starts from; the rows of tables with row security, too.
GRANT pg_read_all_data TO walvault;
ALTER ROLE walvault BYPASSRLS;
