"""The agent's life: ready, reload, drain, restarts of the server, the slot, and the verbs that ask it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
import unittest

from agent_process import Agent, checksum
from cluster import Postgres
from harness import StageCase, lsn_number, lsn_text, wait_until
from oracle import make_table

# What the loss of a server may be told by: our own line, and the server's last words.
DISCONNECTS = {"stream.lost", "server.notice"}


class LifecycleTest(StageCase):
    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage).start()
        self.agent = Agent(self.stage, self.primary).protect()

    def slots(self):
        return self.primary.rows("select slot_name, active from pg_replication_slots order by 1")

    def test_sigterm_drains_and_closes(self):
        make_table(self.primary, rows=20000)
        # Nothing is waited for in between: all that was received must be flushed when it ends.
        lsn = lsn_number(self.agent.status()["received_lsn"])
        self.assertEqual(self.agent.stop(), 0)
        self.agent.check_log()
        self.assertGreaterEqual(self.agent.restart_lsn(), lsn)
        self.agent.cli("resolve", "--before", "lsn:" + lsn_text(lsn))
        self.assertFalse(self.agent.socket.exists(), "the control socket was left behind")

    def test_an_agent_starts_again_where_it_ended(self):
        make_table(self.primary, rows=5000)
        self.agent.wait_until_flushed()
        self.agent.stop()
        make_table(self.primary, "meanwhile", 5000)
        self.agent.start()
        self.agent.wait_until_flushed()
        self.assertEqual(self.agent.backup_count(), 1, "it took another base backup without need")
        self.assertEqual(self.agent.json("info", "--gaps")["gaps"], [])
        self.agent.stop()
        self.agent.check_log()

    def test_once_catches_up_and_ends(self):
        self.agent.stop()
        make_table(self.primary, rows=20000)
        lsn = self.primary.current_lsn()
        self.agent.cli("run", "--once")
        self.assertGreaterEqual(self.agent.restart_lsn(), lsn)

    def test_a_clean_restart_of_the_server(self):
        self.restart_server("fast")

    def test_an_immediate_restart_of_the_server(self):
        self.restart_server("immediate")

    def restart_server(self, mode):
        self.agent.allowed_events |= DISCONNECTS
        make_table(self.primary, rows=20000)
        self.primary.stop(mode)
        self.primary.start()
        make_table(self.primary, "after", 5000)
        self.agent.wait_until_flushed()
        self.assertEqual(self.agent.json("info", "--gaps")["gaps"], [])
        before = checksum(self.primary, "after", "id")
        restored = self.agent.restore(to="latest").open()
        self.assertEqual(checksum(restored, "after", "id"), before)
        self.assertEqual(checksum(restored, "items", "id"), checksum(self.primary, "items", "id"))
        restored.discard()
        self.agent.stop()
        self.agent.check_log()

    def test_the_server_stops_fast_with_the_agent_attached(self):
        make_table(self.primary, rows=50000)
        began = time.monotonic()
        self.primary.stop("fast", timeout=30)
        self.assertLess(time.monotonic() - began, 10)

    def test_a_planned_stop_loses_nothing(self):
        make_table(self.primary, rows=50000)
        self.primary.stop("fast")
        control = self.stage.run(["pg_controldata", "-D", self.primary.data]).stdout
        checkpoint = next(line.split()[-1] for line in control.splitlines()
                          if line.startswith("Latest checkpoint location"))
        wait_until(lambda: self.agent.flushed_lsn() > lsn_number(checkpoint),
                   "the shutdown checkpoint to be flushed")

    def test_the_server_stops_fast_while_the_agent_is_gone(self):
        self.agent.kill9()
        began = time.monotonic()
        self.primary.stop("fast", timeout=30)
        self.assertLess(time.monotonic() - began, 10)

    def test_detach_drops_the_slot_and_keeps_the_repository(self):
        self.assertEqual([name for name, _ in self.slots()], ["walvault"])
        self.agent.stop()
        self.agent.cli("detach", "--yes")
        self.assertEqual(self.slots(), [])
        self.agent.cli("resolve", "latest")

    def test_detach_off_a_terminal_wants_a_yes(self):
        self.agent.stop()
        error = self.agent.error("detach", expect=4)
        self.assertIn("--yes", error["hint"])
        self.assertEqual([name for name, _ in self.slots()], ["walvault"])

    def test_detach_asks_on_a_terminal_and_takes_no_for_an_answer(self):
        self.agent.stop()
        command = f"{self.stage.walvault} -c {self.agent.config} detach"
        for answer, left in (("n", ["walvault"]), ("y", [])):
            done = self.stage.run(["script", "-qec", command, "/dev/null"], check=False, stdin=None,
                                  input=answer + "\n")
            self.assertIn("Drop the replication slot", done.stdout)
            self.assertEqual([name for name, _ in self.slots()], left)

    def test_detach_keeps_the_slot_when_asked(self):
        self.agent.stop()
        self.agent.cli("detach", "--keep-slot")
        self.assertEqual([name for name, _ in self.slots()], ["walvault"])

    def test_status_names_what_a_crash_would_lose(self):
        make_table(self.primary)
        lsn = self.agent.wait_until_flushed()
        done = self.agent.cli("status")
        self.assertIn("main", done.stdout)
        status = self.agent.json("status")
        self.assertIn(lsn_text(lsn)[:4], json.dumps(status))

    def test_status_without_an_agent(self):
        lsn = self.agent.wait_until_flushed()
        self.agent.stop()
        done = self.agent.cli("status", expect=1)
        self.assertIn("not connected: no agent runs for this repository; start it with `walvault run`",
                      done.stdout)
        status = self.agent.json("status", expect=1)
        self.assertIs(status["connected"], False)
        self.assertEqual(status["backup_count"], 1)
        self.assertGreaterEqual(lsn_number(status["flushed_lsn"]), lsn)

    def test_status_goes_on_watching_when_the_agent_goes_and_comes_back(self):
        watch = self.stage.start([self.stage.walvault, "-c", self.agent.config, "-o", "jsonl", "status",
                                  "--watch=1"], stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            self.assertIs(json.loads(watch.stdout.readline())["connected"], True)
        self.agent.kill9()
        self.read_until(watch, connected=False)
        self.agent.start()
        self.read_until(watch, connected=True)
        self.assertIsNone(watch.poll())
        # Nobody reads any more: it ends by itself.
        watch.stdout.close()
        self.assertNotEqual(watch.wait(60), 0)

    def read_until(self, watch, connected):
        for line in watch.stdout:
            if json.loads(line)["connected"] is connected:
                return
        raise AssertionError(f"status --watch ended with {watch.wait(60)}")

    def test_a_named_point_can_be_restored(self):
        make_table(self.primary)
        self.agent.cli("point", "before_release")
        self.primary.sql("truncate items")
        self.agent.wait_until_flushed()
        listed = self.agent.json("info", "--points")["points"]
        self.assertIn("before_release", [point["name"] for point in listed])
        restored = self.agent.restore(to="name:before_release").open()
        self.assertEqual(restored.sql("select count(*) from items"), "1000")
        restored.discard()

    def test_log_shows_what_happened(self):
        make_table(self.primary, "doomed", 3000)
        make_table(self.primary, "emptied", 3000)
        self.primary.sql("delete from doomed")
        self.primary.sql("truncate emptied")
        self.primary.sql("drop table doomed")
        self.agent.wait_until_flushed()
        events = self.agent.json("log", "--since", "1h", "--kind", "drop,truncate,bulk")["events"]
        self.assertLessEqual({"drop", "truncate", "bulk"}, {event["kind"] for event in events})
        bulk = [event for event in events if event["kind"] == "bulk" and event["deleted_rows"] == 3000]
        self.assertEqual(len(bulk), 1, events)

    def test_verify_reads_everything_back(self):
        make_table(self.primary, rows=20000)
        self.agent.wait_until_flushed()
        for level in ("chunks", "wal"):
            with self.subTest(level=level):
                self.agent.cli("verify", "--level", level)

    def test_a_backup_on_request(self):
        self.agent.cli("backup", "--fast", "--label", "on-request")
        self.assertEqual(len(self.agent.backups()), 2)
        self.assertEqual(self.agent.backups()[-1]["label"], "on-request")

    def test_a_second_base_backup_stores_only_what_is_new(self):
        first = self.agent.backups()[0]
        self.agent.cli("backup", "--fast")
        second = self.agent.backups()[-1]
        self.assertGreater(first["stored_bytes"], 1 << 19)
        self.assertLess(second["new_bytes"], first["bytes"] // 2)

    def start_slow_backup(self):
        """`walvault backup`, certainly still running when something is done to it."""
        self.agent.write_config(self.agent.config.read_text().replace(
            'checkpoint = "fast"', 'checkpoint = "fast"\nmax_rate = "32KiB/s"'))
        self.agent.stop()
        self.agent.start()
        backup = self.stage.start([self.stage.walvault, "-c", self.agent.config, "backup", "--fast"],
                                  log=self.stage.directory / "backup.log")
        wait_until(lambda: self.primary.sql("select count(*) from pg_stat_progress_basebackup"
                                            " where phase = 'streaming database files'") == "1",
                   "the backup to stream")
        return backup

    def test_sigterm_gives_up_a_base_backup(self):
        # The server may have removed the segment that a new attachment would compare first.
        self.agent.allowed_events |= {"stream.lost"}
        backup = self.start_slow_backup()
        # At this rate it would go on for many minutes.
        self.assertEqual(self.agent.stop(), 0)
        self.agent.check_log()
        self.assertEqual(len(self.agent.events("backup.cancelled")), 1)
        self.assertNotEqual(backup.wait(60), 0)
        self.assertEqual(len(self.agent.backups()), 1)
        self.agent.start()
        make_table(self.primary)
        self.agent.wait_until_flushed()
        self.assertEqual(self.agent.backup_count(), 1)

    def test_sigterm_does_not_wait_for_a_server_that_says_nothing(self):
        self.agent.stop()
        conninfo = self.primary.conninfo
        self.agent.write_config(self.agent.config.read_text().replace(conninfo,
                                                                      conninfo + " connect_timeout=300"))
        self.primary.process.send_signal(signal.SIGSTOP)
        try:
            self.agent.start(wait=False)
            wait_until(self.answers, "the agent to answer while it waits for the server")
            self.assertEqual(self.agent.stop(), 0)
        finally:
            self.primary.process.send_signal(signal.SIGCONT)

    def answers(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.agent.http("GET", "/livez")[0] == 200
        return False

    def test_a_backup_cut_off_by_the_server_leaves_nothing_that_looks_complete(self):
        self.agent.allowed_events |= DISCONNECTS | {"backup.failed"}
        backup = self.start_slow_backup()
        self.primary.stop("immediate")
        self.primary.start()
        self.assertNotEqual(backup.wait(60), 0)
        self.assertEqual(len(self.agent.backups()), 1)
        make_table(self.primary)
        self.agent.wait_until_flushed()

    def test_the_agent_waits_for_a_server_that_is_not_there_yet(self):
        self.agent.allowed_events |= DISCONNECTS
        self.agent.stop()
        self.primary.stop()
        self.agent.start(wait=False)
        wait_until(lambda: self.agent.log.exists() and self.agent.unexpected_lines() == []
                   and self.agent.process.poll() is None and self.tried_to_connect(), "an attempt to connect")
        self.primary.start()
        self.agent.wait_ready()
        make_table(self.primary)
        self.agent.wait_until_flushed()

    def test_status_while_the_server_is_down_is_what_the_repository_holds(self):
        make_table(self.primary)
        flushed = self.agent.wait_until_flushed()
        self.agent.stop()
        stored = self.agent.json("status", expect=1)
        self.primary.stop()
        self.agent.start(wait=False)
        status = wait_until(self.status_with_backup, "the agent to know its base backup")
        self.assertFalse(status["connected"])
        self.assertGreaterEqual(lsn_number(status["flushed_lsn"]), flushed)
        self.assertEqual(status["recoverable_until"], stored["recoverable_until"])
        self.assertEqual(status["timeline"], 1)
        self.assertGreater(next(value for series, value in self.agent.metrics().items() if series.startswith(
            "walvault_recoverable_until_timestamp_seconds")), time.time() - 600)
        self.assertNotIn("1970", self.agent.cli("status").stdout)

    def status_with_backup(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            status = self.agent.status()
            return status if status["backup_count"] == 1 else None
        return None

    def tried_to_connect(self):
        return any(line["event"] in DISCONNECTS for line in self.agent.log_lines())


class WatchdogTest(StageCase):
    """What systemd hears while the server is frozen."""

    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage).start()
        self.heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.heard.close)
        self.heard.settimeout(45)  # less than WatchdogSec of the unit
        path = self.stage.directory / "notify"
        self.heard.bind(str(path))
        os.chmod(path, 0o777)
        self.agent = Agent(self.stage, self.primary)
        self.agent.start(environment=self.stage.environment(NOTIFY_SOCKET=str(path)))
        self.agent.wait_for_backup()

    def hear(self, word):
        while word not in self.heard.recv(4096).decode():
            pass

    def test_a_server_that_lets_nobody_in_does_not_starve_the_watchdog(self):
        # The postmaster: the stream goes on, and each look at the slot hangs at its connection.
        os.kill(self.primary.process.pid, signal.SIGSTOP)
        try:
            self.heard.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while self.heard.recv(4096):
                    pass
            self.heard.settimeout(45)
            for _ in range(4):
                self.hear("WATCHDOG=1")
            self.assertEqual(self.agent.http("GET", "/livez")[0], 200)
            self.assertEqual(self.agent.http("GET", "/readyz")[0], 200)
        finally:
            os.kill(self.primary.process.pid, signal.SIGCONT)
        self.assertEqual(self.agent.stop(timeout=15), 0)
        self.agent.check_log()


class VerbTest(StageCase):
    """Verbs that need no server."""

    def setUp(self):
        super().setUp()
        self.agent = Agent(self.stage, None)

    def test_version_and_help(self):
        self.assertRegex(self.agent.cli("version").stdout, r"^walvault \d+\.\d+\.\d+\n$")
        self.assertIn("restore", self.agent.cli("help", "restore").stdout)

    def test_config_check_accepts_what_the_tests_use(self):
        self.agent.make_key()
        self.agent.cli("config", "check")

    def test_an_unknown_verb_is_a_usage_error(self):
        self.agent.cli("frobnicate", expect=2)

    def test_a_key_is_never_overwritten(self):
        self.agent.make_key()
        before = self.agent.key.read_bytes()
        self.agent.cli("key", "generate", "--out", self.agent.key, expect=4)
        self.assertEqual(self.agent.key.read_bytes(), before)
        self.assertEqual(self.agent.key.stat().st_mode & 0o777, 0o600)

    def test_reading_verbs_say_when_there_is_no_repository(self):
        self.agent.make_key()
        for verb in (["info"], ["log"], ["resolve", "latest"], ["verify"]):
            with self.subTest(verb=verb):
                error = self.agent.error(*verb, expect=6)
                self.assertTrue(error["message"])


if __name__ == "__main__":
    unittest.main()
