"""What deploy/ ships is accepted by the programs that read it, and agrees with the binary."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from metrics_in_rules import metrics_in_rules

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("WALVAULT_BUILD", ROOT / "build" / "asan"))
WALVAULT = os.environ.get("WALVAULT", str(BUILD / "agent" / "walvault"))
DEPLOY = ROOT / "deploy"
UNIT = "walvault@.service"
RUNBOOKS = ROOT / "docs" / "runbooks"
RULES = DEPLOY / "prometheus" / "walvault.rules.yml"


def run(*command, **options):
    # The agent reads WALVAULT_* variables; those of the tests are not for it.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WALVAULT")}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60,
                          env=environment, **options)


class DeployTest(unittest.TestCase):
    def succeed(self, *command, **options):
        done = run(*command, **options)
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def need(self, program):
        if shutil.which(program) is None:
            self.skipTest(f"{program} is not installed")


class UnitTest(DeployTest):
    def setUp(self):
        self.need("systemd-analyze")
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        self.units = self.root / "etc" / "systemd" / "system"
        self.units.mkdir(parents=True)
        binary = self.root / "usr" / "local" / "bin" / "walvault"
        binary.parent.mkdir(parents=True)
        binary.write_text("#!/bin/sh\n")
        binary.chmod(0o755)

    def install(self, text):
        (self.units / UNIT).write_text(text)

    def verify(self):
        return run("systemd-analyze", "verify", f"--root={self.root}", "--man=no", "--recursive-errors=no",
                   "walvault@main.service")

    def security(self, threshold):
        return run("systemd-analyze", "security", "--offline=yes", f"--root={self.root}", "--no-pager",
                   f"--threshold={threshold}", "walvault@main.service")

    def test_systemd_accepts_the_unit(self):
        self.install((DEPLOY / UNIT).read_text())
        done = self.verify()
        self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_a_mistake_in_the_unit_would_be_seen(self):
        self.install((DEPLOY / UNIT).read_text().replace("ProtectHome=", "ProtectHouse="))
        self.assertIn("ProtectHouse", self.verify().stderr)

    def test_exposure_is_at_most_two(self):
        self.install((DEPLOY / UNIT).read_text())
        done = self.security(20)
        self.assertEqual(done.returncode, 0, done.stdout[-300:])

    def test_an_open_unit_would_be_over_the_threshold(self):
        self.install("[Service]\nExecStart=/usr/local/bin/walvault run\n")
        self.assertNotEqual(self.security(20).returncode, 0)

    def test_the_command_of_the_unit_is_one_the_binary_knows(self):
        lines = (DEPLOY / UNIT).read_text().splitlines()
        line = next(line for line in lines if line.startswith("ExecStart="))
        words = line.split("=", 1)[1].replace("%i", "main").split()
        self.assertEqual(words[0], "/usr/local/bin/walvault")
        self.succeed(WALVAULT, *words[1:], "--help")

    def test_stopping_it_does_not_take_postgresqls_shared_memory(self):
        """systemd removes the IPC of a unit's user, and this user is PostgreSQL's."""
        lines = (DEPLOY / UNIT).read_text().splitlines()
        self.assertIn("User=postgres", lines)
        self.assertIn("RemoveIPC=no", lines)


class ExampleTest(DeployTest):
    def test_the_example_is_what_the_binary_prints(self):
        printed = self.succeed(WALVAULT, "config", "default")
        self.assertEqual(printed, (DEPLOY / "walvault.toml.example").read_text())

    def test_the_example_is_a_good_configuration(self):
        self.succeed(WALVAULT, "config", "check", "-c", DEPLOY / "walvault.toml.example")

    def test_the_role_is_what_the_binary_prints(self):
        printed = self.succeed(WALVAULT, "init", "--print-sql")
        self.assertEqual(printed, (DEPLOY / "postgres-role.sql").read_text())


class RulesTest(DeployTest):
    def test_promtool_accepts_the_rules(self):
        self.need("promtool")
        self.assertIn("SUCCESS", self.succeed("promtool", "check", "rules", RULES))

    def test_the_alerts_fire_when_they_should(self):
        self.need("promtool")
        self.succeed("promtool", "test", "rules", DEPLOY / "prometheus" / "walvault.rules.test.yml")

    def test_a_rule_that_does_not_fire_would_be_seen(self):
        self.need("promtool")
        with tempfile.TemporaryDirectory() as directory:
            for path in (DEPLOY / "prometheus").glob("*.yml"):
                text = path.read_text().replace("recoverable_gaps > 0", "recoverable_gaps > 9")
                (pathlib.Path(directory) / path.name).write_text(text)
            done = run("promtool", "test", "rules", pathlib.Path(directory) / "walvault.rules.test.yml")
        self.assertNotEqual(done.returncode, 0)

    def test_every_alert_has_a_page_a_link_to_it_and_a_case_in_which_it_fires(self):
        rules, cases = RULES.read_text(), (DEPLOY / "prometheus" / "walvault.rules.test.yml").read_text()
        index = (RUNBOOKS / "README.md").read_text()
        pages = set()
        blocks = re.split(r"^ +- alert: ", rules, flags=re.MULTILINE)[1:]
        self.assertGreater(len(blocks), 12)
        for block in blocks:
            alert = block.split()[0]
            with self.subTest(alert):
                page = re.search(r'runbook_url: "https://[a-z.]+/runbooks/([a-z-]+)"', block).group(1)
                self.assertIn(f"Alert: `{alert}`", (RUNBOOKS / f"{page}.md").read_text())
                self.assertIn(f"({page}.md)", index)
                pages.add(page)
                self.assertTrue(re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels", cases),
                                "no case in which it fires")
                self.assertTrue(re.search(rf"alertname: {alert}\n +exp_alerts: \[\]", cases),
                                "no case in which it is quiet")
        # Where nothing is left that could raise one.
        without_alert = re.search(r"^- Without an alert: (.*)$", index, re.MULTILINE).group(1)
        pages.update(re.findall(r"\(([a-z-]+)\.md\)", without_alert))
        self.assertEqual({path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}, pages)

    def test_names_of_metrics_are_found_in_the_rules(self):
        names = metrics_in_rules()
        self.assertIn("walvault_slot_safe_wal_bytes", names)
        self.assertGreater(len(names), 10)


class SetUpTest(DeployTest):
    """The verbs a DBA meets before the agent runs."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def test_a_key_is_made_once_and_never_overwritten(self):
        path = self.directory / "repo.key"
        self.succeed(WALVAULT, "key", "generate", "--out", path)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        before = path.read_bytes()
        done = run(WALVAULT, "-o", "json", "key", "generate", "--out", path)
        self.assertEqual(done.returncode, 4)
        self.assertIn('"code":"refused","exit":4', done.stderr)
        self.assertEqual(path.read_bytes(), before)
        key_id = self.succeed(WALVAULT, "key", "show-id", "--out", path).strip()
        self.assertRegex(key_id, "^[0-9a-f]{32}$")
        self.assertNotIn(before.decode().split()[1], key_id)

    def test_init_without_a_server_changes_nothing(self):
        config = self.directory / "etc" / "walvault.toml"
        done = run(WALVAULT, "-c", config, "init", "--conninfo", f"host={self.directory}",
                   "--repo", f"file://{self.directory}/repo")
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertEqual(list(self.directory.iterdir()), [])

    def test_a_password_on_the_command_line_is_refused_and_not_repeated(self):
        done = run(WALVAULT, "-c", self.directory / "w.toml", "init",
                   "--conninfo", "host=/tmp password=hunter2")
        self.assertEqual(done.returncode, 2)
        self.assertNotIn("hunter2", done.stdout + done.stderr)

    def test_usage_errors_leave_with_two_and_those_of_wal_get_with_200(self):
        self.assertEqual(run(WALVAULT, "info", "--nonsense").returncode, 2)
        self.assertEqual(run(WALVAULT).returncode, 2)
        self.assertEqual(run(WALVAULT, "wal-get", "one").returncode, 200)
        missing = self.directory / "none.toml"
        self.assertEqual(run(WALVAULT, "-c", missing, "wal-get", "0" * 24, "x").returncode, 200)


if __name__ == "__main__":
    unittest.main()
