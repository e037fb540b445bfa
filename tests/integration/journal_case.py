"""What tests of the row journal share: a server that decodes, an agent with a journal, tables out of it."""

import collections

from agent_process import Agent
from cluster import Postgres
from harness import PATIENCE_SECONDS, StageCase, lsn_number, lsn_text, seeded_random, wait_until

JOURNAL = """
[server.main.journal]
databases = [{databases}]
flush_interval = "50ms"
{lines}
"""
SETTINGS = {"wal_level": "logical", "max_prepared_transactions": "10", "logical_decoding_work_mem": "'64kB'",
            "wal_keep_size": "'8GB'"}
# As the journal has values: see docs/journal.md.
TEXT = ("set datestyle = 'ISO, YMD'; set intervalstyle = postgres; set extra_float_digits = 3; set timezone = 'UTC';"
        " set bytea_output = hex; set lc_monetary = 'C'; set search_path = '';")


class JournalCase(StageCase):
    databases = ["postgres"]
    journal_lines = ""
    settings = {}

    def setUp(self):
        super().setUp()
        self.random = seeded_random(self.id())
        self.primary = self.make_primary().start()
        self.agent = self.make_agent()

    def make_primary(self):
        return Postgres.create(self.stage, settings={**SETTINGS, **self.settings})

    def make_agent(self):
        agent = Agent(self.stage, self.primary)
        databases = ", ".join(f'"{name}"' for name in self.databases)
        agent.write_config(agent.config.read_text() + JOURNAL.format(databases=databases, lines=self.journal_lines))
        # Tables without an identity are there, and told of.
        agent.allowed_events.add("journal.tables_not_whole")
        return agent

    def journal(self, database="postgres"):
        for journal in self.agent.status().get("journals", []):
            if journal["database"] == database:
                return journal
        return {}

    def is_whole(self, lsn, database="postgres"):
        journal = self.journal(database)
        return journal.get("connected") and lsn_number(journal["stored_lsn"]) >= lsn

    def wait_until_journaled(self, lsn=None, database="postgres", timeout=PATIENCE_SECONDS):
        """Until all that is committed by now (or `lsn`) is in the journal."""
        wanted = self.primary.current_lsn() if lsn is None else lsn
        # A message moves the slot of an idle database at once.
        wait_until(lambda: self.is_whole(wanted, database), f"the journal to reach {lsn_text(wanted)}", timeout,
                   every=0.1)
        return wanted

    def wait_until_read(self, database="postgres"):
        """Until every table that is journaled has its snapshot."""
        def done():
            journal = self.journal(database)
            return journal.get("connected") and journal.get("tables") and journal["waiting_snapshots"] == 0
        wait_until(done, "the tables to be read", every=0.1)

    def protect(self):
        self.agent.protect()
        self.wait_until_read()

    def extract(self, table, at, *extra):
        """The rows of a table as of then, out of the journal."""
        out = self.agent.cli("extract", table, "--at", at, "--header", *extra).stdout
        header, _, body = out.partition("\n")
        return rows_of(header.removeprefix("--").strip().split("\t"), body)

    def live(self, server, table):
        """The same of a server, now; without generated columns, which are not decoded."""
        columns = server.sql("select string_agg(quote_ident(attname), ',' order by attnum) from pg_attribute where "
                             f"attrelid = $q${qualified(table)}$q$::regclass and attnum > 0 and not attisdropped and "
                             "attgenerated = ''")
        out = server.psql("-qAt", "-c", TEXT, "-c",
                          f"copy (select {columns} from {qualified(table)}) to stdout").stdout
        return rows_of(columns.split(","), out)

    def check_table(self, table, at, expected, what):
        rows = self.extract(table, at)
        if rows == expected:
            return
        got, wanted = collections.Counter(rows), collections.Counter(expected)
        self.fail(f"{table} {what}: {len(rows)} rows and not {len(expected)}; too many: "
                  f"{list((got - wanted).elements())[:3]}; missing: {list((wanted - got).elements())[:3]}")


def rows_of(columns, text):
    """Sorted rows of COPY as {column: value}; a column that is NULL is left out, for one may not be known yet."""
    names = [unquoted(name) for name in columns]
    rows = [dict(zip(names, line.split("\t"))) for line in text.split("\n")[:-1]]
    return sorted(tuple(sorted((name, value) for name, value in row.items() if value != "\\N")) for row in rows)


def qualified(table):
    return table if "." in table else f"public.{table}"


def unquoted(name):
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
