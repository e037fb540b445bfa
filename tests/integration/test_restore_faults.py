"""A restore whose Nth call fails, or which dies there, leaves nothing that PostgreSQL would start.

What it leaves is the beginning of the next one: each restore goes into the directory of the one before.
The repository is the golden one, so that every file can be compared with what it has to be.
"""

import json
import os
import pathlib
import shutil
import subprocess
import unittest

from agent_process import Agent
from faults import shim_environment
from harness import StageCase, seeded_random
from trees import first_different_file, tree_digest

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "v1"
MARKER = "WALVAULT_RESTORE_INCOMPLETE"
EVERY_N_UP_TO = 2
FAILS = {1, 6}


class RestoreFaultTest(StageCase):
    def setUp(self):
        super().setUp()
        self.random = seeded_random(self.id())
        self.whole = json.loads((GOLDEN / "repository.json").read_text())["restores"]["latest"]
        key = self.stage.write(self.stage.directory / "repo.key", (GOLDEN / "repository.key").read_text())
        repo = self.stage.directory / "repo"
        shutil.copytree(GOLDEN / "repository", repo)
        subprocess.run(["chown", "-R", "--reference", str(key), str(repo)], check=True)
        self.agent = Agent(self.stage, None, repo=repo, key=key)
        self.pgdata = self.stage.make_directory("pg") / "restored"
        self.report = self.stage.make_directory("reports") / "report"

    def restore(self, call, action, n):
        """The exit code of a restore with a fault in it, and whether that fired."""
        self.report.unlink(missing_ok=True)
        environment = shim_environment(self.stage, call, action, n, self.pgdata, self.report)
        done = self.agent.cli("--progress", "none", "restore", "--to", "latest", "--pgdata", self.pgdata,
                              environment=environment, expect=None)
        return done, self.report.exists()

    def differs(self):
        found = tree_digest(self.pgdata)
        found.pop(MARKER, None)
        return first_different_file(self.whole, found)

    def series(self, call, action, every=False):
        n, fired = 1, []
        while True:
            done, has_fired = self.restore(call, action, n)
            if not has_fired:
                break
            fired.append(n)
            with self.subTest(call=call, action=action, n=n):
                self.check_what_is_left(action, done)
            n += 1 if every or n < EVERY_N_UP_TO else max(1, int(n * self.random.uniform(1.0, 2.0)))
        print(f"{call} {action}: fired at N = {fired}, no more at {n}", flush=True)
        self.assertTrue(fired, "the fault never fired: nothing was tested")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIsNone(self.differs())
        self.assertFalse((self.pgdata / MARKER).exists())

    def check_what_is_left(self, action, done):
        if action == "kill":
            self.assertEqual(done.returncode, -9)
        else:
            self.assertIn(done.returncode, FAILS, done.stderr)
            self.assertIn("error", done.stderr)
        if (self.pgdata / "global" / "pg_control").exists():
            # It died between the last file and the word that it is done: then everything is there.
            # It can be started, so the next restore must not take it for its own leftovers.
            self.assertIsNone(self.differs())
            self.agent.cli("restore", "--to", "latest", "--pgdata", self.pgdata, expect=4)
            shutil.rmtree(self.pgdata)
        elif self.pgdata.exists() and os.listdir(self.pgdata):
            self.assertIn(MARKER, os.listdir(self.pgdata), "the next restore would not know it as its own")

    def test_death_before_a_write(self):
        self.series("write", "kill")

    def test_a_write_finds_the_disk_full(self):
        self.series("write", "full")

    def test_death_before_a_sync(self):
        self.series("sync", "kill", every=True)

    def test_a_sync_fails(self):
        self.series("sync", "error", every=True)

    def test_death_before_the_rename_of_the_control_file(self):
        self.series("rename", "kill", every=True)

    def test_death_before_a_removal(self):
        self.series("remove", "kill")


if __name__ == "__main__":
    unittest.main()
