"""walvault as the synchronous standby: a commit that returned is flushed; and never more than one
writer of a repository."""

import json
import os
import signal
import threading
import time
import unittest

from agent_process import Agent
from cluster import ConnectionLost, Postgres
from faults import shim_environment
from harness import StageCase, seeded_random, wait_until


class Writers:
    """Sessions that insert numbered rows; what returned is noted."""

    def __init__(self, server, count=4):
        self.server = server
        self.acknowledged = [0] * count
        self.latencies = []
        self.stopping = False
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(count)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def _write(self, worker):
        session = None
        number = 0
        while not self.stopping:
            try:
                session = session or self.server.session()
                number += 1
                began = time.monotonic()
                session.execute(f"insert into t values ({worker}, {number});")
                self.latencies.append(time.monotonic() - began)
                self.acknowledged[worker] = number
            except ConnectionLost:
                session.close()
                session = None
                if self.stopping:
                    return
                self.ended.wait(0.02)
        session and session.close()

    def stop(self):
        self.stopping = True
        self.ended.set()
        for thread in self.threads:
            thread.join(30)
        return list(self.acknowledged)


class ProtectedCase(StageCase):
    def setUp(self):
        super().setUp()
        self.server = Postgres.create(self.stage)
        self.server.start()
        self.server.sql("create table t (worker int, number int)")
        self.agent = Agent(self.stage, self.server, flush_interval="200ms")
        self.agent.allowed_events |= {"stream.lost", "server.remote_apply", "slot.made"}
        self.agent.protect()


class SynchronousCommits(ProtectedCase):
    def wait_for_agent(self, names="walvault"):
        self.server.sql(f"alter system set synchronous_standby_names = '{names}'")
        self.server.sql("select pg_reload_conf()")
        wait_until(lambda: self.agent.status()["synchronous"], "the agent to know that commits wait")

    def test_c22_a_commit_does_not_wait_for_the_flush_interval(self):
        for names in ("walvault", "FIRST 1 (walvault, other)", "ANY 1 (walvault, other)"):
            self.wait_for_agent(names)
            writers = Writers(self.server).start()
            wait_until(lambda: min(writers.acknowledged) >= 50, "fifty commits of each writer")
            writers.stop()
            self.assertEqual(sum(writers.acknowledged), int(self.server.sql(
                "select sum(number) from (select max(number) as number from t group by worker) m")))
            self.server.sql("truncate t")
            median = sorted(writers.latencies)[len(writers.latencies) // 2]
            self.assertLess(median, 0.1, f"{names}: the median commit took {median:.3f} s of a 0.2 s interval")
        self.assertEqual(self.agent.metrics()['walvault_stream_synchronous{server="main"}'], 1)

    def test_c22_every_commit_that_returned_is_in_the_repository_whenever_the_agent_dies(self):
        random = seeded_random(self.id())
        self.wait_for_agent()
        writers = Writers(self.server).start()
        for _ in range(6):
            before = sum(writers.acknowledged)
            wanted = before + random.randint(20, 200)
            wait_until(lambda: sum(writers.acknowledged) >= wanted, "more commits")
            self.agent.kill9()
            returned = list(writers.acknowledged)
            # What the killed agent left, before another one mends anything.
            restored = self.agent.restore(to="latest")
            restored.open()
            stored = dict(restored.rows("select worker, max(number) from t group by worker"))
            for worker, number in enumerate(returned):
                self.assertGreaterEqual(int(stored.get(str(worker), 0)), number,
                                        f"worker {worker}: commit {number} returned and is not stored")
            restored.discard()
            self.agent.start()
        writers.stop()

    def test_c22_a_fast_shutdown_is_quick_and_smart_shutdown_too(self):
        for mode in ("fast", "smart"):
            self.wait_for_agent()
            began = time.monotonic()
            self.server.stop(mode, timeout=30)
            self.assertLess(time.monotonic() - began, 20)
            self.server.start()
            wait_until(self.agent.is_ready, "the agent to be back")

    def test_c22_a_disk_that_hangs_holds_up_commits_and_nothing_else(self):
        """The sync that commits wait for runs on the loop: the loop must not hang with it."""
        self.agent.allowed_events.add("store.hangs")
        self.agent.stop()
        armed, report = self.agent.directory / "armed", self.agent.directory / "report"
        self.agent.start(environment=shim_environment(
            self.stage, "sync", "hang", 1, self.agent.repo / "main" / "wal", report, FAULT_ARMED=str(armed)))
        self.wait_for_agent()
        writers = Writers(self.server).start()
        wait_until(lambda: min(writers.acknowledged) >= 5, "commits of each writer")
        self.stage.write(armed, "")
        wait_until(report.exists, "a sync that hangs")
        began = time.monotonic()
        self.agent.metrics()
        self.assertTrue(self.agent.status()["synchronous"])
        self.assertLess(time.monotonic() - began, 5, "the agent answers while its disk does not")
        stuck = sum(writers.acknowledged)
        # An agent that stayed would keep the server from shutting down.
        wait_until(lambda: self.agent.events("store.hangs"), "the agent to leave the server")
        self.assertLess(sum(writers.acknowledged) - stuck, 1 + len(writers.acknowledged))
        armed.unlink()
        gone_on = sum(writers.acknowledged) + 20
        wait_until(lambda: sum(writers.acknowledged) >= gone_on, "commits to go on")
        returned = writers.stop()
        self.agent.kill9()
        restored = self.agent.restore(to="latest")
        restored.open()
        stored = dict(restored.rows("select worker, max(number) from t group by worker"))
        for worker, number in enumerate(returned):
            self.assertGreaterEqual(int(stored.get(str(worker), 0)), number)

    def test_c22_remote_apply_is_warned_of(self):
        self.server.sql("alter system set synchronous_commit = 'remote_apply'")
        self.wait_for_agent()
        wait_until(lambda: self.agent.events("server.remote_apply"), "the warning")
        self.server.psql("-c", "set synchronous_commit = local", "-c",
                         "alter system reset synchronous_standby_names")
        self.server.sql("select pg_reload_conf()")


class TwoWriters(ProtectedCase):
    def test_i02_a_writer_that_slept_while_another_took_over_stops_and_acknowledges_nothing(self):
        self.server.sql("insert into t values (1, 1)")
        self.agent.wait_until_flushed()
        zombie = self.agent
        zombie.process.send_signal(signal.SIGSTOP)
        try:
            # A store without locks: another host, a copied machine.
            os.unlink(zombie.repo / "lock")
            other = Agent(self.stage, self.server, name="other", repo=zombie.repo, key=zombie.key,
                          slot="walvault_other")
            # The sleeper still has the old index open.
            other.allowed_events |= {"slot.made", "index.rebuild"}
            other.start()
            self.server.sql("insert into t values (2, 2)")
            other.wait_until_flushed()
            claimed_at = self.server.current_lsn()
        finally:
            zombie.process.send_signal(signal.SIGCONT)
        self.server.sql("insert into t values (3, 3)")
        code = zombie.process.wait(60)
        self.assertEqual(code, 8)
        # It never told the server of anything that it wrote after the claim.
        self.assertLessEqual(zombie.restart_lsn(), claimed_at)
        other.wait_until_flushed()
        other.cli("verify", "--level", "wal")
        restored = other.restore(to="latest")
        restored.open()
        self.assertEqual(restored.rows("select number from t order by number"), [("1",), ("2",), ("3",)])
        restored.discard()
        other.check_log()
        self.assertTrue([line for line in zombie.log_lines() if "taken over" in json.dumps(line)])


if __name__ == "__main__":
    unittest.main()
