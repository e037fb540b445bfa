"""PostgreSQL's own tools judge what was restored: checksums, heap and index structure, manifest, WAL."""

import json
import re
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import PG_BIN, StageCase, lsn_text
from oracle import make_table


class RestoredToolsTest(StageCase):
    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage, settings={"wal_keep_size": "'1GB'"}).start()
        make_table(self.primary, rows=20000)
        self.primary.sql("create index on items (body); create extension if not exists amcheck")
        self.agent = Agent(self.stage, self.primary).protect()
        make_table(self.primary, "later", 20000)
        self.primary.sql("create index on later (body); update later set body = body || 'x' where id % 3 = 0;"
                         "delete from later where id % 5 = 0")

    def test_pg_checksums_finds_every_page_right(self):
        self.agent.wait_until_flushed()
        restored = self.agent.restore(to="latest", extra=["--action", "promote"]).open()
        restored.stop("fast")
        done = self.stage.run([PG_BIN / "pg_checksums", "--check", "-D", restored.data])
        self.assertIn("Bad checksums:  0", done.stdout)
        self.assertGreater(int(re.search(r"Blocks scanned: +(\d+)", done.stdout).group(1)), 2000)

    def test_pg_amcheck_finds_nothing(self):
        self.agent.wait_until_flushed()
        restored = self.agent.restore(to="latest", extra=["--action", "promote"]).open()
        self.addCleanup(restored.stop, "immediate")
        done = self.stage.run([PG_BIN / "pg_amcheck", "-h", restored.socket_directory, "-p", restored.port,
                               "-U", "postgres", "--heapallindexed", "--parent-check", "-d", "postgres"])
        self.assertEqual(done.stdout.strip(), "")

    def test_pg_verifybackup_accepts_the_restored_base(self):
        """Before the server is started; what a restore adds on purpose is named and left out."""
        restored = self.agent.restore(to="immediate")
        manifest = restored.data / "backup_manifest"
        self.assertTrue(manifest.exists(), "the server's manifest is not restored")
        self.assertGreater(len(json.loads(manifest.read_text())["Files"]), 900)
        # The server sends an empty tablespace_map; a restore writes one only where there are tablespaces.
        ignored = ["postgresql.auto.conf", "recovery.signal", "walvault_restore.json", "pg_wal",
                   "tablespace_map"]
        command = [PG_BIN / "pg_verifybackup", "-n"]
        for name in ignored:
            command += ["-i", name]
        done = self.stage.run([*command, restored.data])
        self.assertIn("backup successfully verified", done.stdout)

    def test_wal_get_returns_postgresqls_own_segments(self):
        names = []
        for number in range(3):
            make_table(self.primary, f"s{number}", 5000)
            names.append(self.primary.sql("select pg_walfile_name(pg_current_wal_insert_lsn())"))
            self.primary.sql("select pg_switch_wal()")
        make_table(self.primary, "last_one")
        self.agent.wait_until_flushed()
        for name in names:
            with self.subTest(segment=name):
                target = self.stage.make_directory("got") / name
                self.agent.cli("wal-get", name, target)
                self.assertEqual(target.read_bytes(), self.primary.wal_file(name).read_bytes())
        directory = self.stage.directory / "got"
        done = self.stage.run([PG_BIN / "pg_waldump", "-p", directory, names[0], names[-1]], check=False)
        own = self.stage.run([PG_BIN / "pg_waldump", "-p", self.primary.data / "pg_wal", names[0], names[-1]],
                             check=False)
        self.assertEqual(done.stdout, own.stdout)
        self.assertGreater(len(done.stdout.splitlines()), 15000)

    def test_wal_get_tells_absent_from_unknown(self):
        """1 only for what is proven absent; PostgreSQL takes 1 to 125 as the end of WAL."""
        target = self.stage.make_directory("got") / "x"
        self.agent.wait_until_flushed()
        self.agent.cli("wal-get", "0000000100000FFF00000001", target, expect=1)
        self.agent.cli("wal-get", "00000009.history", target, expect=1)
        self.agent.cli("wal-get", "not-a-wal-file", target, expect=200)
        self.agent.cli("wal-get", expect=200)
        segment = self.primary.sql("select pg_walfile_name(pg_current_wal_insert_lsn())")
        self.agent.stop()
        broken = Agent(self.stage, self.primary, name="broken", repo="/nonexistent", key=self.agent.key)
        broken.cli("wal-get", segment, target, expect=200)
        other = Agent(self.stage, self.primary, name="other-key", repo=self.agent.repo).make_key()
        other.cli("wal-get", segment, target, expect=200)
        self.assertFalse(target.exists())

    def test_restore_starts_the_server_when_asked(self):
        lsn = self.agent.wait_until_flushed()
        expected = self.primary.rows("select count(*), sum(id) from later")
        pgdata = self.stage.directory / "pg" / "started"
        answer = self.agent.json("restore", "--before", "lsn:" + lsn_text(lsn), "--pgdata", pgdata, "--start")
        try:
            self.assertTrue(answer["confirmed"] and answer["running"] and answer["paused"], answer)
            started = Postgres(self.stage, "started", pgdata, port=answer["port"])
            started.socket_directory = answer["socket_directory"]
            self.assertEqual(started.rows("select count(*), sum(id) from later"), expected)
            self.assertEqual(started.sql("show archive_mode"), "off")
        finally:
            self.stage.run([PG_BIN / "pg_ctl", "-D", pgdata, "-m", "immediate", "stop"])

    def test_an_interrupted_restore_cannot_be_started(self):
        self.agent.wait_until_flushed()
        pgdata = self.stage.directory / "pg" / "interrupted"
        command = [self.stage.walvault, "-c", self.agent.config, "restore", "--to", "latest",
                   "--pgdata", pgdata]
        process = self.stage.start(command, log=self.stage.directory / "restore.log")
        # At the first file of the base: long before the end.
        while process.poll() is None and not list(pgdata.glob("base/*/*")):
            pass
        process.kill()
        process.wait()
        self.assertFalse((pgdata / "global" / "pg_control").exists(), "killed too late to show anything")
        started = self.stage.run([PG_BIN / "pg_ctl", "-D", pgdata, "-w", "-t", "20", "start"], check=False)
        self.assertNotEqual(started.returncode, 0)


if __name__ == "__main__":
    unittest.main()
