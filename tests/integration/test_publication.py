"""What the row journal publishes, on real servers, 14 to 18: no statement of an application fails for it (G07)."""

import json
import threading
import unittest

from harness import of_each_major, wait_until
from logical import LogicalCase

NO_IDENTITY = "does not have a replica identity"

# Every shape of a table that matters to G07: (statements, what the plan says of it).
SHAPES = {
    "pk": ("create table {t}(a int primary key)", "all"),
    "nopk": ("create table {t}(a int)", "inserts"),
    "uniq": ("create table {t}(a int not null unique)", "inserts"),
    "late_key": ("create table {t}(a int primary key deferrable)", "inserts"),
    "deferrable_full": ("create table {t}(a int primary key deferrable); alter table {t} replica identity full", "all"),
    "no_identity": ("create table {t}(a int primary key); alter table {t} replica identity nothing", "inserts"),
    "whole": ("create table {t}(a int); alter table {t} replica identity full", "all"),
    "by_index": ("create table {t}(a int not null); create unique index {t}_i on {t}(a);"
              " alter table {t} replica identity using index {t}_i", "all"),
    "index_gone": ("create table {t}(a int primary key, b int not null default 1); create unique index {t}_i on {t}(b);"
                   " alter table {t} replica identity using index {t}_i; drop index {t}_i", "inserts"),
    "stored_full": ("create table {t}(a int, g int generated always as (a + 1) stored);"
                    " alter table {t} replica identity full", "all"),
    "stored_pk": ("create table {t}(a int, g int generated always as (a + 1) stored primary key)", "all"),
    "a_parent": ("create table {t}(a int primary key); create table {t}_child(b int) inherits ({t})", "all"),
    "tree": ("create table {t}(a int primary key) partition by list (a); create table {t}_l partition of {t} default",
             "all"),
    "tree_nopk": ("create table {t}(a int) partition by list (a); create table {t}_l partition of {t} default",
                  "inserts"),
    "tree_leaf_nothing": ("create table {t}(a int primary key) partition by list (a);"
                          " create table {t}_l partition of {t} default; alter table {t}_l replica identity nothing",
                          "inserts"),
    "tree_leaf_pk": ("create table {t}(a int) partition by list (a); create table {t}_l partition of {t} default;"
                     " alter table {t}_l add primary key (a)", "inserts"),
    "tree_full": ("create table {t}(a int) partition by list (a); create table {t}_l partition of {t} default;"
                  " alter table {t} replica identity full; alter table {t}_l replica identity full", "inserts"),
    "unlogged": ("create unlogged table {t}(a int primary key)", "out"),
}
VIRTUAL_SHAPES = {
    "virtual_full": ("create table {t}(a int, g int generated always as (a + 1) virtual);"
                     " alter table {t} replica identity full", "inserts"),
    "virtual_pk": ("create table {t}(a int primary key, g int generated always as (a + 1) virtual)", "all"),
}


class Publication(LogicalCase):
    """The tests of one major; a class for each is at the end."""

    # --- What is published --------------------------------------------------------------------

    def shapes(self):
        return {**SHAPES, **(VIRTUAL_SHAPES if self.major >= 18 else {})}

    def changes_fail(self, table):
        """Whether UPDATE and DELETE of a table fail for want of an identity."""
        errors = [self.fails(f"update {table} set a = a"), self.fails(f"delete from {table} where a = 1000")]
        signs = (NO_IDENTITY, "Replica identity must not contain unpublished generated columns")
        for error in errors:
            self.assertTrue(not error or any(sign in error for sign in signs), error)
        self.assertEqual(bool(errors[0]), bool(errors[1]))
        return bool(errors[0])

    def test_g07_the_plan_knows_which_tables_postgres_would_let_fail(self):
        for name, (statements, _) in self.shapes().items():
            self.sql(statements.format(t=name))
            self.sql(f"insert into {name}(a) values (1)")
        published = self.client.publish()
        self.assertEqual(published["in_danger"], [])
        verdicts = self.verdicts(published)
        for name, (_, expected) in self.shapes().items():
            with self.subTest(name):
                self.assertEqual(verdicts[f'"public"."{name}"']["journaled"], expected)
                self.assertFalse(self.changes_fail(name))
        self.assertFalse(self.client.publish()["changed"])
        # Those that are in the narrower publication would fail in the other one: nothing is left out without need.
        options = " with (publish_generated_columns = stored)" if self.major >= 18 else ""
        for name, (_, expected) in self.shapes().items():
            tree_without_key = name in ("tree_leaf_pk", "tree_full")
            if expected == "inserts" and not tree_without_key:
                with self.subTest(name):
                    self.sql(f"create publication control for table only {name}{options}")
                    self.assertTrue(self.changes_fail(name))
                    self.sql("drop publication control")
        self.client.run("drop", publication="walvault")
        self.assertEqual(self.sql("select count(*) from pg_publication"), "0")

    def test_g07_every_mending_statement_mends(self):
        for name, (statements, _) in self.shapes().items():
            self.sql(statements.format(t=name))
        for verdict in self.client.publish()["verdicts"]:
            if verdict["mend"]:
                self.sql(verdict["mend"].replace("(COLUMNS)", "(a)"))
        # Of a tree without a key first the partition and then the root is mended.
        for verdict in self.client.publish()["verdicts"]:
            if verdict["mend"]:
                self.sql(verdict["mend"].replace("(COLUMNS)", "(a)"))
        after = self.client.publish()
        self.assertEqual({verdict["table"]: verdict["reason"] for verdict in after["verdicts"]
                          if verdict["journaled"] != "all"}, {})
        for name in self.shapes():
            self.assertFalse(self.changes_fail(name), name)

    def test_g07_a_partition_of_a_tree_without_a_key_is_journaled_by_its_own_identity(self):
        self.sql("create table r(a int, v text) partition by range (a);"
                 "create table r1 partition of r for values from (0) to (10); alter table r1 add primary key (a);"
                 "create table r2 partition of r for values from (10) to (20);")
        self.begin()
        # A new one is published from its first row on, and its UPDATE passes.
        self.sql("create table r3 partition of r for values from (20) to (30)")
        self.sql("insert into r values (1, 'x'), (11, 'x'), (21, 'x'); update r set v = 'y'; delete from r where a = 1")
        oid = dict(line.split("\t") for line in self.sql("select oid, relname from pg_class").splitlines())
        changes = [(change["kind"], oid[str(change["relation"])]) for change in self.client.stream()
                   if change["kind"] in ("insert", "update", "delete")]
        self.assertEqual(changes, [("insert", "r1"), ("insert", "r2"), ("insert", "r3"), ("update", "r1"),
                                   ("delete", "r1")])

    def test_g07_a_table_that_loses_its_identity_is_taken_out_by_the_next_plan(self):
        self.sql("create table t(a int constraint t_key primary key); create table i(a int not null);"
                 "create unique index i_i on i(a); alter table i replica identity using index i_i;"
                 "create table n(a int primary key); create table f(a int); alter table f replica identity full;"
                 "create table r(a int primary key) partition by list (a); create table r1 partition of r default;")
        self.client.publish()
        losses = {"t": "alter table t drop constraint t_key", "i": "drop index i_i",
                  "n": "alter table n replica identity nothing", "f": "alter table f replica identity default",
                  "r1": "alter table r1 replica identity nothing"}
        for table, loss in losses.items():
            with self.subTest(table):
                self.assertFalse(self.changes_fail(table))
                self.sql(loss)
                # PostgreSQL lets the identity go and the application fail: the window that the next plan closes.
                self.assertTrue(self.changes_fail(table))
                published = self.client.publish()
                self.assertEqual(published["in_danger"], [f'"public"."{table}"'])
                self.assertIn("DROP TABLE", published["statements"][0])
                self.assertFalse(self.changes_fail(table))
        self.sql("alter table t add primary key (a)")
        self.assertEqual(self.verdicts(self.client.publish())['"public"."t"']["journaled"], "all")

    def test_g07_the_application_never_fails_while_publications_come_and_go(self):
        self.sql("create table keyed(a int primary key, v int); create table bare(a int, v int);"
                 "create table tree(a int, v int) partition by range (a);"
                 "create table tree1 partition of tree for values from (0) to (50);"
                 "create table tree2 partition of tree for values from (50) to (200);"
                 "alter table tree2 add primary key (a);"
                 "insert into keyed select g, 0 from generate_series(1, 100) g; insert into bare select * from keyed;"
                 "insert into tree select * from keyed;")
        stop = threading.Event()
        failures = []
        statements = [0]

        def application(number):
            session = self.session()
            step = 0
            try:
                while not stop.is_set():
                    step += 1
                    row = (step * 7 + number) % 100 + 1
                    for table in ("keyed", "bare", "tree"):
                        session.execute(f"update {table} set v = v + 1 where a = {row};")
                        if number == 0:
                            session.execute(f"delete from {table} where a = {row};"
                                            f" insert into {table} values ({row}, {step});")
                    # Tables that come, with and without a key, and one that gets a key and is changed under it.
                    new = f"new{number}_{step % 5}"
                    session.execute(f"drop table if exists {new}; create table {new}(a int, v int);"
                                    f" insert into {new} values (1, 1); update {new} set v = 2;"
                                    f" alter table {new} add primary key (a); update {new} set v = 3;"
                                    f" delete from {new};")
                    statements[0] += 1
            except AssertionError as error:
                failures.append(str(error))

        threads = [threading.Thread(target=application, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                for _ in range(4):
                    self.client.publish()
                self.client.run("drop", publication="walvault")
            wait_until(lambda: statements[0] > 20 or failures, "the application to change rows")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(failures, [])
        self.assertGreater(statements[0], 20)

    def test_patterns_choose_and_tables_join_and_leave(self):
        self.sql('create schema "Odd.Schema"; create table "Odd.Schema"."A ""quoted"" *"(a int primary key);'
                 "create table orders(a int primary key); create table sessions(a int primary key);"
                 "create table orders_2025(a int primary key); create view v as select 1;")
        tables = 'public.*,!public.session?,"Odd.Schema".*'
        verdicts = self.verdicts(self.client.publish(tables))
        self.assertEqual(set(verdicts), {'"public"."orders"', '"public"."orders_2025"', '"public"."v"',
                                         '"Odd.Schema"."A ""quoted"" *"'})
        self.assertEqual(verdicts['"public"."v"']["journaled"], "out")
        self.sql("create table late(a int primary key); drop table orders_2025;")
        published = self.client.publish(tables)
        self.assertEqual(published["statements"], ['ALTER PUBLICATION "walvault" ADD TABLE ONLY "public"."late"'])
        published = self.client.publish("public.late")
        self.assertEqual(set(self.verdicts(published)), {'"public"."late"'})
        self.assertEqual(self.sql("select tablename from pg_publication_tables"), "late")
        error = self.client.error("apply", publication="walvault", tables="orders", expect=1)
        self.assertIn('the table pattern "orders" does not name a schema and a table', error["message"])

    def test_what_the_role_may_not_publish_is_left_out_with_the_grant_that_mends_it(self):
        role = f"keeper{self.major}"
        self.sql(f'create role {role} login replication; create role "the owner"; create table mine(a int primary key);'
                 f'create table theirs(a int primary key); alter table mine owner to {role};'
                 f'alter table theirs owner to "the owner"; grant create on database "{self.database}" to {role};')
        conninfo = self.server.conninfo.replace("user=postgres", f"user={role}")
        verdicts = self.verdicts(self.client.publish(conninfo=conninfo))
        self.assertEqual(verdicts['"public"."mine"']["journaled"], "all")
        self.assertEqual(verdicts['"public"."theirs"']["mend"], f'GRANT "the owner" TO "{role}"')
        self.sql(verdicts['"public"."theirs"']["mend"])
        verdicts = self.verdicts(self.client.publish(conninfo=conninfo))
        self.assertEqual(verdicts['"public"."theirs"']["journaled"], "all")
        self.client.run("drop", publication="walvault", conninfo=conninfo)
        self.sql(f'drop table theirs, mine; drop owned by {role}; drop role {role}; drop role "the owner"')

    def oid(self, table):
        return int(self.sql(f"select '{table}'::regclass::oid"))

    def members(self):
        return set(self.sql("select tablename from pg_publication_tables where pubname = 'walvault'").split())

    def test_g07_a_locked_table_holds_up_no_other_and_joins_when_the_lock_is_gone(self):
        self.sql("create table y(a int constraint y_key primary key); create table free(a int primary key);")
        first = self.client.publish()
        self.assertEqual((sorted(first["joined"]), first["left"]), (sorted([self.oid("y"), self.oid("free")]), []))
        self.sql("create table x(a int primary key); create table z(a int primary key);"
                 "alter table y drop constraint y_key;")
        self.assertTrue(self.changes_fail("y"))
        holder = self.session()
        holder.execute("begin; lock table x in share update exclusive mode;")
        published = self.client.publish(lock_ms=5000)
        self.assertFalse(self.changes_fail("y"))
        self.assertEqual(self.members(), {"free", "z"})
        self.assertEqual(published["waiting"], [self.oid("x")])
        self.assertEqual((published["joined"], published["left"]), ([self.oid("z")], [self.oid("y")]))
        self.assertEqual(published["in_danger"], ['"public"."y"'])
        verdicts = self.verdicts(published)
        self.assertEqual(verdicts['"public"."x"']["journaled"], "out")
        self.assertIn("is locked by another session; it joins when the lock is gone",
                      verdicts['"public"."x"']["reason"])
        self.assertEqual(verdicts['"public"."y"']["journaled"], "inserts")
        self.assertEqual(verdicts['"public"."z"']["journaled"], "all")
        again = self.client.publish()
        self.assertEqual((again["changed"], again["waiting"]), (False, [self.oid("x")]))
        holder.execute("rollback;")
        published = self.client.publish()
        self.assertEqual((published["joined"], published["waiting"]), ([self.oid("x")], []))
        self.assertEqual(self.verdicts(published)['"public"."x"']["journaled"], "all")

    def test_no_lock_of_another_table_is_held_while_one_is_waited_for(self):
        # The application locks t and then u, which joins with t: were u held meanwhile, one of both would be a victim.
        self.sql("create table t(a int primary key); create table u(a int primary key);"
                 f"alter database \"{self.database}\" set deadlock_timeout = '400ms'")
        application = self.session()
        application.execute("begin; lock table t in share update exclusive mode;")
        publishing = self.client.start("apply", publication="walvault", tables="public.*", lock_ms=5000)
        waits = ("select count(*) from pg_locks l join pg_class c on c.oid = l.relation where not l.granted and"
                 " c.relname = 't'")
        wait_until(lambda: self.sql(waits) == "1", "the lock to be waited for", every=0.02)
        application.execute("lock table u in share update exclusive mode;")
        output, errors = publishing.communicate(timeout=60)
        self.assertEqual(publishing.returncode, 0, errors)
        application.execute("rollback;")
        self.assertEqual(json.loads(output)["waiting"], [self.oid("t"), self.oid("u")])
        self.assertEqual(self.client.publish()["waiting"], [])
        self.assertEqual(self.members(), {"t", "u"})

    def test_a_table_in_danger_that_is_locked_waits_too_and_a_root_for_its_partitions(self):
        self.sql("create table t(a int constraint t_key primary key); create table r(a int primary key)"
                 " partition by list (a); create table r1 partition of r default;")
        holder = self.session()
        holder.execute("begin; lock table only r in share update exclusive mode;")
        published = self.client.publish()
        self.assertEqual((published["waiting"], published["joined"]), ([self.oid("r")], [self.oid("t")]))
        self.assertEqual({name: verdict["journaled"] for name, verdict in self.verdicts(published).items()},
                         {'"public"."r"': "out", '"public"."r1"': "out", '"public"."t"': "all"})
        holder.execute("rollback;")
        self.assertEqual(self.client.publish()["joined"], [self.oid("r1")])
        self.sql("alter table t drop constraint t_key")
        holder.execute("begin; lock table t in share update exclusive mode;")
        published = self.client.publish(lock_ms=100)
        self.assertEqual((published["waiting"], published["left"]), ([self.oid("t")], []))
        self.assertEqual(published["in_danger"], ['"public"."t"'])
        holder.execute("rollback;")
        self.assertEqual(self.client.publish()["left"], [self.oid("t")])
        self.assertFalse(self.changes_fail("t"))

    def test_many_tables_join_though_one_of_them_is_locked(self):
        self.sql("do $$ begin for i in 1..230 loop execute format('create table t%s(a int primary key)', i);"
                 " end loop; end $$")
        holder = self.session()
        holder.execute("begin; lock table t120 in share update exclusive mode;")
        published = self.client.publish(lock_ms=200)
        self.assertEqual(published["waiting"], [self.oid("t120")])
        self.assertEqual(len(self.members()), 229)
        # By the hundred, but for those that came with the locked one.
        self.assertLess(len(published["statements"]), 2 + 2 + 100)

    def test_members_with_a_row_filter_or_a_list_of_columns_are_made_whole(self):
        if self.major < 15:
            self.skipTest("there are none before 15")
        self.sql("create table f(a int primary key, b int); create table c(a int primary key, b int);"
                 "create table w(a int primary key); create table i(a int, b int);")
        self.client.publish()
        self.sql("alter publication walvault set table f where (a > 5), c (a), w;"
                 "alter publication walvault_inserts set table i (b);")
        published = self.client.publish()
        both = sorted([self.oid("f"), self.oid("c")])
        self.assertEqual((published["joined"], published["left"]), (both, both))
        self.assertEqual(self.sql("select count(*) from pg_publication_rel where prqual is not null or"
                                  " prattrs is not null"), "0")
        self.assertEqual(self.sql("select count(*) from pg_publication_rel"), "4")
        after = self.client.publish()
        self.assertEqual((after["changed"], after["joined"], after["left"]), (False, [], []))

    def test_an_altered_publication_is_not_put_right_before_what_would_fail_has_left_it(self):
        self.sql("create table t(a int constraint t_key primary key)")
        self.client.publish()
        self.sql("alter publication walvault set (publish = 'insert'); alter table t drop constraint t_key;")
        holder = self.session()
        holder.execute("begin; lock table t in share update exclusive mode;")
        error = self.client.error("apply", publication="walvault", tables="public.*", lock_ms=100, expect=1)
        self.assertEqual(error["code"], "busy")
        self.assertIn('"public"."t", which has to leave', error["message"])
        holder.execute("rollback;")
        self.assertFalse(self.changes_fail("t"))
        self.assertTrue(self.client.publish()["changed"])
        self.assertFalse(self.changes_fail("t"))
        self.assertEqual(self.sql("select pubupdate from pg_publication where pubname = 'walvault'"), "t")

    def test_a_publication_that_somebody_altered_is_put_right_and_one_of_all_tables_is_not_ours(self):
        self.sql("create table bare(a int); create publication walvault_inserts for table bare;")
        self.assertTrue(self.changes_fail("bare"))
        published = self.client.publish()
        self.assertIn("ALTER PUBLICATION \"walvault_inserts\" SET", " ".join(published["statements"]))
        self.assertFalse(self.changes_fail("bare"))
        self.client.run("drop", publication="walvault")
        self.sql("create publication walvault for all tables")
        error = self.client.error("apply", publication="walvault", tables="public.*", expect=1)
        self.assertEqual(error["code"], "refused")
        self.assertIn("was not made here", error["message"])


of_each_major(globals(), Publication, "Publication{}Test")


if __name__ == "__main__":
    unittest.main()
