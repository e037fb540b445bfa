"""The questions of the row journal, asked of a live one: who changed a row, what was then, how it is taken back."""

import json
import os
import unittest

from harness import ROOT, lsn_number, wait_until
from journal_case import JournalCase
from journal_workload import SCHEMA, WHOLE, Workload

# Fifty by WALVAULT_JOURNAL_UNDONE=50.
UNDONE = int(os.environ.get("WALVAULT_JOURNAL_UNDONE", "6"))


class QuestionCase(JournalCase):
    def lines(self, *arguments):
        return [json.loads(line) for line in self.agent.cli("-o", "jsonl", *arguments).stdout.splitlines()]

    def transaction(self, statements):
        """Runs them as one transaction and waits until the journal has it; its xid."""
        xid, end_lsn = self.primary.sql(f"begin; {statements}; select pg_current_xact_id(); commit;"
                                        "select pg_current_wal_insert_lsn();").splitlines()[-2:]
        self.primary.sql("select pg_create_restore_point('behind'), pg_current_xact_id()")
        self.agent.wait_until_flushed()
        # Not until what follows is: an idle journal moves on every ten seconds.
        self.wait_until_journaled(lsn_number(end_lsn))
        return xid


class HistoryTest(QuestionCase):
    def setUp(self):
        super().setUp()
        self.primary.sql("create table orders (id int primary key, state text, note text);"
                         "alter table orders alter note set storage external;"
                         "insert into orders values (4711, 'new', repeat('n', 9000)), (1, 'new', null)")
        self.protect()

    def test_history_of_a_row(self):
        paid = self.transaction("update orders set state = 'paid' where id = 4711")
        moved = self.transaction("update orders set id = 4712 where id = 4711")
        self.transaction("update orders set state = 'other' where id = 1")
        gone = self.transaction("delete from orders where id = 4712")
        versions = self.agent.json("history", "orders", "--key", "id=4711")["versions"]
        self.assertEqual([(each["kind"], str(each["xid"])) for each in versions], [("update", paid), ("update", moved)])
        self.assertEqual(versions[0]["changed"], ["state"])
        # What an update did not send is looked up, down to the snapshot.
        self.assertEqual(versions[0]["new"]["note"], "n" * 9000)
        self.assertEqual(versions[0]["old"]["state"], "new")
        self.assertIn(f"--before xid:{paid}", versions[0]["restore"])
        later = self.agent.json("history", "orders", "--key", "id=4712")["versions"]
        self.assertEqual([str(each["xid"]) for each in later], [moved, gone])
        self.assertIn("4711", self.agent.cli("history", "orders", "--key", "id=4711").stdout)

    def test_who_deleted_them(self):
        self.primary.sql("insert into orders select g, 'x', null from generate_series(100, 199) g")
        deleted = self.transaction("delete from orders where id between 100 and 199")
        self.transaction("delete from orders where id = 1")
        found = self.agent.json("log", "--table", "orders", "--kind", "delete", "--min-rows", "10")["transactions"]
        self.assertEqual([(str(each["xid"]), each["deleted_rows"]) for each in found], [(deleted, 100)])
        shown = self.agent.json("show", f"xid:{deleted}")["changes"]
        self.assertEqual(len(shown), 100)
        changes = self.agent.json("changes", "orders", "--kind", "delete", "-L", "1000")["changes"]
        self.assertEqual(len(changes), 101)
        refused = self.agent.error("history", "order", "--key", "id=1", expect=1)
        self.assertIn("orders", refused["message"] + refused["hint"])

    def test_info_and_stat_tell_of_the_journal(self):
        lsn = self.primary.sql("select pg_current_wal_lsn()")
        self.transaction("delete from orders where id = 1")
        info = self.agent.json("info")
        [journal] = info["journals"]
        self.assertEqual((journal["database"], journal["class"]), ("postgres", ""))
        self.assertEqual(self.primary.sql(f"select '{journal['end_lsn']}'::pg_lsn > '{lsn}'::pg_lsn"), "t")
        text = self.agent.cli("info").stdout
        self.assertIn(f"  journal     postgres: LSN {journal['start_lsn']} to ", text)
        self.agent.stop()
        stored = self.agent.json("info")["totals"]["journal_stored_bytes"]
        self.assertGreater(stored, 0)
        self.assertEqual(self.agent.json("repo", "stat")["journal_stored_bytes"], stored)
        self.assertRegex(self.agent.cli("repo", "stat").stdout, r"(?m)^journals      .* stored$")

    def test_follow_goes_on_where_it_ended(self):
        start = self.agent.json("status")["journals"][0]["stored_lsn"]
        self.transaction("update orders set state = 'a' where id = 1")
        first = self.lines("follow", "--from-lsn", start, "--until-idle")
        self.assertEqual([(each["type"], each.get("kind")) for each in first], [("change", "update"), ("commit", None)])
        self.transaction("update orders set state = 'b' where id = 1")
        second = self.lines("follow", "--from-lsn", first[-1]["end_lsn"], "--until-idle", "--table", "orders")
        self.assertEqual([each["new"]["state"] for each in second if each["type"] == "change"], ["b"])

    def test_rows_then_in_each_form(self):
        lsn = self.primary.sql("select pg_current_wal_lsn()")
        self.transaction("delete from orders")
        rows = self.agent.json("rows", "orders", "--at", f"lsn:{lsn}", "--where", "state=new")["rows"]
        self.assertEqual([each["values"]["id"] for each in rows], ["1", "4711"])
        csv = self.agent.cli("-o", "csv", "rows", "orders", "--at", f"lsn:{lsn}").stdout.splitlines()
        self.assertEqual(csv[0], "id,state,note")
        self.assertEqual(csv[1], "1,new,")
        self.assertEqual(self.agent.json("rows", "orders", "--at", "latest")["rows"], [])


class MaskTest(QuestionCase):
    """What is not to be in the journal is not, in no part of it."""

    journal_lines = 'mask = ["public.people.email", "public.people.card=drop", "public.visits.ip", "public.no.such"]'

    def setUp(self):
        super().setUp()
        self.primary.sql("create table people (id int primary key, email text, card text, town text);"
                         "insert into people values (1, 'ada@secret.example', '4000-SECRET', 'Ulm'),"
                         " (2, 'bob@secret.example', '4001-SECRET', 'Bonn');"
                         "create table visits (id int, day date, ip text, primary key (id, day))"
                         " partition by range (day);"
                         "create table visits_1 partition of visits for values from ('2026-01-01') to ('2026-02-01');"
                         "insert into visits values (1, '2026-01-05', '10.SECRET')")
        self.protect()

    def test_masked_columns(self):
        xid = self.transaction("update people set email = 'eve@secret.example' where id = 1;"
                               "update people set town = 'Jena' where id = 2; update visits set ip = '11.SECRET'")
        # A partition that is made later is masked like the others, from its first row on.
        late = self.transaction("create table visits_2 partition of visits for values from ('2026-02-01') to "
                                "('2026-03-01'); insert into visits values (2, '2026-02-02', '12.SECRET')")
        answers = [self.agent.cli("show", f"xid:{xid}").stdout, self.agent.cli("show", f"xid:{late}").stdout,
                   self.agent.cli("-o", "jsonl", "rows", "people", "--at", "latest").stdout,
                   self.agent.cli("-o", "jsonl", "rows", "visits_1", "--at", "latest").stdout,
                   self.agent.cli("history", "people", "--key", "id=1").stdout,
                   self.agent.cli("follow", "--from-lsn", "0/0", "--until-idle").stdout,
                   self.agent.cli("undo", f"xid:{xid}", expect=None).stdout]
        for answer in answers:
            self.assertNotIn("SECRET", answer.upper().replace("SECRET.EXAMPLE", "SECRET"))
            self.assertNotEqual(answer, "")
        rows = self.agent.json("rows", "people", "--at", "latest")["rows"]
        self.assertEqual([each["values"]["town"] for each in rows], ["Ulm", "Jena"])
        self.assertNotIn("card", rows[0]["values"])
        self.assertIn("email", self.agent.cli("extract", "people", "--at", "latest", expect=3).stderr)

    def test_a_mask_that_fits_nothing_is_told(self):
        checks = self.agent.json("check", expect=7)["checks"]
        wrong = [each["about"] for each in checks if each["finding"] == "wrong"]
        self.assertEqual(wrong, ["mask of public.no.such"])


class OrdinaryRoleTest(QuestionCase):
    """Without a superuser: what deploy/ grants is enough, and no more is said to be missing."""

    def setUp(self):
        super().setUp()
        sql = self.primary.sql
        sql("create role app_owner; create role other_owner; grant create on schema public to app_owner, other_owner;"
            "set role app_owner; create table items (id int primary key, v text); create table secrets (id int"
            " primary key); alter table secrets enable row level security; insert into items values (1, 'a');"
            " insert into secrets values (1)")
        sql("set role other_owner; create table theirs (id int primary key)")
        self.deploy("postgres-role.sql")
        conninfo = f"{self.primary.conninfo} user=walvault"
        self.agent.write_config(self.agent.config.read_text().replace(self.primary.conninfo, conninfo))

    def deploy(self, name, *variables, check=True):
        # The server's user may not be able to read where the sources are.
        script = self.stage.write(self.stage.directory / name, (ROOT / "deploy" / name).read_text())
        return self.primary.psql("-v", "ON_ERROR_STOP=0", *variables, "-f", script, check=check)

    def findings(self, **expected):
        checks = self.agent.json("check", **expected)["checks"]
        return {each["about"]: each["finding"] for each in checks}

    def test_a_role_that_is_no_superuser(self):
        self.assertEqual(self.findings(expect=7)["journal of postgres"], "wrong")
        # The script stops by itself.
        for owner, why in ((None, "owner=ROLE"), ("nobody_is", "no role of the name"), ("postgres", "superuser")):
            variables = () if owner is None else ("-v", f"owner={owner}")
            refused = self.deploy("postgres-journal-role.sql", *variables, check=False)
            self.assertEqual((refused.returncode, why in refused.stderr), (3, True), refused.stderr)
        self.deploy("postgres-journal-role.sql", "-v", "owner=app_owner")
        self.deploy("postgres-journal-role.sql", "-v", "owner=app_owner")
        self.protect()
        found = self.findings()
        self.assertEqual(found['table "public"."items"'], "ok")
        self.assertEqual(found['table "public"."theirs"'], "note")
        xid = self.transaction("update items set v = 'b'; insert into secrets values (2)")
        self.assertEqual(len(self.agent.json("show", f"xid:{xid}")["changes"]), 2)
        self.assertEqual(len(self.agent.json("rows", "secrets", "--at", "latest")["rows"]), 2)
        self.transaction("create table later (id int primary key); alter table later owner to app_owner;"
                         "insert into later values (1)")
        wait_until(lambda: [each for each in self.journal()["tables"] if "later" in each["table"]
                            and each["changes"] == "all"], "the table to join", every=0.2)
        self.agent.stop()
        self.agent.cli("detach", "--yes")
        self.assertEqual(self.primary.sql("select count(*) from pg_publication"), "0")


class UndoTest(QuestionCase):
    """Random transactions are taken back; where something changed later nothing is."""

    def setUp(self):
        super().setUp()
        self.primary.sql(SCHEMA)
        self.protect()
        self.workload = Workload(self.primary, self.random)
        for _ in range(60):
            self.workload.transaction()
        # DDL leaves doubts about a table until it has been read again: with or before this one.
        self.primary.sql("create table settled (id int primary key, v text)")
        wait_until(lambda: [each for each in self.agent.events("journal.table_read")
                            if each["table"] == "public.settled"], "the new table to be read", every=0.2)
        self.wait_until_read()

    def tables(self):
        return {table: self.live(self.primary, table) for table in WHOLE}

    def undo(self, xid, check=True):
        script = self.agent.cli("undo", f"xid:{xid}").stdout
        path = self.stage.write(self.stage.directory / "undo.sql", script)
        done = self.primary.psql("-f", path, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{done.stderr}\n{script[:3000]}")
        return done, script

    def changes(self):
        """A transaction's statements, of tables that are journaled whole."""
        statements = []
        while len(statements) < self.random.randrange(1, 6):
            statement = self.workload.statement()
            if "no_key" not in statement:
                statements.append(statement)
        return " ".join(statements).rstrip(";")

    def test_random_transactions_are_taken_back(self):
        undone = 0
        for number in range(UNDONE):
            before = self.tables()
            statements = self.changes()
            xid = self.transaction(statements)
            if self.tables() == before:
                continue
            self.undo(xid)
            self.assertEqual(self.tables(), before, f"undo of transaction {number}, {statements}")
            undone += 1
        self.assertGreaterEqual(undone, UNDONE // 2)

    def test_a_later_change_is_a_conflict_and_nothing_is_harmed(self):
        self.primary.sql("insert into settled values (9001, 'a'), (9002, 'a')")
        xid = self.transaction("update settled set v = 'b' where id in (9001, 9002)")
        self.transaction("update settled set v = 'c' where id = 9002")
        before = self.live(self.primary, "settled")
        done, script = self.undo(xid, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("settled", done.stderr)
        self.assertIn("CONFLICT", script)
        self.assertEqual(self.live(self.primary, "settled"), before)
        conflicts = self.agent.json("undo", f"xid:{xid}")["conflicts"]
        self.assertEqual(len(conflicts), 1)


if __name__ == "__main__":
    unittest.main()
