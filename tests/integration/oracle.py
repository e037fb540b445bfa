"""An oracle: writers that note what was acknowledged, and the rule that says what a restore must hold.

The rule is applied to the order of commit records in PostgreSQL's own WAL, read by pg_waldump. A
snapshot of the running server would not do: commits become visible in another order than they are in WAL.
"""

import dataclasses
import datetime
import re
import threading

from cluster import ConnectionLost, says_lost
from harness import PG_BIN, lsn_number, lsn_text, now_micros, wait_until

TABLE = """
create table oracle (worker int, seq int, part int, xid bigint not null, body text,
                     primary key (worker, seq, part));
"""


@dataclasses.dataclass(frozen=True)
class Acknowledgement:
    """What a writer knew by its own clock: when it asked for a transaction and was told of its commit."""
    begun_micros: int
    micros: int
    lsn: int | None = None   # flushed on the server soon after; None: the server went before it said so


@dataclasses.dataclass(frozen=True)
class Transaction:
    """One commit or abort record of the WAL."""
    lsn: int           # where the record starts
    end_lsn: int       # where the next record starts
    xid: int
    committed: bool
    micros: int        # of its time stamp, since 1970


def parse_micros(text):
    at = datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=datetime.timezone.utc)
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
    return (at - epoch) // datetime.timedelta(microseconds=1)


def time_text(micros):
    """RFC 3339 with all six digits."""
    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=micros)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


class Writers:
    """Threads that insert numbered rows, one transaction after another, and note each acknowledgement."""

    def __init__(self, server, random, count=4):
        self.server = server
        self.random = random
        self.count = count
        self.stopping = threading.Event()
        self.acknowledged = {}   # (worker, seq) -> Acknowledgement
        self.errors = []
        self.threads = []

    def start(self):
        self.server.sql(TABLE)
        for worker in range(self.count):
            seed = self.random.randrange(1 << 30)
            thread = threading.Thread(target=self._work, args=(worker, type(self.random)(seed)), daemon=True)
            self.threads.append(thread)
            thread.start()
        return self

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)
        if self.errors:
            raise AssertionError(f"a writer failed: {self.errors[0]}")

    def committed_count(self):
        return len(self.acknowledged)

    def _work(self, worker, random):
        seq = 0
        session = None
        while not self.stopping.is_set():
            seq += 1
            try:
                session = session or self.server.session()
                begun = now_micros()
                if self._one_transaction(session, worker, seq, random):
                    told = Acknowledgement(begun, now_micros())
                    self.acknowledged[(worker, seq)] = told
                    lsn = self._flushed(session)
                    self.acknowledged[(worker, seq)] = dataclasses.replace(told, lsn=lsn)
            except ConnectionLost:
                session.close()
                session = None
                self.stopping.wait(0.1)
            except Exception as error:  # shown by stop(), in the thread of the test
                self.errors.append(error)
                return
            self.stopping.wait(random.random() * 0.02)
        if session:
            session.close()

    @staticmethod
    def _flushed(session):
        """Where the server's WAL is flushed. A server that goes may send its farewell beside the answer, before or
        after it, and psql calls neither an error."""
        answer = session.execute("select pg_current_wal_flush_lsn();")
        found = [line for line in answer if re.fullmatch("[0-9A-F]+/[0-9A-F]+", line)]
        if found:
            return lsn_number(found[0])
        text = "\n".join(answer)
        raise ConnectionLost(text) if says_lost(text) else AssertionError(f"no position: {text!r}")

    @staticmethod
    def _one_transaction(session, worker, seq, random):
        rows = random.choice([1, 1, 1, 2, 5])
        body = "x" * random.choice([10, 100, 1000, 3000])
        insert = (f"insert into oracle select {worker}, {seq}, part, pg_current_xact_id()::text::bigint, "
                  f"md5(part::text) || '{body}' from generate_series(1, {rows}) part;")
        choice = random.random()
        if choice < 0.05:
            session.execute(f"begin; {insert} rollback;")
            return False
        if choice < 0.15:
            # The savepoint's own transaction id is committed with its parent, in one record.
            insert = f"begin; savepoint a; {insert} release a; commit;"
        session.execute(insert)
        return True


def read_transactions(server, stage, start_lsn=None, timeline=1):
    """All commit and abort records of the server's pg_wal, in WAL order."""
    first = min(name.name for name in (server.data / "pg_wal").iterdir()
                if re.fullmatch("[0-9A-F]{24}", name.name))
    segment_bytes = int(server.sql("select setting from pg_settings where name = 'wal_segment_size'"))
    if start_lsn is None:
        start_lsn = segment_start(first, segment_bytes)
    end = server.sql("select pg_current_wal_flush_lsn()")
    done = stage.run([PG_BIN / "pg_waldump", "-p", server.data / "pg_wal", "-s", lsn_text(start_lsn),
                      "-e", end, "-t", str(timeline), "-r", "Transaction"], timeout=300)
    return parse_waldump(done.stdout, lsn_number(end))


def segment_start(name, segment_bytes):
    per_log = (1 << 32) // segment_bytes
    return (int(name[8:16], 16) * per_log + int(name[16:24], 16)) * segment_bytes


LINE = re.compile(r"^rmgr: Transaction\s+len \(rec/tot\):\s*\d+/\s*(\d+), tx:\s*(\d+), lsn: (\S+), prev \S+, "
                  r"desc: (COMMIT|ABORT|COMMIT_PREPARED|ABORT_PREPARED) (?:(\d+): )?"
                  r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC", re.MULTILINE)


def parse_waldump(text, _end):
    found = []
    for match in LINE.finditer(text):
        length, tx, lsn, kind, prepared_xid, at = match.groups()
        start = lsn_number(lsn)
        found.append(Transaction(start, start + int(length), int(prepared_xid or tx),
                                 kind.startswith("COMMIT"), parse_micros(at)))
    return found


class Rule:
    """What each kind of target keeps, from the list of transactions in WAL order."""

    def __init__(self, transactions):
        self.transactions = transactions
        self.commits = [t for t in transactions if t.committed]

    @staticmethod
    def _xids(transactions):
        return {t.xid for t in transactions if t.committed}

    def to_time(self, micros):
        """Everything before the first commit or abort record stamped later."""
        return self._until(lambda t: t.micros > micros)

    def before_time(self, micros):
        return self._until(lambda t: t.micros >= micros)

    def to_lsn(self, lsn):
        """With the record that starts at `lsn`, without any that starts after it."""
        return self._until(lambda t: t.lsn > lsn)

    def before_lsn(self, lsn):
        return self._until(lambda t: t.lsn >= lsn)

    def to_xid(self, xid):
        end = next(t.lsn for t in self.transactions if t.xid == xid)
        return self._until(lambda t: t.lsn > end)

    def before_xid(self, xid):
        return self._until(lambda t: t.xid == xid)

    def latest(self):
        return self._xids(self.transactions)

    def _until(self, is_left_out):
        kept = []
        for transaction in self.transactions:
            if is_left_out(transaction):
                break
            kept.append(transaction)
        return self._xids(kept)


def broken_promises(acknowledged, there, told_by, begun_after=None):
    """A sentence about what a client would miss or not expect in a restore that holds `there`, or None.

    told_by: whether a restore owes what was acknowledged so; begun_after: whether it may not hold it.
    """
    missing = [key for key, ack in acknowledged.items() if told_by(ack) and key not in there]
    early = [key for key, ack in acknowledged.items() if begun_after and begun_after(ack) and key in there]
    if missing or early:
        return (f"acknowledged before and not there: {sorted(missing)[:5]} ({len(missing)}); begun after and "
                f"there: {sorted(early)[:5]} ({len(early)})")
    return None


def rows_by_xid(server):
    """{xid: {(worker, seq, part, md5 of body)}} of the table."""
    found = {}
    for worker, seq, part, xid, digest in server.rows(
            "select worker, seq, part, xid, md5(body) from oracle"):
        found.setdefault(int(xid), set()).add((int(worker), int(seq), int(part), digest))
    return found


def difference(expected_xids, truth, restored):
    """A sentence about the first rows that are too many or too few, or None when all is as it must be."""
    expected = {xid: rows for xid, rows in truth.items() if xid in expected_xids}
    if expected == restored:
        return None
    missing = sorted(set(expected) - set(restored))
    extra = sorted(set(restored) - set(expected))
    changed = sorted(xid for xid in set(expected) & set(restored) if expected[xid] != restored[xid])
    return (f"{len(expected)} transactions expected, {len(restored)} there; missing {missing[:5]} "
            f"({len(missing)}), too many {extra[:5]} ({len(extra)}), "
            f"different {changed[:5]} ({len(changed)})")


def restore_and_compare(agent, item, truth, acknowledged):
    """Restores one target; a sentence about what is wrong, or None. `item`: its number, and what to expect."""
    number, (kind, text, expected_xids, told_by, begun_after) = item
    pgdata = agent.stage.directory / "pg" / f"target-{number}"
    # One, two or three at a time: what is restored does not depend on it.
    restored = agent.restore(**{kind: text}, pgdata=pgdata, extra=["--jobs", str(1 + number % 3)])
    restored.socket_directory = agent.stage.make_directory("s", f"target-{number}")
    restored.log = agent.stage.directory / f"postgres-target-{number}.log"
    restored.open()
    try:
        rows = rows_by_xid(restored)
        wrong = difference(expected_xids, truth, rows)
        if told_by:
            there = {row[:2] for of_one in rows.values() for row in of_one}
            wrong = wrong or broken_promises(acknowledged, there, told_by, begun_after)
    finally:
        restored.discard()
    return f"--{kind} {text}: {wrong}" if wrong else None


def make_table(server, name="items", rows=1000):
    """A small table with known content."""
    server.sql(f"create table {name} (id int primary key, body text);"
               f"insert into {name} select g, md5(g::text) from generate_series(1, {rows}) g")


def wait_for_commits(writers, count, timeout=120):
    wait_until(lambda: writers.errors or writers.committed_count() >= count, f"{count} commits", timeout)
