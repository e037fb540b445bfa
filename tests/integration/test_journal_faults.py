"""The starred faults of the row journal, each by its number: what is missing is said, and nothing else is harmed."""

import collections
import json
import os
import pathlib
import re
import threading
import unittest

from cluster import Postgres
from harness import PATIENCE_SECONDS, PG_BIN, lsn_number, wait_until
from journal_case import JournalCase

SLOT = "walvault_journal_postgres"
MEMORY_KIB = 256 << 10
# Bytes of the large transaction; five gigabytes by WALVAULT_JOURNAL_HUGE_MB=5000.
HUGE_MB = int(os.environ.get("WALVAULT_JOURNAL_HUGE_MB", "100"))
# A million by WALVAULT_JOURNAL_SMALL=1000000.
SMALL_TRANSACTIONS = int(os.environ.get("WALVAULT_JOURNAL_SMALL", "8000"))


class JournalFaultCase(JournalCase):
    inside = None

    def gap_count(self):
        return len(self.agent.events("journal.gap"))

    def items(self, rows=10):
        self.primary.sql(f"create table items (id int primary key, v text); "
                         f"insert into items select g, 'first' from generate_series(1, {rows}) g")

    def at_now(self, timeout=PATIENCE_SECONDS):
        """Where the server is, once the journal is there too."""
        lsn = self.primary.sql("select pg_current_wal_lsn()")
        # A target lies before the end of what is stored: a commit behind it is flushed by the server at once.
        self.primary.sql("select pg_create_restore_point('behind'), pg_current_xact_id()")
        self.agent.wait_until_flushed(timeout=timeout)
        return lsn, self.wait_until_journaled(lsn_number(lsn), timeout=timeout)

    def check_now(self, table):
        lsn, _ = self.at_now()
        self.check_table(table, f"lsn:{lsn}", self.live(self.primary, table), "now")
        return lsn

    def wait_until_gap(self, count=1):
        wait_until(lambda: self.gap_count() >= count, "a gap to be entered")
        self.wait_until_read()

    def lose(self):
        """Something that the journal does not get, and where it was committed."""
        self.primary.sql("delete from items where id = 1")
        self.inside = self.primary.sql("select pg_current_wal_lsn()")

    def check_gap(self, before):
        """What was before the gap is there, what lies in it is refused, and it goes on behind it."""
        self.agent.allowed_events |= {"journal.gap", "journal.detached"}
        self.wait_until_gap()
        self.assertEqual(self.extract("items", f"lsn:{before[0]}"), before[1])
        self.primary.sql("update items set v = 'behind' where id = 3")
        self.check_now("items")
        if self.inside:
            refused = self.agent.cli("extract", "items", "--at", f"lsn:{self.inside}", expect=3).stderr
            self.assertIn("not in the journal", refused)
        # The stream has nothing to do with it.
        self.assertTrue(self.agent.status()["connected"])
        self.assertEqual(self.agent.status()["gap_count"], 0)

    def before(self):
        lsn, _ = self.at_now()
        return lsn, self.live(self.primary, "items")


class GapTest(JournalFaultCase):
    def setUp(self):
        super().setUp()
        self.items()
        self.protect()

    def test_G03_slot_dropped(self):
        before = self.before()
        self.agent.stop()
        self.primary.sql(f"select pg_drop_replication_slot('{SLOT}')")
        self.lose()
        self.agent.start()
        self.check_gap(before)

    def test_G09_told_of_more_than_is_stored(self):
        before = self.before()
        self.agent.stop()
        self.lose()
        self.primary.sql(f"select pg_replication_slot_advance('{SLOT}', pg_current_wal_lsn())")
        self.agent.start()
        self.check_gap(before)

    def test_G14_publication_dropped(self):
        before = self.before()
        # While it is decoded: the server then fails at each change, for ever.
        self.primary.sql("begin; drop publication walvault_journal; drop publication walvault_journal_inserts; commit")
        self.lose()
        self.check_gap(before)

    def test_G12_wal_level_lowered(self):
        before = self.before()
        self.agent.stop()
        # A server does not start with a logical slot and a lower level.
        self.primary.sql(f"select pg_drop_replication_slot('{SLOT}')")
        self.primary.stop()
        self.primary.start({"wal_level": "replica"})
        self.agent.allowed_events |= {"journal.detached", "journal.gap"}
        self.agent.start()
        self.lose()
        self.agent.wait_until_flushed()
        wait_until(lambda: self.journal().get("error"), "the journal to say what is wrong")
        self.assertIn("wal_level", self.journal()["error"]["message"])
        self.assertIn("wal_level", self.agent.cli("check", expect=7).stdout)
        self.primary.stop()
        self.primary.start({"wal_level": "logical"})
        self.agent.wait_ready()
        self.check_gap(before)

    def test_a_slot_that_holds_back_too_much_is_given_up(self):
        before = self.before()
        self.agent.stop()
        self.primary.sql("create table filler as select g, repeat('x', 1000) v from generate_series(1, 100000) g")
        self.lose()
        text = self.agent.config.read_text()
        self.agent.write_config(text.replace("[server.main.journal]", '[server.main.journal]\nslot_give_up = "64MiB"'))
        self.agent.start()
        self.check_gap(before)
        self.assertIn("given up", self.agent.events("journal.gap")[0]["message"])


class ChangingTablesTest(JournalFaultCase):
    def setUp(self):
        super().setUp()
        self.items()
        self.protect()

    def test_G02_tables_change_between(self):
        sql = self.primary.sql
        sql("alter table items rename to things; insert into things values (11, 'renamed')")
        self.check_now("things")
        read = self.times_read("things")
        lsn = self.run_and_place("alter table things add column n int default 5;"
                                 "insert into things values (12, 'm', 7)")
        # What the rows before it have in the new column is not known, and not guessed.
        self.assertIn("column n", self.agent.cli("extract", "things", "--at", f"lsn:{lsn}", expect=3).stderr)
        self.wait_until_read_again("things", read)
        self.check_now("things")
        sql("alter table things drop column v; update things set n = 9 where id = 12")
        self.check_now("things")
        sql("alter table things rename column n to m; update things set m = 10 where id = 11")
        self.wait_until_read_again("things", read + 1)
        self.check_now("things")

    def run_and_place(self, statements):
        """Runs them as one transaction; where the server was at once afterwards, when the journal is there."""
        out = self.primary.psql("-qAt", "-c", statements, "-c", "select pg_current_wal_lsn()").stdout
        lsn = out.split()[-1]
        self.at_now()
        return lsn

    def times_read(self, table):
        return len([each for each in self.agent.events("journal.table_read") if each["table"] == f"public.{table}"])

    def wait_until_read_again(self, table, times):
        """After it had been read so often."""
        wait_until(lambda: self.times_read(table) > times, f"{table} to be read again", every=0.2)
        self.wait_until_read()

    def test_G16_dropped_and_made_again(self):
        lsn = self.primary.current_lsn()
        old = self.live(self.primary, "items")
        at, _ = self.at_now()
        self.primary.sql("drop table items")
        self.primary.sql("create table items (id text primary key, other int); insert into items values ('a', 1)")
        self.assertGreater(self.primary.current_lsn(), lsn)
        self.wait_until_known("items")
        self.primary.sql("insert into items values ('b', 2)")
        self.check_now("items")
        self.agent.wait_until_flushed()
        self.assertEqual(self.extract("items", f"lsn:{at}"), old)

    def wait_until_known(self, table):
        def known():
            tables = {each["table"]: each for each in self.journal().get("tables", [])}
            return f'"public"."{table}"' in tables and self.journal()["waiting_snapshots"] == 0
        oid = self.primary.sql(f"select '{table}'::regclass::oid")
        wait_until(lambda: known() and self.primary.sql(
            f"select count(*) from pg_publication_rel where prrelid = {oid}") != "0", "the table to join", every=0.2)
        self.wait_until_read()

    def test_new_tables_join(self):
        self.primary.sql("create table later (id int primary key); insert into later values (1)")
        self.wait_until_known("later")
        self.primary.sql("insert into later values (2); delete from later where id = 1")
        self.check_now("later")

    def test_an_identity_that_is_lost_for_a_while_costs_what_changed_meanwhile(self):
        first, _ = self.at_now()
        then = self.live(self.primary, "items")
        self.agent.allowed_events.add("journal.tables_not_whole")
        self.primary.sql("alter table items drop constraint items_pkey")
        self.wait_until_changes("items", "inserts")
        self.primary.sql("delete from items where id = 2")
        between, _ = self.at_now()
        self.primary.sql("alter table items add primary key (id)")
        self.wait_until_changes("items", "all")
        self.wait_until_read()
        self.primary.sql("update items set v = 'whole again' where id = 3")
        self.check_now("items")
        self.assertEqual(self.extract("items", f"lsn:{first}"), then)
        self.agent.cli("extract", "items", "--at", f"lsn:{between}", expect=3)

    def wait_until_looked(self):
        """Until the catalogue has been looked at, and what is journaled by now was there before."""
        self.wait_until_journaled()
        self.looks = getattr(self, "looks", 0) + 1
        self.primary.sql(f"create table look_{self.looks} (id int primary key)")
        self.wait_until_known(f"look_{self.looks}")

    def check_unknown_until_read_again(self, statements):
        first, _ = self.at_now()
        then = self.live(self.primary, "items")
        self.wait_until_looked()
        read = self.times_read("items")
        lsn = self.run_and_place(statements)
        self.wait_until_read_again("items", read)
        # What the rows that nothing changed had then was not decoded.
        self.agent.cli("extract", "items", "--at", f"lsn:{lsn}", expect=3)
        self.check_now("items")
        self.assertEqual(self.extract("items", f"lsn:{first}"), then)
        self.assertEqual(self.times_read("items"), read + 1)

    def test_a_rewriting_alter_is_read_anew(self):
        self.check_unknown_until_read_again(
            "alter table items alter v type int using id * 7; update items set v = 1 where id = 1")
        # Nothing tells of this one but the catalogue: the columns are what they were.
        self.check_unknown_until_read_again("alter table items alter v type int using v + 1")
        self.check_unknown_until_read_again(
            "alter table items drop column v; alter table items add column v int default 4")
        # While no agent looks.
        read = self.times_read("items")
        self.agent.stop()
        self.primary.sql("alter table items alter v type int using v + 1")
        lsn = self.primary.sql("select pg_current_wal_lsn()")
        self.agent.start()
        self.wait_until_read_again("items", read)
        self.agent.cli("extract", "items", "--at", f"lsn:{lsn}", expect=3)
        self.check_now("items")

    def test_what_only_moves_rows_is_not_read_again(self):
        read = self.times_read("items")
        for statement in ("vacuum full items", "alter table items alter v set statistics 10",
                          "truncate items", "alter table items drop column v", "cluster items using items_pkey"):
            self.primary.sql(statement)
            self.primary.sql("insert into items (id) values (1) on conflict (id) do update set id = 1")
            self.wait_until_looked()
        self.check_now("items")
        self.assertEqual(self.times_read("items"), read)

    def wait_until_changes(self, table, changes):
        wait_until(lambda: [each for each in self.journal()["tables"] if each["table"] == f'"public"."{table}"'
                            and each["changes"] == changes], f"{changes} of {table} to be journaled", every=0.2)

    def test_identity_that_changes(self):
        self.primary.sql("alter table items replica identity full; update items set v = 'full' where id = 1")
        self.check_now("items")
        self.primary.sql("create unique index other on items (v, id); alter table items alter v set not null;"
                         "alter table items replica identity using index other;"
                         "update items set v = 'index' where id = 2; delete from items where id = 4")
        self.check_now("items")
        self.primary.sql("alter table items replica identity default; update items set id = 99 where id = 5")
        self.check_now("items")


class ApplicationTest(JournalFaultCase):
    """G07: an application with tables without keys sees no error while the agent comes, runs, and is detached."""

    def setUp(self):
        super().setUp()
        self.primary.sql("create table no_key (a int, b text);"
                         "insert into no_key select g, 'x' from generate_series(1, 50) g;"
                         "create table nothing (a int primary key, b text);"
                         "alter table nothing replica identity nothing;"
                         "insert into nothing select g, 'x' from generate_series(1, 50) g;"
                         "create table odd (a int primary key deferrable, b text); insert into odd values (1, 'x');"
                         "create table keyed (a int primary key, b text); insert into keyed values (1, 'x');"
                         "create table part (a int, b text) partition by range (a);"
                         "create table part_1 partition of part for values from (0) to (100);"
                         "insert into part select g, 'x' from generate_series(1, 50) g")
        self.errors = []
        self.count = 0
        self.stopping = threading.Event()

    def work(self):
        session = self.primary.session()
        try:
            while not self.stopping.is_set():
                self.count += 1
                for table in ("no_key", "nothing", "odd", "keyed", "part"):
                    session.execute(f"update {table} set b = '{self.count}' where a = 1;")
                    session.execute(self.insert(table))
                    session.execute(f"delete from {table} where a > 60 and b = 'new';")
        except Exception as error:  # shown at the end
            self.errors.append(error)
        finally:
            session.close()

    def start_worker(self):
        self.stopping.clear()
        worker = threading.Thread(target=self.work, daemon=True)
        worker.start()
        return worker

    def pause(self, worker):
        self.stopping.set()
        worker.join(60)
        self.assertFalse(worker.is_alive(), "the application hangs")
        self.assertEqual(self.errors, [])

    def insert(self, table):
        if table in ("nothing", "keyed"):
            return f"insert into {table} values ({100 + self.count % 50}, 'new') on conflict do nothing;"
        key = 1000 + self.count if table == "odd" else 50 + self.count % 49
        return f"insert into {table} values ({key}, 'new');"

    def test_G07_tables_without_keys(self):
        worker = self.start_worker()
        self.protect()
        seen = self.count
        self.primary.sql("create table later (a int, b text); insert into later values (1, 'x')")
        wait_until(lambda: self.count > seen + 30, "the application to go on")
        self.primary.sql("update later set b = 'y'")
        check = self.agent.cli("check").stdout
        self.assertIn("REPLICA IDENTITY FULL", check)
        notes = self.agent.json("check")["checks"]
        tables = {each["about"]: each for each in notes if each["about"].startswith("table")}
        self.assertEqual(tables['table "public"."no_key"']["finding"], "note")
        self.assertEqual(tables['table "public"."keyed"']["finding"], "ok")
        # What the note says mends it.
        self.primary.sql(tables['table "public"."no_key"']["mend"])
        wait_until(lambda: [each for each in self.journal()["tables"] if each["table"] == '"public"."no_key"'
                            and each["changes"] == "all"], "the table to be journaled whole", every=0.2)
        seen = self.count
        wait_until(lambda: self.count > seen + 30, "the application to go on")
        self.wait_until_read()
        self.pause(worker)
        self.check_now("no_key")
        worker = self.start_worker()
        self.agent.stop()
        self.agent.cli("detach", "--yes")
        seen = self.count
        wait_until(lambda: self.count > seen + 10, "the application to go on")
        self.pause(worker)
        self.assertEqual(self.primary.sql("select count(*) from pg_publication"), "0")
        self.assertEqual(self.primary.sql("select count(*) from pg_replication_slots"), "0")


class LargeTest(JournalFaultCase):
    settings = {"logical_decoding_work_mem": "'1MB'"}

    def peak_kib(self):
        status = pathlib.Path(f"/proc/{self.agent.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])

    def check_memory(self):
        print(f"\nresident at most: {self.peak_kib() >> 10} MiB")
        if "asan" not in str(os.environ.get("WALVAULT_BUILD", "asan")):
            self.assertLess(self.peak_kib(), MEMORY_KIB)

    def check_copied(self, table, lsn):
        """The server itself compares: the rows out of the journal may be more than fit into memory here."""
        out = self.stage.directory / "extracted"
        self.stage.run(["sh", "-c", 'out=$1; shift; exec "$@" >"$out"', "sh", out, self.stage.walvault,
                        "-c", self.agent.config, "extract", table, "--at", f"lsn:{lsn}"], timeout=3600)
        self.primary.psql("-c", f"create unlogged table copied (like {table})", "-c",
                          f"\\copy copied from '{out}'", timeout=3600)
        out.unlink()
        for one, other in ((table, "copied"), ("copied", table)):
            self.assertEqual(self.primary.sql(f"select count(*) from (table {one} except all table {other}) rows",
                                              timeout=3600), "0")

    def test_G05_a_huge_transaction(self):
        self.primary.sql("create table large (id int primary key, v text)")
        self.protect()
        rows = HUGE_MB * 1000
        third = rows // 3
        self.primary.sql(
            "begin;"
            f"insert into large select g, repeat(md5(g::text), 32) from generate_series(1, {third}) g;"
            "savepoint a;"
            f"insert into large select g, repeat(md5(g::text), 32) from generate_series({third} + 1, {2 * third}) g;"
            "rollback to a;"
            f"insert into large select g, repeat(md5(g::text), 32) from generate_series({2 * third} + 1, {rows}) g;"
            "update large set v = 'short' where id % 7 = 0;"
            "commit;", timeout=3600)
        self.check_memory()
        self.agent.kill9()
        self.agent.start()
        lsn, _ = self.at_now(timeout=90 + HUGE_MB)
        self.check_memory()
        self.check_copied("large", lsn)

    def test_many_small_transactions(self):
        self.primary.sql("create table small (id int primary key, v int); insert into small select g, 0 from "
                         "generate_series(1, 1000) g")
        self.protect()
        start = self.journal()["stored_lsn"]
        script = self.stage.write(self.stage.directory / "small.sql",
                                  "\\set id random(1, 1000)\nupdate small set v = v + 1 where id = :id;\n")
        self.stage.run([PG_BIN / "pgbench", "-n", "-c", "8", "-j", "2", "-t", str(SMALL_TRANSACTIONS // 8),
                        "-f", script, self.primary.conninfo], timeout=3600)
        self.at_now()
        self.check_memory()
        self.agent.kill9()
        self.agent.start()
        self.check_now("small")
        counts = collections.Counter()
        for line in self.agent.cli("follow", "--table", "small", "--from-lsn", start, "--until-idle",
                                   timeout=3600).stdout.splitlines():
            counts[json.loads(line)["type"]] += 1
        self.assertEqual(counts, {"change": SMALL_TRANSACTIONS // 8 * 8, "commit": SMALL_TRANSACTIONS // 8 * 8})

    def test_G04_idle_database_in_a_busy_cluster(self):
        self.primary.sql("create database busy")
        self.primary.sql("create table items (id int primary key)")
        self.protect()
        self.primary.sql("create table filler as select g, repeat('x', 1000) from generate_series(1, 40000) g",
                         database="busy")
        wanted = self.primary.current_lsn()
        wait_until(lambda: lsn_number(self.primary.sql(
            f"select confirmed_flush_lsn from pg_replication_slots where slot_name = '{SLOT}'")) >= wanted,
            "the slot of the idle database to move on")


class FailoverTest(JournalFaultCase):
    def setUp(self):
        super().setUp()
        self.items()
        self.protect()
        data = self.stage.directory / "standby-data"
        self.stage.run([self.primary.programs / "pg_basebackup", "-D", data, "-c", "fast", "-R", "-d",
                        self.primary.conninfo], timeout=300)
        self.standby = Postgres(self.stage, "standby", data, port=self.primary.port + 1)
        self.start_standby()

    def start_standby(self, **settings):
        self.standby.start({"unix_socket_directories": str(self.standby.socket_directory),
                            "port": self.standby.port, **settings})
        lsn = self.primary.current_lsn()
        if not settings:
            wait_until(lambda: lsn_number(self.standby.sql("select pg_last_wal_replay_lsn()")) >= lsn,
                       "the standby to follow")

    def fail_over(self):
        self.agent.stop()
        self.primary.stop("immediate")
        self.standby.sql("select pg_promote()")
        self.agent.write_config(self.agent.config.read_text().replace(self.primary.conninfo, self.standby.conninfo))
        self.agent.server = self.primary = self.standby
        self.agent.start()

    def test_G18_failover_to_a_server_without_the_slot(self):
        before = self.before()
        self.start_standby_again()
        self.fail_over()
        self.check_gap(before)

    def start_standby_again(self):
        lsn = self.primary.current_lsn()
        wait_until(lambda: lsn_number(self.standby.sql("select pg_last_wal_replay_lsn()")) >= lsn,
                   "the standby to follow")

    def test_G18_what_only_the_dead_primary_had_is_no_part_of_the_journal(self):
        before = self.before()
        self.start_standby_again()
        # The standby is left behind by transactions that the journal gets.
        self.standby.stop()
        self.primary.sql("update items set v = 'lost with the primary' where id = 1;"
                         "insert into items select g, repeat('x', 500) from generate_series(1000, 6000) g")
        orphan, _ = self.at_now()
        self.start_standby(primary_conninfo="")
        self.fail_over()
        self.agent.allowed_events |= {"journal.gap", "journal.detached", "journal.snapshot_failed"}
        wait_until(lambda: self.gap_count() >= 1, "a gap to be entered")
        # The new primary writes what has LSNs that the journal had seen already.
        self.primary.sql("update items set v = 'kept' where id = 2")
        self.wait_until_read()
        self.assertEqual(self.extract("items", f"lsn:{before[0]}"), before[1])
        self.primary.sql("update items set v = 'behind' where id = 3")
        self.assertLess(lsn_number(self.check_now("items")), lsn_number(orphan))
        self.assertEqual(self.agent.cli("extract", "items", "--at", f"lsn:{orphan}", expect=None).returncode, 3)


class TakenBackTest(JournalFaultCase):
    def test_a_server_that_was_restored_is_journaled_from_where_it_is(self):
        self.items()
        self.protect()
        before = self.before()
        mistake = self.primary.sql("delete from items returning pg_current_xact_id()").split()[0]
        self.primary.sql("insert into items select g, repeat('x', 500) from generate_series(1000, 6000) g")
        old_end, _ = self.at_now()
        self.agent.stop()
        self.primary.stop()
        copy = self.agent.restore(before=f"xid:{mistake}")
        self.addCleanup(copy.stop, "immediate")
        copy.open()
        copy.sql("select pg_promote(true, 60)")
        self.agent.write_config(self.agent.config.read_text().replace(self.primary.conninfo, copy.conninfo))
        self.agent.server = self.primary = copy
        self.agent.allowed_events |= {"journal.gap", "journal.detached", "journal.snapshot_failed"}
        self.agent.start()
        self.wait_until_gap()
        self.assertEqual(self.extract("items", f"lsn:{before[0]}"), before[1])
        self.primary.sql("update items set v = 'behind' where id = 3")
        now = self.check_now("items")
        self.assertLess(lsn_number(now), lsn_number(old_end))
        self.check_follow(before[0], old_end)
        # It is as well after a start, and where the index was made anew.
        self.agent.stop()
        self.agent.cli("repo", "rebuild-index")
        self.check_table("items", f"lsn:{now}", self.live(self.primary, "items"), "with a new index")
        self.agent.start()
        self.primary.sql("delete from items where id = 4")
        self.check_now("items")
        self.assertEqual(self.gap_count(), 1)

    def check_follow(self, before, old_end):
        lines = [json.loads(line) for line in
                 self.agent.cli("follow", "--from-lsn", before, "--until-idle").stdout.splitlines()]
        self.assertEqual([line["type"] for line in lines], ["gap", "change", "commit"])
        self.assertEqual(lines[1]["kind"], "update")
        self.assertGreaterEqual(lsn_number(lines[0]["left_end_lsn"]), lsn_number(old_end))
        refused = self.agent.cli("follow", "--from-lsn", old_end, "--until-idle", expect=3).stderr
        self.assertIn("two ways", refused)
        again = self.agent.cli("follow", "--from-lsn", lines[0]["from_lsn"], "--until-idle").stdout
        self.assertEqual([json.loads(line) for line in again.splitlines()], lines)


if __name__ == "__main__":
    unittest.main()
