"""walvault init against a real server: what it makes, that it may be repeated, what it refuses."""

import json

from cluster import Postgres
from harness import StageCase


class InitTest(StageCase):
    def setUp(self):
        super().setUp()
        self.server = Postgres.create(self.stage).start()
        self.home = self.stage.make_directory("etc")
        self.config = self.home / "walvault.toml"
        self.repo = self.stage.directory / "etc" / "repo"

    def cli(self, *arguments, expect=0):
        done = self.stage.run([self.stage.walvault, "-c", self.config, *arguments], check=False)
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        return done

    def init(self, *arguments, conninfo=None, expect=0):
        done = self.cli("-o", "json", "init", "--conninfo", conninfo or self.server.conninfo,
                        "--repo", f"file://{self.repo}", *arguments, expect=expect)
        return json.loads(done.stdout or done.stderr)

    def outcomes(self, answer):
        return {step["step"]: step["outcome"] for step in answer["steps"]}

    def sql(self, text):
        return self.stage.run(["psql", "-XAtq", "-d", self.server.conninfo, "-c", text]).stdout.strip()

    def test_everything_is_made_and_the_second_time_is_there_already(self):
        first = self.outcomes(self.init())
        self.assertEqual(first, {"server": "found", "role": "made", "key": "made", "repository": "made",
                                 "configuration": "written"})
        self.assertEqual(self.config.stat().st_mode & 0o777, 0o640)
        self.assertEqual((self.home / "repo.key").stat().st_mode & 0o777, 0o600)
        key = (self.home / "repo.key").read_bytes()
        config = self.config.read_bytes()
        second = self.outcomes(self.init())
        self.assertEqual(second, {"server": "found", "role": "there already", "key": "there already",
                                  "repository": "there already", "configuration": "there already"})
        self.assertEqual(((self.home / "repo.key").read_bytes(), self.config.read_bytes()), (key, config))

    def test_the_role_can_do_what_the_agent_needs_and_no_more(self):
        self.init()
        self.assertEqual(self.sql("SELECT rolcanlogin, rolreplication, rolsuper, rolcreaterole, rolcreatedb "
                                  "FROM pg_roles WHERE rolname = 'walvault'"), "t|t|f|f|f")
        shown = json.loads(self.cli("-o", "json", "config", "show").stdout)
        conninfo = next(row["value"] for row in shown if row["key"] == "server.main.conninfo")
        self.assertIn("user=walvault", conninfo)
        point = self.stage.run(["psql", "-XAtq", "-d", conninfo, "-c", "SELECT pg_create_restore_point('x')"])
        self.assertRegex(point.stdout, "^[0-9A-F]+/[0-9A-F]+$")
        system = self.stage.run(["psql", "-XAtq", "-d", conninfo + " replication=true",
                                 "-c", "IDENTIFY_SYSTEM"])
        self.assertIn("|1|", system.stdout)

    def test_a_dry_run_changes_nothing(self):
        answer = self.init("--dry-run")
        self.assertEqual(set(self.outcomes(answer).values()), {"found", "would be made", "would be written"})
        self.assertEqual(list(self.home.iterdir()), [])
        self.assertEqual(self.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'walvault'"), "0")

    def test_a_role_that_may_not_make_roles_is_told_and_the_rest_is_done(self):
        self.sql("CREATE ROLE modest LOGIN")
        answer = self.init(conninfo=self.server.conninfo.replace("user=postgres", "user=modest"), expect=7)
        self.assertEqual(self.outcomes(answer)["role"], "NOT ready")
        self.assertEqual(self.outcomes(answer)["configuration"], "written")
        self.assertIn("--print-sql", answer["next"])
        statements = self.cli("init", "--print-sql").stdout
        self.sql(statements)
        self.assertEqual(self.outcomes(self.init())["role"], "there already")

    def test_a_lost_key_is_not_replaced_by_a_new_one(self):
        self.init()
        (self.home / "repo.key").unlink()
        self.assertEqual(self.init(expect=9)["error"]["code"], "wrong_key")
        self.assertFalse((self.home / "repo.key").exists())

    def test_a_directory_with_something_else_in_it_is_refused(self):
        self.stage.make_directory("etc", "repo")
        self.stage.write(self.repo / "precious", "x")
        self.assertEqual(self.init(expect=4)["error"]["code"], "refused")
        self.assertEqual([path.name for path in self.repo.iterdir()], ["precious"])

    def test_flags_that_contradict_the_configuration_are_refused(self):
        self.init()
        done = self.cli("-o", "json", "init", "--conninfo", self.server.conninfo,
                        "--repo", "file:///elsewhere", expect=4)
        self.assertIn("/elsewhere", json.loads(done.stderr)["error"]["message"])

    def test_a_name_and_no_backups_are_written_as_asked(self):
        self.init("--name", "billing-1", "--no-backup")
        rows = json.loads(self.cli("-o", "json", "config", "show").stdout)
        shown = {row["key"]: row["value"] for row in rows}
        self.assertEqual(shown["server.billing-1.backup.every"], "off")
        self.assertEqual(shown["repo.primary.url"], f"file://{self.repo}")
