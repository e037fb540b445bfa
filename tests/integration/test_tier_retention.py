"""Each place keeps what its own rules say: what the host lets go is read from the copy that keeps it."""

import json
import unittest

from agent_process import Agent, error_is_helpful
from cluster import Postgres
from harness import StageCase, lsn_number, wait_until
from oracle import time_text

WINDOW_SECONDS = 20
SECOND = 1_000_000


def packs_of(directory):
    """While packs go, too."""
    packs = {}
    for path in directory.rglob("*.pack"):
        try:
            packs[str(path.relative_to(directory))] = path.stat().st_size
        except FileNotFoundError:
            pass
    return packs


class TierRetentionTest(StageCase):
    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage).start()
        self.tier = self.stage.make_directory("tier")
        self.agent = Agent(self.stage, self.primary)
        self.before_table, self.key_table = self.agent.config.read_text().split("[encryption]")
        self.write_rules("", "")
        self.agent.init()
        self.agent.cli("repo", "add", "second")
        self.agent.start()
        self.agent.wait_for_backup()
        self.primary.sql("create table life(n int primary key, filler text)")
        self.count = 0
        self.moments = []

    def write_rules(self, primary, second):
        self.agent.write_config(
            f'{self.before_table}{primary}\n\n[repo.second]\nurl = "file://{self.tier}"\noffload_interval = "1s"\n'
            f'{second}\n\n[encryption]{self.key_table}')

    def rules(self, window=WINDOW_SECONDS):
        return f'window = "{window}s"\nprotect_min = 1\nexpire_grace = "0s"\n'

    def take_rules(self, primary, second):
        self.write_rules(primary, second)
        self.agent.reload("[encryption]", "[encryption]")

    def server_micros(self):
        return int(self.primary.sql("select (extract(epoch from clock_timestamp()) * 1000000)::bigint"))

    def live(self):
        self.count += 1
        self.primary.sql(f"insert into life select {self.count}, string_agg(md5(random()::text), '') "
                         "from generate_series(1, 40000)")
        self.moments.append((self.server_micros(), self.count))
        self.primary.sql("select pg_switch_wal()")

    def live_through_a_window(self):
        for _ in range(3):
            self.live()
            self.agent.json("backup", "--fast")
        behind = self.server_micros()
        wait_until(lambda: self.server_micros() - behind > (WINDOW_SECONDS + 2) * SECOND,
                   "the window to pass", timeout=120, every=1)
        for _ in range(2):
            self.live()
        self.wait_until_offloaded()

    def wait_until_offloaded(self):
        lsn = self.agent.wait_until_flushed()
        state = lambda: self.agent.status()["tiers"][0]
        wait_until(lambda: state()["up"] and lsn_number(state()["offloaded_lsn"]) >= lsn,
                   "the tier to have what is flushed", every=0.2)

    def expire(self):
        for _ in range(50):
            done = self.agent.cli("-o", "json", "expire", expect=None)
            if done.returncode == 0:
                return {place["repo"]: place for place in json.loads(done.stdout)["places"]}
            self.assertEqual(json.loads(done.stderr.strip().splitlines()[-1])["error"]["code"], "busy")
        raise AssertionError("retention was busy all the time")

    def expire_until_deleted(self, repo):
        """A pack goes when the copy has the entry that condemned it, which may take a round."""
        def done():
            report = self.expire()[repo]
            return report["waiting_packs"] == 0
        wait_until(done, "all that is condemned to be deleted", timeout=60, every=0.5)

    def rows_at(self, micros, extra=(), config=None):
        options = {"extra": list(extra)} | ({"config": config} if config else {})
        restored = self.agent.restore(to=time_text(micros), **options).open()
        try:
            return int(restored.sql("select count(*) from life"))
        finally:
            restored.discard()

    def from_tier(self):
        return ["--from", f"file://{self.tier}", "--key-file", self.agent.key]

    def test_what_the_host_lets_go_is_restored_from_the_copy(self):
        agent = self.agent
        self.live_through_a_window()
        kept = packs_of(self.tier)
        self.take_rules(self.rules(), "")
        self.expire_until_deleted("primary")
        here = packs_of(agent.repo)
        self.assertLess(sum(here.values()), sum(kept.values()) * 0.7)
        self.wait_until_offloaded()
        self.assertLessEqual(kept.items(), packs_of(self.tier).items())
        # The window of the whole is the copy's, for whoever asks, and every moment can be had.
        windows = agent.json("info")["windows"]
        self.assertEqual(len(agent.backups()), 4)
        self.assertEqual(agent.json("info", *self.from_tier())["windows"][0]["from"], windows[0]["from"])
        for micros, rows in self.moments[:2]:
            self.assertEqual(self.rows_at(micros), rows)
        self.assertEqual(self.rows_at(self.moments[1][0], self.from_tier(), "/nowhere.toml"), self.moments[1][1])
        self.assertEqual(self.rows_at(self.moments[-2][0]), self.moments[-2][1])
        self.assertTrue(agent.json("verify")["ok"])
        self.assertTrue(agent.json("verify", *self.from_tier())["ok"])
        # An index made anew is the same one.
        self.assertEqual(agent.stop(), 0)
        told = agent.json("info")
        agent.cli("repo", "rebuild-index")
        for key in ("windows", "backups", "totals"):
            self.assertEqual(agent.json("info")[key], told[key])
        # The copy is no more: what only it had does not count.
        error = agent.error("repo", "remove", "second", expect=4)
        self.assertTrue(error_is_helpful(error), error)
        held = agent.json("hold", "--backup", agent.backups()[0]["backup_id"], "--reason", "case 4711")["hold_id"]
        agent.write_config(self.before_table + self.rules() + "\n[encryption]" + self.key_table)
        error = agent.error("repo", "remove", "third", expect=2)
        self.assertTrue(error_is_helpful(error), error)
        error = agent.error("repo", "remove", "second", expect=4)
        self.assertIn(held, error["message"])
        self.assertTrue(error_is_helpful(error), error)
        agent.cli("repo", "remove", "second", "--yes")
        self.assertEqual(len(agent.backups()), 1)
        error = agent.error("resolve", time_text(self.moments[0][0]), expect=3)
        self.assertEqual(error["code"], "outside_window")
        self.assertEqual(self.rows_at(self.moments[-2][0]), self.moments[-2][1])
        agent.check_log()

    def test_what_the_copy_does_not_have_stays_here(self):
        agent = self.agent
        self.live_through_a_window()
        agent.allowed_events |= {"offload.failed", "retention.not_proved", "retention.not_done"}
        away = self.tier.with_name("away")
        self.tier.rename(away)
        wait_until(lambda: not agent.status()["tiers"][0]["up"], "the copy to be missed", every=0.2)
        self.take_rules(self.rules(), "")
        before = packs_of(agent.repo)
        report = self.expire()["primary"]
        self.assertGreater(report["waiting_packs"], 0)
        self.assertIn("second", report["waits_for"])
        self.assertLessEqual(before.items(), packs_of(agent.repo).items())
        self.assertEqual(self.rows_at(self.moments[0][0]), self.moments[0][1])
        # One pack was lost there: it is the one that stays.
        wal = sorted(name for name in before if "/wal/" in name)
        lost = wal[0]
        (away / lost).unlink()
        away.rename(self.tier)
        wait_until(lambda: agent.status()["tiers"][0]["up"], "the copy to be found", every=0.2)
        wait_until(lambda: self.expire()["primary"]["waiting_packs"] == 1, "all others to go", timeout=60, every=0.5)
        self.assertIn(lost, packs_of(agent.repo))
        self.assertEqual(self.rows_at(self.moments[0][0]), self.moments[0][1])
        agent.check_log()

    def test_a_disk_that_is_short_of_room_lets_go_what_the_copy_keeps(self):
        agent = self.agent
        self.live_through_a_window()
        kept = packs_of(self.tier)
        before = packs_of(agent.repo)
        # No disk has so much free: everything that may go goes.
        self.take_rules('evict_below = "95%"', "")
        wait_until(lambda: len(packs_of(agent.repo)) < len(before) / 2, "what the copy keeps to go", 120, every=0.5)
        self.assertEqual(len(agent.backups()), 4)
        for micros, rows in (self.moments[0], self.moments[2], self.moments[-2]):
            self.assertEqual(self.rows_at(micros), rows)
        self.assertLessEqual(kept.items(), packs_of(self.tier).items())
        self.assertTrue(agent.json("verify")["ok"])
        # With the copy away nothing more goes, and capture goes on.
        agent.allowed_events |= {"offload.failed", "retention.no_relief", "retention.not_proved"}
        self.tier.rename(self.tier.with_name("away"))
        wait_until(lambda: not agent.status()["tiers"][0]["up"], "the copy to be missed", every=0.2)
        here = packs_of(agent.repo)
        for _ in range(3):
            self.live()
        agent.wait_until_flushed()
        self.assertLessEqual(here.items(), packs_of(agent.repo).items())
        self.tier.with_name("away").rename(self.tier)
        self.wait_until_offloaded()
        self.assertEqual(self.rows_at(self.moments[-2][0]), self.moments[-2][1])
        agent.check_log()

    def test_the_copy_lets_go_by_its_own_rules(self):
        agent = self.agent
        self.live_through_a_window()
        before = packs_of(self.tier)
        self.write_rules("", self.rules())
        shown = agent.json("expire", "--dry-run")["places"]
        self.assertEqual([place["repo"] for place in shown], ["second"])
        self.assertGreater(shown[0]["condemned_bytes"], 0)
        self.take_rules("", self.rules())
        self.expire_until_deleted("second")
        gone = {item["path"] for item in shown[0]["packs"] if not item["keep"]}
        wait_until(lambda: not gone & packs_of(self.tier).keys(), "the objects to go", every=0.5)
        self.assertEqual(len(agent.backups()), 4)
        self.assertEqual(len(agent.json("info", "--backups", *self.from_tier())["backups"]), 1)
        self.assertEqual(self.rows_at(self.moments[0][0]), self.moments[0][1])
        self.assertEqual(self.rows_at(self.moments[-2][0], self.from_tier(), "/nowhere.toml"), self.moments[-2][1])
        self.assertTrue(agent.json("verify")["ok"])
        self.assertTrue(agent.json("verify", *self.from_tier())["ok"])
        error = agent.error("resolve", time_text(self.moments[0][0]), *self.from_tier(), expect=3)
        self.assertEqual(error["code"], "outside_window")
        self.assertLessEqual(before.items(), packs_of(agent.repo).items())
        agent.check_log()


if __name__ == "__main__":
    unittest.main()
