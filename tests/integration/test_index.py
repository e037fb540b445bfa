"""The index is a view: deleted, damaged or of an older day, it is rebuilt and gives the same answers."""

import shutil
import subprocess
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import StageCase, lsn_number, lsn_text
from oracle import make_table


class IndexTest(StageCase):
    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage).start()
        make_table(self.primary, "first", 5000)
        self.agent = Agent(self.stage, self.primary).protect()
        make_table(self.primary, "second", 20000)
        self.primary.sql("delete from second")
        # PostgreSQL answers before it has flushed the point.
        point = lsn_number(self.primary.sql("select pg_create_restore_point('here')"))
        self.lsn = self.agent.wait_until_flushed(point)
        self.index = self.agent.repo / "index"

    def answers(self):
        """What the index is asked for, as text."""
        log = self.agent.json("log", "--since", "1h")
        backups = self.agent.json("info", "--backups")["backups"]
        points = self.agent.json("info", "--points")["points"]
        resolved = self.agent.json("resolve", "--before", "lsn:" + lsn_text(self.lsn))
        for changing in ("now", "estimate", "estimated_seconds"):
            resolved.pop(changing, None)
        return {"log": log, "backups": backups, "points": points, "resolve": resolved}

    def assert_same_after(self, damage):
        """The same answers without an agent, and from an agent that starts on it."""
        before = self.answers()
        self.assertTrue(before["backups"])
        self.assertTrue(before["points"])
        self.agent.stop()
        damage()
        self.assertEqual(self.answers(), before)
        self.agent.start()
        self.assertEqual(self.answers(), before)
        self.primary.sql("insert into first values (0, 'after')")
        self.agent.wait_until_flushed()
        self.agent.stop()
        self.assertTrue(self.index.is_dir(), "the agent rebuilt no index")
        self.assertEqual(self.agent.json("info", "--gaps")["gaps"], [])

    def test_a_deleted_index_is_rebuilt(self):
        self.assert_same_after(lambda: shutil.rmtree(self.index))

    def test_a_truncated_index_is_rebuilt(self):
        self.agent.allowed_events.add("index.rebuilt")
        def damage():
            for path in self.index.iterdir():
                if path.is_file() and path.stat().st_size:
                    with open(path, "r+b") as file:
                        file.truncate(path.stat().st_size // 2)
        self.assert_same_after(damage)

    def test_an_index_of_an_older_day_is_caught_up(self):
        older = self.stage.directory / "older-index"
        self.agent.stop()
        shutil.copytree(self.index, older)
        subprocess.run(["chown", "-R", "--reference", str(self.index), str(older)], check=True)
        self.agent.start()
        make_table(self.primary, "third", 30000)
        self.agent.cli("backup", "--fast")
        self.lsn = self.agent.wait_until_flushed()

        def put_back():
            shutil.rmtree(self.index)
            subprocess.run(["cp", "-a", str(older), str(self.index)], check=True)
        self.assert_same_after(put_back)

    def test_a_ledger_that_was_set_back_is_an_alarm(self):
        """The index is no source, but it is a witness: it has seen entries that the ledger now lacks."""
        ledger, older = self.agent.repo / "ledger", self.stage.directory / "older-ledger"
        self.agent.stop()
        subprocess.run(["cp", "-a", str(ledger), str(older)], check=True)
        self.agent.start()
        self.agent.cli("backup", "--fast")
        self.agent.stop()
        shutil.rmtree(ledger)
        subprocess.run(["cp", "-a", str(older), str(ledger)], check=True)
        for verb in (["info"], ["resolve", "latest"], ["run"]):
            with self.subTest(verb=verb):
                error = self.agent.error(*verb, expect=5)
                self.assertIn("ledger", error["message"])

    def test_rebuild_index_makes_a_new_one(self):
        before = self.answers()
        self.agent.stop()
        shutil.rmtree(self.index)
        self.agent.cli("repo", "rebuild-index")
        self.assertTrue(any(self.index.iterdir()))
        self.assertEqual(self.answers(), before)

    def test_rebuild_index_is_refused_while_the_agent_runs(self):
        error = self.agent.error("repo", "rebuild-index", expect=8)
        self.assertTrue(error["hint"], error)


if __name__ == "__main__":
    unittest.main()
