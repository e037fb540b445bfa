"""WAL that the server has removed, fetched by wal_fetch from an archive: all of it, a part, none."""

import shlex
import shutil
import unittest

from cluster import Postgres
from harness import lsn_number, wait_until
from test_histories import HistoryCase

SEGMENT_BYTES = 1 << 20


class MissingWalCase(HistoryCase):
    def setUp(self):
        super().setUp()
        self.agent.allowed_events |= {"wal.not_fetched"}
        # What a shell would make of this name is the test's own trap.
        self.archive = self.stage.make_directory("an archive; touch trapped; $(touch trapped)")
        self.server.stop()
        self.server.configure({"archive_mode": "on", "archive_command": self.archive_command()})
        self.server.start()

    def archive_command(self):
        command = f"cp %p {shlex.quote(str(self.archive))}/%f"
        return "'" + command.replace("'", "''") + "'"

    def fetch_by(self, command, timeout="60s"):
        quoted = command.replace("\\", "\\\\").replace('"', '\\"')
        self.agent.settings["server_lines"] = f'wal_fetch = "{quoted}"\nwal_fetch_timeout = "{timeout}"'
        self.agent.write_config()

    def fetch_from_archive(self, **options):
        self.fetch_by(f"cp '{self.archive}/%f' %p", **options)

    def fetch_by_script(self, text, **options):
        script = self.stage.write(self.agent.directory / "fetch", f"#!/bin/sh\n{text}\n", mode=0o700)
        self.fetch_by(f"{script} %f %p", **options)

    def lose_wal(self):
        """Rows 1 stored; 2 and 3 in WAL that only the archive has; returns moments after each."""
        self.agent.protect()
        self.note(self.server, 1)
        self.agent.wait_until_flushed()
        self.agent.stop()
        self.agent.check_log()
        self.stored_end = self.agent.json("info")["histories"][0]["end_lsn"]
        self.server.sql("select pg_drop_replication_slot('walvault')")
        moments = []
        for number in (2, 3):
            self.note(self.server, number)
            moments.append(self.server.sql("select clock_timestamp()"))
            self.churn(self.server, 4)
        # What a checkpoint removes has been archived before.
        self.churn(self.server, 4)
        self.assertFalse(self.server.wal_file(self.segments()[0]).exists(), "nothing was removed")
        return moments

    def segments(self):
        """The archived ones that the repository has not whole, in order."""
        first = lsn_number(self.stored_end) // SEGMENT_BYTES
        return sorted(path.name for path in self.archive.iterdir()
                      if len(path.name) == 24 and self.number(path.name) >= first)

    @staticmethod
    def number(name):
        return (int(name[8:16], 16) << 32) // SEGMENT_BYTES + int(name[16:24], 16)

    def go_on(self, **options):
        self.agent.start(**options)
        self.note(self.server, 4)
        self.agent.wait_until_flushed()

    def fetches(self, result):
        return self.agent.metrics()[f'walvault_wal_fetches_total{{result="{result}",server="main"}}']

    def check_nothing_missing(self, after_2):
        info = self.info()
        self.assertEqual(info["gaps"], [])
        self.assertEqual(len(info["histories"]), 1)
        self.assertEqual(len(self.agent.events("wal.fetched")), 1)
        self.assertEqual(self.agent.backup_count(), 1, "a base backup was taken for nothing")
        # From the base before it, through every byte that was fetched.
        self.assertEqual(self.numbers(f"time:{after_2}"), [1, 2])
        self.assertEqual(self.numbers("latest"), [1, 2, 3, 4])
        self.agent.cli("verify", "--level", "wal")

    def check_gap(self, *causes):
        """One gap, for these reasons, and the window opens again behind it. Returns it."""
        self.agent.wait_for_backup(2)
        gaps = self.info()["gaps"]
        self.assertEqual(len(gaps), 1)
        for cause in ("removed", *causes):
            self.assertIn(cause, gaps[0]["cause"])
        inside = (lsn_number(gaps[0]["from_lsn"]) + lsn_number(gaps[0]["to_lsn"])) // 2
        error = self.agent.error("resolve", f"lsn:{inside >> 32:X}/{inside & 0xFFFFFFFF:X}", expect=3)
        self.assertEqual(error["code"], "gap")
        for edge in ("from_lsn", "to_lsn"):
            self.assertIn(gaps[0][edge], error["message"])
        self.assertEqual(self.numbers("latest"), [1, 2, 3, 4])
        self.assertEqual(self.agent.metrics()[
            'walvault_history_incidents_total{kind="gap",repo="primary",server="main"}'], 1)
        return gaps[0]


class Fetched(MissingWalCase):
    def test_what_the_archive_has_is_fetched_and_there_is_no_gap(self):
        self.fetch_from_archive()
        after_2, _ = self.lose_wal()
        self.go_on()
        self.check_nothing_missing(after_2)
        self.assertGreaterEqual(self.fetches("found"), 8)
        self.assertEqual(list(self.stage.directory.rglob("trapped")), [])

    def test_a_command_that_fails_for_a_while_is_tried_again(self):
        ready = self.agent.directory / "ready"
        self.fetch_by_script(f'[ -e {ready} ] || exit 3\ncp "{self.archive_in_shell()}/$1" "$2"')
        after_2, _ = self.lose_wal()
        self.agent.start(wait=False)
        failed = wait_until(lambda: self.agent.events("wal.not_fetched"), "the command to fail")
        self.assertIn("ended with 3", failed[0]["message"])
        self.stage.write(ready, "")
        self.agent.wait_ready()
        self.note(self.server, 4)
        self.agent.wait_until_flushed()
        self.check_nothing_missing(after_2)

    def archive_in_shell(self):
        return str(self.archive).replace("$", "\\$")

    def test_an_agent_that_was_killed_while_it_fetched_goes_on_and_nothing_is_missing(self):
        marks = self.agent.directory / "calls"
        place = self.stage.make_directory("tmp")
        environment = self.stage.environment(TMPDIR=str(place))
        self.fetch_by_script(f'echo $1 >> {marks}; [ $(wc -l < {marks}) = 5 ] && sleep 60\n'
                             f'cp "{self.archive_in_shell()}/$1" "$2"')
        after_2, _ = self.lose_wal()
        self.agent.start(wait=False, environment=environment)
        wait_until(lambda: marks.exists() and len(marks.read_text().splitlines()) >= 5, "the fifth call")
        self.agent.kill9()
        self.assertEqual(len(list(place.iterdir())), 1)
        self.go_on(environment=environment)
        self.assertEqual(list(place.iterdir()), [], "a segment was left in plain form")
        self.check_nothing_missing(after_2)

    def test_an_agent_that_is_stopped_while_the_command_hangs_ends_at_once(self):
        started = self.agent.directory / "started"
        self.fetch_by_script(f"touch {started}; sleep 600", timeout="1h")
        self.lose_wal()
        self.agent.start(wait=False)
        wait_until(started.exists, "the command to run")
        self.assertEqual(self.agent.stop(timeout=20), 0)

    def test_wal_on_both_sides_of_a_promotion_is_fetched(self):
        self.fetch_from_archive()
        self.server.sql("alter system set wal_keep_size = '64MB'")
        self.server.sql("select pg_reload_conf()")
        self.agent.protect()
        self.note(self.server, 1)
        self.agent.wait_until_flushed()
        standby = self.standby("standby")
        self.agent.stop()
        self.server.sql("select pg_drop_replication_slot('walvault')")
        self.note(self.server, 2)
        self.churn(self.server, 4)
        self.note(self.server, 3)
        self.wait_replayed(standby, self.server.current_lsn())
        self.server.stop()
        self.promote(standby)
        standby.sql("alter system set wal_keep_size = '0'")
        standby.sql("select pg_reload_conf()")
        self.churn(standby, 12)
        self.follow(standby)
        self.server = standby
        self.note(standby, 4)
        self.agent.wait_until_flushed()
        self.assertGreaterEqual(len(self.agent.events("wal.fetched")), 2)
        self.assertEqual(self.info()["gaps"], [])
        self.assertEqual([h["timeline"] for h in self.info()["histories"]], [1, 2])
        self.assertEqual(self.agent.backup_count(), 1)
        self.assertEqual(self.numbers("latest"), [1, 2, 3, 4])


class NotFetched(MissingWalCase):
    def test_without_a_command_there_is_a_gap(self):
        self.lose_wal()
        self.go_on()
        gap = self.check_gap()
        self.assertEqual(gap["from_lsn"], self.stored_end)

    def test_where_the_archive_has_a_part_the_gap_begins_behind_it(self):
        self.fetch_from_archive()
        after_2, _ = self.lose_wal()
        removed = self.segments()[-4]
        (self.archive / removed).unlink()
        self.go_on()
        gap = self.check_gap("ended with 1", removed)
        self.assertEqual(lsn_number(gap["from_lsn"]), self.number(removed) * SEGMENT_BYTES)
        self.assertEqual(self.fetches("absent"), 1)
        # What was fetched is worth having.
        self.assertEqual(self.numbers(f"time:{after_2}"), [1, 2])
        self.agent.cli("verify", "--level", "wal")

    def test_a_segment_of_another_cluster_is_refused(self):
        self.fetch_from_archive()
        self.lose_wal()
        other = Postgres.create(self.stage, "other", segment_mb=1).start()
        source = other.wal_file(other.sql("select pg_walfile_name(pg_current_wal_lsn())"))
        for name in self.segments():
            shutil.copyfile(source, self.archive / name)
        self.go_on()
        gap = self.check_gap("refused", "differs")
        self.assertEqual(gap["from_lsn"], self.stored_end)
        self.assertEqual(self.fetches("refused"), 1)

    def damage(self, name, offset):
        with open(self.archive / name, "r+b") as file:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0xFF]))

    def test_a_segment_that_differs_in_what_is_stored_is_refused(self):
        self.fetch_from_archive()
        self.lose_wal()
        self.damage(self.segments()[0], lsn_number(self.stored_end) % SEGMENT_BYTES - 100)
        self.go_on()
        self.assertEqual(self.check_gap("refused", "differs")["from_lsn"], self.stored_end)

    def test_a_segment_that_fails_its_checks_is_refused_whole(self):
        self.fetch_from_archive()
        self.lose_wal()
        third = self.segments()[2]
        self.damage(third, 700_000)
        self.go_on()
        gap = self.check_gap("refused", "does not continue", third)
        self.assertEqual(lsn_number(gap["from_lsn"]), self.number(third) * SEGMENT_BYTES)

    def check_failing(self, script, said):
        self.fetch_by_script(script, timeout="2s")
        self.lose_wal()
        self.go_on()
        self.check_gap(said)
        self.assertGreater(self.fetches("failed"), 1, "an error was taken for an answer")
        self.assertEqual(self.fetches("absent"), 0)

    def test_a_command_that_goes_on_failing_is_no_proof_of_absence_but_the_agent_goes_on(self):
        self.check_failing("echo no route to the archive >&2; exit 2", "ended with 2: no route to the archive")

    def test_a_command_that_is_killed_has_said_nothing(self):
        self.check_failing("kill -9 $$", "signal 9")

    def test_a_command_that_makes_a_short_file_has_failed(self):
        self.check_failing('echo short > "$2"', "has 6 bytes, not 1048576")


if __name__ == "__main__":
    unittest.main()
