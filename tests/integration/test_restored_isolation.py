"""A restored server touches nothing of production: no archive, no publisher, no primary, no log, no address."""

import re
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import PG_BIN, StageCase, wait_until
from oracle import make_table


class IsolationTest(StageCase):
    """Production archives, follows a publisher, names a primary and a standby, and logs to a directory of its own."""

    def setUp(self):
        super().setUp()
        self.publisher = Postgres.create(self.stage, "publisher", settings={"wal_level": "logical"}).start()
        self.publisher.sql("create table news (id int); create publication news for table news")
        self.archive = self.stage.make_directory("archive")
        self.logs = self.stage.make_directory("production-logs")
        self.production = Postgres.create(self.stage, "production", settings={
            "archive_mode": "on", "archive_command": f"'cp %p {self.archive}/%f'",
            "archive_cleanup_command": f"'touch {self.archive}/cleaned'",
            "recovery_end_command": f"'touch {self.archive}/ended'",
            "primary_conninfo": f"'{self.publisher.conninfo}'",
            "external_pid_file": f"'{self.logs}/production.pid'"}).start()
        self.production.sql("create table news (id int)")
        self.production.sql(f"create subscription news connection '{self.publisher.conninfo}' publication news")
        make_table(self.production)
        self.agent = Agent(self.stage, self.production).protect()
        # Logging as it is set on many servers: a collector, into an absolute path.
        self.production.sql("alter system set logging_collector = on")
        self.production.sql(f"alter system set log_directory = '{self.logs}'")
        self.production.sql("checkpoint; select pg_switch_wal()")
        self.agent.cli("backup", "--fast")
        self.agent.wait_until_flushed()

    def slot(self):
        return self.publisher.sql("select confirmed_flush_lsn, active_pid from pg_replication_slots")

    def files(self, directory):
        return {path.name: path.stat().st_mtime_ns for path in directory.iterdir()}

    def end_production(self):
        self.agent.stop()
        self.production.stop("immediate")
        wait_until(lambda: self.publisher.sql("select count(*) from pg_stat_replication") == "0",
                   "production to be gone")

    def connections(self, trace):
        """Addresses of connect(), other than those of Unix sockets of the copy itself."""
        found = re.findall(r"connect\(\d+, (\{[^}]*\})", trace.read_text())
        return [address for address in found if "AF_UNIX" not in address]

    def test_a_promoted_copy_reaches_nobody(self):
        self.end_production()
        before = self.slot(), self.files(self.archive), self.files(self.logs)
        copy = self.agent.restore(to="latest", extra=["--action", "promote"])
        trace = self.stage.directory / "trace"
        copy.process = self.stage.start(
            ["strace", "-f", "-qq", "-e", "trace=connect", "-o", trace, PG_BIN / "postgres", "-D", copy.data,
             "-c", f"unix_socket_directories={copy.socket_directory}"], log=copy.log)
        # strace holds back the signals that are meant for what it runs.
        self.addCleanup(self.stage.run, [PG_BIN / "pg_ctl", "-D", copy.data, "-m", "immediate", "stop"])
        wait_until(lambda: copy.psql("-c", "select pg_is_in_recovery()", check=False).stdout.strip() == "f",
                   "the copy to be promoted")
        # What it would do now if it could: apply, archive, log.
        self.publisher.sql("insert into news select generate_series(1, 100)")
        copy.sql("insert into items select g, 'x' from generate_series(100000, 101000) g;"
                 "select pg_switch_wal(); checkpoint")
        self.assertEqual(copy.sql("select count(*) from pg_stat_activity where backend_type ~ 'logical|walreceiver'"),
                         "0")
        self.assertEqual(copy.sql("select failed_count + archived_count from pg_stat_archiver"), "0")
        self.assertEqual(copy.sql("select count(*) from news"), "0")
        self.assertEqual((self.slot(), self.files(self.archive), self.files(self.logs)), before)
        self.assertEqual(self.connections(trace), [])
        self.assertEqual(copy.sql("show listen_addresses"), "")

    def test_a_copy_writes_its_log_into_its_own_directory(self):
        self.end_production()
        copy = self.agent.restore(to="latest").open()
        self.addCleanup(copy.stop, "immediate")
        self.assertTrue(list((copy.data / "log").iterdir()))
        self.assertEqual(self.files(self.logs).keys() - {"production.pid"}, set())


if __name__ == "__main__":
    unittest.main()
