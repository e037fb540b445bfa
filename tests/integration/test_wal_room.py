"""The PostgreSQL side alone: what wal_client receives from a real server is what the server has."""

import json
import pathlib
import shutil
import subprocess
import time
import unittest

from cluster import Postgres
from harness import BUILD, PG_BIN, StageCase, lsn_number, wait_until

SEGMENT_BYTES = 16 << 20
WAL_SETTINGS = {"wal_keep_size": "1GB", "max_wal_size": "2GB"}


class Client:
    """A running wal_client; its lines are read one by one as they come."""

    def __init__(self, case, verb, server, **arguments):
        arguments.setdefault("conninfo", server.conninfo)
        command = [case.program, verb] + [f"{key}={value}" for key, value in arguments.items()]
        self.process = case.stage.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines = []
        case.addCleanup(self._close)

    def _close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def wait_for(self, event):
        """The next line of that kind; fails when the client ends before."""
        while True:
            text = self.process.stdout.readline()
            if not text:
                raise AssertionError(f"no {event} in {self.lines}; {self.process.stderr.read()}")
            line = json.loads(text)
            self.lines.append(line)
            if line["event"] == event:
                return line

    def finish(self, exit_code):
        out, err = self.process.communicate(timeout=120)
        self.lines += [json.loads(text) for text in out.splitlines()]
        if self.process.returncode != exit_code:
            raise AssertionError(f"wal_client ended with {self.process.returncode}: {self.lines} {err}")
        return {line["event"]: line for line in self.lines}


class WalRoomCase(StageCase):
    def setUp(self):
        super().setUp()
        self.program = self.stage._reachable_program(BUILD / "tests" / "support" / "wal_client")

    def server(self, **settings):
        return Postgres.create(self.stage, settings={**WAL_SETTINGS, **settings}).start()

    def client(self, verb, server, **arguments):
        return Client(self, verb, server, **arguments)

    def outcome(self, verb, server, exit_code=0, **arguments):
        return self.client(verb, server, **arguments).finish(exit_code)

    def error_of(self, verb, server, **arguments):
        return self.outcome(verb, server, exit_code=1, **arguments)["error"]


class Streaming(WalRoomCase):
    def assert_is_wal_of(self, server, path, start, received):
        got = pathlib.Path(path).read_bytes()
        self.assertEqual(len(got), received - start)
        for at in range(start, received, SEGMENT_BYTES):
            number = at // SEGMENT_BYTES
            name = f"00000001{number >> 8:08X}{number & 0xFF:08X}"
            here = min(SEGMENT_BYTES, received - at)
            self.assertTrue(server.wal_file(name).read_bytes()[:here] == got[at - start:at - start + here],
                            f"{name} differs from what was received")

    def test_what_is_received_under_load_is_byte_for_byte_the_servers_wal(self):
        server = self.server()
        out = self.stage.directory / "received"
        client = self.client("stream", server, slot="s", out=out)
        attached = client.wait_for("attached")
        self.assertFalse(attached["slot_existed"])
        self.assertEqual(attached["segment_bytes"], SEGMENT_BYTES)
        start = lsn_number(client.wait_for("started")["start"])
        self.stage.run([PG_BIN / "pgbench", "-i", "-q", "-s", "3", "-h", server.socket_directory,
                        "-p", server.port, "-U", "postgres", "postgres"])
        self.stage.run([PG_BIN / "pgbench", "-c", "4", "-t", "500", "-h", server.socket_directory,
                        "-p", server.port, "-U", "postgres", "postgres"])
        server.stop("fast")
        lines = client.finish(0)
        self.assertNotIn("next_timeline", lines["ended"])
        self.assert_is_wal_of(server, out, start, lsn_number(lines["summary"]["received"]))
        # A clean stop waits until the receiver has the shutdown checkpoint.
        control = self.stage.run([PG_BIN / "pg_controldata", server.data]).stdout
        checkpoint = next(line.split()[-1] for line in control.splitlines()
                          if line.startswith("Latest checkpoint location"))
        self.assertGreater(lsn_number(lines["summary"]["received"]), lsn_number(checkpoint))

    def test_what_is_acknowledged_moves_the_slot_and_a_clean_stop_frees_it(self):
        server = self.server()
        server.sql("create table t as select generate_series(1, 50000)")
        until = server.sql("select pg_current_wal_flush_lsn()")
        summary = self.outcome("stream", server, slot="s", until=until)["summary"]
        row = wait_until(lambda: server.rows("select restart_lsn from pg_replication_slots where not active"),
                         "the slot to be free")
        self.assertEqual(row, [(summary["received"],)])
        facts = self.outcome("facts", server, slot="s", restore_point="p",
                             file=server.sql("select '1663/' || d.oid || '/' || c.relfilenode from "
                                             "pg_database d, pg_class c where datname = "
                                             "current_database() and relname = 't'"))
        self.assertEqual(facts["slot"]["restart_lsn"], summary["received"])
        self.assertEqual(list(facts["names"]["names"].values()), ["public.t"])
        self.assertTrue(facts["configuration"]["data_checksums"])
        self.assertLess(abs(facts["configuration"]["server_at_us"] / 1e6 - time.time()), 600)
        self.assertGreater(facts["configuration"]["hba_bytes"], 0)
        self.assertGreaterEqual(lsn_number(facts["restore_point"]["lsn"]), lsn_number(until))

    def test_an_idle_stream_outlives_the_servers_time_out(self):
        server = self.server(wal_sender_timeout="3s")
        client = self.client("stream", server, slot="s", ask_ms=60000)
        self.assertEqual(client.wait_for("attached")["wal_sender_timeout_ms"], 3000)
        client.wait_for("started")
        wait_until(lambda: server.rows("select 1 from pg_stat_replication where "
                                       "reply_time - backend_start > interval '6 s'"),
                   "an answer after twice the time-out")
        self.assertEqual(server.sql("select count(distinct pid) from pg_stat_replication"), "1")
        self.assertIsNone(client.process.poll())

    def test_a_silent_server_is_asked_for_its_position(self):
        server = self.server()
        client = self.client("stream", server, slot="s", ask_ms=100)
        for _ in range(5):
            position = client.wait_for("position")
        self.assertGreaterEqual(lsn_number(position["server_end"]), lsn_number(position["received"]))

    def test_an_immediate_stop_is_a_lost_connection_and_no_end_of_stream(self):
        server = self.server()
        client = self.client("stream", server, slot="s", ask_ms=100)
        client.wait_for("position")
        server.stop("immediate")
        lines = client.finish(1)
        self.assertEqual(lines["error"]["code"], "unavailable")
        self.assertNotIn("ended", lines)


class Refusals(WalRoomCase):
    def test_each_reason_not_to_stream_has_its_own_code(self):
        server = self.server(wal_keep_size="0", max_wal_size="32MB", min_wal_size="32MB")
        with self.subTest("another receiver has the slot"):
            first = self.client("stream", server, slot="taken", ask_ms=100)
            first.wait_for("position")
            error = self.error_of("stream", server, slot="taken")
            self.assertEqual(error["code"], "busy")
            first.process.kill()
            wait_until(lambda: server.sql("select active from pg_replication_slots") == "f", "a free slot")
        with self.subTest("the role may not replicate"):
            server.sql("create role plain login")
            error = self.error_of("stream", server, slot="s",
                                  conninfo=server.conninfo.replace("user=postgres", "user=plain"))
            self.assertEqual(error["code"], "refused")
            self.assertIn("REPLICATION", error["hint"])
        with self.subTest("there is no such role"):
            error = self.error_of("stream", server, slot="s", conninfo=server.conninfo.replace(
                "user=postgres", "user=nobody password=hunter2"))
            self.assertEqual(error["code"], "refused")
            self.assertNotIn("hunter2", json.dumps(error))
        with self.subTest("the server is behind what is stored"):
            error = self.error_of("stream", server, slot="taken", start="7F/0")
            self.assertEqual(error["code"], "unavailable")
            self.assertIn("7F/0", error["message"])
        with self.subTest("the timeline is not in the server's history"):
            error = self.error_of("stream", server, slot="taken", start="0/1000000", timeline=7)
            self.assertEqual(error["code"], "forked")
        with self.subTest("the server has removed that WAL"):
            server.sql("select pg_drop_replication_slot('taken')")
            first_segment = server.wal_file("000000010000000000000001")

            def removed():
                server.psql("-c", "create table if not exists w(x int)", "-c", "insert into w values (1)",
                            "-c", "select pg_switch_wal()", "-c", "checkpoint")
                return not first_segment.exists()
            wait_until(removed, "the first segment to be removed")
            error = self.error_of("stream", server, slot="late", start="0/1000000")
            self.assertEqual(error["code"], "gap")
        with self.subTest("nobody is there"):
            server.stop("fast")
            error = self.error_of("stream", server, slot="s")
            self.assertEqual(error["code"], "unavailable")


class Timelines(WalRoomCase):
    def test_a_promotion_ends_the_stream_with_the_next_timeline(self):
        primary = self.server()
        data = self.stage.directory / "pg" / "standby"
        self.stage.run([PG_BIN / "pg_basebackup", "-D", data, "-R", "-c", "fast", "-d", primary.conninfo])
        standby = Postgres(self.stage, "standby", data)
        standby.configure({"unix_socket_directories": f"'{standby.socket_directory}'"})
        standby.start()
        client = self.client("stream", standby, slot="s", ask_ms=100)
        client.wait_for("position")
        primary.stop("fast")
        standby.sql("select pg_promote()")
        ended = client.wait_for("ended")
        self.assertEqual(ended["next_timeline"], 2)
        client.finish(0)
        content = self.outcome("history", standby, slot="s", timeline=2)["history"]["content"]
        self.assertTrue(content.startswith(f"1\t{ended['next_start']}\t"), content)
        # Asked for timeline 1 from exactly where it ended, the server answers without a stream.
        again = self.outcome("stream", standby, slot="s", timeline=1, start=ended["next_start"], exact=1)
        self.assertEqual(again["ended"]["next_timeline"], 2)
        self.assertEqual(self.error_of("history", standby, slot="s", timeline=9)["code"], "not_found")


class BaseBackups(WalRoomCase):
    def test_a_backup_with_a_tablespace_starts_as_a_server(self):
        server = self.server()
        place = self.stage.make_directory("a \"place\" apart")
        server.sql(f"create tablespace apart location '{place}'")
        server.sql("create table far tablespace apart as select generate_series(1, 10000) as x")
        out = self.stage.directory / "pg" / "restored"
        lines = self.outcome("backup", server, out=out)
        complete = lines["backup_complete"]
        self.assertEqual(complete["files"], complete["manifest_files"])
        (tablespace,) = lines["backup_start"]["tablespaces"]
        self.assertEqual(tablespace["location"], str(place))
        wal = [path for path in (server.data / "pg_wal").iterdir() if path.is_file()]
        server.stop("fast")
        moved = self.stage.make_directory("moved")
        for path in (out / "pg_tblspc" / str(tablespace["oid"])).iterdir():
            shutil.move(path, moved)
        shutil.rmtree(out / "pg_tblspc" / str(tablespace["oid"]))
        (out / "tablespace_map").write_text(f"{tablespace['oid']} {moved}\n")
        for path in wal:
            shutil.copy2(path, out / "pg_wal")
        subprocess.run(["chown", "-R", "postgres:", out], check=False)
        out.chmod(0o700)
        restored = Postgres(self.stage, "restored", out)
        restored.configure({"unix_socket_directories": f"'{restored.socket_directory}'"})
        restored.start()
        self.assertEqual(restored.sql("select sum(x), count(*) from far"), "50005000\t10000")
        restored.stop("fast")
        self.stage.run([PG_BIN / "pg_checksums", "--check", "-D", out])

    def test_a_page_that_fails_its_checksum_fails_the_backup_after_all_files_came(self):
        server = self.server()
        server.sql("create table t as select generate_series(1, 1000)")
        path = server.data / server.sql("select pg_relation_filepath('t')")
        server.stop("fast")
        with open(path, "r+b") as file:
            file.seek(5000)
            file.write(b"\x55\xaa")
        server.start()
        lines = self.outcome("backup", server, exit_code=1, out="")
        self.assertEqual(lines["error"]["code"], "corrupt")
        self.assertIn(path.name, lines["error"]["message"])
        self.assertNotIn("backup_complete", lines)

    def test_a_server_that_dies_in_a_backup_leaves_no_backup(self):
        server = self.server()
        client = self.client("backup", server, out="", max_rate_bytes=64 << 10)
        client.wait_for("backup_start")
        server.stop("immediate")
        lines = client.finish(1)
        self.assertEqual(lines["error"]["code"], "unavailable")
        self.assertNotIn("backup_complete", lines)


if __name__ == "__main__":
    unittest.main()
