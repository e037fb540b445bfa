"""What the tests of the row journal's PostgreSQL side share: a client of the wal room, and a replica in memory."""

import json
import re
import subprocess

from harness import BUILD, lsn_number

# As wal/logical_session.cc sets them.
SETTINGS = ("set datestyle = 'ISO, YMD'; set intervalstyle = postgres; set timezone = 'UTC'; set extra_float_digits = 3;"
            " set bytea_output = hex; set lc_monetary = 'C'; set search_path = '';")
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
    output = server.sql(f"{SETTINGS} copy {table} ({names}) to stdout", database=database)
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


def end_of(changes):
    return max(lsn_number(change["at_lsn"]) for change in changes)
