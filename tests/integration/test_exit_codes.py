"""Which exit code a verb ends with when the server, a signal or this side is at fault."""

import contextlib
import http.client
import signal
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import StageCase, wait_until

USAGE, REPOSITORY, POSTGRES, KEY, INTERRUPTED, TERMINATED = 2, 6, 7, 9, 130, 143


class ExitCodeTest(StageCase):
    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage).start()
        self.agent = Agent(self.stage, self.primary).init()

    def answers(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.agent.http("GET", "/livez")[0] == 200
        return False

    def test_a_role_that_may_not_replicate(self):
        self.primary.sql("create role modest login")
        modest = Agent(self.stage, self.primary, name="modest", repo=self.agent.repo, key=self.agent.key,
                       conninfo=self.primary.conninfo.replace("user=postgres", "user=modest"))
        for verb in (["run"], ["run", "--once"], ["backup"], ["detach", "--yes"], ["point", "x"]):
            with self.subTest(verb=verb):
                error = modest.error(*verb, expect=POSTGRES)
                self.assertEqual(error["code"], "refused")
                self.assertTrue(error["hint"])

    def test_a_server_that_is_down(self):
        self.primary.stop()
        for verb in (["run", "--once"], ["backup"], ["detach", "--yes"], ["point", "x"]):
            with self.subTest(verb=verb):
                self.assertEqual(self.agent.error(*verb, expect=POSTGRES)["code"], "unavailable")

    def test_a_server_that_is_down_while_the_agent_runs(self):
        self.agent.start()
        self.primary.stop()
        wait_until(lambda: self.agent.status()["last_error"], "the loss of the server to be known")
        error = self.agent.error("backup", expect=POSTGRES)
        self.assertIn("stream", error["message"])

    def test_a_server_that_goes_during_a_backup(self):
        self.agent.write_config(self.agent.config.read_text().replace(
            'checkpoint = "fast"', 'checkpoint = "fast"\nmax_rate = "1MiB/s"'))
        backup = self.stage.start([self.stage.walvault, "-c", self.agent.config, "backup"],
                                  log=self.stage.directory / "backup.log")
        wait_until(lambda: self.primary.sql("select count(*) from pg_stat_progress_basebackup"
                                            " where phase = 'streaming database files'") == "1",
                   "the backup to stream")
        self.primary.stop("immediate")
        self.assertEqual(backup.wait(60), POSTGRES)

    def test_our_own_side_is_not_the_servers(self):
        self.agent.error("point", "x" * 64, expect=USAGE)
        keyless = Agent(self.stage, self.primary, name="keyless", repo=self.agent.repo)
        keyless.error("detach", "--yes", expect=KEY)
        nowhere = Agent(self.stage, self.primary, name="nowhere", repo="/nonexistent/repo", key=self.agent.key)
        nowhere.error("detach", "--yes", expect=REPOSITORY)

    def test_a_signal_before_it_is_done(self):
        self.primary.process.send_signal(signal.SIGSTOP)
        try:
            for verb in (["run", "--once"], ["backup"]):
                for sent, code in ((signal.SIGTERM, TERMINATED), (signal.SIGINT, INTERRUPTED)):
                    with self.subTest(verb=verb, signal=sent):
                        process = self.stage.start([self.stage.walvault, "-c", self.agent.config, *verb],
                                                   log=self.stage.directory / "signalled.log")
                        wait_until(self.answers, "it to wait for the server")
                        process.send_signal(sent)
                        self.assertEqual(process.wait(60), code)
        finally:
            self.primary.process.send_signal(signal.SIGCONT)

    def test_sigterm_is_the_end_of_a_service_and_sigint_an_interruption(self):
        for sent, code in ((signal.SIGTERM, 0), (signal.SIGINT, INTERRUPTED)):
            with self.subTest(signal=sent):
                self.agent.start()
                self.agent.process.send_signal(sent)
                self.assertEqual(self.agent.process.wait(60), code)
        self.agent.check_log()


if __name__ == "__main__":
    unittest.main()
