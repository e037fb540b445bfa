"""walvault demo: ends with 0, proves what it says, and leaves nothing behind."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from harness import BUILD, PG_BIN, StageCase, wait_until

# The restored server is the one that does not listen on the port of the shop.
LYING_PSQL = """#!/bin/bash
for word in "$@"; do
    case $word in
        5432) shop=1 ;;
        *"from pgbench_tellers t"*) asked=1 ;;
    esac
done
if [ -z "$shop" ] && [ -n "$asked" ]; then
    {psql} "$@" | sed 's/\\t[0-9a-f]*$/\\t00000000000000000000000000000000/'
else
    exec {psql} "$@"
fi
"""


def processes_in(directory):
    """Ids of processes whose working directory or command line lies in `directory`."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(directory) in os.readlink(entry / "cwd") or \
                        str(directory) in (entry / "cmdline").read_bytes().decode(errors="replace"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return [pid for pid in found if pid != os.getpid()]


class DemoTest(StageCase):
    """As root the demo drops to postgres by itself, so it is started here as it is by hand."""

    def setUp(self):
        super().setUp()
        self.scratch = self.stage.make_directory("demo", mode=0o755)
        self.stage.closers.append(self.end_all)
        self.environment = self.stage.environment(TMPDIR=str(self.scratch))

    def end_all(self):
        for pid in processes_in(self.scratch):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def demo(self, *arguments, timeout=240):
        return subprocess.run([str(BUILD / "agent" / "walvault"), "demo", *arguments], env=self.environment,
                              capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)

    def assert_nothing_left(self):
        self.assertEqual(list(self.scratch.iterdir()), [])
        # What was told to end may need a moment until its id is gone.
        wait_until(lambda: not processes_in(self.scratch), "all processes of the demo to be gone", 20)

    def test_the_story_ends_well_and_leaves_nothing_behind(self):
        done = self.demo()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for part in ("7/7", "DELETE FROM orders", "SIGKILL", "✓ same", "Every row is back"):
            self.assertIn(part, done.stdout)
        self.assertNotIn("DIFFERS", done.stdout)
        self.assertNotIn("\x1b", done.stdout, "colour without a terminal")
        self.assertRegex(done.stdout, r"orders +2 000 rows +[0-9a-f]{8} +0 rows +[0-9a-f]{8} +2 000 rows")
        self.assertEqual(done.stderr, "")
        self.assert_nothing_left()

    def test_a_restored_row_that_differs_fails_loudly(self):
        """psql, asked about the restored server, gives one table another checksum than it has."""
        programs = self.stage.make_directory("programs", mode=0o755)
        for path in PG_BIN.iterdir():
            if path.name != "psql":
                (programs / path.name).symlink_to(path)
        self.stage.write(programs / "psql", LYING_PSQL.format(psql=PG_BIN / "psql"), mode=0o755)
        done = self.demo("--pg-bin", programs)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"pgbench_tellers .* DIFFERS")
        self.assertRegex(done.stdout, r"orders .* ✓ same")
        self.assertNotIn("Every row is back", done.stdout)
        self.assertIn("pgbench_tellers", done.stderr)
        self.assertIn("report", done.stderr)
        self.assert_nothing_left()

    def test_it_takes_less_than_a_minute(self):
        """What README says, of what README builds: other builds are slower, and are given their time."""
        limit = 60 if self.is_release() else 200
        began = time.monotonic()
        done = self.demo("--quiet")
        took = time.monotonic() - began
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        print(f"the demo took {took:.0f} s of {limit}", flush=True)
        self.assertLess(took, limit)

    @staticmethod
    def is_release():
        options = BUILD / "meson-info" / "intro-buildoptions.json"
        return options.exists() and any(option["name"] == "buildtype" and option["value"] == "release"
                                        for option in json.loads(options.read_text()))

    def test_interrupted_it_leaves_nothing_behind(self):
        process = subprocess.Popen([str(BUILD / "agent" / "walvault"), "demo"], env=self.environment,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        for line in process.stdout:
            if "2/7" in line:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130)
        self.assert_nothing_left()

    def test_with_keep_everything_goes_on(self):
        done = self.demo("--keep", "--rows", "1")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        directory = pathlib.Path(re.search(r"still running in (\S+)\. ", done.stdout).group(1))
        self.assertEqual(directory.parent, self.scratch)
        query = re.search(r"psql -h (\S+) -p (\d+) -U (\S+) postgres +the shop", done.stdout)
        command = ["psql", "-h", query.group(1), "-p", query.group(2), "-U", query.group(3),
                   "-d", "postgres", "-Atc", "select count(*) from orders"]
        answer = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        self.assertEqual(answer.stdout.strip(), "0", answer.stderr)
        # The commands it prints for the end of it all do end it.
        kill = re.search(r"^ +(kill [0-9 ]+?) +ends them$", done.stdout, re.MULTILINE).group(1)
        subprocess.run(["sh", "-c", kill], check=True)
        wait_until(lambda: not processes_in(directory), "the processes that were told to end to be gone")
        remove = re.search(r"^ +(rm -r \S+)$", done.stdout, re.MULTILINE).group(1)
        subprocess.run(["sh", "-c", remove], check=True)
        self.assert_nothing_left()

    def test_without_postgresql_it_says_what_to_install(self):
        done = self.demo("--pg-bin", "/nonexistent")
        self.assertEqual(done.returncode, 1)
        self.assertIn("--pg-bin", done.stderr)
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
