"""H10: a copy in a bucket whose packs went into an archive class: told, agreed to, thawed, restored."""

import json
import pathlib
import signal
import unittest

from agent_process import Agent, checksum
from cluster import Postgres
from harness import StageCase, now_micros, wait_until
from oracle import make_table, time_text
from s3_imposter import Imposter

PRICES = """[archive]
prices = ["GLACIER standard 10/GB 0.05/1000 5h"]
egress = "100/GB"
currency = "EUR"
"""


class ArchiveTest(StageCase):
    def setUp(self):
        super().setUp()
        self.imposter = Imposter(self.stage)
        self.primary = Postgres.create(self.stage).start()
        self.agent = Agent(self.stage, self.primary)
        self.agent.init()
        self.agent.protect()
        make_table(self.primary, "early", 3000)
        self.agent.cli("backup", "--fast")
        make_table(self.primary, "first", 20000)
        self.moment = now_micros()
        make_table(self.primary, "second", 20000)
        # Behind the packs that tell where that moment is, in the same segment.
        make_table(self.primary, "third", 20000)
        self.agent.wait_until_flushed()
        self.assertEqual(self.agent.stop(), 0)
        self.agent.cli("repo", "copy", f"file://{self.agent.repo}", self.imposter.url())
        # Packs, as a rule of the bucket moves them; ledger and keyring stay.
        self.imposter.say("class", "main/main/", "GLACIER")

    def source(self):
        return ["--from", self.imposter.url(), "--key-file", self.agent.key, "--thaw-poll", "1s"]

    def arguments(self, pgdata, to, *extra):
        return ["restore", "--to", to, "--pgdata", pgdata, *self.source(), *extra]

    def pgdata(self, name):
        return self.stage.make_directory("pg") / name

    def run_restore(self, name, to, *extra):
        return self.agent.restore(to=to, pgdata=self.pgdata(name), extra=[*self.source(), *extra],
                                  config="/nowhere/walvault.toml")

    def check_tables(self, restored, *tables):
        for table in tables:
            self.assertEqual(checksum(restored, table, "id"), checksum(self.primary, table, "id"), table)

    def test_a_dry_run_tells_what_a_thaw_takes_and_asks_for_nothing(self):
        pgdata = self.pgdata("dry")
        prices = self.stage.write(self.stage.directory / "prices.toml", PRICES)
        told = json.loads(self.agent.cli("-o", "json", "--dry-run",
                                         *self.arguments(pgdata, "latest", "--prices", prices)).stdout)
        thaw = told["thaw"]
        self.assertGreater(thaw["ask_count"], 3)
        self.assertEqual(thaw["ask_count"], len(thaw["objects"]))
        self.assertEqual({item["class"] for item in thaw["objects"]}, {"GLACIER"})
        self.assertEqual(sum(item["bytes"] for item in thaw["objects"]), thaw["ask_bytes"])
        self.assertEqual(thaw["ready_after_s"], 5 * 3600)
        self.assertAlmostEqual(thaw["cost"]["thaw"], thaw["ask_bytes"] / 1e9 * 10 + thaw["ask_count"] * 0.00005)
        self.assertAlmostEqual(thaw["cost"]["egress"], thaw["needed_bytes"] / 1e9 * 100)
        text = self.agent.cli("--dry-run", *self.arguments(pgdata, "latest")).stdout
        self.assertIn("must be thawed first", text)
        self.assertIn("no prices configured", text)
        self.assertEqual(self.imposter.retrievals(), (0, 0))
        self.assertFalse(pathlib.Path(f"{pgdata}.walvault-thaw").exists())

        # Nobody is there to be asked.
        error = self.agent.error(*self.arguments(pgdata, "latest"), expect=11)
        self.assertEqual(error["code"], "archived")
        self.assertIn("--yes", error["hint"])
        self.assertEqual(self.imposter.retrievals(), (0, 0))
        self.assertFalse(pgdata.exists())
        self.check_readers()

    def check_readers(self):
        """What only reads says what it could not read, and takes nothing for damaged or absent."""
        source = ["--from", self.imposter.url(), "--key-file", self.agent.key]
        told = json.loads(self.agent.cli("-o", "json", "verify", *source, expect=11).stdout)
        self.assertEqual(told["failures"], [])
        self.assertGreater(told["archived_packs"], 3)
        self.agent.cli("info", "--backups", *source)
        told = self.agent.json("repo", "stat", *source)
        self.assertEqual(told["classes"]["GLACIER"]["count"],
                         sum(told["kinds"][kind]["count"] for kind in ("wal", "base", "manifest")))
        self.assertEqual((told["unnamed"], told["missing"]), ([], []))
        classes = {row["kind"]: row["class"] for row in self.agent.json("repo", "ls", *source)["objects"]}
        self.assertEqual((classes["wal"], classes["ledger"]), ("GLACIER", "STANDARD"))

    def test_a_restore_waits_for_what_it_needs_and_pays_once(self):
        self.imposter.say("thaw", 30)
        self.imposter.say("tick", 1)
        restored = self.run_restore("latest", "latest", "--yes").open()
        self.check_tables(restored, "early", "first", "second", "third")
        restored.discard()
        objects, paid = self.imposter.retrievals()
        self.assertGreater(objects, 3)
        self.assertEqual(objects, paid)
        self.assertFalse(pathlib.Path(f"{self.pgdata('latest')}.walvault-thaw").exists())
        # Thawed already: nothing to ask for.
        restored = self.run_restore("again", "latest").open()
        self.check_tables(restored, "early", "first", "second", "third")
        restored.discard()
        self.assertEqual(self.imposter.retrievals(), (objects, paid))

    def test_a_moment_inside_archived_wal_is_found_and_replay_fetches_what_was_thawed(self):
        self.imposter.say("thaw", 30)
        self.imposter.say("tick", 1)
        restored = self.run_restore("moment", time_text(self.moment), "--yes", "--wal", "fetch").open()
        self.check_tables(restored, "early", "first")
        self.assertEqual(restored.sql("select to_regclass('second') is null"), "t")
        restored.discard()
        objects, paid = self.imposter.retrievals()
        self.assertEqual(objects, paid)

    def test_a_restore_killed_while_it_waits_goes_on_without_a_question(self):
        self.imposter.say("thaw", 3600)
        pgdata = self.pgdata("killed")
        record = pathlib.Path(f"{pgdata}.walvault-thaw")
        command = [self.stage.walvault, "-c", "/nowhere/walvault.toml", *self.arguments(pgdata, "latest", "--yes")]
        process = self.stage.start(command, log=self.stage.directory / "killed.log")
        asked = lambda: record.exists() and all(
            "asked_at_us" in item for item in json.loads(record.read_text())["objects"].values())
        wait_until(asked, "the store to be asked for everything")
        paid = self.imposter.retrievals()
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertGreater(paid[0], 3)
        self.assertFalse((pgdata / "global" / "pg_control").exists(), "nothing may look complete")
        self.imposter.say("advance", 3700)
        restored = self.run_restore("killed", "latest").open()
        self.check_tables(restored, "early", "first", "second", "third")
        restored.discard()
        self.assertEqual(self.imposter.retrievals(), paid)
        self.assertFalse(record.exists())


if __name__ == "__main__":
    unittest.main()
