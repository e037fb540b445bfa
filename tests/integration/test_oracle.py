"""Every restore holds exactly the commits that its target names, whatever was killed meanwhile."""

import concurrent.futures
import threading
import time
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import StageCase, lsn_number, lsn_text, now_micros, seeded_random, wait_until
from oracle import (Rule, Writers, difference, read_transactions, restore_and_compare, rows_by_xid, time_text,
                    wait_for_commits)

SECOND = 1_000_000
DISTURBED_SECONDS = 60
AGENT_KILLS = 11
RESTORES_AT_ONCE = 2


def make_primary(stage):
    return Postgres.create(stage, settings={"wal_keep_size": "'8GB'", "max_wal_size": "'256MB'"}).start()


class OracleTest(StageCase):
    def setUp(self):
        super().setUp()
        self.random = seeded_random(self.id())
        self.primary = make_primary(self.stage)
        self.agent = Agent(self.stage, self.primary).protect()
        # Connections that end because one side was killed, and the reconnects that follow.
        self.agent.allowed_events |= {"stream.lost", "server.notice", "backup.failed"}
        self.writers = Writers(self.primary, self.random).start()

    def test_every_restore_holds_exactly_what_its_target_names(self):
        self.disturb()
        point_lsn = self.point_lsn
        self.writers.stop()
        self.assertGreater(self.writers.committed_count(), 500)

        transactions = read_transactions(self.primary, self.stage)
        truth = rows_by_xid(self.primary)
        lost = set(self.writers.acknowledged) - {row[:2] for rows in truth.values() for row in rows}
        self.assertFalse(lost, "PostgreSQL itself lost acknowledged rows: the oracle is broken")
        self.agent.wait_until_flushed()
        quiet = max(t.micros for t in transactions) + SECOND
        wait_until(lambda: now_micros() > quiet, "a quiet second to pass", 10)
        wait_until(lambda: self.agent.cli("resolve", time_text(quiet), expect=None).returncode == 0,
                   "the quiet second after the last commit to be restorable", every=0.5)

        targets = self.targets(transactions, point_lsn, quiet)
        self.assertGreaterEqual(len(targets), 20)
        with concurrent.futures.ThreadPoolExecutor(RESTORES_AT_ONCE) as pool:
            check = lambda item: restore_and_compare(self.agent, item, truth, self.writers.acknowledged)
            results = list(pool.map(check, enumerate(targets)))
        wrong = [result for result in results if result]
        self.assertFalse(wrong, "\n".join(wrong))
        self.agent.stop()
        self.agent.check_log()

    def disturb(self):
        """Kills the agent again and again for a minute, PostgreSQL once, and backs up in between."""
        began = time.monotonic()
        kills = sorted(self.random.uniform(1, DISTURBED_SECONDS - 1) for _ in range(AGENT_KILLS))
        plan = [(at, self.kill_agent) for at in kills]
        plan.append((self.random.uniform(15, 45), self.kill_postgres))
        plan.append((20, self.back_up))
        plan.append((30, self.name_point))
        tick = threading.Event()
        for at, act in sorted(plan, key=lambda step: step[0]):
            tick.wait(max(0, began + at - time.monotonic()))
            act()
        tick.wait(max(0, began + DISTURBED_SECONDS - time.monotonic()))
        self.agent.wait_ready()
        self.assertGreaterEqual(self.agent_kills, 10)

    agent_kills = 0

    def kill_agent(self):
        self.agent.kill9()
        self.agent_kills += 1
        self.agent.start(wait=False)

    def kill_postgres(self):
        self.primary.kill9()
        self.primary.start()

    def back_up(self):
        """A second base, so that restores have to choose; it may fall victim to a kill.

        Taken by the agent: one that finds none takes the repository itself, and refuses the next agent.
        """
        self.agent.wait_ready()
        backup = self.stage.start([self.stage.walvault, "-c", self.agent.config, "backup"],
                                  log=self.stage.directory / "backup.log")
        wait_until(lambda: backup.poll() is not None
                   or self.primary.sql("select count(*) from pg_stat_progress_basebackup") != "0",
                   "the base backup to begin")

    def name_point(self):
        self.point_lsn = lsn_number(self.primary.sql("select pg_create_restore_point('halfway')"))

    def targets(self, transactions, point_lsn, quiet):
        """(description, arguments of restore, xids that must be there), for every kind of target."""
        rule = Rule(transactions)
        first_base_stop = min(lsn_number(b["stop_lsn"]) for b in self.agent.backups())
        inside = [t for t in transactions if t.lsn >= first_base_stop]
        commits = [t for t in inside if t.committed]
        latest_first_time = max(t.micros for t in transactions if t.lsn < commits[0].lsn)
        stamps = [t for t in commits if t.micros > latest_first_time]
        pick = self.random.choice
        found = []

        def add(kind, text, xids, told_by=None, begun_after=None):
            found.append((kind, text, xids, told_by, begun_after))

        def add_time(kind, at):
            """What the clients were told by then is owed, what they asked for later may not be there."""
            xids = rule.to_time(at) if kind == "to" else rule.before_time(at)
            add(kind, time_text(at), xids, told_by=lambda ack: ack.micros < at,
                begun_after=lambda ack: ack.begun_micros > at)

        for _ in range(5):
            add_time("to", self.random.randrange(stamps[0].micros, stamps[-1].micros))
        for _ in range(3):
            add_time("to", pick(stamps).micros)
        for _ in range(2):
            add_time("before", pick(stamps).micros)
        at = pick(stamps).micros
        add_time("to", at - 1)
        add_time("to", at + 1)
        add_time("before", at + 1)
        commit = pick(commits)
        add("to", "lsn:" + lsn_text(commit.lsn), rule.to_lsn(commit.lsn))
        add("before", "lsn:" + lsn_text(commit.lsn), rule.before_lsn(commit.lsn))
        lsn = self.random.randrange(commits[0].lsn, commits[-1].lsn)
        add("to", lsn_text(lsn), rule.to_lsn(lsn), told_by=lambda ack: ack.lsn and ack.lsn <= lsn)
        for kind in ("to", "to", "before"):
            commit = pick(commits)
            add(kind, f"xid:{commit.xid}",
                rule.to_xid(commit.xid) if kind == "to" else rule.before_xid(commit.xid))
        add("to", "name:halfway", rule.before_lsn(point_lsn))
        add("before", "name:halfway", rule.before_lsn(point_lsn))
        add_time("to", quiet)
        add("to", "latest", rule.latest(), told_by=lambda ack: True)
        return found

    def test_what_was_acknowledged_is_restored_when_the_agent_does_not_come_back(self):
        wait_for_commits(self.writers, 300)
        self.agent.kill9()
        # The walsender may have an acknowledgement left to read; it ends when it has noticed.
        wait_until(lambda: self.primary.sql("select count(*) from pg_replication_slots where active") == "0",
                   "the walsender of the killed agent to end")
        acknowledged_lsn = self.agent.restart_lsn()
        wait_for_commits(self.writers, self.writers.committed_count() + 50)
        self.writers.stop()
        transactions = read_transactions(self.primary, self.stage)
        truth = rows_by_xid(self.primary)

        restored = self.agent.restore(to="latest").open()
        there = set(rows_by_xid(restored))
        order = [t.xid for t in transactions if t.committed and t.xid in truth]
        self.assertEqual(there, set(order[:len(there)]), "what is restored is not a prefix of the WAL")
        owed = {t.xid for t in transactions
                if t.committed and t.end_lsn <= acknowledged_lsn and t.xid in truth}
        self.assertGreater(len(owed), 100)
        self.assertFalse(owed - there, "acknowledged commits are missing")
        self.assertIsNone(difference(there, truth, rows_by_xid(restored)))
        restored.discard()


if __name__ == "__main__":
    unittest.main()
