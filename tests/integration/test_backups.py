"""Base backups by themselves: when they are due, when the disk has no room, when they are tried again."""

import os
import subprocess
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import StageCase, wait_until
from oracle import make_table


class ScheduleTest(StageCase):
    def test_base_backups_follow_one_another_at_their_interval(self):
        primary = Postgres.create(self.stage).start()
        agent = Agent(self.stage, primary, every="1m").start()
        agent.wait_for_backup(3, timeout=600)
        started = [backup["started_at"] for backup in agent.backups()]
        gaps = [float(primary.sql(f"select extract(epoch from timestamptz '{later}' - '{earlier}')"))
                for earlier, later in zip(started, started[1:])]
        self.assertEqual(len(gaps), 2)
        for gap in gaps:
            self.assertGreaterEqual(gap, 60)
        agent.stop()
        agent.check_log()


class SpaceTest(StageCase):
    def setUp(self):
        super().setUp()
        if os.getuid() != 0:
            self.skipTest("mounting a small file system needs root")
        self.primary = Postgres.create(self.stage).start()
        self.disk = self.stage.make_directory("disk")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=0777", "tmpfs", str(self.disk)],
                              capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest(f"mounting tmpfs does not work here: {done.stderr.strip()}")
        self.stage.closers.append(lambda: subprocess.run(["umount", "-l", str(self.disk)], check=True))
        self.agent = Agent(self.stage, self.primary, repo=self.disk / "repo")

    def test_the_reserve_is_the_streams_and_a_refused_base_backup_is_tried_again(self):
        self.agent.write_config(self.agent.config.read_text().replace('reserve = "0%"', 'reserve = "90%"'))
        self.agent.start()
        refused = wait_until(lambda: self.agent.events("backup.failed"), "the base backup to be refused")
        self.assertIn("reserve", refused[0]["message"])
        self.assertIn("144 MiB", refused[0]["message"])
        self.assertEqual(self.agent.metrics()[self.series("no_space")], 1)
        make_table(self.primary)
        self.agent.wait_until_flushed()
        self.assertEqual(self.agent.backup_count(), 0)
        self.agent.reload('reserve = "90%"', 'reserve = "5%"')
        self.agent.wait_for_backup()
        self.assertEqual(len(self.agent.events("backup.failed")), 1)

    def series(self, reason):
        return next(name for name in self.agent.metrics()
                    if name.startswith("walvault_backup_failures_total{") and f'"{reason}"' in name)


if __name__ == "__main__":
    unittest.main()
