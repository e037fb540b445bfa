"""Replay that fetches its WAL through restore_command: PostgreSQL itself calls wal-get."""

import os
import random
import re
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import Stage, StageCase, wait_until
from oracle import Rule, Writers, difference, read_transactions, rows_by_xid, wait_for_commits

# More than one call fetches at once.
SEGMENTS = 12


class WalFetchTest(StageCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = Stage("wal_fetch")
        try:
            cls.primary = Postgres.create(cls.shared, settings={"wal_keep_size": "'2GB'"}).start()
            cls.agent = Agent(cls.shared, cls.primary, log_level="debug").protect()
            writers = Writers(cls.primary, random.Random(7), count=2).start()
            for number in range(SEGMENTS):
                wait_for_commits(writers, number * 5 + 5)
                cls.primary.sql("select pg_switch_wal()")
            writers.stop()
            cls.agent.wait_until_flushed()
            cls.truth = rows_by_xid(cls.primary)
            cls.rule = Rule(read_transactions(cls.primary, cls.shared))
        except BaseException:
            cls.shared.show_logs()
            cls.shared.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.shared.close()

    def open(self, copy):
        self.addCleanup(copy.stop, "immediate")
        return copy.open()

    def restored_segments(self, copy):
        return re.findall(r'restored log file "([0-9A-F]{24})"', copy.log.read_text())

    def fetched_segments(self, copy):
        return re.findall(r'"event":"wal_get.fetched".*?"segment":"([0-9A-F]{24})"', copy.log.read_text())

    def test_every_row_is_there_and_few_calls_open_the_repository(self):
        last = self.rule.commits[-3]
        copy = self.agent.restore(before=f"xid:{last.xid}", extra=["--wal", "fetch"])
        self.assertEqual(list((copy.data / "pg_wal").glob("0*")), [])
        self.open(copy)
        self.assertIsNone(difference(self.rule.before_xid(last.xid), self.truth, rows_by_xid(copy)))
        restored, fetched = self.restored_segments(copy), self.fetched_segments(copy)
        self.assertGreaterEqual(len(restored), SEGMENTS)
        # Each that opens it fetches eight more; PostgreSQL asks for its last one twice.
        self.assertIn(len(fetched), range(2, -(-len(restored) // 9) + 2), restored)
        self.assertTrue(set(fetched) <= set(restored))
        self.assertEqual(list((copy.data / "pg_wal" / "walvault-spool").iterdir()), [])

    def test_a_damaged_spool_is_read_again_from_the_repository(self):
        copy = self.agent.restore(to="latest", extra=["--wal", "fetch"])
        # The first call by hand, as PostgreSQL makes it, fills the spool; then bits rot in all of it.
        first = re.search(r"[0-9A-F]{24}", (copy.data / "backup_label").read_text())[0]
        self.shared.run(["env", "-C", copy.data, self.shared.walvault, "-c", self.agent.config, "wal-get", first,
                        "pg_wal/RECOVERYXLOG"])
        spooled = sorted((copy.data / "pg_wal" / "walvault-spool").iterdir())
        self.assertEqual(len(spooled), 8)
        for path in spooled:
            with open(path, "r+b") as file:
                file.seek(5000)
                byte = file.read(1)
                file.seek(5000)
                file.write(bytes([byte[0] ^ 1]))
        self.open(copy)
        self.assertIsNone(difference(self.rule.latest(), self.truth, rows_by_xid(copy)))

    def test_a_repository_that_is_away_stops_replay_and_never_promotes(self):
        repo = self.shared.directory / "repo-to-lose"
        self.shared.copy_tree(self.agent.repo, repo)
        lost = Agent(self.shared, self.primary, name="lost", repo=repo, key=self.agent.key)
        copy = lost.restore(to="latest", extra=["--wal", "fetch", "--action", "promote"])
        os.rename(repo, repo.with_name("away"))
        copy.start({"unix_socket_directories": str(copy.socket_directory)}, wait=False)
        self.assertNotEqual(copy.process.wait(120), 0)
        self.assertRegex(copy.log.read_text(), r"FATAL: +could not restore file .* exit code 200")
        os.rename(repo.with_name("away"), repo)
        copy.log.write_text("")
        self.addCleanup(copy.stop, "immediate")
        copy.start({"unix_socket_directories": str(copy.socket_directory)})
        wait_until(lambda: copy.sql("select pg_is_in_recovery()") == "f", "the copy to be promoted")
        self.assertIsNone(difference(self.rule.latest(), self.truth, rows_by_xid(copy)))

    def test_wal_get_by_hand_makes_one_file_and_no_spool(self):
        target = self.shared.make_directory("got") / "x"
        # The last one may have been begun and have nothing in it.
        segment = self.primary.sql("select pg_walfile_name(pg_current_wal_insert_lsn() - 16777216)")
        self.agent.cli("wal-get", segment, target)
        self.assertEqual([path.name for path in target.parent.iterdir()], ["x"])

    def test_v_tells_more_of_what_is_done(self):
        quiet = Agent(self.shared, self.primary, name="quiet", repo=self.agent.repo, key=self.agent.key)
        target = self.shared.make_directory("got-2") / "y"
        # The last one may have been begun and have nothing in it.
        segment = self.primary.sql("select pg_walfile_name(pg_current_wal_insert_lsn() - 16777216)")
        self.assertNotIn("wal_get.fetched", quiet.cli("wal-get", segment, target).stderr)
        self.assertIn("wal_get.fetched", quiet.cli("-v", "wal-get", segment, target).stderr)


if __name__ == "__main__":
    unittest.main()
