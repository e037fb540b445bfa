"""A second copy of the repository: the host is lost, the copy goes away and comes back, the agent is killed."""

import re
import shutil
import threading
import unittest

from agent_process import Agent, checksum
from cluster import ConnectionLost, Postgres
from harness import StageCase, lsn_number, now_micros, seeded_random, wait_until
from oracle import (Rule, Writers, broken_promises, difference, make_table, read_transactions, rows_by_xid,
                    time_text, wait_for_commits)

SECOND = 1_000_000
OFFLOAD_SECONDS = 1
KILLS = 8

PIECE = re.compile(r"\.tail/[0-9a-f]{16}$")


class TierCase(StageCase):
    """An agent with a tier of one second."""

    agent_settings = {}

    def setUp(self):
        super().setUp()
        self.random = seeded_random(self.id())
        self.primary = Postgres.create(self.stage, settings={"wal_keep_size": "'8GB'"}).start()
        self.tier = self.stage.make_directory("tier")
        self.agent = Agent(self.stage, self.primary, **self.agent_settings)
        self.add_table(self.agent, self.tier)

    def add_table(self, agent, directory):
        agent.write_config(agent.config.read_text() + f'\n[repo.second]\nurl = "file://{directory}"\n'
                           f'offload_interval = "{OFFLOAD_SECONDS}s"\n')

    def start(self):
        self.agent.init()
        self.agent.cli("repo", "add", "second")
        self.agent.start()
        self.agent.wait_for_backup()
        self.wait_until_offloaded()

    def state(self):
        return self.agent.status()["tiers"][0]

    def wait_until_offloaded(self):
        """Until all that the server has flushed by now is on the tier."""
        lsn = self.agent.wait_until_flushed()
        wait_until(lambda: self.state()["up"] and lsn_number(self.state()["offloaded_lsn"]) >= lsn,
                   "the tier to have what is flushed", every=0.2)

    def from_tier(self):
        return ["--from", f"file://{self.tier}", "--key-file", self.agent.key]

    def cli(self, *arguments, **options):
        """A verb that reads the tier where nothing else of the agent can be read."""
        return self.agent.cli(*arguments, *self.from_tier(), config="/nowhere/walvault.toml", **options)

    def json(self, *arguments):
        return self.agent.json(*arguments, *self.from_tier(), config="/nowhere/walvault.toml")

    def restore(self, to, *extra):
        return self.agent.restore(to=to, extra=[*self.from_tier(), *extra], config="/nowhere/walvault.toml").open()

    def names(self, root, pattern=""):
        return sorted(str(path.relative_to(root)) for path in root.rglob("*")
                      if path.is_file() and re.search(pattern, str(path)))

    def pieces(self):
        return self.names(self.tier, PIECE)

    def check_nothing_is_lost(self):
        """The newest restore from the tier holds all; afterwards the agent is stopped, and the tier a whole copy."""
        restored = self.restore("latest")
        self.assertIsNone(difference(Rule(read_transactions(self.primary, self.stage)).latest(),
                                     rows_by_xid(self.primary), rows_by_xid(restored)))
        restored.discard()
        self.assertEqual(self.agent.stop(), 0)
        self.check_is_whole_copy()
        self.agent.check_log()

    def check_is_whole_copy(self):
        """With the agent stopped: the packs of both are the same, and nothing else was left behind."""
        self.assertEqual(self.pieces(), [])
        kept = lambda root: [name for name in self.names(root) if name.startswith("main/")]
        self.assertEqual(kept(self.tier), kept(self.agent.repo))
        for name in kept(self.tier):
            self.assertEqual((self.tier / name).read_bytes(), (self.agent.repo / name).read_bytes(), name)
        self.assertEqual([name for name in self.names(self.tier) if "/." in name], [], "leftovers of puts")
        self.assertEqual([path for path in self.tier.rglob("*") if path.is_dir() and not any(path.iterdir())],
                         [], "empty directories")

    def check_lost_host(self, ways):
        """Everything but the tier goes while writers run; a restore of the last moment and one by each of `ways`."""
        self.start()
        writers = Writers(self.primary, self.random).start()
        wait_for_commits(writers, 300)
        until = now_micros() + int(self.random.uniform(3, 6) * SECOND)
        wait_until(lambda: now_micros() > until, "a random moment", 20, every=0.005)
        self.agent.kill9()
        lost_at = now_micros()
        shutil.rmtree(self.agent.repo)
        self.agent.config.unlink()
        self.agent.check_log()
        writers.stop()
        transactions = read_transactions(self.primary, self.stage)
        truth = rows_by_xid(self.primary)

        restored = self.restore("latest")
        there = rows_by_xid(restored)
        restored.discard()
        commits = [t for t in transactions if t.committed and t.xid in truth]
        kept = [t for t in commits if t.xid in there]
        self.assertTrue(kept)
        rule = Rule(transactions)
        self.assertIsNone(difference(rule.to_lsn(kept[-1].lsn), truth, there), "it is not a prefix")
        allowed = lost_at - (OFFLOAD_SECONDS + 1) * SECOND
        rows = {row[:2] for of_one in there.values() for row in of_one}
        self.assertIsNone(broken_promises(writers.acknowledged, rows, lambda told: told.micros <= allowed))
        lost_for = (lost_at - kept[-1].micros) / SECOND
        print(f"the last commit that was kept is {lost_for:.2f} s older than the loss", flush=True)

        base_stop = lsn_number(self.json("info", "--backups")["backups"][0]["stop_lsn"])
        inside = [t for t in kept if t.lsn >= base_stop]
        for commit, how in zip(self.random.sample(inside, len(ways)), ways):
            restored = self.restore(time_text(commit.micros), "--wal", how)
            self.assertIsNone(difference(rule.to_time(commit.micros), truth, rows_by_xid(restored)))
            restored.discard()


class OffloadedCommitsTest(TierCase):
    """acknowledge = "offloaded": a commit that waits for the agent waits for the copy."""

    agent_settings = {"server_lines": 'acknowledge = "offloaded"'}

    def start(self):
        super().start()
        self.primary.sql("alter system set synchronous_standby_names = 'walvault'")
        self.primary.sql("select pg_reload_conf()")
        wait_until(lambda: self.agent.status()["synchronous"], "the agent to know that commits wait")

    def test_every_commit_that_returned_is_in_the_copy_when_the_host_is_lost(self):
        self.start()
        writers = Writers(self.primary, self.random).start()
        wait_for_commits(writers, 200)
        until = now_micros() + int(self.random.uniform(1, 4) * SECOND)
        wait_until(lambda: now_micros() > until, "a random moment", 20, every=0.005)
        self.agent.kill9()
        shutil.rmtree(self.agent.repo)
        told = dict(writers.acknowledged)
        self.agent.config.unlink()
        self.primary.sql("alter system reset synchronous_standby_names")
        self.primary.sql("select pg_reload_conf()")
        writers.stop()
        truth = rows_by_xid(self.primary)
        restored = self.restore("latest")
        there = rows_by_xid(restored)
        restored.discard()
        rows = {row[:2] for of_one in there.values() for row in of_one}
        self.assertIsNone(broken_promises(told, rows, lambda told: True))
        self.assertIsNone(difference(Rule(read_transactions(self.primary, self.stage)).to_lsn(
            max(t.lsn for t in read_transactions(self.primary, self.stage) if t.xid in there)), truth, there))
        self.agent.check_log()

    def test_a_copy_that_is_away_holds_commits_and_no_shutdown(self):
        self.start()
        self.agent.allowed_events |= {"offload.failed", "stream.copy_late", "stream.lost", "server.notice"}
        self.primary.sql("create table t(n int)")
        away = self.tier.with_name("away")
        self.tier.rename(away)
        wait_until(lambda: not self.state()["up"], "the copy to be missed", every=0.2)
        session = self.primary.session()
        waits = threading.Thread(target=lambda: session.execute("insert into t values (1);"), daemon=True)
        waits.start()
        wait_until(lambda: lsn_number(self.agent.status()["flushed_lsn"]) >
                   lsn_number(self.agent.status()["acknowledged_lsn"]), "the commit to be flushed here")
        self.assertTrue(waits.is_alive())
        wait_until(lambda: self.agent.events("stream.copy_late"), "the agent to leave the server for a moment", 40)
        self.assertTrue(waits.is_alive())
        # Back: the commit returns.
        away.rename(self.tier)
        waits.join(60)
        self.assertFalse(waits.is_alive(), "the commit does not return")
        session.close()
        # Away again, with a commit that waits: the server shuts down all the same.
        self.tier.rename(away)
        wait_until(lambda: not self.state()["up"], "the copy to be missed", every=0.2)
        session = self.primary.session()
        waits = threading.Thread(target=lambda: self.swallow(session, "insert into t values (2);"), daemon=True)
        waits.start()
        began = now_micros()
        self.primary.stop("fast")
        self.assertLess(now_micros() - began, 40 * SECOND)
        self.agent.check_log()

    def swallow(self, session, statement):
        try:
            session.execute(statement)
        except ConnectionLost:
            pass

    def test_it_needs_a_copy(self):
        self.agent.write_config(self.agent.config.read_text().split("[repo.second]")[0])
        error = self.agent.error("run", expect=2)
        self.assertIn("acknowledge", error["message"])


class HostLostTest(TierCase):
    def test_what_is_offloaded_is_restored_where_everything_else_is_gone(self):
        self.check_lost_host(("copy", "fetch", "auto"))


class TierFaultsTest(TierCase):
    def test_an_agent_killed_again_and_again_leaves_a_tier_that_is_whole(self):
        self.start()
        self.agent.allowed_events |= {"stream.lost", "server.notice"}
        writers = Writers(self.primary, self.random).start()
        tick = threading.Event()
        for _ in range(KILLS):
            tick.wait(self.random.uniform(0.5, 4))
            self.agent.kill9()
            # Whatever was being done: it can be opened, and what it holds is undamaged.
            self.cli("info")
            self.agent.start(wait=False)
        self.agent.wait_ready()
        writers.stop()
        self.wait_until_offloaded()
        self.cli("verify", "--level", "wal")
        self.cli("verify")
        # Of the tail that is open, and of none before.
        self.assertLessEqual(len({name.rsplit("/", 1)[0] for name in self.pieces()}), 1)
        self.check_nothing_is_lost()

    def test_a_tier_that_is_away_for_a_while_holds_up_nothing_and_catches_up(self):
        self.start()
        make_table(self.primary, "before", 2000)
        self.wait_until_offloaded()
        away = self.tier.with_name("away")
        self.tier.rename(away)
        make_table(self.primary, "meanwhile", 30000)
        self.agent.wait_until_flushed()
        wait_until(lambda: not self.state()["up"], "the agent to notice")
        self.assertIn("is not there", self.state()["error"]["message"])
        self.assertGreater(self.state()["lag_bytes"], 0)
        self.assertIn("failing", self.agent.cli("status").stdout)
        labels = '{repo="second",server="main"}'
        metrics = self.agent.metrics()
        self.assertEqual(metrics["walvault_offload_up" + labels], 0)
        self.assertGreater(metrics["walvault_offload_errors_total" + labels], 0)
        self.assertGreater(metrics["walvault_offloaded_lag_bytes" + labels], 0)
        self.assertFalse(self.tier.exists(), "it was made anew where a disk is to be mounted")
        away.rename(self.tier)
        self.wait_until_offloaded()
        self.assertEqual(len(self.agent.events("offload.failed")), 1)
        wait_until(lambda: self.agent.metrics()["walvault_offload_up" + labels] == 1, "the metric")
        self.assertGreater(self.agent.metrics()["walvault_offload_uploaded_bytes_total" + labels], 1_000_000)
        restored = self.restore("latest")
        for table in ("before", "meanwhile"):
            self.assertEqual(checksum(restored, table, "id"), checksum(self.primary, table, "id"))
        restored.discard()
        self.assertEqual(self.agent.stop(), 0)
        self.check_is_whole_copy()
        self.agent.allowed_events.add("offload.failed")
        self.agent.check_log()


class TierRefusalsTest(TierCase):
    def test_a_tier_is_made_only_where_nothing_is_and_serves_one_repository(self):
        self.agent.init()
        keepsake = self.stage.write(self.tier / "keepsake", "not yours")
        tried = self.agent.error("--dry-run", "repo", "add", "second", expect=4)
        error = self.agent.error("repo", "add", "second", expect=4)
        self.assertEqual(tried, error)
        self.assertIn("keepsake", error["message"])
        keepsake.unlink()
        self.assertIn("second", self.agent.error("repo", "add", "secnd", expect=2)["message"])

        # An empty one is not taken by itself.
        self.agent.start()
        wait_until(lambda: self.state().get("error"), "the agent to tell of the empty tier")
        self.assertIn("walvault repo add", self.state()["error"]["hint"])
        self.assertEqual(self.names(self.tier), [])
        self.agent.cli("repo", "add", "second")
        self.agent.cli("repo", "add", "second")
        self.agent.wait_for_backup()
        self.wait_until_offloaded()

        other = Agent(self.stage, self.primary, name="other", slot="other")
        self.add_table(other, self.tier)
        other.init()
        self.assertIn("of the repository", other.error("repo", "add", "second", expect=4)["message"])
        before = self.names(self.tier)
        other.start()
        wait_until(lambda: other.status()["tiers"][0].get("error"), "the foreign tier to be told of")
        self.assertIn("is a tier of the repository", other.status()["tiers"][0]["error"]["message"])
        other.kill9()
        self.assertLessEqual(set(before) - set(self.names(self.tier)), set(self.pieces()) | set(before))
        self.cli("verify")

        self.check_readers()
        self.agent.stop()

    def check_readers(self):
        """What is asked of a copy is answered as by the repository; nothing is written there."""
        before = self.names(self.tier)
        self.agent.kill9()
        for verb in (["info", "--timelines"], ["log", "--kind", "commit"], ["resolve", "latest"]):
            self.assertEqual(self.json(*verb).keys(), self.agent.json(*verb).keys())
        self.assertIn("--key-file", self.cli("resolve", "latest").stdout)
        self.cli("verify")
        self.assertEqual(self.names(self.tier), before)
        key = self.agent.directory / "other.key"
        self.agent.cli("key", "generate", "--out", key)
        url = f"file://{self.tier}"
        self.agent.error("info", "--from", url, "--key-file", key, expect=9)
        self.agent.error("info", "--from", url, expect=2)
        self.agent.error("info", "--key-file", key, expect=2)
        self.agent.error("backup", *self.from_tier(), expect=2)
        self.assertIn("s3://", self.agent.error("info", "--from", "s3:/bucket", "--key-file", key, expect=2)["hint"])
        self.agent.error("info", "--from", "file:///nowhere", "--key-file", self.agent.key, expect=6)
        self.agent.error("info", *self.from_tier(), "--server", "absent", expect=1)


if __name__ == "__main__":
    unittest.main()
