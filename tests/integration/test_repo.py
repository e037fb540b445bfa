"""What lies in a repository and in its copies, and a copy of a whole one that is made beside its agent."""

import shutil
import unittest

from agent_process import Agent, checksum
from cluster import Postgres
from harness import StageCase, lsn_number, seeded_random, wait_until
from oracle import (Rule, Writers, difference, make_table, read_transactions, rows_by_xid, wait_for_commits)


class RepoTest(StageCase):
    def setUp(self):
        super().setUp()
        self.random = seeded_random(self.id())
        self.primary = Postgres.create(self.stage, settings={"wal_keep_size": "'8GB'"}).start()
        self.agent = Agent(self.stage, self.primary)
        self.agent.init()

    def stat(self, *arguments, config=None):
        return self.agent.json("repo", "stat", *arguments, config=config)

    def test_every_object_is_told_with_its_kind(self):
        self.agent.protect()
        make_table(self.primary, "first", 40000)
        self.agent.wait_until_flushed()
        told = self.stat()
        self.assertGreater(told["kinds"]["wal"]["count"], 0)
        self.assertEqual(told["kinds"]["tail"]["count"], 1)
        self.assertEqual(told["kinds"]["manifest"]["count"], 1)
        self.assertEqual(told["oldest_base"], told["newest_base"])
        self.assertEqual(told["missing"], [])
        self.assertEqual(told["object_count"], sum(kind["count"] for kind in told["kinds"].values()))
        self.assertGreaterEqual(told["pack_count"], 2)
        self.assertEqual(self.agent.stop(), 0)
        self.assertNotIn("tail", self.stat()["kinds"])

        pack = next(path for path in sorted((self.agent.repo / "main" / "wal").iterdir()))
        name = str(pack.relative_to(self.agent.repo))
        self.stage.write(self.agent.repo / "main" / "wal" / "stray.pack", "not ours")
        self.assertEqual(self.stat()["unnamed"], ["main/wal/stray.pack"])
        rows = {row["path"]: row for row in self.agent.json("repo", "ls")["objects"]}
        self.assertEqual(rows[name]["kind"], "wal")
        self.assertEqual(rows[name]["stored_bytes"], pack.stat().st_size)
        self.assertEqual(rows["main/wal/stray.pack"]["kind"], "unnamed")
        self.assertIn("stray.pack", self.agent.cli("repo", "stat").stdout)
        pack.rename(pack.with_name("away"))
        self.assertEqual(self.stat()["missing"], [name])
        self.assertIn("MISSING", self.agent.cli("repo", "stat").stdout)

    def test_a_copy_is_made_beside_the_agent_and_can_be_restored_from(self):
        self.agent.protect()
        writers = Writers(self.primary, self.random).start()
        wait_for_commits(writers, 200)
        place = self.stage.make_directory("copy")
        source, target = f"file://{self.agent.repo}", f"file://{place}"
        self.agent.cli("--dry-run", "repo", "copy", source, target)
        self.assertEqual(list(place.iterdir()), [])
        before = self.agent.wait_until_flushed()
        copied = self.agent.json("repo", "copy", source, target)
        self.assertGreater(copied["put_bytes"], 1_000_000)
        writers.stop()
        from_copy = ["--from", target, "--key-file", self.agent.key]
        nowhere = "/nowhere/walvault.toml"
        self.agent.cli("verify", *from_copy, config=nowhere)
        told = self.stat(*from_copy, config=nowhere)
        self.assertEqual((told["unnamed"], told["missing"]), ([], []))
        restored = self.agent.restore(to="latest", extra=from_copy, config=nowhere).open()
        transactions = read_transactions(self.primary, self.stage)
        truth, there = rows_by_xid(self.primary), rows_by_xid(restored)
        restored.discard()
        kept = [t for t in transactions if t.committed and t.xid in there]
        self.assertGreaterEqual(len(kept), len([t for t in transactions if t.committed and t.xid in truth
                                                and t.lsn < before]))
        self.assertIsNone(difference(Rule(transactions).to_lsn(kept[-1].lsn), truth, there), "it is not a prefix")

        error = self.agent.error("repo", "copy", target, source, "--key-file", self.agent.key, config=nowhere, expect=4)
        self.assertIn("agent writes to", error["message"])
        # Again: only what is new. And a copy of the copy, without any configuration.
        again = self.agent.json("repo", "copy", source, target)
        self.assertLess(again["put_bytes"], copied["put_bytes"])
        second = self.stage.make_directory("second")
        self.agent.cli("repo", "copy", target, f"file://{second}", "--key-file", self.agent.key, config=nowhere)
        self.agent.cli("verify", "--from", f"file://{second}", "--key-file", self.agent.key, config=nowhere)
        self.assertEqual(self.agent.stop(), 0)
        self.agent.check_log()

    def test_a_second_copy_is_read_by_its_name(self):
        tier = self.stage.make_directory("tier")
        self.agent.write_config(self.agent.config.read_text() + f'\n[repo.second]\nurl = "file://{tier}"\n'
                                'offload_interval = "1s"\n')
        self.agent.cli("repo", "add", "second")
        self.agent.protect()
        make_table(self.primary, "first", 20000)
        lsn = self.agent.wait_until_flushed()
        wait_until(lambda: lsn_number(self.agent.status()["tiers"][0].get("offloaded_lsn") or "0/0") >= lsn,
                   "the copy to have it")
        self.assertEqual(self.agent.stop(), 0)
        told = self.stat("second")
        self.assertEqual((told["url"], told["unnamed"], told["missing"]), (f"file://{tier}", [], []))
        self.assertNotIn("writer", told["kinds"])
        self.assertEqual(self.agent.json("repo", "ls", "second"), self.agent.json("repo", "ls", "--from", "second"))
        self.agent.repo.rename(self.agent.repo.with_name("away"))
        self.agent.cli("verify", "--from", "second")
        for how in ("copy", "fetch"):
            restored = self.agent.restore(to="latest", extra=["--from", "second", "--wal", how]).open()
            self.assertEqual(checksum(restored, "first", "id"), checksum(self.primary, "first", "id"))
            restored.discard()
        self.agent.error("info", "--from", "third", expect=2)

    def test_a_copy_goes_nowhere_else(self):
        self.agent.protect()
        self.assertEqual(self.agent.stop(), 0)
        source = f"file://{self.agent.repo}"
        other = Agent(self.stage, self.primary, name="other", slot="other")
        other.init()
        inside = self.stage.make_directory("agent", "repo", "inside")
        full = self.stage.make_directory("full")
        self.stage.write(full / "keepsake", "not yours")
        elsewhere = self.stage.make_directory("elsewhere")
        shutil.copy(other.repo / "repository", elsewhere / "repository")
        self.stage.give(elsewhere / "repository")
        for target, what in [(source, "same"), (f"file://{inside}", "inside"), (f"file://{full}", "keepsake"),
                             (f"file://{other.repo}", "of the repository"), (f"file://{elsewhere}", "repository")]:
            error = self.agent.error("repo", "copy", source, target, expect=4)
            self.assertIn(what, error["message"])
        # The agent's own repository, as a copy of another's.
        error = self.agent.error("repo", "copy", f"file://{other.repo}", source, expect=4)
        self.assertIn("repository of the agent", error["message"])
        self.agent.error("repo", "copy", source, expect=2)
        self.agent.error("repo", "copy", source, "file://relative", expect=2)
        self.agent.error("repo", "copy", "file:///nowhere/at/all", f"file://{full}", expect=6)
        self.agent.error("repo", "stat", "absent", expect=2)


if __name__ == "__main__":
    unittest.main()
