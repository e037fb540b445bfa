"""The README on a Debian server as it comes: its own pg_hba.conf, its own directories, its commands as they stand."""

import json
import pathlib
import re
import unittest

from debian_machine import VERSION, DebianMachine, why_not
from harness import ROOT, StageCase, wait_until

PRODUCTION_LOG = f"/var/log/postgresql/postgresql-{VERSION}-main.log"


def readme_commands():
    """The blocks of commands of the first restore, each a list of lines; samples of output begin with $."""
    text = (ROOT / "README.md").read_text()
    section = text.split("## The first restore on a real server", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [block.replace("\\\n", " ").splitlines() for block in blocks if not block.startswith("$ ")]


class DebianServerTest(StageCase):
    @classmethod
    def setUpClass(cls):
        reason = why_not()
        if reason:
            raise unittest.SkipTest(reason)

    def setUp(self):
        super().setUp()
        self.machine = DebianMachine(self.stage).create_cluster()
        self.machine.sql("create table orders (id int primary key, body text);"
                         " insert into orders select g, md5(g::text) from generate_series(1, 5000) g")

    def execute(self, command):
        """One command of the README; only systemd is not there."""
        enabled = re.fullmatch(r"systemctl enable --now walvault@(\w+)", command)
        if enabled:
            self.machine.start_unit(enabled[1])
            return ""
        return self.machine.run(command).stdout

    def protect(self):
        for command in readme_commands()[0]:
            self.execute(command)
        self.wait_for_base()

    def status(self):
        return json.loads(self.machine.run("walvault -o json status").stdout)

    def wait_for_base(self):
        wait_until(lambda: self.status()["backup_count"] > 0, "the first base backup", every=0.2)

    def wait_until_flushed(self):
        lsn = self.machine.sql("select pg_current_wal_flush_lsn()")
        wait_until(lambda: self.machine.sql(f"select '{self.status()['flushed_lsn']}'::pg_lsn >= '{lsn}'") == "t",
                   f"{lsn} to be flushed")

    def checksum(self, port):
        return self.machine.sql("select count(*), md5(string_agg(o::text, e'\\n' order by id)) from orders o", port)

    def test_the_readme_leads_to_a_restored_server(self):
        set_up, look = readme_commands()
        for command in set_up:
            self.execute(command)
        self.wait_for_base()
        self.machine.sql("delete from orders where id % 2 = 0")
        before = self.checksum(5432)
        self.wait_until_flushed()
        answers = {command: self.execute(command) for command in look}
        restored = next(answer for command, answer in answers.items() if "--start" in command)
        port = int(re.search(r"started on port (\d+)", restored)[1])
        self.assertIn("check   ok", restored)
        self.assertEqual(self.checksum(port), before)
        self.assertIn("bulk change", next(text for command, text in answers.items() if " log " in command))
        # The three commands that it prints are for pasting, too.
        printed = dict(re.findall(r"^  (look|keep it|drop it) +(.*?)(?:   .*)?$", restored, re.MULTILINE))
        self.machine.run(printed["look"] + " -c 'select 1'")
        self.machine.run(printed["keep it"])
        wait_until(lambda: self.machine.sql("select pg_is_in_recovery()", port) == "f", "the copy to be promoted")
        self.machine.sql("insert into orders values (0, 'a server of its own')", port)
        self.machine.run(printed["drop it"])
        self.assertEqual(self.machine.run("ls /var/lib/postgresql").stdout.split(), [VERSION])
        self.assertEqual(self.checksum(5432), before)
        self.assertNotIn("restored", self.machine.run(f"cat {PRODUCTION_LOG}").stdout)

    def test_init_makes_no_role_and_everything_belongs_to_postgres(self):
        self.protect()
        self.assertEqual(self.machine.sql("select count(*) from pg_roles where rolname = 'walvault'"), "0")
        owners = self.machine.run("stat -c '%U:%G %a %n' /etc/walvault /etc/walvault/* /var/lib/walvault").stdout
        self.assertEqual(owners.splitlines(), ["root:postgres 750 /etc/walvault",
                                               "postgres:postgres 600 /etc/walvault/repo.key",
                                               "root:postgres 640 /etc/walvault/walvault.toml",
                                               "postgres:postgres 700 /var/lib/walvault"])
        shown = self.machine.run("walvault config show").stdout
        self.assertRegex(shown, r"server.main.conninfo +user=postgres dbname=postgres")
        again = json.loads(self.machine.run("walvault -o json init").stdout)
        self.assertEqual({step["outcome"] for step in again["steps"]}, {"found", "there already"})

    def test_root_leaves_nothing_of_its_own_in_the_repository(self):
        self.protect()
        for verb in ("backup --fast", "point release", "verify", "log --since 1h", "info"):
            self.machine.run(f"walvault {verb}")
        self.assertEqual(self.machine.stop_agent(), 0)
        for verb in ("backup --fast", "verify", "repo rebuild-index",
                     "restore --to latest --pgdata /var/lib/postgresql/copy", "detach --yes"):
            self.machine.run(f"walvault {verb}")
        self.assertEqual(self.machine.run("find /var/lib/walvault ! -user postgres").stdout, "")
        self.assertEqual(self.machine.run("find /var/lib/postgresql/copy ! -user postgres").stdout, "")
        self.machine.start_unit("main")
        self.wait_until_flushed()

    def test_postgres_fetches_its_wal_itself(self):
        self.protect()
        for _ in range(3):
            self.machine.sql("insert into orders select max(id) + 1, 'more' from orders; select pg_switch_wal()")
        before = self.checksum(5432)
        self.wait_until_flushed()
        restored = self.machine.run(
            "walvault restore --to latest --wal fetch --pgdata /var/lib/postgresql/fetched --start 5499").stdout
        self.assertIn("fetched by wal-get", restored)
        self.assertIn("check   ok", restored)
        self.assertEqual(self.checksum(5499), before)
        log = self.machine.run("cat /var/lib/postgresql/fetched/walvault-start.log").stdout
        self.assertGreaterEqual(len(re.findall("restored log file", log)), 3)

    def test_a_key_that_postgres_cannot_read_is_seen_before_anything_is_written(self):
        self.protect()
        self.machine.run("chown root /etc/walvault/repo.key")
        target = "--to latest --pgdata /var/lib/postgresql/x"
        refused = self.machine.run(f"walvault restore {target} --wal fetch", check=False)
        self.assertEqual(refused.returncode, 4, refused.stderr)
        self.assertIn("which postgres cannot run", refused.stderr)
        self.assertIn("--wal copy", refused.stderr)
        self.assertEqual(self.machine.run("ls /var/lib/postgresql").stdout.split(), [VERSION])
        self.assertIn("check   ok", self.machine.run(f"walvault restore {target} --start 5499").stdout)

    def test_a_copy_started_by_hand_as_it_is_printed(self):
        self.protect()
        before = self.checksum(5432)
        self.wait_until_flushed()
        done = self.machine.run("walvault restore --to latest --pgdata /var/lib/postgresql/hand").stdout
        self.machine.run(re.search(r"^  start +(.*)$", done, re.MULTILINE)[1] + " </dev/null >/dev/null 2>&1")
        wait_until(lambda: self.checksum(5433) == before, "the copy to have replayed")
        self.machine.run(f"/usr/lib/postgresql/{VERSION}/bin/pg_ctl -D /var/lib/postgresql/hand stop",
                         user="postgres")
        self.machine.run(re.search(r"^  drop it +(.*)$", done, re.MULTILINE)[1])
        self.assertEqual(self.machine.run("ls /var/lib/postgresql").stdout.split(), [VERSION])


class ReadmeTest(unittest.TestCase):
    def test_the_readme_has_the_blocks_that_are_executed(self):
        set_up, look = readme_commands()
        self.assertIn("walvault init", set_up)
        self.assertTrue(any("--start" in command for command in look))
        self.assertTrue(pathlib.Path(ROOT / "deploy" / "walvault@.service").exists())


if __name__ == "__main__":
    unittest.main()
