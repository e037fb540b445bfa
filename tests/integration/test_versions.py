"""PostgreSQL 14 to 18: each captured, read, restored and opened again with its own server programs.

15 is Debian's; the others are what tests/install-postgres puts there, and are skipped without it.
"""

import json
import os
import signal
import subprocess
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import BUILD, PG_BIN, Stage, StageCase, free_tcp_port, lsn_number, lsn_text, of_each_major, wait_until
from pretending_server import PretendingServer
from test_wal_decoder import parse_dump

USAGE = 2
SEGMENT_BYTES = 1 << 20
KNOWN = "14, 15, 16, 17 and 18"
SETTINGS = {"max_prepared_transactions": "5", "wal_keep_size": "'1GB'", "wal_compression": "on",
            "max_connections": "33", "max_wal_senders": "12", "autovacuum": "off"}
STAMP = "to_char({} at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"


class Versions:
    """The tests of one major; a class for each is at the end."""

    major = 0

    @classmethod
    def setUpClass(cls):
        cls.stage = Stage(cls.__name__)
        try:
            cls.programs = cls.stage.postgres_programs(cls.major)
            if cls.programs is None:
                raise unittest.SkipTest(f"PostgreSQL {cls.major} is not installed: tests/install-postgres")
            cls.primary = Postgres.create(cls.stage, segment_mb=1, settings=SETTINGS,
                                          programs=cls.programs).start()
            cls.agent = Agent(cls.stage, cls.primary)
        except BaseException:
            cls.stage.show_logs()
            cls.stage.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.stage.close()

    def setUp(self):
        self.session = self.primary.session()
        self.addCleanup(self.session.close)

    def transaction(self, *statements, end="commit"):
        """Runs them as one transaction and returns its xid."""
        lines = self.session.execute("begin;\nselect txid_current();\n"
                                     + "".join(f"{statement};\n" for statement in statements) + f"{end};")
        return int(lines[0])

    def file_of(self, table):
        """The relation file of `table` as our findings name it."""
        return self.primary.sql(
            "select coalesce(nullif(c.reltablespace, 0), d.dattablespace) || '/' || d.oid || '/' ||"
            f" pg_relation_filenode(c.oid) from pg_class c, pg_database d where c.oid = '{table}'::regclass"
            " and d.datname = current_database()")

    def commit_time(self, xid):
        stamp = STAMP.format(f"pg_xact_commit_timestamp('{xid}'::xid)")
        return self.session.execute(f"select {stamp};")[0]

    # --- WAL ----------------------------------------------------------------------------------

    def dump(self, start, end, piece_bytes=65536, server=None, timeline=1):
        done = subprocess.run([BUILD / "tests" / "unit" / "proto" / "wal_dump", str(self.major),
                               (server or self.primary).data / "pg_wal", str(timeline), str(SEGMENT_BYTES),
                               start, end, str(piece_bytes)],
                              capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def write_history(self):
        """Transactions of every kind. Returns {xid: rows as the decoder prints them, or None} of the commits."""
        run = self.transaction
        commits = {}
        commits[run("create table t(a int primary key, b text)")] = None
        commits[run("insert into t select g, repeat('x', 100) from generate_series(1, 1000) g")] = "1000/0/0"
        commits[run("create table m(a int)")] = None
        commits[run("copy m from program 'seq 1 5000'")] = "5000/0/0"
        # After a checkpoint the first change of a page logs it whole: here compressed, then as it is.
        self.session.execute("checkpoint;")
        commits[run("update t set b = 'y' where a <= 100")] = "0/100/0"
        commits[run("copy m from program 'seq 1 30'")] = "30/0/0"
        self.session.execute("checkpoint; set wal_compression = off;")
        commits[run("update t set b = 'z' where a between 101 and 150")] = "0/50/0"
        commits[run("delete from t where a > 990")] = "0/0/10"
        commits[run("copy m from program 'seq 1 20'")] = "20/0/0"
        self.session.execute("set wal_compression = on;")
        commits[run("insert into m values (1)", "savepoint s", "insert into m values (2)", "release s",
                    "savepoint s2", "insert into m values (3)", "rollback to s2")] = "2/0/0"
        run("insert into m values (4)", end="rollback")
        return commits

    def write_prepared(self):
        """Two-phase transactions, one of which drops a table: (committed, rolled back, files dropped)."""
        self.session.execute("create table d3(a int);")
        file = self.file_of("d3")
        committed = self.transaction("drop table d3", "insert into t values (5001, 'p')",
                                     end="prepare transaction 'one'")
        rolled_back = self.transaction("create table pp(a int)", end="prepare transaction 'two'")
        self.session.execute("commit prepared 'one'; rollback prepared 'two';")
        return committed, rolled_back, file

    def test_wal_is_read_as_this_server_writes_it(self):
        start = self.primary.sql("select pg_switch_wal() is null; select pg_current_wal_insert_lsn()").split()[-1]
        start = lsn_text(lsn_number(start) // SEGMENT_BYTES * SEGMENT_BYTES)
        commits = self.write_history()
        self.session.execute("create table d1(a int); create table d2(a text, b text);")
        dropped_files = {self.file_of("d1"), self.file_of("d2")}
        dropped = self.transaction("drop table d1, d2")
        emptied_file = self.file_of("m")
        emptied = self.transaction("truncate m", "insert into m values (9)")
        point = self.primary.sql("select pg_create_restore_point('before the fall')")
        committed, rolled_back, prepared_file = self.write_prepared()
        self.session.execute("select pg_logical_emit_message(true, 'x', repeat('z', 2000000)) is null;"
                             "vacuum full t; checkpoint;")
        checkpoint = self.primary.rows("select checkpoint_lsn, redo_lsn, timeline_id,"
                                       f" {STAMP.format('checkpoint_time')} from pg_control_checkpoint()")[0]
        self.session.execute("select pg_switch_wal(); insert into m values (10);")
        end = self.primary.sql("select pg_current_wal_flush_lsn()")

        whole = self.dump(start, end)
        self.assertEqual(whole, self.dump(start, end, 1013), "cut differently")
        findings = parse_dump(whole)
        of_kind = lambda kind: [fields for each, fields in findings if each == kind]
        by_xid = {int(fields["xid"]): fields for fields in of_kind("commit")}
        for xid, rows in commits.items():
            self.assertEqual(by_xid[xid]["at"], self.commit_time(xid))
            if rows is not None:
                self.assertEqual(by_xid[xid]["rows"], rows)
        every = self.primary.rows("select xid, to_char(timestamp at time zone 'UTC',"
                                  " 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from (select xid,"
                                  " pg_xact_commit_timestamp(xid::text::xid) as timestamp from generate_series("
                                  f"{min(commits)}, {max(by_xid)}) xid) each where timestamp is not null")
        # A subtransaction has its parent's time, and no record of its own.
        with_records = {(int(xid), at) for xid, at in every if int(xid) in by_xid}
        self.assertEqual({(xid, by_xid[xid]["at"]) for xid in by_xid if xid >= min(commits)}, with_records)
        self.assertEqual(set(by_xid[dropped]["dropped"].split(",")) & dropped_files, dropped_files)
        self.assertEqual(by_xid[emptied]["dropped"], emptied_file)
        self.assertEqual(by_xid[emptied]["created"], self.file_of("m"))
        self.assertEqual(by_xid[emptied]["rows"], "1/0/0")
        self.assertIn(prepared_file, by_xid[committed]["dropped"].split(","))
        self.assertIn(str(rolled_back), [fields["xid"] for fields in of_kind("abort")])
        self.assertEqual({int(fields["xid"]) for fields in of_kind("prepare")}, {committed, rolled_back})
        self.assertEqual([(fields["name"], fields["end"]) for fields in of_kind("restore_point")],
                         [("before the fall", self.aligned_end(point, of_kind("restore_point")[0]["end"]))])
        last = of_kind("checkpoint")[-1]
        self.assertEqual((last["start"], last["redo"], "1", last["at"]), checkpoint)
        self.assertGreaterEqual(len(of_kind("segment_switch")), 1)

    def aligned_end(self, said, found):
        """The server gives the end of the record with its padding."""
        self.assertEqual(-(-lsn_number(found) // 8) * 8, lsn_number(said))
        return found

    def test_pg_control_has_the_version_of_this_major(self):
        version = {14: "1300", 15: "1300", 16: "1300", 17: "1700", 18: "1800"}[self.major]
        self.assertEqual(self.primary.sql("select pg_control_version from pg_control_system()"), version)

    # --- capture and restore ------------------------------------------------------------------

    def protect(self):
        place = self.stage.make_directory("tablespaces", "fast")
        self.primary.sql(f"create tablespace fast location '{place}'")
        self.primary.sql("create table numbered(n int) tablespace fast; create table doomed(n int);"
                         "create table emptied(n int); insert into doomed select generate_series(1, 500);"
                         "insert into emptied select generate_series(1, 500)")
        self.agent.protect()
        self.place = place

    def write_rows(self, numbers):
        """One transaction for each number: {number: (xid, commit time, LSN after it)}."""
        noted = {}
        for number in numbers:
            xid = self.transaction(f"insert into numbered values ({number})")
            lsn = self.session.execute("select pg_current_wal_flush_lsn();")[0]
            noted[number] = (xid, self.commit_time(xid), lsn)
        return noted

    def restored_rows(self, restored):
        rows = [int(row[0]) for row in restored.rows("select n from numbered order by n")]
        # Whatever is there was read from the restored tablespace, not from the original's.
        location = restored.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'fast'")
        self.assertNotEqual(location, str(self.place))
        return rows

    def restore(self, name, **target):
        moved = self.stage.make_directory("tablespaces") / name
        return self.agent.restore(extra=["--tablespace", f"{self.place}={moved}"], **target)

    def check_log(self, noted, dropped, emptied):
        events = self.agent.json("log", "--since", "1h", "--kind", "commit,drop,truncate,point", "-L",
                                 "100000")["events"]
        of_kind = lambda kind: [event for event in events if event["kind"] == kind]
        commits = {event["xid"]: event["at"] for event in of_kind("commit")}
        for xid, at, _ in noted.values():
            self.assertEqual(commits[xid], at)
        self.assertEqual([event["xid"] for event in of_kind("drop") if event["xid"] >= dropped], [dropped])
        self.assertEqual([event["xid"] for event in of_kind("truncate") if event["xid"] >= dropped], [emptied])
        self.assertIn("release", [event["name"] for event in of_kind("point")])

    def test_every_commit_can_be_gone_back_to(self):
        self.protect()
        noted = self.write_rows(range(1, 6))
        self.agent.kill9()
        noted.update(self.write_rows(range(6, 11)))
        self.agent.start()
        noted.update(self.write_rows(range(11, 16)))
        self.agent.cli("point", "release")
        dropped = self.transaction("drop table doomed")
        emptied = self.transaction("truncate emptied", "insert into emptied values (1)")
        noted.update(self.write_rows(range(16, 19)))
        self.agent.wait_until_flushed()
        wait_until(lambda: self.agent.restart_lsn() >= lsn_number(noted[18][2]), "the slot to move on")
        self.check_log(noted, dropped, emptied)
        self.assertEqual(self.agent.json("info", "--gaps")["gaps"], [])

        with self.subTest(target="before an xid"):
            restored = self.restore("before-xid", before=f"xid:{noted[13][0]}")
            self.check_manifest(restored)
            restored.open()
            self.assertEqual(self.restored_rows(restored), list(range(1, 13)))
            self.assertEqual(restored.sql("select count(*) from doomed, emptied"), "250000")
            self.check_settings(restored)
            restored.discard()
        with self.subTest(target="a time"):
            restored = self.restore("to-time", to=noted[7][1]).open()
            self.assertEqual(self.restored_rows(restored), list(range(1, 8)))
            self.check_promotion(restored)
            restored.discard()
        with self.subTest(target="latest, started by walvault"):
            self.check_started(noted)
        self.agent.stop()
        self.agent.check_log()

    def check_promotion(self, restored):
        """What this major writes when a server becomes a primary is read, too."""
        self.assertEqual(restored.sql("select pg_promote()"), "t")
        restored.sql("insert into numbered values (99)")
        end = restored.sql("select pg_current_wal_flush_lsn()")
        first = min(path.name for path in (restored.data / "pg_wal").glob("00000002" + "?" * 16))
        start = int(first[8:16], 16) * ((1 << 32) // SEGMENT_BYTES) + int(first[16:], 16)
        findings = parse_dump(self.dump(lsn_text(start * SEGMENT_BYTES), end, server=restored, timeline=2))
        ends = [fields for kind, fields in findings if kind == "end_of_recovery"]
        self.assertEqual([fields["timeline"] for fields in ends], ["2"])
        switch = restored.sql("select pg_read_file('pg_wal/00000002.history')").split("\t")[1]
        self.assertGreaterEqual(lsn_number(ends[0]["start"]), lsn_number(switch))

    def check_manifest(self, restored):
        manifest = json.loads((restored.data / "backup_manifest").read_text())
        self.assertEqual(manifest["PostgreSQL-Backup-Manifest-Version"], 2 if self.major >= 17 else 1)
        system = self.primary.sql("select system_identifier from pg_control_system()")
        self.assertEqual(str(manifest.get("System-Identifier", system)), system)
        self.assertEqual("System-Identifier" in manifest, self.major >= 17)

    def check_settings(self, restored):
        """The minima that pg_control asks for, and what keeps a copy from acting, as this major knows it."""
        wrong = restored.rows("select name, error from pg_file_settings where error is not null"
                              " and error not like '%could not be applied%'")
        self.assertEqual(wrong, [])
        written = (restored.data / "postgresql.auto.conf").read_text()
        self.assertIn("max_connections = '33'", written)
        self.assertIn("max_wal_senders = '12'", written)
        self.assertEqual("archive_library" in written, self.major >= 15)
        self.assertEqual("sync_replication_slots" in written, self.major >= 17)
        self.assertEqual(restored.sql("show archive_mode"), "off")

    def check_started(self, noted):
        pgdata = self.stage.make_directory("pg") / "started"
        arguments = ["restore", "--to", "latest", "--pgdata", pgdata, "--tablespace",
                     f"{self.place}={self.stage.directory / 'tablespaces' / 'started'}",
                     f"--start={free_tcp_port()}", "--pg-bin"]
        other = 14 if self.major == 15 else 15
        wrong = self.stage.postgres_programs(other)
        if wrong is not None:
            error = self.agent.error(*arguments, wrong, expect=USAGE)
            self.assertIn(f"PostgreSQL {other}, the base needs {self.major}", error["message"])
            self.assertTrue(error["hint"])
            self.assertFalse(pgdata.exists(), "something was written though the server does not fit")
        done = self.agent.json(*arguments, self.programs)
        self.addCleanup(self.end_started, done["pid"])
        self.assertTrue(done["confirmed"], done)
        answer = self.stage.run([PG_BIN / "psql", "-XAtq", "-h", done["socket_directory"], "-p", done["port"],
                                 "-U", "postgres", "-d", "postgres", "-c",
                                 "select current_setting('server_version_num')::int / 10000,"
                                 " array_agg(n order by n) from numbered"]).stdout.strip()
        self.assertEqual(answer, f"{self.major}|{{{','.join(map(str, sorted(noted)))}}}")

    @staticmethod
    def end_started(pid):
        """It belongs to nobody here: ended by its number, and waited for."""
        def gone():
            try:
                os.kill(pid, signal.SIGQUIT)
            except ProcessLookupError:
                return True
            return False
        wait_until(gone, f"the restored server {pid} to end")


of_each_major(globals(), Versions, "Version{}Test")


class UnknownMajorTest(StageCase):
    """A server that says it is of another major is told so, asked nothing, and never guessed at."""

    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage).start()
        self.agent = Agent(self.stage, self.primary).init()
        self.primary.stop()

    def test_majors_before_and_after_the_known_ones_are_refused(self):
        for version, major, hint in (("13.22", 13, "upgrade the server"), ("9.6.24", 9, "upgrade the server"),
                                     ("19beta1", 19, "use a walvault that knows PostgreSQL 19")):
            with self.subTest(version=version):
                with PretendingServer(self.primary.socket_directory, self.primary.port, version) as server:
                    error = self.agent.error("init", "--conninfo", self.primary.conninfo, expect=USAGE)
                    self.check_error(error["message"], error["hint"], major, hint)
                    self.agent.start(wait=False)
                    self.assertEqual(self.agent.process.wait(60), USAGE)
                    said = self.agent.log.read_text()
                    self.check_error(said, said, major, hint)
                    self.assertEqual(server.statements, [], "it was asked something")

    def check_error(self, message, hint, major, wanted_hint):
        self.assertIn(f"the server is PostgreSQL {major}; this walvault knows {KNOWN}", message)
        self.assertIn(wanted_hint, hint)


if __name__ == "__main__":
    unittest.main()
