"""`walvault log` with a row journal: which tables, how many rows, which DDL, beside what WAL tells."""

import re
import unittest

import ddl_trigger
from cluster import Postgres
from harness import lsn_number
from journal_case import SETTINGS, JournalCase

ROWS = 1200


class MarksCase(JournalCase):
    def run_all(self, *transactions):
        """Runs each as one transaction; their numbers, when the journal has them."""
        xids = [self.primary.sql(f"begin; {each}; select pg_current_xact_id(); commit;").splitlines()[-1]
                for each in transactions]
        self.settle()
        return xids

    def settle(self):
        self.primary.sql("select pg_create_restore_point('behind'), pg_current_xact_id()")
        self.agent.wait_until_flushed()
        self.wait_until_journaled()

    def events(self, *arguments):
        """{xid: its events} of the log."""
        found = {}
        for event in self.log(*arguments)["events"]:
            found.setdefault(str(event["xid"]), []).append(event)
        return found

    def log(self, *arguments):
        return self.agent.json("log", "--since", "1h", "-L", "10000", *arguments)

    def line(self, xid, *arguments):
        """The lines of the log, as people see them, of one transaction, without time and LSN. What WAL says of files
        stays behind what the journal knows; it is cut off where it does."""
        lines = self.agent.cli("log", "--since", "1h", *arguments).stdout.splitlines()
        return [re.sub(r";  WAL: (DROP|TRUNCATE or rewrite)  1663/.*", "", line.split(f"  {xid}  ", 1)[1])
                for line in lines if f"  {xid}  " in line]

    def tables(self, event):
        return {table["table"]: (table["inserted_rows"], table["updated_rows"], table["deleted_rows"],
                                 table["truncated"]) for table in event["journal"]["tables"]}


class JournaledMarksTest(MarksCase):
    journal_lines = 'tables = ["public.*", "!public.sessions"]'

    def setUp(self):
        super().setUp()
        self.primary.sql(
            "create table orders (id int primary key, state text); create table items (id int primary key, n int);"
            "create table sessions (id int primary key, v text);"
            f"insert into orders select g, 'new' from generate_series(1, {3 * ROWS}) g;"
            f"insert into items select g, 0 from generate_series(1, {ROWS}) g;"
            f"insert into sessions select g, 'x' from generate_series(1, {ROWS}) g")
        self.protect()

    def test_bulk_changes_name_their_tables(self):
        both, few, part = self.run_all(
            f"delete from orders where id <= {2 * ROWS}; update items set n = 1",
            "delete from orders where id between 3001 and 3100",
            "delete from sessions; delete from items where id = 1")
        events = self.events()
        (event,) = events[both]
        self.assertEqual(event["kind"], "bulk")
        self.assertEqual(self.tables(event),
                         {"public.orders": (0, 0, 2 * ROWS, False), "public.items": (0, ROWS, 0, False)})
        self.assertEqual(event["journal"]["database"], "postgres")
        self.assertIn(f"--before xid:{both}", event["restore"])
        self.assertEqual(self.line(both), ["deleted 2 400 rows of public.orders, updated 1 200 rows of public.items"])
        # Under the threshold there is no mark, by WAL or by the journal, until it is asked for.
        self.assertNotIn(few, events)
        (event,) = self.events("--min-rows", "100")[few]
        self.assertEqual((event["kind"], event["deleted_rows"]), ("bulk", 100))
        self.assertEqual(self.line(few, "--min-rows", "100"), ["deleted 100 rows of public.orders"])
        self.assertNotIn(few, self.events("--min-rows", "101"))
        # What is not journaled is told by WAL, beside what is.
        (event,) = events[part]
        self.assertEqual((event["deleted_rows"], self.tables(event)), (ROWS + 1, {"public.items": (0, 0, 1, False)}))
        self.assertEqual(self.line(part), ["bulk change, 1 201 rows deleted  public.sessions;  of it: "
                                           "deleted 1 row of public.items"])

    def test_truncate_names_its_tables(self):
        both, alone, rewritten, dropped = self.run_all(
            "truncate orders, items; insert into items values (1, 1)", "truncate sessions",
            "alter table orders alter id type bigint", "drop table items")
        events = self.events()
        (event,) = events[both]
        self.assertEqual(event["kind"], "truncate")
        self.assertEqual(self.tables(event), {"public.items": (1, 0, 0, True), "public.orders": (0, 0, 0, True)})
        self.assertEqual(self.line(both),
                         ["truncated public.items, public.orders; inserted 1 row of public.items"])
        for xid, kind in [(alone, "truncate"), (rewritten, "truncate"), (dropped, "drop")]:
            (event,) = events[xid]
            self.assertEqual(event["kind"], kind)
            self.assertNotIn("journal", event)
        self.assertIn("TRUNCATE or rewrite  1663/", self.line(alone)[0])
        # Another table may have been truncated besides.
        text = self.agent.cli("log", "--since", "1h").stdout
        self.assertIn("inserted 1 row of public.items;  WAL: TRUNCATE or rewrite  1663/", text)

    def test_ddl_is_told_where_the_trigger_is_installed(self):
        ddl_trigger.install(self.primary)
        self.primary.sql("create role app superuser")
        created, altered, dropped, both = self.run_all(
            "set session authorization app; create table made (id int primary key, v text)",
            "set session authorization app; alter table orders add column note text;"
            " update orders set note = 'x' where id = 1",
            "drop table items",
            "truncate orders; drop table sessions")
        events = self.events()
        self.assertEqual(self.line(created), ["CREATE TABLE public.made by app"])
        (event,) = events[created]
        self.assertEqual(event["kind"], "ddl")
        self.assertEqual(event["journal"]["ddl"], [
            {"tag": "CREATE TABLE", "dropped": False, "objects": [{"type": "table", "name": "public.made"}],
             "object_count": 1, "user": "app"}])
        self.assertIn(f"--before xid:{created}", event["restore"])
        self.assertEqual(self.line(altered), ["ALTER TABLE public.orders by app; updated 1 row of public.orders"])
        # What WAL has a mark of is told once, by the statement.
        (event,) = events[dropped]
        self.assertEqual(event["kind"], "drop")
        self.assertEqual(self.line(dropped), ["DROP TABLE public.items by postgres"])
        self.assertEqual(self.line(both), ["DROP TABLE public.sessions by postgres; truncated public.orders"])
        only = self.events("--kind", "ddl")
        self.assertEqual({xid: only[xid][0]["kind"] for xid in (created, altered, dropped, both)},
                         dict.fromkeys((created, altered, dropped, both), "ddl"))
        shown = self.agent.cli("show", f"xid:{altered}").stdout
        self.assertIn("  ddl       ALTER TABLE public.orders by app\n", shown)
        change = self.agent.json("show", f"xid:{altered}")["changes"][0]
        self.assertEqual((change["kind"], change["prefix"], change["ddl"]["tag"]),
                         ("message", "walvault.ddl", "ALTER TABLE"))
        followed = self.agent.cli("-o", "jsonl", "follow", "--from-lsn", "0/0", "--until-idle").stdout
        self.assertIn('"ddl":{"tag":"DROP TABLE"', followed)

    def test_what_somebody_else_sends_is_shown_as_text(self):
        odd, other = self.run_all("select pg_logical_emit_message(true, 'walvault.ddl', E'{\\x1b[2J')",
                                  "select pg_logical_emit_message(true, 'outbox', '{\"tag\":\"x\",\"objects\":[]}')")
        self.assertEqual(self.line(odd), ["walvault.ddl '{\\x1B[2J'"])
        self.assertEqual(self.line(other), [])
        self.assertIn("  message   outbox  ", self.agent.cli("show", f"xid:{other}").stdout)

    def test_without_the_journal_it_is_told_as_wal_has_it(self):
        self.agent.stop()
        (xid,) = [self.primary.sql(f"begin; delete from orders where id <= {ROWS}; select pg_current_xact_id();"
                                   " commit;").splitlines()[-1]]
        lines = self.agent.config.read_text()
        self.agent.write_config(lines[:lines.index("[server.main.journal]")])
        self.agent.start()
        self.agent.wait_until_flushed()
        log = self.log()
        (event,) = [event for event in log["events"] if str(event["xid"]) == xid]
        self.assertEqual((event["kind"], event["deleted_rows"]), ("bulk", ROWS))
        self.assertNotIn("journal", event)
        self.assertIn("WAL alone tells", log["notes"][0])
        self.assertEqual(self.line(xid), ["bulk change, 1 200 rows deleted  public.orders"])


class NothingJournaledTest(MarksCase):
    def make_agent(self):
        agent = super().make_agent()
        lines = agent.config.read_text()
        agent.write_config(lines[:lines.index("[server.main.journal]")])
        return agent

    def test_the_log_is_as_it_was(self):
        self.agent.protect()
        self.primary.sql("create table t as select g from generate_series(1, 2000) g; drop table t")
        self.agent.wait_until_flushed()
        log = self.log()
        self.assertEqual(set(log), {"server", "events", "not_shown"})
        self.assertTrue(log["events"])
        self.assertFalse([event for event in log["events"] if "journal" in event])
        self.assertIn("WAL does not tell DDL", self.log("--kind", "ddl")["notes"][0])


class Postgres18MarksTest(MarksCase):
    """Another major: the trigger, and the journal of its messages."""

    def make_primary(self):
        programs = self.stage.postgres_programs(18)
        if programs is None:
            self.skipTest("PostgreSQL 18 is not installed: tests/install-postgres")
        return Postgres.create(self.stage, settings=SETTINGS, programs=programs)

    def test_bulk_truncate_and_ddl(self):
        self.primary.sql("create table a (id int primary key); create table b (id int primary key)")
        self.protect()
        ddl_trigger.install(self.primary)
        inserted, truncated, ddl = self.run_all(
            f"insert into a select generate_series(1, {ROWS})", "truncate a, b", "alter table a add v text")
        self.assertEqual(self.line(inserted), ["inserted 1 200 rows of public.a"])
        self.assertEqual(self.line(truncated), ["truncated public.a, public.b"])
        self.assertEqual(self.line(ddl), ["ALTER TABLE public.a by postgres"])
        event = self.events()[truncated][0]
        self.assertLess(lsn_number(event["lsn"]), lsn_number(event["end_lsn"]))


if __name__ == "__main__":
    unittest.main()
