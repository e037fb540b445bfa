"""The Nth write, sync, rename, removal or socket read fails, or the agent dies there; for N = 1, 2, …

Each series goes on until a run ends without its fault having fired. Beyond the first few N the steps grow
by a seeded random factor (WALVAULT_TEST_NTH=all takes every N instead, for a night).
"""

import os
import unittest

from agent_process import Agent, checksum
from cluster import Postgres
from harness import BUILD, StageCase, lsn_text, seeded_random, wait_until
from oracle import make_table

SHIM = BUILD / "tests" / "support" / "fault_shim.so"
EVERY_N_UP_TO = 5


class NthFaultTest(StageCase):
    def setUp(self):
        super().setUp()
        self.assertTrue(SHIM.exists(), f"{SHIM} is not built")
        self.random = seeded_random(self.id())
        self.primary = Postgres.create(self.stage, settings={"wal_keep_size": "'4GB'"}).start()
        make_table(self.primary)
        self.agent = Agent(self.stage, self.primary).protect()
        self.agent.stop()
        self.agent.check_log()
        self.report = self.agent.directory / "fault-report"
        self.runs = 0

    def next_n(self, n):
        if n < EVERY_N_UP_TO or os.environ.get("WALVAULT_TEST_NTH") == "all":
            return n + 1
        return n + max(1, int(n * self.random.uniform(0.25, 0.75)))

    def series(self, call, action, with_backup=False):
        n = 1
        fired = []
        while self.run_with_fault(call, action, n, with_backup):
            fired.append(n)
            with self.subTest(call=call, action=action, n=n):
                self.check_invariants()
            n = self.next_n(n)
            self.assertLess(n, 100_000, "the fault fires for ever")
        self.check_invariants()
        print(f"{call} {action}: fired at N = {fired}, no more at {n}", flush=True)
        self.assertTrue(fired, "the fault never fired: nothing was tested")
        self.check_content()

    def run_with_fault(self, call, action, n, with_backup):
        """One life of the agent with a fault in it; whether the fault fired."""
        self.report.unlink(missing_ok=True)
        environment = self.stage.environment(
            LD_PRELOAD=str(SHIM), FAULT_CALL=call, FAULT_AT=str(n), FAULT_ACTION=action,
            FAULT_DIRECTORY=str(self.agent.repo), FAULT_REPORT=str(self.report))
        # The shim is loaded before the sanitizer, which then refuses to start unless told.
        environment["ASAN_OPTIONS"] = environment.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
        self.agent.start(wait=False, environment=environment)
        lsn = self.work()
        wait_until(lambda: self.is_over(lsn),
                   f"the agent to flush {lsn_text(lsn)} or to end ({call} {action} {n})")
        if with_backup and self.agent.process.poll() is None:
            self.agent.cli("backup", "--fast", expect=None)
        if self.agent.process.poll() is None:
            self.agent.stop()
        return self.report.exists()

    def work(self):
        """More than a pack of WAL, in commits of several sizes."""
        self.runs += 1
        self.primary.sql(f"insert into items select {self.runs} * 100000 + g, repeat(md5(g::text), 20)"
                         " from generate_series(1, 2000) g")
        for number in range(5):
            self.primary.sql(f"insert into items values ({self.runs} * 100000 + {90000 + number}, 'one')")
        return self.primary.current_lsn()

    def is_over(self, lsn):
        return self.agent.process.poll() is not None or self.agent.flushed_lsn() >= lsn

    def check_invariants(self):
        """What was acknowledged can be restored as it lies there; an agent starts on it and catches up."""
        acknowledged_lsn = self.agent.restart_lsn()
        self.agent.cli("resolve", "--before", "lsn:" + lsn_text(acknowledged_lsn))
        self.agent.start()
        self.agent.wait_until_flushed()
        self.agent.stop()
        self.assertEqual(self.agent.json("info", "--gaps")["gaps"], [])

    def check_content(self):
        self.agent.cli("verify", "--level", "wal")
        self.agent.cli("verify", "--level", "chunks")
        restored = self.agent.restore(to="latest").open()
        self.assertEqual(checksum(restored, "items", "id"), checksum(self.primary, "items", "id"))
        restored.discard()

    def test_a_write_fails(self):
        self.series("write", "error")

    def test_a_write_finds_the_disk_full(self):
        self.series("write", "full")

    def test_a_write_is_torn_by_death(self):
        self.series("write", "torn")

    def test_a_sync_fails(self):
        self.series("sync", "error")

    def test_death_before_a_sync(self):
        self.series("sync", "kill")

    def test_a_rename_fails(self):
        self.series("rename", "error")

    def test_death_before_a_rename(self):
        self.series("rename", "kill")

    def test_death_before_a_removal(self):
        self.series("remove", "kill")

    def test_a_read_from_the_server_fails(self):
        self.series("receive", "error")

    def test_death_before_a_read_from_the_server(self):
        self.series("receive", "kill")

    def test_death_during_a_base_backup(self):
        """Steps over the backup's many writes; what was begun must never look complete."""
        self.series("sync", "kill", with_backup=True)
        complete = len(self.agent.backups())
        for backup in self.agent.backups():
            self.agent.cli("resolve", f"backup:{backup['backup_id']}")
        self.assertGreaterEqual(complete, 1)


if __name__ == "__main__":
    unittest.main()
