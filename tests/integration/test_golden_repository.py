"""A repository of format version 1, written by an earlier build, opens for ever and answers as it did."""

import json
import pathlib
import re
import shutil
import subprocess
import unittest

from agent_process import Agent
from golden_repository import (answers_of, first_difference, journal_answers, restored_files,
                               without_changing)
from harness import StageCase

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "v1"


class GoldenCase(StageCase):
    """Each test has a copy: reading verbs enter in the ledger that they were there."""

    golden = "repository"

    def setUp(self):
        super().setUp()
        self.answers = json.loads((GOLDEN / f"{self.golden}.json").read_text())
        key = self.stage.write(self.stage.directory / "repo.key", (GOLDEN / f"{self.golden}.key").read_text())
        repo = self.stage.directory / "repo"
        shutil.copytree(GOLDEN / self.golden, repo)
        subprocess.run(["chown", "-R", "--reference", str(key), str(repo)], check=True)
        repo.chmod(0o700)
        self.agent = Agent(self.stage, None, repo=repo, key=key)

    def assert_as_then(self, expected, found, name):
        self.assertIsNone(first_difference(expected, found, name))

    def assert_names(self, *patterns):
        names = [str(path.relative_to(self.agent.repo))
                 for path in self.agent.repo.rglob("*") if path.is_file()]
        for pattern in patterns:
            with self.subTest(pattern):
                self.assertTrue(any(re.search(pattern, name) for name in names), names)


class GoldenRepositoryTest(GoldenCase):
    def test_everything_a_reader_can_ask_is_answered_as_then(self):
        targets = [target for target, _ in self.answers["resolve"]]
        self.assertGreater(len(targets), 12)
        found = answers_of(self.agent, targets)
        for name in ("info", "log", "resolve", "verify", "wal"):
            with self.subTest(name):
                self.assert_as_then(self.answers[name], found[name], name)

    def test_every_file_of_every_restore_is_byte_for_byte_the_one_of_then(self):
        self.assertGreaterEqual(len(self.answers["restores"]), 4)
        for target, files in self.answers["restores"].items():
            with self.subTest(target=target):
                self.assertGreater(len(files), 200)
                found = restored_files(self.agent, target)
                self.assert_as_then(files, found, target)
                added = {name for name in set(found) - set(files) if not name.startswith("pg_wal/")}
                self.assertEqual(added, set(), "a restore writes files that it did not write then")

    def test_a_writer_takes_it_over(self):
        """The lock, the keyring, the open tail: it becomes a pack, and nothing that was there is lost."""
        tails = list(self.agent.repo.rglob("*.tail"))
        self.assertEqual(len(tails), 1, tails)
        self.agent.cli("repo", "rebuild-index")
        self.assertEqual(list(self.agent.repo.rglob("*.tail")), [])
        info = without_changing(self.agent.json("info"))
        for key in ("windows", "gaps", "backups", "points"):
            self.assert_as_then(self.answers["info"][key], info[key], key)
        for target, expected in self.answers["resolve"]:
            self.assert_as_then(expected, without_changing(self.agent.json("resolve", *target)), str(target))
        self.agent.cli("verify", "--level", "wal")
        files = self.answers["restores"]["latest"]
        self.assert_as_then(files, restored_files(self.agent, "latest"), "latest")

    def test_it_holds_every_kind_of_file(self):
        self.assert_names(r"^repository$", r"^keyring/\d{10}$", r"^ledger/\d{20}\.log$", r"^main/wal/.*\.pack$",
                          r"^main/wal/.*\.tail$", r"^main/base/\w+_\d{5}\.pack$", r"^main/base/\w+\.manifest\.pack$")


class GoldenJournalTest(GoldenCase):
    """Row journals of two classes: packs of columns, snapshots, an open tail."""

    golden = "journal"

    def assert_answers(self, kinds):
        found = journal_answers(self.agent, self.answers["transactions"], kinds)
        for kind in kinds:
            with self.subTest(kind):
                self.assert_as_then(self.answers["answers"][kind], found[kind], kind)

    def test_every_question_is_answered_as_then(self):
        self.assert_names(r"^main/journal/.*\d\.pack$", r"^main/journal/.*\.rows\.pack$", r"^main/journal/.*\.tail$")
        self.assertGreaterEqual(len(self.answers["answers"]), 8)
        self.assert_answers(list(self.answers["answers"]))

    def test_a_writer_takes_it_over_and_the_answers_stay(self):
        self.agent.cli("repo", "rebuild-index")
        self.assertEqual(list(self.agent.repo.rglob("*.tail")), [])
        self.assert_answers(["history", "rows", "follow"])


if __name__ == "__main__":
    unittest.main()
