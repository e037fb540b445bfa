"""The event trigger of deploy/ marks DDL, on every major, and never stands in its way."""

import json
import unittest

import ddl_trigger
from cluster import Postgres
from harness import Stage, of_each_major

SETTINGS = {"wal_level": "logical", "log_min_messages": "log"}
LEFT = ("select (select count(*) from pg_event_trigger) || ' ' || (select count(*) from pg_namespace where nspname ="
        " 'walvault') || ' ' || (select count(*) from pg_proc where proname = 'mark_ddl')")
# What is run as one statement, and which messages it has.
STATEMENTS = [
    ("create table t (id serial primary key, note text)", ["CREATE TABLE table public.t"]),
    ("alter table t add column n int", ["ALTER TABLE table public.t"]),
    ("alter table t alter column n type bigint", ["ALTER TABLE table public.t"]),
    ("alter table t drop column n", ["-ALTER TABLE table column public.t.n", "ALTER TABLE table public.t"]),
    ("create index concurrently t_note on t (note)", ["CREATE INDEX index public.t_note"]),
    ("drop index concurrently t_note", ["-DROP INDEX index public.t_note"]),
    ("create view v as select * from t", ["CREATE VIEW view public.v"]),
    ("create materialized view m as select * from t", ["CREATE MATERIALIZED VIEW materialized view public.m"]),
    ("refresh materialized view m", ["REFRESH MATERIALIZED VIEW materialized view public.m"]),
    ('create table "Odd ""name" as select 1 as a', ['CREATE TABLE AS table public."Odd ""name"']),
    ("grant select on t to public", ["GRANT TABLE None"]),
    ("create function f() returns int language sql as 'select 1'", ["CREATE FUNCTION function public.f()"]),
    ("create schema s create table s1 (a int)", ["CREATE SCHEMA schema s"]),
    ("drop schema s cascade", ["-DROP SCHEMA schema s, table s.s1"]),
    ("drop table t cascade", ["-DROP TABLE table public.t, view public.v, materialized view public.m"]),
    # Of what is temporary nothing is said.
    ("create temp table gone (id serial primary key)", []),
    ("create temp table g (a int); create index on g (a); alter table g add b int; comment on column g.b is 'x';"
     " create trigger tr before update on g for each row execute function suppress_redundant_updates_trigger();"
     " drop trigger tr on g; drop table g", []),
    # Nor of what was rolled back.
    ("begin; create table never (a int); rollback", []),
    ("begin; savepoint a; create table never (a int); rollback to a; commit", []),
    ("create table if not exists \"Odd \"\"name\" (a int)", []),
    ("set session_replication_role = replica; create table r (a int)", ["CREATE TABLE table public.r"]),
]


class Versions:
    """The tests of one major; a class for each is at the end."""

    major = 0

    def setUp(self):
        self.stage = Stage(self.id())
        self.addCleanup(self.stage.close)
        programs = self.stage.postgres_programs(self.major)
        if programs is None:
            self.skipTest(f"PostgreSQL {self.major} is not installed: tests/install-postgres")
        self.server = Postgres.create(self.stage, settings=SETTINGS, programs=programs).start()
        self.sql = self.server.sql

    def run_one(self, statement):
        # psql sends what is in one -c as one transaction; CONCURRENTLY needs one of its own.
        arguments = [argument for part in statement.split("; ") for argument in ("-c", part)]
        self.server.psql(*arguments)

    def test_each_statement_is_marked_once(self):
        ddl_trigger.install(self.server)
        messages = ddl_trigger.Messages(self.server)
        messages.take()
        for statement, expected in STATEMENTS:
            with self.subTest(statement):
                self.run_one(statement)
                self.assertEqual(messages.told(), expected)
        self.assertNotIn("was not marked", self.server.log.read_text())

    def test_of_what_the_script_of_an_extension_makes_nothing_is_said(self):
        if self.sql("select count(*) from pg_available_extensions where name = 'pageinspect'") == "0":
            self.skipTest("pageinspect is not installed")
        ddl_trigger.install(self.server)
        messages = ddl_trigger.Messages(self.server)
        messages.take()
        self.sql("create extension pageinspect")
        # Its script also drops functions of older versions, which the server does not tell apart.
        told = [each for each in messages.told() if not each.startswith("-DROP FUNCTION")]
        self.assertEqual(told, ["CREATE EXTENSION extension pageinspect"])

    def test_it_says_who_and_of_many_objects_how_many(self):
        ddl_trigger.install(self.server)
        messages = ddl_trigger.Messages(self.server)
        self.sql("create role app; create schema s authorization app")
        self.sql("set session authorization app; do $$ begin for i in 1..50 loop"
                 " execute format('create table s.t%s (a int)', i); end loop; end $$")
        messages.take()
        self.sql("set session authorization app; set search_path = s; drop schema s cascade")
        (content,) = messages.take()
        mark = json.loads(content)
        self.assertEqual((mark["tag"], mark["user"], mark["count"], len(mark["objects"])),
                         ("DROP SCHEMA", "app", 51, 20))

    def test_ddl_goes_on_where_the_function_raises(self):
        ddl_trigger.install(self.server)
        messages = ddl_trigger.Messages(self.server)
        self.sql("create role app; grant all on schema public to app;"
                 "revoke execute on all functions in schema pg_catalog from public;")
        messages.take()
        self.sql("set session authorization app; create table mine (a int)")
        self.sql("set session authorization app; drop table mine")
        self.assertEqual(messages.take(), [])
        self.assertIn("walvault: CREATE TABLE was not marked: permission denied", self.server.log.read_text())

    def test_it_can_be_installed_again_and_taken_away(self):
        for _ in range(2):
            ddl_trigger.install(self.server)
            self.assertEqual(self.sql(LEFT), "2 1 1")
        ddl_trigger.uninstall(self.server)
        self.assertEqual(self.sql(LEFT), "0 0 0")
        self.sql("create table t (a int); drop table t")

    def test_what_others_have_made_before_is_not_run(self):
        name = f"squatter{self.major}"
        self.sql(f"create role {name}")
        self.sql(f"create database squatted owner {name}")
        self.sql(f"set role {name}; create schema walvault; create function walvault.mark_ddl() returns event_trigger"
                 " language plpgsql as 'begin end'", database="squatted")
        ddl_trigger.install(self.server, "squatted")
        owners = ("select array_agg(distinct rolname) from pg_roles where oid in (select nspowner from pg_namespace"
                  " where nspname = 'walvault' union select proowner from pg_proc where proname = 'mark_ddl')")
        self.assertEqual(self.sql(owners, database="squatted"), "{postgres}")
        messages = ddl_trigger.Messages(self.server, "squatted")
        self.sql("create table t (a int)", database="squatted")
        self.assertEqual(messages.told(), ["CREATE TABLE table public.t"])

    def test_names_of_every_encoding_are_told_in_utf8(self):
        self.sql("create database latin encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0")
        self.sql("create database bytes encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C' template template0")
        ddl_trigger.install(self.server, "latin")
        messages = ddl_trigger.Messages(self.server, "latin")
        self.server.psql("-c", "set client_encoding = utf8", "-c", 'create table "größe" (a int)', database="latin")
        self.assertEqual(messages.told(), ['CREATE TABLE table public."größe"'])
        self.sql("select pg_drop_replication_slot('messages')", database="latin")
        ddl_trigger.install(self.server, "bytes")
        messages = ddl_trigger.Messages(self.server, "bytes")
        # create table "a\xff" (a int)
        self.sql("do $$ begin execute convert_from('\\x637265617465207461626c65202261ff2220286120696e7429',"
                 " 'SQL_ASCII'); end $$", database="bytes")
        (content,) = messages.take()
        self.assertIn(b'public.\\"a\xff\\"', content)


of_each_major(globals(), Versions, "Postgres{}Test")


if __name__ == "__main__":
    unittest.main()
