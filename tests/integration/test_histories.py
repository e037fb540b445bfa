"""Histories: gaps, rolled-back disks, clones and promotions, each against real servers. Named by the
fault they are about (docs/faults.md)."""

import shutil
import signal
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import StageCase, lsn_number, wait_until

TROUBLE = {"stream.lost", "gap.found", "slot.made", "history.forked", "history.differs",
           "history.promoted", "history.opened", "history.resumed", "slot.lost", "slot.retains_wal"}


class HistoryCase(StageCase):
    def setUp(self):
        super().setUp()
        # One-megabyte segments: a test makes and recycles many of them in a moment.
        self.server = Postgres.create(self.stage, segment_mb=1, settings={
            "max_wal_size": "2MB", "min_wal_size": "2MB", "wal_keep_size": "0", "hot_standby": "on"})
        self.server.start()
        self.server.sql("create table t (n int, filler text)")
        self.agent = Agent(self.stage, self.server)
        self.agent.allowed_events |= TROUBLE

    def note(self, server, *numbers):
        for number in numbers:
            server.sql(f"insert into t values ({number}, '')")

    def churn(self, server, megabytes=6):
        """WAL that is not looked at again."""
        server.sql("create table if not exists churn (filler text)")
        for _ in range(megabytes):
            server.sql("insert into churn select repeat(md5(g::text), 30) from generate_series(1, 1000) g")
        server.sql("truncate churn")
        server.sql("checkpoint")

    def numbers(self, target=None, before=None, extra=()):
        """What a restore to `target` holds."""
        restored = self.agent.restore(to=target, before=before, extra=extra)
        restored.open()
        try:
            return [int(row[0]) for row in restored.rows("select n from t order by n")]
        finally:
            restored.discard()

    def info(self):
        return self.agent.json("info")

    def clone(self, name, source=None, **settings):
        """A copy of a stopped server's directory, as a snapshot would give it."""
        source = source or self.server
        other = Postgres(self.stage, name, self.stage.make_directory("pg") / name)
        self.stage.copy_tree(source.data, other.data)
        other.configure({"port": other.port, "unix_socket_directories": f"'{other.socket_directory}'",
                         **settings})
        return other

    def standby(self, name, source=None):
        """A hot standby that streams from `source` (through no slot; its WAL is kept by wal_keep_size)."""
        source = source or self.server
        other = Postgres(self.stage, name, self.stage.make_directory("pg") / name)
        self.stage.run(["pg_basebackup", "-D", other.data, "-d", source.conninfo, "-X", "stream", "-c",
                        "fast", "-R"])
        other.configure({"port": other.port, "unix_socket_directories": f"'{other.socket_directory}'",
                         "primary_conninfo": f"'host={source.socket_directory} port={source.port} "
                                             "user=postgres'"})
        return other.start()

    def wait_replayed(self, standby, lsn):
        wait_until(lambda: lsn_number(standby.sql("select pg_last_wal_replay_lsn()")) >= lsn,
                   "the standby to replay")

    def promote(self, standby):
        standby.sql("select pg_promote(true, 60)")
        wait_until(lambda: standby.sql("select pg_is_in_recovery()") == "f", "the promotion")

    def follow(self, server):
        """The agent, from now on, finds `server` where the other one was."""
        self.agent.stop()
        self.agent.server = server
        self.agent.settings["conninfo"] = server.conninfo
        self.agent.write_config()
        self.agent.start()


class Gaps(HistoryCase):
    def test_c01_a_slot_dropped_while_the_agent_was_down_loses_nothing_that_the_server_still_has(self):
        self.agent.protect()
        self.note(self.server, 1)
        self.agent.wait_until_flushed()
        self.agent.stop()
        self.server.sql("select pg_drop_replication_slot('walvault')")
        self.note(self.server, 2)
        self.agent.start()
        self.note(self.server, 3)
        self.agent.wait_until_flushed()
        self.assertEqual(self.info()["gaps"], [])
        self.assertEqual(len(self.agent.events("slot.made")), 1)
        self.assertEqual(len(self.agent.events("slot.nothing_lost")), 1)
        self.assertEqual(self.numbers("latest"), [1, 2, 3])

    def lose_wal(self):
        """Rows 1 kept, 2 lost, 3 after the gap; returns times in the three stretches."""
        self.agent.protect()
        self.note(self.server, 1)
        # Its own moment: nothing proves that no commit was lost a millisecond later.
        kept_at = self.server.sql("select pg_xact_commit_timestamp(xmin) from t where n = 1")
        self.agent.wait_until_flushed()
        self.agent.stop()
        return kept_at

    def note_lost(self):
        """A row whose WAL will be gone, and a time just after it."""
        self.note(self.server, 2)
        return self.server.sql("select clock_timestamp()")

    def check_gap(self, kept_at, lost_at):
        self.agent.start()
        # By itself: nobody asked for it.
        self.agent.wait_for_backup(2)
        self.note(self.server, 3)
        self.agent.wait_until_flushed()
        info = self.info()
        self.assertEqual(len(info["gaps"]), 1)
        gap = info["gaps"][0]
        self.assertLess(lsn_number(gap["from_lsn"]), lsn_number(gap["to_lsn"]))
        self.assertIn("removed", gap["cause"])
        self.assertEqual(self.agent.metrics()['walvault_recoverable_gaps{repo="primary",server="main"}'], 1)
        inside = lsn_number(gap["from_lsn"]) + 100_000
        error = self.agent.error("resolve", f"lsn:{inside >> 32:X}/{inside & 0xFFFFFFFF:X}", expect=3)
        self.assertEqual(error["code"], "gap")
        for edge in (gap["from_lsn"], gap["to_lsn"]):
            self.assertIn(edge, error["message"])
        error = self.agent.error("resolve", f"time:{lost_at}", expect=3)
        self.assertIn("--to", error["hint"])
        self.assertEqual(self.numbers(f"time:{kept_at}"), [1])
        self.assertEqual(self.numbers("latest"), [1, 2, 3])  # 2 is in the new base

    def test_c01_a_slot_dropped_and_wal_removed_is_a_gap_and_the_window_opens_again(self):
        kept_at = self.lose_wal()
        self.server.sql("select pg_drop_replication_slot('walvault')")
        lost_at = self.note_lost()
        self.churn(self.server)
        self.check_gap(kept_at, lost_at)

    def test_c02_an_invalidated_slot_is_a_gap_although_the_server_would_stream_on(self):
        self.server.sql("alter system set max_slot_wal_keep_size = '2MB'")
        self.server.sql("select pg_reload_conf()")
        kept_at = self.lose_wal()
        lost_at = self.note_lost()
        self.churn(self.server, 8)
        wait_until(lambda: self.server.sql("select wal_status from pg_replication_slots") == "lost",
                   "the slot to be lost")
        self.check_gap(kept_at, lost_at)

    def test_c18_wal_of_a_minimal_wal_level_is_not_replayed_across(self):
        self.agent.protect()
        self.note(self.server, 1)
        self.agent.wait_until_flushed()
        self.agent.stop()
        self.server.sql("select pg_drop_replication_slot('walvault')")
        self.server.stop()
        self.server.start({"wal_level": "minimal", "max_wal_senders": "0", "wal_keep_size": "64MB"})
        self.note(self.server, 2)
        self.server.stop()
        self.server.start({"wal_keep_size": "64MB"})
        lost_at = self.server.sql("select clock_timestamp()")
        self.agent.start()
        self.agent.wait_for_backup(2)
        self.note(self.server, 3)
        self.agent.wait_until_flushed()
        gaps = self.info()["gaps"]
        self.assertEqual(len(gaps), 1)
        self.assertIn("minimal", gaps[0]["cause"])
        self.agent.error("resolve", f"time:{lost_at}", expect=3)
        self.assertEqual(self.numbers("latest"), [1, 2, 3])


class Forks(HistoryCase):
    def roll_back(self, after):
        """Rows 1 and 2 stored, the disk then as it was after row 1; `after` writes the new future."""
        self.agent.protect()
        self.note(self.server, 1)
        self.server.stop()
        snapshot = self.stage.directory / "snapshot"
        self.stage.copy_tree(self.server.data, snapshot)
        self.server.start()
        self.note(self.server, 2)
        self.churn(self.server, 3)
        self.agent.wait_until_flushed()
        old_latest = self.server.sql("select clock_timestamp()")
        self.agent.stop()
        self.server.stop()
        shutil.rmtree(self.server.data)
        self.stage.copy_tree(snapshot, self.server.data)
        self.server.start()
        after()
        self.agent.start()
        self.agent.wait_for_backup(2)
        self.note(self.server, 9)
        self.agent.wait_until_flushed()
        return old_latest

    def check_two_branches(self):
        histories = self.info()["histories"]
        self.assertEqual(len(histories), 2, histories)
        self.assertEqual(histories[1]["parent_id"], histories[0]["history_id"])
        self.assertEqual(len(self.agent.events("history.forked")), 1)
        # The new future, from its own base and from the parent's.
        self.assertEqual(self.numbers("latest")[:1], [1])
        self.assertNotIn(2, self.numbers("latest"))
        self.assertIn(9, self.numbers("latest"))
        # The old one is whole as well.
        old = histories[0]["history_id"]
        self.assertEqual(self.numbers("latest", extra=["--history", old[:8]]), [1, 2])

    def test_c16_a_disk_rolled_back_while_the_server_is_behind_is_a_branch(self):
        self.roll_back(lambda: self.note(self.server, 8))
        self.check_two_branches()

    def test_c16_a_disk_rolled_back_and_overtaken_is_a_branch(self):
        def overtake():
            self.note(self.server, 8)
            self.churn(self.server, 12)
        self.roll_back(overtake)
        self.check_two_branches()

    def test_c17_pg_resetwal_is_a_gap_and_a_new_history(self):
        self.agent.protect()
        self.note(self.server, 1)
        self.agent.wait_until_flushed()
        self.agent.stop()
        self.server.stop()
        self.stage.run(["pg_resetwal", "-f", "-l", "0000000100000000000000AA", self.server.data])
        self.server.start()
        self.agent.start()
        self.agent.wait_for_backup(2)
        self.note(self.server, 2)
        self.agent.wait_until_flushed()
        self.assertEqual(self.numbers("latest"), [1, 2])
        self.assertEqual(len(self.info()["histories"]), 2)


class Splice(HistoryCase):
    """What a receiver that knows histories by system identifier and timeline does with a rolled-back disk."""

    def receive(self, archive, until):
        receiver = self.stage.start(["pg_receivewal", "-D", archive, "-S", "peer", "-d", self.server.conninfo,
                                     "--status-interval=1"], log=self.stage.directory / "receivewal.log")
        # It reports what it has synced: whole segments.
        wait_until(lambda: lsn_number(self.server.sql(
            "select coalesce(flush_lsn, '0/0') from pg_stat_replication "
            "where application_name = 'pg_receivewal'") or "0/0") >= until, "pg_receivewal to have it")
        receiver.send_signal(signal.SIGINT)
        receiver.wait(30)

    def segment_start(self):
        return self.server.current_lsn() & ~((1 << 20) - 1)

    def test_c16_pg_receivewal_mixes_two_histories_in_one_archive_and_walvault_keeps_them_apart(self):
        self.server.sql("alter system set wal_keep_size = '64MB'")
        self.server.sql("select pg_reload_conf()")
        archive = self.stage.make_directory("archive")
        self.server.sql("select pg_create_physical_replication_slot('peer', true)")
        self.agent.protect()
        self.note(self.server, 1)
        self.server.stop()
        snapshot = self.stage.directory / "snapshot"
        self.stage.copy_tree(self.server.data, snapshot)
        self.server.start()
        self.note(self.server, 2)
        self.churn(self.server, 3)
        self.agent.wait_until_flushed()
        self.receive(archive, self.segment_start())
        self.agent.stop()
        self.server.stop()
        old = self.stage.directory / "old"
        shutil.move(self.server.data, old)
        self.stage.copy_tree(snapshot, self.server.data)
        self.server.start()
        self.note(self.server, 8)
        self.churn(self.server, 12)
        self.receive(archive, self.segment_start())

        def belongs_to(data):
            return {path.name for path in archive.glob("0*") if len(path.name) == 24
                    and (data / "pg_wal" / path.name).exists()
                    and path.read_bytes() == (data / "pg_wal" / path.name).read_bytes()}
        of_old, of_new = belongs_to(old), belongs_to(self.server.data)
        self.assertTrue(of_old - of_new, "pg_receivewal kept nothing of the first history")
        self.assertTrue(of_new - of_old, "pg_receivewal took nothing of the second history")

        self.agent.start()
        self.agent.wait_for_backup(2)
        self.agent.wait_until_flushed()
        histories = self.info()["histories"]
        self.assertEqual(len(histories), 2)
        self.assertEqual(self.numbers("latest", extra=["--history", histories[0]["history_id"][:8]]), [1, 2])
        self.assertEqual(self.numbers("latest"), [1, 8])
        self.agent.cli("verify", "--level", "wal")


class Timelines(HistoryCase):
    def prepare_standby(self):
        self.server.sql("alter system set wal_keep_size = '64MB'")
        self.server.sql("select pg_reload_conf()")
        self.agent.protect()
        self.note(self.server, 1)
        return self.standby("standby")

    def check_switch(self, server, timelines):
        self.note(server, 3)
        self.agent.wait_until_flushed(server.current_lsn())
        self.assertEqual([h["timeline"] for h in self.info()["histories"]], timelines)
        self.assertEqual(self.info()["gaps"], [])
        # From the base of the first timeline, across the switch.
        self.assertEqual(self.numbers("latest"), [1, 2, 3])

    def test_d01_the_server_being_streamed_is_a_standby_that_is_promoted(self):
        standby = self.prepare_standby()
        self.follow(standby)
        self.note(self.server, 2)
        between = self.server.sql("select clock_timestamp()")
        self.wait_replayed(standby, self.server.current_lsn())
        self.agent.wait_until_flushed(self.server.current_lsn())
        self.server.stop("immediate")
        self.promote(standby)
        self.check_switch(standby, [1, 2])
        self.assertEqual(self.numbers(f"time:{between}"), [1, 2])

    def test_d03_a_failover_to_a_standby_without_the_slot(self):
        standby = self.prepare_standby()
        self.note(self.server, 2)
        self.wait_replayed(standby, self.server.current_lsn())
        self.agent.wait_until_flushed()
        self.server.stop("immediate")
        self.promote(standby)
        self.follow(standby)
        self.check_switch(standby, [1, 2])
        self.assertEqual(standby.sql("select count(*) from pg_replication_slots "
                                     "where slot_name = 'walvault'"), "1")

    def test_d02_what_only_the_dead_primary_sent_is_kept_as_a_branch(self):
        standby = self.prepare_standby()
        self.note(self.server, 2)
        self.wait_replayed(standby, self.server.current_lsn())
        # The standby is cut off; the agent is not.
        standby.sql("alter system set primary_conninfo = ''")
        standby.sql("select pg_reload_conf()")
        wait_until(lambda: self.server.sql("select count(*) from pg_stat_replication where "
                                           "application_name = 'walreceiver'") == "0", "the cut")
        self.note(self.server, 66)
        self.agent.wait_until_flushed()
        self.server.stop("immediate")
        self.promote(standby)
        self.follow(standby)
        self.check_switch(standby, [1, 2])
        promoted = self.agent.events("history.promoted")
        self.assertEqual(len(promoted), 1)
        self.assertGreaterEqual(int(promoted[0]["left_behind_commits"]), 1)
        self.assertEqual(self.numbers("latest", extra=["--timeline", "1"]), [1, 2, 66])

    def test_d05_two_clones_that_promote_to_the_same_timeline_are_two_histories(self):
        self.agent.protect()
        self.note(self.server, 1, 2)
        self.agent.wait_until_flushed()
        self.agent.stop()
        self.server.stop()
        clones = [self.clone(name) for name in ("c1", "c2")]
        for clone in clones:
            (clone.data / "standby.signal").touch()
            self.stage.give(clone.data / "standby.signal")
            clone.start()
            self.promote(clone)
        self.follow(clones[0])
        self.note(clones[0], 31)
        self.agent.wait_until_flushed(clones[0].current_lsn())
        self.note(clones[1], 41, 42, 43, 44)
        self.follow(clones[1])
        self.note(clones[1], 45)
        self.agent.wait_until_flushed(clones[1].current_lsn())
        self.assertEqual(self.numbers("latest"), [1, 2, 41, 42, 43, 44, 45])
        first = next(h for h in self.info()["histories"] if h["timeline"] == 2)
        self.assertEqual(self.numbers("latest", extra=["--history", first["history_id"][:8]]), [1, 2, 31])
        # And back: what is known already is followed again, not copied.
        count = len(self.info()["histories"])
        self.follow(clones[0])
        self.note(clones[0], 32)
        self.agent.wait_until_flushed(clones[0].current_lsn())
        self.assertEqual(self.numbers("latest"), [1, 2, 31, 32])
        self.assertLessEqual(len(self.info()["histories"]), count + 1)

    def test_d06_d07_a_jump_of_timelines_and_two_switches_in_one_segment(self):
        standby = self.prepare_standby()
        self.note(self.server, 2)
        self.wait_replayed(standby, self.server.current_lsn())
        self.agent.wait_until_flushed()
        self.server.stop("immediate")
        # Somebody else took timeline 2.
        (standby.data / "pg_wal" / "00000002.history").write_text("1\t0/1\tanother\n")
        self.stage.give(standby.data / "pg_wal" / "00000002.history")
        self.promote(standby)
        self.assertEqual(standby.sql("select pg_walfile_name(pg_current_wal_lsn())")[:8], "00000003")
        standby.stop()
        (standby.data / "standby.signal").touch()
        self.stage.give(standby.data / "standby.signal")
        standby.start()
        self.promote(standby)
        self.follow(standby)
        self.check_switch(standby, [1, 3, 4])


if __name__ == "__main__":
    unittest.main()
