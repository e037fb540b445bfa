"""The Nth write, sync, rename, removal or socket read fails, or the agent dies there; for N = 1, 2, …

Each series goes on until a run ends without its fault having fired. Syncs and renames are the points at
which what is on the disk changes its meaning: there every N is taken, and whether the call fails or the
agent dies there is drawn for each. Elsewhere the steps grow by a seeded random factor
(WALVAULT_TEST_NTH=all takes every N everywhere, for a night).

The next life of the agent begins on what the fault has left, with its own fault ahead of it.
"""

import os
import signal
import unittest

from agent_process import Agent, checksum
from cluster import Postgres
from faults import shim_environment
from harness import StageCase, lsn_text, seeded_random, wait_until
from oracle import make_table

EVERY_N_UP_TO = 2
# With what an agent may end because of one failed call: it went on, or the repository failed it.
ENDS = {0, 1, 6}


class NthFaultCase(StageCase):
    def setUp(self):
        super().setUp()
        self.random = seeded_random(self.id())
        self.primary = Postgres.create(self.stage, settings={"wal_keep_size": "'4GB'"}).start()
        make_table(self.primary)
        self.agent = Agent(self.stage, self.primary).protect()
        self.agent.stop()
        self.agent.check_log()
        self.report = self.agent.directory / "fault-report"
        self.armed = self.agent.directory / "armed"
        self.runs = 0

    def start_with_fault(self, call, action, n, **more):
        self.report.unlink(missing_ok=True)
        self.life_begins = self.agent.log.stat().st_size
        environment = shim_environment(self.stage, call, action, n, self.agent.repo, self.report, **more)
        self.agent.start(wait=False, environment=environment)

    def work(self):
        """More than a pack of WAL, in commits of several sizes."""
        self.runs += 1
        first = self.runs * 100000
        one = [part for number in range(5)
               for part in ("-c", f"insert into items values ({first + 90000 + number}, 'one')")]
        self.primary.psql("-c", f"insert into items select {first} + g, repeat(md5(g::text), 20)"
                                " from generate_series(1, 2000) g", *one)
        return self.primary.current_lsn()

    def check_end(self, action, code):
        """A death is one that was asked for; everything else is the agent's own orderly end."""
        fired = self.report.exists()
        if fired and action in ("kill", "torn"):
            self.assertEqual(code, -9)
        elif fired and code == -6:
            # Debian's RocksDB asserts when it closes what it could not open; nobody can stand before that.
            life = self.agent.log.read_text(errors="replace")[self.life_begins:]
            self.assertIn("AssertFalseAndGetStatusForPrevError", life)
            self.assertNotIn('"agent.started"', life, "an agent that ran died of it")
        elif fired:
            self.assertIn(code, ENDS)
        else:
            self.assertEqual(code, 0, "it ended without its fault")
        self.agent.check_sanitizers(self.agent.log.read_text(errors="replace"))

    def check_invariants(self):
        """What was acknowledged can be restored as it lies there; an agent starts on it and catches up."""
        self.check_acknowledged()
        self.agent.start()
        self.agent.wait_until_flushed()
        self.assertEqual(self.agent.stop(), 0)
        self.assertEqual(self.agent.json("info", "--gaps")["gaps"], [])

    def check_acknowledged(self):
        self.agent.cli("resolve", "--before", "lsn:" + lsn_text(self.agent.restart_lsn()))

    def check_content(self):
        self.agent.cli("verify", "--level", "wal")
        self.agent.cli("verify", "--level", "chunks")
        restored = self.agent.restore(to="latest").open()
        self.assertEqual(checksum(restored, "items", "id"), checksum(self.primary, "items", "id"))
        restored.discard()


class NthFaultTest(NthFaultCase):
    def next_n(self, n, every):
        if every or n < EVERY_N_UP_TO or os.environ.get("WALVAULT_TEST_NTH") == "all":
            return n + 1
        return n + max(1, int(n * self.random.uniform(1.0, 2.0)))

    def series(self, call, *actions, every=False, with_backup=False):
        n = 1
        fired = []
        run = self.run_backup if with_backup else self.run_stream
        while run(call, action := self.random.choice(actions), n):
            fired.append(n)
            with self.subTest(call=call, action=action, n=n):
                self.check_acknowledged()
            n = self.next_n(n, every)
            self.assertLess(n, 100_000, "the fault fires for ever")
        self.check_invariants()
        title = f"{call} {' or '.join(actions)}{' in a backup' if with_backup else ''}"
        print(f"{title}: fired at N = {fired}, no more at {n}", flush=True)
        self.assertTrue(fired, "the fault never fired: nothing was tested")
        self.check_content()

    def run_stream(self, call, action, n):
        """One life of the agent with a fault in it; whether the fault fired."""
        self.start_with_fault(call, action, n)
        lsn = self.work()
        wait_until(lambda: self.is_over(lsn),
                   f"the agent to flush {lsn_text(lsn)} or to end ({call} {action} {n})")
        self.check_end(action, self.agent.stop())
        return self.report.exists()

    def is_over(self, lsn):
        return self.agent.process.poll() is not None or self.agent.flushed_lsn() >= lsn

    def run_backup(self, call, action, n):
        """The same, with the calls counted from the begin of a base backup."""
        self.armed.unlink(missing_ok=True)
        self.start_with_fault(call, action, n, FAULT_ARMED=str(self.armed))
        self.agent.wait_ready()
        lsn = self.work()
        before = len(self.agent.backups())
        self.stage.write(self.armed, "")
        done = self.agent.cli("backup", "--fast", expect=None)
        # After the error of one call the stream reconnects; what was received by then is flushed.
        wait_until(lambda: self.is_over(lsn), f"the agent to go on or to end ({call} {action} {n})")
        self.check_end(action, self.agent.stop())
        complete = self.agent.backups()
        self.assertGreaterEqual(len(complete), before + (done.returncode == 0))
        for backup in complete[before:]:
            self.agent.cli("resolve", f"backup:{backup['backup_id']}")
        return self.report.exists()

    def test_a_write_fails(self):
        self.series("write", "error")

    def test_a_write_finds_the_disk_full(self):
        self.series("write", "full")

    def test_a_write_is_torn_by_death(self):
        self.series("write", "torn")

    def test_each_sync_fails_or_is_never_reached(self):
        self.series("sync", "error", "kill", every=True)

    def test_each_rename_fails_or_is_never_reached(self):
        self.series("rename", "error", "kill", every=True)

    def test_death_before_a_removal(self):
        self.series("remove", "kill")

    def test_a_read_from_the_server_fails(self):
        self.series("receive", "error")

    def test_death_before_a_read_from_the_server(self):
        self.series("receive", "kill")

    def test_a_write_fails_in_a_base_backup(self):
        self.series("write", "error", with_backup=True)

    def test_a_write_of_a_base_backup_finds_the_disk_full(self):
        self.series("write", "full", with_backup=True)

    def test_death_before_a_sync_in_a_base_backup(self):
        self.series("sync", "kill", with_backup=True)

    def test_a_rename_fails_in_a_base_backup(self):
        self.series("rename", "error", with_backup=True)

    def test_a_read_fails_in_a_base_backup(self):
        self.series("receive", "error", with_backup=True)


class BrokenDiskTest(NthFaultCase):
    """From the Nth call on every one fails: nothing more is acknowledged, and the server is not held up."""

    def test_a_disk_whose_writes_fail_from_now_on(self):
        self.stay_broken("write", "error")

    def test_a_disk_whose_syncs_fail_from_now_on(self):
        self.stay_broken("sync", "error")

    def test_a_disk_that_stays_full(self):
        self.stay_broken("write", "full")

    def stay_broken(self, call, action):
        n = self.random.randrange(1, 12)
        self.armed.unlink(missing_ok=True)
        self.start_with_fault(call, action, n, FAULT_ARMED=str(self.armed), FAULT_STICKY="1")
        self.agent.wait_ready()
        self.agent.wait_until_flushed()
        self.stage.write(self.armed, "")
        self.work()
        wait_until(lambda: self.report.exists() and not self.is_attached(),
                   f"the agent to let go of the server ({call} {action} {n})")
        # What came before the first failure may be stored; what comes now cannot be.
        lsn = self.work()
        self.assertLess(self.agent.restart_lsn(), lsn, "it acknowledged what it could not write")
        self.check_acknowledged()
        # Stopped by its owner, not by what we hold: an agent that only answers would keep it up.
        self.primary.stop("fast", timeout=10)
        # The signal may meet an agent that is on its way out already and listens no more.
        self.assertIn(self.agent.stop(), ENDS | {-signal.SIGTERM})
        self.agent.check_sanitizers(self.agent.log.read_text(errors="replace"))
        self.primary.start()
        self.check_invariants()
        self.check_content()

    def is_attached(self):
        return self.primary.sql("select count(*) from pg_replication_slots where active") != "0"


if __name__ == "__main__":
    unittest.main()
