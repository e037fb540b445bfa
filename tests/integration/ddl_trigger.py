"""deploy/postgres-ddl-trigger.sql in a server of a test, and what its messages say."""

import json
import struct

from harness import ROOT

SCRIPT = ROOT / "deploy" / "postgres-ddl-trigger.sql"
PREFIX = "walvault.ddl"


def install(server, database="postgres"):
    server.sql(SCRIPT.read_text(), database=database)


def uninstall(server, database="postgres"):
    """By the statements of its own comment."""
    lines = [line.removeprefix("--").strip() for line in SCRIPT.read_text().splitlines() if line.startswith("--   ")]
    server.sql("\n".join(lines), database=database)


class Messages:
    """What pgoutput decodes of a database, read by hand: the messages of the trigger."""

    def __init__(self, server, database="postgres"):
        self.server = server
        self.database = database
        server.sql("create publication nothing", database=database)
        server.sql("select pg_create_logical_replication_slot('messages', 'pgoutput')", database=database)

    def take(self):
        """Their contents, as bytes, since the last call."""
        lines = self.server.sql(
            "select encode(data, 'hex') from pg_logical_slot_get_binary_changes('messages', null, null,"
            " 'proto_version', '1', 'publication_names', 'nothing', 'messages', 'true')",
            database=self.database).splitlines()
        found = []
        for data in map(bytes.fromhex, lines):
            if data[:1] != b"M":
                continue
            prefix, _, rest = data[10:].partition(b"\0")
            size, = struct.unpack(">I", rest[:4])
            if prefix == PREFIX.encode():
                found.append(rest[4:4 + size])
        return found

    def told(self):
        """'ALTER TABLE table public.t' of each; what was dropped has a '-' before it."""
        marks = [json.loads(content) for content in self.take()]
        return [f"{'-' if mark['dropped'] else ''}{mark['tag']} "
                + ", ".join(f"{each['type']} {each['name']}" for each in mark["objects"]) for mark in marks]
