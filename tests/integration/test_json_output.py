"""With -o json and -o jsonl every verb answers in JSON, with the same names for the same things."""

import json
import subprocess
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import Stage, StageCase
from oracle import make_table

# Verbs that change nothing, or may be repeated; {copy} is a new directory each time.
ANSWERS = [
    "status", "info", "info --backups --gaps", "log --since 1h", "log --since 1h --kind commit,abort", "resolve latest",
    "resolve immediate", "verify --level wal", "verify", "point --list", "point json_test", "point -n other",
    "backup --fast --label again", "backup -n", "key show-id", "key generate -n --out {copy}.key",
    "key generate --out {copy}.key", "config check", "config show", "config show --origin", "config default",
    "config explain server.main.slot", "repo ls", "repo stat", "repo rebuild-index -n",
    "restore --to latest --pgdata {copy} -n", "restore --to latest --pgdata {copy}", "init", "init -n",
    "init --print-sql", "version",
]
WITHOUT_AN_AGENT = ["status", "backup --fast", "repo rebuild-index", "detach -n", "detach --keep-slot", "detach --yes"]
# Exit codes other than 0 that an answer has by itself.
EXIT_CODES = {"status": (0, 1)}


class JsonOutputTest(StageCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = Stage("json_output")
        try:
            cls.primary = Postgres.create(cls.shared).start()
            cls.agent = Agent(cls.shared, cls.primary).protect()
            make_table(cls.primary, rows=5000)
            cls.primary.sql("delete from items; drop table items")
            cls.agent.wait_until_flushed()
        except BaseException:
            cls.shared.show_logs()
            cls.shared.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.shared.close()

    def run_verb(self, form, verb, number):
        copy = self.shared.make_directory("copies") / f"{form}{number}"
        done = self.agent.cli("-o", form, *verb.format(copy=copy).split(), expect=None)
        self.assertIn(done.returncode, EXIT_CODES.get(verb, (0,)), done.stderr)
        return done.stdout

    def check_all(self, verbs, first_number=0):
        for number, verb in enumerate(verbs, first_number):
            with self.subTest(verb=verb, form="json"):
                self.assertIsInstance(json.loads(self.run_verb("json", verb, number)), (dict, list))
            with self.subTest(verb=verb, form="jsonl"):
                lines = self.run_verb("jsonl", verb, number).splitlines()
                self.assertTrue(lines)
                for line in lines:
                    self.assertIsInstance(json.loads(line), (dict, list))

    def test_1_every_verb_beside_an_agent(self):
        self.check_all(ANSWERS)

    def test_2_a_base_backup_is_described_with_the_same_names_everywhere(self):
        told = self.agent.json("backup", "--fast")
        listed = self.agent.json("info", "--backups")["backups"][-1]
        self.assertEqual(self.agent.status()["last_backup"], told)
        for name in told:
            self.assertEqual(told[name], listed[name], name)

    def test_3_status_again_and_again_is_a_line_each_time_and_outlives_the_agent(self):
        command = [self.shared.walvault, "-c", self.agent.config, "-o", "jsonl", "status", "--watch=1"]
        watch = self.shared.start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(watch.stdout.close)
        lines = [json.loads(watch.stdout.readline()) for _ in range(2)]
        self.assertEqual([line["connected"] for line in lines], [True, True])
        self.agent.stop()
        after = json.loads(watch.stdout.readline())
        while after["connected"]:
            after = json.loads(watch.stdout.readline())
        self.assertIn("walvault run", after["last_error"])
        self.assertIsNone(watch.poll())
        watch.kill()

    def test_4_every_verb_without_an_agent(self):
        self.agent.stop()
        self.check_all(WITHOUT_AN_AGENT, 100)

    def test_an_error_is_one_object_on_stderr(self):
        for form in ("json", "jsonl"):
            done = self.agent.cli("-o", form, "resolve", "xid:4000000000", expect=3)
            self.assertEqual(done.stdout, "")
            self.assertEqual(json.loads(done.stderr)["error"]["exit"], 3)

    def test_the_demo_has_no_json(self):
        self.agent.cli("-o", "json", "demo", expect=2)


if __name__ == "__main__":
    unittest.main()
