"""The PostgreSQL side of the row journal on real servers, 14 to 18: what comes, what is copied, what fails."""

import json
import unittest

from cluster import Postgres
from harness import StageCase, lsn_number, of_each_major, wait_until
from logical import SERVER_SETTINGS, Client, LogicalCase, Replica, copied_rows, kinds, read_event

TYPES = """
create type mood as enum ('sad', 'it''s ok'); create domain positive as int check (value > 0);
create type pair as (x int, y text); create type span as range (subtype = float8);
create table typed(id bigint generated always as identity (start 100) primary key, b bool, i2 int2, i4 int,
 i8 int8, n numeric,
 f4 float4, f8 float8, c char(5), v varchar(20), t text, by bytea, d date, ts timestamp, tz timestamptz, iv interval,
 ti time, tt timetz, u uuid, j json, jb jsonb, inet inet, cidr cidr, mac macaddr, bits bit varying, p point, bx box,
 poly polygon, m money, r int4range, mr int4multirange, sp span, ia int[], ta text[], e mood, ea mood[], dm positive,
 co pair, tv tsvector, tq tsquery, lsn pg_lsn, o oid, rc regclass, "Name ""with"" quotes" text, "with space" text,
 g int generated always as (i4 + 1) stored);
"""
TYPED_ROW = """insert into typed overriding system value values ({id}, true, -3, 4, 9223372036854775807, 'NaN',
 0.1, 1e-300,
 'ab', 'v', E'tab\\tnew\\nline\\\\back', '\\x00ff5c', '2026-02-28', 'infinity', '2026-03-29 02:30+00',
 '1 year -2 days 3.5 s',
 '23:59:59.999999', '12:00+05:30', '00000000-0000-0000-0000-00000000000{digit}', '{{"a": "\\u00e9"}}', '{{"k": [1,
 null]}}',
 '::1', '10.0.0.0/8', '08:00:2b:01:02:03', '101', '(1.5,-0)', '((1,1),(0,0))', '((0,0),(1,1),(1,0))', 12.34, '[1,5)',
 '{{[1,2),[5,9)}}', '[0.1,0.2)', '{{1,NULL,3}}', '{{"a,b","c\\"d",NULL,""}}', 'it''s ok', '{{sad}}', 7, '(1,"x,""y")',
 'a:1 b', 'a & b', '16/B374D848', 42, 'public.typed', 'é', '\\N', default)"""


class Logical(LogicalCase):
    """The tests of one major; a class for each is at the end."""

    # --- What comes ---------------------------------------------------------------------------

    def test_g01_unchanged_toast_comes_as_unchanged(self):
        self.sql("create table lt(id int primary key, a int, big text); alter table lt alter big set storage external;"
                 "create table ft(id int, a int, big text); alter table ft alter big set storage external;"
                 "alter table ft replica identity full;")
        self.begin()
        for table in ("lt", "ft"):
            self.sql(f"insert into {table} values (1, 1, repeat('x', 9000))")
            self.sql(f"update {table} set a = 2")
            self.sql(f"update {table} set big = null")
        changes = self.client.stream()
        plain, gone, full, full_gone = [change for change in changes if change["kind"] == "update"]
        self.assertEqual(plain["row"], ["1", "2", {"unchanged": True}])
        self.assertEqual((plain["old_kind"], plain["old"]), ("none", []))
        self.assertEqual(gone["row"], ["1", "2", None])
        self.assertEqual(full["old"], ["1", "1", "x" * 9000])
        self.assertEqual(full["row"], ["1", "2", {"unchanged": True}])
        self.assertEqual(full_gone["old"][2], "x" * 9000)

    def test_g05_a_large_transaction_is_streamed_and_what_its_savepoints_took_back_is_told(self):
        self.sql("create table t(id int primary key, v text)")
        self.begin()
        self.sql("begin; insert into t select g, repeat('a', 300) from generate_series(1, 500) g;"
                 " savepoint one; insert into t select g, repeat('b', 300) from generate_series(1001, 1500) g;"
                 " savepoint two; delete from t where id <= 250; rollback to one;"
                 " savepoint three; update t set v = 'c' where id > 400; release three; commit;"
                 " begin; insert into t select g, repeat('d', 300) from generate_series(5001, 5500) g; rollback;")
        expected = copied_rows(self.server, self.database, "public.t", ["id", "v"])
        changes = self.client.stream()
        self.assertIn("stream_start", kinds(changes))
        replica = Replica()
        for change in changes:
            replica.take(change)
        self.assertEqual(replica.table("t"), (["id", "v"], expected))
        self.assertGreaterEqual(replica.aborted_changes, 500)
        self.assertEqual(replica.staged, {})
        aborts = [change for change in changes if change["kind"] == "stream_abort"]
        self.assertTrue(all((abort["lsn"] is not None) == (self.major >= 16) for abort in aborts))
        # Not streamed, the same comes whole at the commit, and what was taken back not at all.
        whole = self.client.stream("no_streaming")
        self.assertEqual(set(kinds(whole)), {"begin", "commit", "relation", "insert", "update"})
        replica = Replica()
        for change in whole:
            replica.take(change)
        self.assertEqual(replica.table("t"), (["id", "v"], expected))

    def test_g06_prepared_transactions_come_when_they_are_prepared(self):
        self.sql("create table t(id int primary key, v text)")
        self.begin("two_phase")
        self.sql("begin; insert into t values (1, 'x'); prepare transaction 'it''s one';")
        two_phase = self.major >= 15
        before = self.client.stream("two_phase")
        self.assertEqual("prepare" in kinds(before), two_phase)
        self.session().execute(
            "begin; insert into t select g, repeat('s', 300) from generate_series(10, 500) g;"
            " prepare transaction 'two'; commit prepared 'it''s one'; rollback prepared 'two';"
            " begin; insert into t select g, repeat('s', 300) from generate_series(1001, 1500) g;"
            " prepare transaction 'large'; commit prepared 'large';"
            " begin; insert into t values (2, 'y'); prepare transaction 'three'; commit prepared 'three';")
        changes = self.client.stream("two_phase", "ack")
        replica = Replica()
        for change in changes:
            replica.take(change)
        self.assertEqual(replica.table("t")[1], copied_rows(self.server, self.database, "public.t", ["id", "v"]))
        if two_phase:
            self.assertEqual([change["gid"] for change in changes if change["kind"] == "commit_prepared"],
                             ["it's one", "large", "three"])
            self.assertEqual([change["gid"] for change in changes if change["kind"] == "rollback_prepared"], ["two"])
            self.assertIn("stream_prepare", kinds(changes))

    def test_g02_ddl_between_changes_gives_a_new_relation_each_time(self):
        self.sql("create table t(id int primary key, v text)")
        self.begin()
        first = self.sql("select 't'::regclass::oid")
        self.sql("insert into t values (1, 'x')")
        self.sql("alter table t add c numeric default 1.5")
        self.sql("update t set v = 'y'")
        self.sql("alter table t alter v type varchar(7)")
        self.sql("update t set v = 'z'")
        self.sql("alter table t drop v")
        self.sql("update t set c = 2")
        self.sql("alter table t rename to renamed; alter table renamed rename c to d")
        self.sql("delete from renamed")
        self.sql("drop table renamed; create table t(id int primary key, other int);")
        second = self.sql("select 't'::regclass::oid")
        # Before it joins, its changes are not published.
        self.sql("insert into t values (1, 1)")
        self.client.publish()
        self.sql("insert into t values (2, 2)")
        changes = self.client.stream()
        relations = [change for change in changes if change["kind"] == "relation"]
        self.assertEqual([(relation["name"], [column["name"] for column in relation["columns"]])
                          for relation in relations],
                         [("t", ["id", "v"]), ("t", ["id", "v", "c"]), ("t", ["id", "v", "c"]), ("t", ["id", "c"]),
                          ("renamed", ["id", "d"]), ("t", ["id", "other"])])
        self.assertEqual([str(relation["oid"]) for relation in relations], [first] * 5 + [second])
        self.assertEqual([column["type"] for column in relations[2]["columns"]], [23, 1043, 1700])
        self.assertEqual([change["row"] for change in changes if change["kind"] == "insert"], [["1", "x"], ["2", "2"]])

    def test_g10_a_truncate_names_what_it_emptied_partitions_too(self):
        self.sql("create table t(id serial primary key); create table r(id int primary key) partition by range (id);"
                 "create table r1 partition of r for values from (0) to (10);"
                 "create table r2 partition of r for values from (10) to (20); create table none(x int);")
        self.begin()
        oid = dict(line.split("\t") for line in self.sql("select relname, oid from pg_class").splitlines())
        self.sql("insert into r values (1), (11); truncate t restart identity; truncate r1; truncate none;")
        changes = self.client.stream()
        truncates = [change for change in changes if change["kind"] == "truncate"]
        self.assertEqual([[str(oid) for oid in truncate["relations"]] for truncate in truncates],
                         [[oid["t"]], [oid["r1"]], [oid["none"]]])
        self.assertTrue(truncates[0]["restart_identity"])
        self.assertEqual([str(change["relation"]) for change in changes if change["kind"] == "insert"],
                         [oid["r1"], oid["r2"]])

    def test_g04_an_idle_database_lets_go_of_wal_by_the_positions_that_are_acknowledged(self):
        self.begin()
        before = self.slot()["confirmed"]
        self.server.sql("create table if not exists elsewhere(x int); insert into elsewhere values (1);")
        self.client.stream("ack")
        self.assertGreater(lsn_number(self.slot()["confirmed"]), lsn_number(before))

    def test_what_is_not_acknowledged_comes_again_and_what_is_does_not(self):
        self.sql("create table t(id int primary key)")
        self.begin()
        self.sql("insert into t values (1)")
        self.assertEqual(kinds(self.client.stream()), ["begin", "relation", "insert", "commit"])
        self.assertEqual(kinds(self.client.stream("ack")), ["begin", "relation", "insert", "commit"])
        self.sql("insert into t values (2)")
        self.assertEqual([change["row"] for change in self.client.stream() if change["kind"] == "insert"], [["2"]])

    # --- Snapshot and stream ------------------------------------------------------------------

    def test_g15_snapshot_and_stream_equal_the_table(self):
        self.sql(TYPES + "create table f(a int, b text); alter table f replica identity full;"
                 "create table r(id int primary key, v text) partition by hash (id);"
                 "create table r1 partition of r for values with (modulus 2, remainder 0);"
                 "create table r2 partition of r for values with (modulus 2, remainder 1);")
        for number in range(1, 4):
            self.sql(TYPED_ROW.format(id=number, digit=number))
        self.sql("insert into typed(i4) values (1); insert into f select g % 3, g::text from generate_series(1, 50) g;"
                 "insert into r select g, g::text from generate_series(1, 50) g")
        process = self.client.start("begin", "before_copy", publication="walvault", tables="public.*", slot="s")
        read_event(process, "waiting")
        # After the snapshot and before the copy: this is in the stream alone.
        self.sql("update typed set t = null, f8 = 'Infinity', i4 = 7 where id = 1; delete from typed where id = 2;"
                 "update r set id = id + 1000 where id % 7 = 0; delete from f where ctid = '(0,1)';")
        process.stdin.write("\n")
        process.stdin.flush()
        lines = [json.loads(text) for text in process.stdout]
        self.assertEqual(process.wait(60), 0, lines[-1:])
        self.sql(TYPED_ROW.format(id=9, digit=9))
        self.sql("begin; update f set b = b || 'x' where a = 1; savepoint s; delete from f; rollback to s; commit;"
                 "update typed set ta = '{}', \"with space\" = E'\\t' where id = 3; insert into r values (5000, null);"
                 "truncate r2; insert into r select g, 'n' from generate_series(6000, 6020) g;")
        replica = Replica()
        replica.load(lines)
        for change in self.client.stream():
            replica.take(change)
        for table in ("typed", "f", "r1", "r2"):
            columns, rows = replica.table(table)
            self.assertEqual(rows, copied_rows(self.server, self.database, f"public.{table}", columns), table)
            self.assertGreater(len(rows), 0)
        self.assertEqual("g" in replica.table("typed")[0], self.major >= 18)

    def test_the_relation_of_a_snapshot_is_that_of_the_stream(self):
        self.sql("create table a(x int, y int, z text, primary key (z, x)); alter table a drop y;"
                 "create table b(x int not null, y int, g int generated always as (x + 1) stored);"
                 "create unique index b_i on b(x) include (y); alter table b replica identity using index b_i;"
                 "create table c(x int, y numeric(8,2)); alter table c replica identity full;"
                 "create table d(x varchar(9));")
        lines = [line for line in self.begin() if line["event"] == "snapshot"]
        self.sql("insert into a values (1, 'z'); insert into b values (1, 2); insert into c values (1, 2);"
                 "insert into d values ('x')")
        relations = [change for change in self.client.stream() if change["kind"] == "relation"]
        for line in lines + relations:
            line.pop("event"), line.pop("at_lsn", None)
        self.assertEqual(sorted(lines, key=lambda line: line["name"]), relations)

    def test_a_table_whose_rows_the_snapshot_no_longer_shows_is_refused(self):
        for change in ("truncate t", "alter table t alter v type int using length(v)", "drop table t",
                       "alter table t rename to t_old; create table t(id int primary key, v text)",
                       "alter table t rename column v to w"):
            with self.subTest(change):
                self.sql("drop table if exists t, t_old; create table t(id int primary key, v text);"
                         " insert into t values (1, 'x')")
                process = self.client.start("begin", "before_copy", publication="walvault", tables="public.t", slot="s")
                read_event(process, "waiting")
                self.sql(change)
                process.stdin.write("\n")
                process.stdin.flush()
                lines = [json.loads(text) for text in process.stdout]
                self.assertEqual(process.wait(60), 1, lines)
                self.assertEqual(lines[-1]["code"], "busy", lines)
                self.assertIn("since the snapshot", lines[-1]["message"])
                self._drop_slots()

    def test_a_slot_that_waits_for_a_transaction_gives_up_and_leaves_none(self):
        idle = self.session()
        idle.execute("begin; select txid_current();")
        error = self.client.error("begin", publication="walvault", tables="public.*", slot="s", wait_ms=300, expect=1)
        self.assertEqual(error["code"], "busy")
        self.assertIn("did not end within 300 ms", error["message"])
        self.assertIn("of role postgres, in a transaction since", error["hint"])
        self.assertEqual(self.sql("select count(*) from pg_replication_slots where slot_name = 's'"), "0")
        idle.execute("rollback;")
        self.assertEqual(self.begin()[-1]["event"], "done")
        again = self.client.error("begin", publication="walvault", tables="public.*", slot="s", expect=1)
        self.assertEqual(again["code"], "refused")

    # --- What goes wrong ----------------------------------------------------------------------

    def stream_error(self, **arguments):
        arguments = {"slot": "s", "publications": "walvault", "until": "FFFFFFFF/0", **arguments}
        return self.client.error("stream", **arguments)

    def test_g03_a_slot_that_is_missing_in_use_or_unsuitable_is_told_apart(self):
        self.begin()
        missing = self.stream_error(slot="other")
        self.assertEqual((missing["code"], missing["trouble"]), ("not_found", "slot missing"))
        reader = self.client.start("stream", slot="s", publications="walvault", until="FFFFFFFF/0")
        read_event(reader, "started")
        used = self.stream_error()
        self.assertEqual((used["code"], used["trouble"]), ("busy", "slot in use"))
        reader.kill()
        reader.communicate()
        wait_until(lambda: not self.slot()["active"], "the slot to be free")
        self.sql("select pg_create_physical_replication_slot('physical'); select"
                 " pg_create_logical_replication_slot('other_plugin', 'test_decoding')", check=False)
        physical = self.stream_error(slot="physical")
        self.assertEqual((physical["code"], physical["trouble"]), ("refused", "slot unsuitable"))
        elsewhere = Client(self.stage, self.server, "postgres").error("stream", slot="s", publications="walvault")
        self.assertEqual((elsewhere["code"], elsewhere["trouble"]), ("refused", "slot unsuitable"))
        self.sql("select pg_drop_replication_slot('physical')")

    def test_a_slot_is_dropped_as_a_journals_if_it_is_logical_and_of_this_database(self):
        self.begin()
        self.sql("select pg_create_physical_replication_slot('physical')")
        self.addCleanup(self.server.sql, "select pg_drop_replication_slot('physical')")
        slots = "select string_agg(slot_name, ' ' order by slot_name) from pg_replication_slots"
        error = self.client.error("drop", slot="physical", expect=1)
        self.assertEqual(error["code"], "refused")
        self.assertIn("it is a physical slot", error["message"])
        error = Client(self.stage, self.server, "postgres").error("drop", slot="s", expect=1)
        self.assertEqual(error["code"], "refused")
        self.assertIn(f'it is of the database "{self.database}"', error["message"])
        self.assertEqual(self.sql(slots), "physical s")
        self.client.run("drop", slot="s")
        self.client.run("drop", slot="s")
        self.assertEqual(self.sql(slots), "physical")

    def test_g14_a_publication_that_is_dropped_is_told_where_the_server_tells_it(self):
        self.sql("create table t(a int primary key)")
        self.begin()
        self.sql("insert into t values (1)")
        self.client.run("drop", publication="walvault")
        self.sql("insert into t values (2)")
        if self.major >= 18:
            # 18 leaves a missing publication out with a warning: what follows is not sent.
            changes = self.client.stream()
            self.assertEqual([change["row"] for change in changes if change["kind"] == "insert"], [["1"]])
            return
        error = self.stream_error(publications="walvault,walvault_inserts")
        self.assertEqual((error["code"], error["trouble"]), ("not_found", "publication missing"))
        # Made again it is not there where it is looked for: in the past.
        self.client.publish()
        error = self.stream_error(publications="walvault,walvault_inserts")
        self.assertEqual(error["trouble"], "publication missing")

    def test_g09_a_start_before_what_is_confirmed_is_seen_by_the_slot_alone(self):
        self.sql("create table t(a int primary key)")
        created = next(line for line in self.begin() if line["event"] == "created")
        self.sql("insert into t values (1)")
        self.client.stream("ack")
        self.assertGreater(lsn_number(self.slot()["confirmed"]), lsn_number(created["consistent"]))
        self.assertEqual(self.client.stream(start=created["consistent"]), [])

    def test_g17_sql_ascii_holds_any_bytes_in_values_and_names(self):
        name = f"ascii{self.major}"
        self.server.sql(f"create database {name} template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'")
        client = Client(self.stage, self.server, name)
        script = self.stage.directory / f"{name}.sql"
        script.write_bytes(b'create table "t\xff"(id int primary key, "c\xe9" text);'
                           b"insert into \"t\xff\" values (1, E'\\xff\\xfe');")
        script.chmod(0o644)
        self.server.psql("-f", script, database=name, environment=self.stage.environment(PGCLIENTENCODING="SQL_ASCII"))
        lines = client.run("begin", publication="walvault", tables="public.*", slot=f"s_{name}")
        snapshot = next(line for line in lines if line["event"] == "snapshot")
        self.assertEqual(snapshot["name"], {"hex": "74ff"})
        self.assertEqual(snapshot["columns"][1]["name"], {"hex": "63e9"})
        self.assertEqual(next(line for line in lines if line["event"] == "row")["row"], ["1", {"hex": "fffe"}])
        script.write_bytes(b"update \"t\xff\" set id = 2;")
        self.server.psql("-f", script, database=name, environment=self.stage.environment(PGCLIENTENCODING="SQL_ASCII"))
        update = next(change for change in client.stream(slot=f"s_{name}") if change["kind"] == "update")
        self.assertEqual(update["row"], ["2", {"hex": "fffe"}])
        self.server.sql(f"select pg_drop_replication_slot('s_{name}')")

    def test_values_are_the_same_whatever_the_role_and_the_database_say(self):
        self.sql("create table t(id int primary key, d date, i interval, f float8, b bytea, z timestamptz, r regclass);"
                 f'alter database "{self.database}" set datestyle = \'SQL, DMY\';'
                 f'alter database "{self.database}" set extra_float_digits = -10;'
                 f'alter database "{self.database}" set bytea_output = escape;'
                 f'alter database "{self.database}" set timezone = \'Asia/Kolkata\';'
                 f'alter database "{self.database}" set intervalstyle = iso_8601;'
                 f'alter database "{self.database}" set standard_conforming_strings = off;'
                 f'alter database "{self.database}" set default_transaction_read_only = on;')
        # Of PostgreSQL's own programs, so that the test itself can write.
        own = self.stage.environment(PGOPTIONS="-c default_transaction_read_only=off -c standard_conforming_strings=on")

        def sql(statement):
            self.server.psql("-c", statement, database=self.database, environment=own)

        sql('create table "a\\nb"(id int primary key)')
        if self.major >= 17:
            sql(f'alter database "{self.database}" set transaction_timeout = \'500ms\'')
            own["PGOPTIONS"] += " -c transaction_timeout=0"
        expected = ["1", "2026-02-03", "1 year 2 mons 03:00:00", "0.1", "\\x00ff", "2026-02-03 04:05:06+00", "public.t"]
        insert = ("insert into t values ({}, '2026-02-03', '1 year 2 months 3 hours', 0.1,"
                  " '\\x00ff', '2026-02-03 04:05:06Z', 't')")
        sql(insert.format(1))
        lines = self.begin()
        self.assertEqual([line["row"] for line in lines if line["event"] == "row"], [expected])
        self.assertEqual([line["name"] for line in lines if line["event"] == "snapshot"], ["a\\nb", "t"])
        sql(insert.format(2))
        row = next(change["row"] for change in self.client.stream() if change["kind"] == "insert")
        self.assertEqual(row, ["2"] + expected[1:])
        # A wait that is longer than the transaction_timeout.
        sql("create table late(id int primary key)")
        holder = self.session()
        holder.execute("set transaction_timeout = 0;" * (self.major >= 17) +
                       " begin; lock table late in share update exclusive mode;")
        self.assertEqual(len(self.client.publish()["waiting"]), 1)
        holder.execute("rollback;")
        self.client.run("drop", publication="walvault")


class LogicalServerTest(StageCase):
    """What takes a server of its own: settings, and its end."""

    def setUp(self):
        super().setUp()
        self.server = Postgres.create(self.stage, segment_mb=1, settings={**SERVER_SETTINGS,
                                                                          "max_slot_wal_keep_size": "'2MB'"})
        self.client = Client(self.stage, self.server, "postgres")

    def begin(self, expect=0):
        return self.client.run("begin", publication="walvault", tables="public.*", slot="s", expect=expect)

    def test_g12_wal_level_is_asked_for_by_name_and_a_slot_keeps_a_server_of_a_lower_one_from_starting(self):
        self.server.start({"wal_level": "replica"})
        error = self.begin(expect=1)[-1]
        self.assertEqual(error["code"], "refused")
        self.assertIn("Set wal_level = logical", error["hint"])
        facts, missing = self.client.run("facts")
        self.assertEqual(facts["wal_level"], "replica")
        self.assertIn("cannot be journaled: wal_level is replica", missing["message"])
        self.server.stop()
        self.server.start()
        self.begin()
        self.server.stop()
        # So the slot must go before the setting does.
        self.server.start({"wal_level": "replica"}, wait=False)
        self.assertNotEqual(self.server.process.wait(60), 0)
        self.assertIn('logical replication slot "s" exists', self.server.log.read_text())

    def test_g03_a_slot_that_the_server_gave_up_is_unusable(self):
        self.server.start()
        self.begin()
        self.server.sql("create table t(a text)")
        for _ in range(4):
            self.server.sql("insert into t select repeat('x', 1000) from generate_series(1, 2000)")
            self.server.sql("select pg_switch_wal(); checkpoint;")
        facts = self.client.run("facts")[0]
        self.assertTrue(facts["slots"][0]["lost"], facts)
        error = self.client.error("stream", slot="s", publications="walvault", until="FFFFFFFF/0")
        self.assertEqual((error["code"], error["trouble"]), ("unusable", "slot lost"))

    def test_a_server_that_shuts_down_ends_the_stream_once_its_position_is_acknowledged(self):
        self.server.start()
        self.server.sql("create table t(a int primary key)")
        self.begin()
        reader = self.client.start("stream", "ack", slot="s", publications="walvault", until="FFFFFFFF/0")
        read_event(reader, "started")
        self.server.sql("insert into t values (1)")
        self.assertEqual(read_event(reader, "change")["kind"], "begin")
        self.server.stop()
        read_event(reader, "ended")
        self.assertEqual(reader.wait(60), 0)


of_each_major(globals(), Logical, "Logical{}Test")


if __name__ == "__main__":
    unittest.main()
