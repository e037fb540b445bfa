"""What must not be done is refused with the documented exit code and the nearest thing that works."""

import os
import pathlib
import shutil
import subprocess
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import Stage, StageCase, lsn_text
from oracle import make_table, time_text
from agent_process import now_micros

TARGET, REFUSED, REPOSITORY, POSTGRES, BUSY, KEY, USAGE = 3, 4, 6, 7, 8, 9, 2
HOUR = 3600 * 1_000_000


class RefusalTest(StageCase):
    """Read-only commands against one protected server."""

    @classmethod
    def setUpClass(cls):
        cls.shared = Stage("refusals")
        try:
            cls.primary = Postgres.create(cls.shared).start()
            make_table(cls.primary)
            cls.agent = Agent(cls.shared, cls.primary).protect()
            make_table(cls.primary, "later")
            cls.agent.wait_until_flushed()
        except BaseException:
            cls.shared.show_logs()
            cls.shared.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.shared.close()

    def refuse(self, *arguments, expect, says=(), hints=(), agent=None):
        error = (agent or self.agent).error(*arguments, expect=expect)
        self.assertTrue(error["message"], error)
        for word in says:
            self.assertIn(word, error["message"])
        for word in hints:
            self.assertIn(word, error["hint"])
        return error

    def new_directory(self, name):
        return self.shared.make_directory("targets", self.id().rsplit(".", 1)[1]) / name

    def restore_refused(self, pgdata, *arguments, **options):
        """A refusal leaves the directory as it was."""
        def listing():
            path = pathlib.Path(pgdata)
            return sorted(entry.name for entry in path.iterdir()) if path.exists() else None
        before = listing()
        error = self.refuse("restore", "--pgdata", pgdata, *arguments, **options)
        self.assertEqual(listing(), before)
        return error

    def test_a_directory_with_files_in_it_is_left_alone(self):
        pgdata = self.new_directory("full")
        pgdata.mkdir(0o700)
        self.shared.give(pgdata)
        self.shared.write(pgdata / "precious", "x")
        error = self.restore_refused(pgdata, "--to", "latest", expect=REFUSED, says=["not empty"])
        self.assertTrue(error["hint"])

    def test_the_directory_of_a_running_server_is_left_alone(self):
        error = self.restore_refused(self.primary.data, "--to", "latest", expect=REFUSED)
        self.assertIn("running", error["message"])
        self.assertEqual(self.primary.sql("select count(*) from items"), "1000")

    def test_a_symbolic_link_to_a_full_directory_is_no_way_around(self):
        link = self.new_directory("link")
        link.symlink_to(self.primary.data)
        self.restore_refused(link, "--to", "latest", expect=REFUSED)

    def test_a_directory_inside_the_repository_is_refused(self):
        self.refuse("restore", "--to", "latest", "--pgdata", self.agent.repo / "pgdata", expect=REFUSED)
        self.assertFalse((self.agent.repo / "pgdata").exists())

    def test_without_space_nothing_is_begun(self):
        if os.getuid() != 0:
            self.skipTest("mounting a small file system needs root")
        small = self.new_directory("small")
        small.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0777", "tmpfs", str(small)],
                              capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest(f"mounting tmpfs does not work here: {done.stderr.strip()}")
        try:
            error = self.refuse("restore", "--to", "latest", "--pgdata", small / "data", expect=REPOSITORY)
            self.assertRegex(error["message"], r"MiB")
            self.assertFalse((small / "data" / "global").exists())
        finally:
            subprocess.run(["umount", str(small)], check=True)

    def test_a_wrong_key_is_named_as_such(self):
        other = Agent(self.shared, self.primary, name="other-key", repo=self.agent.repo).make_key()
        pgdata = self.new_directory("key")
        self.refuse("restore", "--to", "latest", "--pgdata", pgdata, expect=KEY, agent=other)
        self.refuse("info", expect=KEY, agent=other)
        self.assertFalse(pgdata.exists())

    def test_a_missing_key_is_named_as_such(self):
        other = Agent(self.shared, self.primary, name="no-key", repo=self.agent.repo)
        self.refuse("info", expect=KEY, agent=other)

    def test_a_key_that_others_can_read_is_refused(self):
        other = Agent(self.shared, self.primary, name="open-key", repo=self.agent.repo)
        shutil.copy(self.agent.key, other.key)
        self.shared.give(other.key)
        os.chmod(other.key, 0o644)
        error = self.refuse("info", expect=KEY, agent=other)
        self.assertIn("0600", error["message"] + error["hint"])

    def test_before_the_window(self):
        early = time_text(now_micros() - 24 * HOUR)
        error = self.restore_refused(self.new_directory("early"), "--to", early, expect=TARGET,
                                     hints=["earliest"])
        # The hint names something that works.
        self.agent.cli("resolve", "earliest")
        self.assertTrue(error["message"])

    def test_after_the_window(self):
        late = time_text(now_micros() + HOUR)
        self.restore_refused(self.new_directory("late"), "--to", late, expect=TARGET, hints=["latest"])
        self.agent.cli("resolve", "latest")

    def test_an_lsn_before_and_after_what_is_stored(self):
        self.restore_refused(self.new_directory("l1"), "--to", "lsn:0/10", expect=TARGET)
        beyond = lsn_text(self.primary.current_lsn() + (1 << 30))
        self.restore_refused(self.new_directory("l2"), "--to", f"lsn:{beyond}", expect=TARGET)

    def test_an_unknown_transaction_name_and_backup(self):
        for target in ("xid:4000000000", "name:nothing_of_that_name", "backup:20010101T000000Z"):
            with self.subTest(target=target):
                self.restore_refused(self.new_directory("x"), "--to", target, expect=TARGET)

    def test_what_is_no_target_is_a_usage_error(self):
        for target in ("739", "14:03:61", "yesterdaze", "lsn:G/1", "xid:2", ""):
            with self.subTest(target=target):
                self.restore_refused(self.new_directory("u"), "--to", target, expect=USAGE)

    def test_to_and_before_together_are_a_usage_error(self):
        self.restore_refused(self.new_directory("b"), "--to", "latest", "--before", "5m", expect=USAGE)

    def test_a_second_agent_on_the_same_repository_is_refused(self):
        second = Agent(self.shared, self.primary, name="second", repo=self.agent.repo, key=self.agent.key,
                       slot="second")
        error = self.refuse("run", expect=BUSY, agent=second)
        self.assertTrue(error["hint"])
        self.assertEqual(self.primary.sql("select count(*) from pg_replication_slots"), "1")

    def test_a_repository_that_is_not_there(self):
        nowhere = Agent(self.shared, self.primary, name="nowhere", repo="/nonexistent/repo",
                        key=self.agent.key)
        self.refuse("info", expect=REPOSITORY, agent=nowhere)

    def test_a_dry_run_changes_nothing(self):
        pgdata = self.new_directory("dry")
        done = self.agent.cli("restore", "--to", "latest", "--pgdata", pgdata, "--dry-run")
        self.assertIn("Nothing was changed", done.stdout)
        self.assertFalse(pgdata.exists())

    def test_an_unknown_configuration_key_is_named_with_its_place(self):
        broken = Agent(self.shared, self.primary, name="broken", repo=self.agent.repo, key=self.agent.key)
        broken.write_config(broken.config.read_text().replace('slot = ', 'slott = "x"\nslot = '))
        error = self.refuse("info", expect=USAGE, agent=broken)
        self.assertRegex(error["message"], r"walvault\.toml:\d+:\d+: unknown key")
        self.assertIn("slot", error["message"] + error["hint"])


class OtherClusterTest(StageCase):
    def test_a_repository_does_not_take_another_cluster_under_the_same_name(self):
        primary = Postgres.create(self.stage).start()
        agent = Agent(self.stage, primary).protect()
        agent.stop()
        stranger = Postgres(self.stage, "stranger", self.stage.directory / "pg" / "stranger")
        self.stage.run(["initdb", "-N", "-A", "trust", "-U", "postgres", "-D", stranger.data])
        stranger.configure({"listen_addresses": "''",
                            "unix_socket_directories": f"'{stranger.socket_directory}'"})
        stranger.start()
        other = Agent(self.stage, stranger, name="other", repo=agent.repo, key=agent.key)
        error = other.error("run", expect=REFUSED)
        self.assertIn("system", error["message"])
        self.assertEqual(stranger.sql("select count(*) from pg_replication_slots"), "0")


if __name__ == "__main__":
    unittest.main()
