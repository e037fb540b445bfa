"""All shapes of clusters and WAL: segment sizes, huge records, tablespaces, large and unlogged relations."""

import shutil
import unittest

from agent_process import Agent, checksum
from cluster import Postgres
from harness import StageCase, lsn_number
from oracle import make_table

GIB = 1 << 30


class WalShapeTest(StageCase):
    def protect(self, segment_mb=16, settings=None, prepare=None):
        self.primary = Postgres.create(self.stage, segment_mb=segment_mb, settings=settings).start()
        if prepare:
            prepare()
        self.agent = Agent(self.stage, self.primary).protect()

    def restore_latest(self, extra=(), **settings):
        self.agent.wait_until_flushed()
        restored = self.agent.restore(to="latest", extra=extra).open(**settings)
        self.addCleanup(restored.stop, "immediate")
        return restored

    def assert_same(self, restored, table, order_by="id"):
        self.assertEqual(checksum(restored, table, order_by), checksum(self.primary, table, order_by))

    def end_well(self):
        self.agent.stop()
        self.agent.check_log()

    def run_segments(self, segment_mb, rows):
        self.protect(segment_mb)
        for number in range(3):
            make_table(self.primary, f"t{number}", rows)
            self.primary.sql("select pg_switch_wal()")
        make_table(self.primary, "last", rows)
        restored = self.restore_latest()
        for table in ("t0", "t1", "t2", "last"):
            self.assert_same(restored, table)
        self.end_well()

    def test_segments_of_1_mb(self):
        self.run_segments(1, 20000)

    def test_segments_of_16_mb(self):
        self.run_segments(16, 20000)

    def test_segments_of_64_mb(self):
        self.run_segments(64, 20000)

    def test_a_record_of_40_mb_across_segments(self):
        self.protect(16)
        make_table(self.primary, "before")
        start, end = (lsn_number(text) for text in self.primary.rows(
            "select pg_current_wal_insert_lsn(),"
            " pg_logical_emit_message(true, 'big', repeat('z', 40000000))")[0])
        self.assertGreater(end - start, 40_000_000)
        make_table(self.primary, "after")
        restored = self.restore_latest()
        self.assert_same(restored, "before")
        self.assert_same(restored, "after")
        self.end_well()

    def test_a_record_of_40_mb_while_the_agent_is_killed(self):
        self.protect(1)
        session = self.primary.session()
        for _ in range(2):
            session.execute("select pg_logical_emit_message(true, 'big', repeat('z', 40000000))")
            self.agent.kill9()
            self.agent.start(wait=False)
        session.close()
        self.agent.wait_ready()
        make_table(self.primary, "after")
        restored = self.restore_latest()
        self.assert_same(restored, "after")
        self.assertEqual(self.agent.json("info", "--gaps")["gaps"], [])

    def test_a_tablespace_is_restored_where_it_is_told(self):
        old = self.stage.make_directory("space with blank")
        self.protect(prepare=lambda: self.primary.sql(f"create tablespace fast location '{old}'"))
        self.primary.sql("create table placed (id int primary key, body text) tablespace fast;"
                         "insert into placed select g, md5(g::text) from generate_series(1, 5000) g")
        self.agent.cli("backup", "--fast")
        self.primary.sql("insert into placed select g, 'late' from generate_series(5001, 6000) g")
        self.agent.wait_until_flushed()
        new = self.stage.make_directory("tablespaces") / "new"
        restored = self.restore_latest(extra=["--tablespace", f"{old}={new}"])
        self.assert_same(restored, "placed")
        location = restored.sql("select pg_tablespace_location(oid) from pg_tablespace"
                                " where spcname = 'fast'")
        self.assertEqual(location, str(new))
        self.assertTrue(any(new.iterdir()))

    def test_a_tablespace_is_not_restored_over_the_original(self):
        old = self.stage.make_directory("space")
        self.protect(prepare=lambda: self.primary.sql(f"create tablespace fast location '{old}'"))
        self.primary.sql("create table placed (id int primary key) tablespace fast;"
                         "insert into placed values (1)")
        self.agent.cli("backup", "--fast")
        before = sorted(str(path) for path in old.rglob("*"))
        pgdata = self.stage.directory / "pg" / "over"
        error = self.agent.error("restore", "--to", "latest", "--pgdata", pgdata, expect=4)
        self.assertIn("--tablespace", error["hint"])
        self.assertEqual(sorted(str(path) for path in old.rglob("*")), before)

    def test_a_relation_of_more_than_one_segment_file(self):
        """PostgreSQL cuts relations at 1 GiB: the second file of one, and blocks on both sides of the cut."""
        free = shutil.disk_usage(self.stage.directory).free
        if free < 9 * GIB:
            self.skipTest(f"needs 9 GiB of disk, {free / GIB:.1f} GiB are free")
        self.protect(settings={"max_wal_size": "'8GB'", "wal_level": "replica", "autovacuum": "off",
                               "maintenance_work_mem": "'256MB'"},
                     prepare=self.fill_big)
        size = int(self.primary.sql("select pg_relation_size('big')"))
        self.assertGreaterEqual(size, 2 * GIB)
        edge = GIB // 8192
        self.primary.sql(f"update big set body = 'changed' where ctid in ('({edge - 1},1)', '({edge},1)')")
        restored = self.restore_latest()
        self.assertEqual(int(restored.sql("select pg_relation_size('big')")) // (1 << 20), size // (1 << 20))
        sums = "select count(*), sum(id), sum(hashtext(body)::bigint) from big"
        self.assertEqual(restored.rows(sums), self.primary.rows(sums))
        restored.discard()

    def fill_big(self):
        self.primary.sql("create unlogged table big (id bigint, body text);"
                         "alter table big alter column body set storage plain;"
                         "insert into big select g, repeat(md5(g::text), 60)"
                         " from generate_series(1, 1120000) g",
                         timeout=600)
        # Logged by rewriting: its pages go to WAL once, whole.
        self.primary.sql("alter table big set logged", timeout=600)
        self.primary.sql("checkpoint", timeout=600)

    def test_unlogged_tables_come_back_empty_and_usable(self):
        self.protect(prepare=lambda: self.primary.sql(
            "create unlogged table u (id int primary key); insert into u select generate_series(1, 1000)"))
        self.primary.sql("insert into u select generate_series(1001, 2000)")
        make_table(self.primary)
        self.agent.wait_until_flushed()
        restored = self.agent.restore(to="latest", extra=["--action", "promote"]).open()
        self.addCleanup(restored.stop, "immediate")
        self.assertEqual(restored.sql("select count(*) from u"), "0")
        restored.sql("insert into u values (1)")
        self.assert_same(restored, "items")

    def test_prepared_transactions_survive(self):
        self.protect(settings={"max_prepared_transactions": "10"})
        make_table(self.primary)
        self.primary.sql("begin; insert into items values (5001, 'kept'); prepare transaction 'kept'")
        self.primary.sql("begin; insert into items values (5002, 'done'); prepare transaction 'committed'")
        self.primary.sql("begin; insert into items values (5003, 'undone'); prepare transaction 'undone'")
        self.primary.sql("commit prepared 'committed'")
        self.primary.sql("rollback prepared 'undone'")
        self.agent.wait_until_flushed()
        restored = self.agent.restore(to="latest", extra=["--action", "promote"]).open()
        self.addCleanup(restored.stop, "immediate")
        self.assertEqual(restored.sql("select gid from pg_prepared_xacts"), "kept")
        self.assertEqual(restored.rows("select id, body from items where id > 5000"), [("5002", "done")])
        restored.sql("commit prepared 'kept'")
        self.assertEqual(restored.sql("select count(*) from items where id > 5000"), "2")

    def test_a_configuration_outside_pgdata(self):
        """As Debian does it: nothing in PGDATA says how to run the server."""
        outside = self.stage.make_directory("etc", mode=0o755)
        self.primary = Postgres.create(self.stage)
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            shutil.move(self.primary.data / name, outside / name)
        (outside / "conf.d").mkdir()
        self.stage.give(outside / "conf.d")
        self.stage.write(outside / "conf.d" / "extra.conf", "work_mem = '7MB'\n")
        with open(outside / "postgresql.conf", "a") as config:
            config.write(f"data_directory = '{self.primary.data}'\nhba_file = '{outside}/pg_hba.conf'\n"
                         f"ident_file = '{outside}/pg_ident.conf'\ninclude_dir = 'conf.d'\n")
        self.primary.config_arguments = ["-c", f"config_file={outside}/postgresql.conf"]
        self.primary.start()
        self.agent = Agent(self.stage, self.primary).protect()
        make_table(self.primary)
        restored = self.restore_latest()
        self.assert_same(restored, "items")
        self.assertEqual(restored.sql("show work_mem"), "7MB")
        for setting in ("config_file", "hba_file", "data_directory"):
            self.assertTrue(restored.sql(f"show {setting}").startswith(str(restored.data)), setting)

    def test_a_restored_server_touches_nothing_of_production(self):
        archive = self.stage.make_directory("archive")
        self.protect(settings={"archive_mode": "on", "archive_command": f"'cp %p {archive}/%f'",
                               "synchronous_standby_names": "''"})
        make_table(self.primary)
        self.agent.wait_until_flushed()
        restored = self.agent.restore(to="latest", extra=["--action", "promote"]).open()
        self.addCleanup(restored.stop, "immediate")
        self.primary.stop("fast")
        before = sorted(path.name for path in archive.iterdir())
        restored.sql("create table new_life (id int); select pg_switch_wal()")
        restored.sql("checkpoint")
        restored.stop("fast")
        self.assertEqual(sorted(path.name for path in archive.iterdir()), before)


if __name__ == "__main__":
    unittest.main()
