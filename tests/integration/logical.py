"""What the tests of the row journal's PostgreSQL side share: a client of the wal room, and a replica in memory."""

import json
import re
import subprocess
import unittest

from cluster import Postgres, Session
from harness import BUILD, Stage, wait_until

SERVER_SETTINGS = {"wal_level": "logical", "max_prepared_transactions": "10", "logical_decoding_work_mem": "'64kB'",
            "max_replication_slots": "40", "max_connections": "60", "autovacuum": "off"}
# As wal/logical_session.cc sets them.
SETTINGS = ("set datestyle = 'ISO, YMD'; set intervalstyle = postgres; set timezone = 'UTC';"
            " set extra_float_digits = 3; set bytea_output = hex; set lc_monetary = 'C'; set search_path = '';")
ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Client:
    """journal_client against one database of a server."""

    def __init__(self, stage, server, database):
        self.stage = stage
        self.server = server
        self.database = database
        self.program = stage._reachable_program(BUILD / "tests" / "support" / "journal_client")

    def command(self, verb, *flags, **arguments):
        arguments.setdefault("conninfo", self.server.conninfo)
        arguments.setdefault("database", self.database)
        return [self.program, verb, *flags] + [f"{key}={value}" for key, value in arguments.items()]

    def run(self, verb, *flags, expect=0, **arguments):
        """All lines that it prints; with `expect` its exit code."""
        done = self.stage.run(self.command(verb, *flags, **arguments), check=False)
        lines = [json.loads(text) for text in done.stdout.splitlines()]
        if done.returncode != expect:
            raise AssertionError(f"journal_client {verb} ended with {done.returncode}: {lines[-3:]} {done.stderr}")
        return lines

    def publish(self, tables="public.*", **arguments):
        """Applies the plan; the printed line."""
        return self.run("apply", publication="walvault", tables=tables, **arguments)[0]

    def stream(self, *flags, slot="s", until=None, **arguments):
        """What comes until the present end of WAL, decoded."""
        until = until or self.server.sql("select pg_current_wal_insert_lsn()")
        arguments.setdefault("publications", "walvault,walvault_inserts")
        lines = self.run("stream", *flags, slot=slot, until=until, **arguments)
        errors = [line for line in lines if line["event"] == "error"]
        if errors:
            raise AssertionError(errors[0])
        active = f"select active from pg_replication_slots where slot_name = '{slot}'"
        wait_until(lambda: self.server.sql(active) != "t",
                   "the server to have let go of the slot", every=0.02)
        return [line for line in lines if line["event"] == "change"]

    def error(self, verb, *flags, expect=0, **arguments):
        """The error that it prints."""
        lines = self.run(verb, *flags, expect=expect, **arguments)
        return next(line for line in lines if line["event"] == "error")

    def start(self, verb, *flags, **arguments):
        return self.stage.start(self.command(verb, *flags, **arguments), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)


def read_event(process, event):
    """The next line of that kind; all before it are skipped."""
    for text in process.stdout:
        line = json.loads(text)
        if line["event"] == event:
            return line
        if line["event"] == "error":
            raise AssertionError(line)
    raise AssertionError(f"no {event}: {process.stderr.read()}")


def copied_rows(server, database, table, columns):
    """Rows of a table as COPY writes them under the settings of the journal, sorted."""
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    output = server.sql(f"{SETTINGS} copy (select {names} from only {table}) to stdout", database=database)
    return sorted((unescape(line) for line in output.split("\n") if line != ""), key=repr)


def unescape(line):
    return [None if field == "\\N" else re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), field)
            for field in line.split("\t")]


class Replica:
    """Tables in memory, made by a snapshot and the changes that follow it."""

    def __init__(self):
        self.relations = {}
        self.rows = {}          # oid -> rows
        self.staged = {}        # xid -> [(subxid, change)] of transactions that are streamed
        self.prepared = {}      # gid -> changes
        self.current = []
        self.streaming = None
        self.aborted_changes = 0

    def load(self, lines):
        for line in lines:
            if line["event"] == "snapshot":
                self.relations[line["oid"]] = line
                self.rows[line["oid"]] = []
            elif line["event"] == "row":
                self.rows[line["relation"]].append(line["row"])

    def take(self, change):
        kind = change["kind"]
        handler = getattr(self, "_" + kind, None)
        if handler:
            handler(change)
        elif self.streaming:
            self.staged[self.streaming].append((change["xid"], change))
        elif kind in ("relation", "insert", "update", "delete", "truncate"):
            self.current.append(change)

    def _begin(self, _):
        self.current = []

    _begin_prepare = _begin

    def _commit(self, _):
        self._apply(self.current)

    def _prepare(self, change):
        self.prepared[change["gid"]] = self.current

    def _stream_start(self, change):
        self.streaming = change["xid"]
        self.staged.setdefault(self.streaming, [])

    def _stream_stop(self, _):
        self.streaming = None

    def _stream_abort(self, change):
        if change["xid"] == change["subxid"]:
            self.staged.pop(change["xid"])
            return
        staged = self.staged[change["xid"]]
        kept = [item for item in staged if item[0] != change["subxid"]]
        self.aborted_changes += len(staged) - len(kept)
        self.staged[change["xid"]] = kept

    def _stream_commit(self, change):
        self._apply([item[1] for item in self.staged.pop(change["xid"])])

    def _stream_prepare(self, change):
        self.prepared[change["gid"]] = [item[1] for item in self.staged.pop(change["xid"])]

    def _commit_prepared(self, change):
        self._apply(self.prepared.pop(change["gid"]))

    def _rollback_prepared(self, change):
        self.prepared.pop(change["gid"], None)

    def _apply(self, changes):
        for change in changes:
            if change["kind"] == "relation":
                self.relations[change["oid"]] = change
                self.rows.setdefault(change["oid"], [])
            elif change["kind"] == "truncate":
                for oid in change["relations"]:
                    self.rows[oid] = []
            elif change["kind"] in ("insert", "update", "delete"):
                self._apply_row(change)

    def _apply_row(self, change):
        rows = self.rows[change["relation"]]
        if change["kind"] == "insert":
            rows.append(change["row"])
            return
        at = self._find(change)
        old = rows.pop(at)
        if change["kind"] == "update":
            rows.append([old[i] if value == {"unchanged": True} else value for i, value in enumerate(change["row"])])

    def _find(self, change):
        rows = self.rows[change["relation"]]
        if change["old_kind"] == "full":
            return rows.index(change["old"])
        keys = [i for i, column in enumerate(self.relations[change["relation"]]["columns"]) if column["key"]]
        wanted = change["old"] if change["old_kind"] == "key" else change["row"]
        found = [at for at, row in enumerate(rows) if all(row[i] == wanted[i] for i in keys)]
        if len(found) != 1:
            raise AssertionError(f"{len(found)} rows fit {change}")
        return found[0]

    def table(self, name):
        """(columns, sorted rows)"""
        oid = next(oid for oid, relation in self.relations.items() if relation["name"] == name)
        return ([column["name"] for column in self.relations[oid]["columns"]], sorted(self.rows[oid], key=repr))


def kinds(changes):
    return [change["kind"] for change in changes]


class LogicalCase:
    """A server of one major for all tests of a class, and a database for each of them."""

    major = 0

    @classmethod
    def setUpClass(cls):
        cls.stage = Stage(cls.__name__)
        try:
            programs = cls.stage.postgres_programs(cls.major)
            if programs is None:
                raise unittest.SkipTest(f"PostgreSQL {cls.major} is not installed: tests/install-postgres")
            cls.server = Postgres.create(cls.stage, settings=SERVER_SETTINGS, programs=programs).start()
        except BaseException:
            cls.stage.close()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.stage.close()

    def setUp(self):
        self.database = self.id().rsplit(".", 1)[-1][:50]
        self.server.sql(f'create database "{self.database}"')
        self.client = Client(self.stage, self.server, self.database)
        self.addCleanup(self._drop_slots)

    def _drop_slots(self):
        # A prepared transaction, too, would hold up the next test's slot.
        for gid, database in self.server.rows("select gid, database from pg_prepared_xacts"):
            quoted = gid.replace("'", "''")
            self.server.sql(f"rollback prepared '{quoted}'", database=database)
        slots = f"from pg_replication_slots where database = '{self.database}'"
        wait_until(lambda: self.server.sql(f"select count(*) {slots} and active") == "0", "slots to be free",
                   every=0.02)
        self.server.sql(f"select pg_drop_replication_slot(slot_name) {slots}")

    def sql(self, query, **options):
        return self.server.sql(query, database=self.database, **options)

    def fails(self, query):
        """The error of a statement; empty where it passes."""
        return self.server.psql("-c", query, database=self.database, check=False).stderr

    def session(self):
        session = Session(self.stage, ["-h", self.server.socket_directory, "-p", self.server.port, "-U", "postgres",
                                       "-d", self.database])
        self.addCleanup(session.close)
        return session

    def begin(self, *flags, tables="public.*", **arguments):
        return self.client.run("begin", *flags, publication="walvault", tables=tables, slot="s", **arguments)

    def verdicts(self, published):
        return {verdict["table"]: verdict for verdict in published["verdicts"]}

    def slot(self):
        return self.client.run("facts")[0]["slots"][0]
