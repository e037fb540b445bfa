"""What a repository answers, in the form in which tests/golden keeps it."""

import hashlib
import json
import shutil

from harness import lsn_number
from trees import tree_digest

# Of the moment, the machine or the way of a restore, not of what is stored.
CHANGING = {"repository", "now", "estimate", "estimated_seconds"}
# A command that names the configuration of who asked.
COMMANDS = {"restore"}
LOG_KINDS = "drop,truncate,point,bulk,commit,abort,checkpoint,prepared"


def answers_of(agent, targets):
    """Everything a reader can ask without a server, and the WAL itself."""
    info = without_changing(agent.json("info"))
    return {"info": info,
            "log": without_changing(agent.json("log", "--since", info["windows"][0]["from"],
                                               "--kind", LOG_KINDS, "-L", "10000")),
            "resolve": [[target, without_changing(agent.json("resolve", *target))] for target in targets],
            "verify": {level: without_changing(agent.json("verify", "--level", level))
                       for level in ("wal", "chunks")},
            "wal": wal_digests(agent, info)}


JOURNAL_TABLES = ("orders", "lines", "notes", '"Odd ""name"""', "people", "bulk", "parts_1", "parts_2")
JOURNAL_KEYS = (("orders", "id=7"), ("orders", "id=4711"), ("orders", "id=4712"), ("lines", "order_id=1,number=2"),
                ("people", "id=2"), ("bulk", "id=-1"), ("bulk", "id=5950"))


def journal_answers(agent, transactions, kinds=None):
    """What the row journal can be asked (of `kinds`; None: all), of [[xid, LSN behind it]]. Long text as its digest."""
    def lines(*arguments):
        done = agent.cli("-o", "jsonl", *arguments, expect=None)
        if done.returncode != 0:
            return refusal(done)
        found = [without_changing(json.loads(line)) for line in done.stdout.splitlines()]
        short = [shortened({key: value for key, value in each.items() if key not in COMMANDS}) for each in found]
        return short if len(short) <= 40 else short[:20] + [{"lines": len(short)}] + short[-10:]

    def rows(table, lsn):
        done = agent.cli("-o", "jsonl", "rows", table, "--at", f"lsn:{lsn}", "-L", "100000", expect=None)
        if done.returncode != 0:
            return refusal(done)
        values = [each["values"] for each in map(json.loads, done.stdout.splitlines()) if "values" in each]
        return {"count": len(values), "digest": digest(json.dumps(values, sort_keys=True))}

    def text(*arguments):
        done = agent.cli(*arguments, expect=None)
        return shortened(done.stdout) if done.returncode == 0 else {"exit": done.returncode}

    xids = [xid for xid, _ in transactions]
    ask = {"log": lambda: {table: lines("log", "--table", table) for table in JOURNAL_TABLES},
           "history": lambda: {f"{table} {key}": lines("history", table, "--key", key) for table, key in JOURNAL_KEYS},
           "changes": lambda: {table: lines("changes", table, "-L", "300") for table in JOURNAL_TABLES},
           "show": lambda: {str(xid): lines("show", f"xid:{xid}") for xid in xids},
           "undo": lambda: {str(xid): text("undo", f"xid:{xid}") for xid in xids},
           "rows": lambda: {f"{table} {lsn}": rows(table, lsn)
                            for table in JOURNAL_TABLES for _, lsn in transactions[::4]},
           "extract": lambda: {table: text("extract", table, "--at", "latest", "--header") for table in JOURNAL_TABLES},
           "follow": lambda: digest(agent.cli("follow", "--from-lsn", "0/0", "--until-idle").stdout)}
    return {kind: question() for kind, question in ask.items() if kinds is None or kind in kinds}


def refusal(done):
    """Of a command that was asked for JSON, with a documented exit code and an error by name."""
    return {"exit": done.returncode, "code": json.loads(done.stderr)["error"]["code"]}


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def shortened(value):
    """Texts of more than 2,000 characters as their digests."""
    if isinstance(value, dict):
        return {key: shortened(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shortened(each) for each in value]
    return digest(value) if isinstance(value, str) and len(value) > 2000 else value


def without_changing(answer):
    return {key: value for key, value in answer.items() if key not in CHANGING}


def segment_names(info):
    """The names of the segments that the one history of `info` covers, in order."""
    (window,) = info["windows"]
    size = info["segment_bytes"]
    per_log = (1 << 32) // size
    first = lsn_number(window["start_lsn"]) // size
    last = (lsn_number(window["end_lsn"]) - 1) // size
    return [f"{window['timeline']:08X}{number // per_log:08X}{number % per_log:08X}"
            for number in range(first, last + 1)]


def wal_digests(agent, info):
    """{segment: SHA-256} of what wal-get gives; the last one is filled up with zeros."""
    found = {}
    directory = agent.stage.make_directory(f"wal-of-{agent.name}")
    for name in segment_names(info):
        agent.cli("wal-get", name, directory / name)
        found[name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
        (directory / name).unlink()
    return found


def restored_files(agent, target):
    """{path: SHA-256} of the files of a restore to `target`, WAL included."""
    restored = agent.restore(to=target)
    found = tree_digest(restored.data)
    shutil.rmtree(restored.data)
    return found


def first_difference(expected, found, at="answer"):
    """Where `found` lacks or changes something of `expected`, in words; None where it does not.

    A later version may say more: keys that were not there are no difference.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            if key not in found:
                return f"{at}.{key} is missing"
            if wrong := first_difference(value, found[key], f"{at}.{key}"):
                return wrong
        return None
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{at} has {len(found)} members, not {len(expected)}"
        for number, (value, other) in enumerate(zip(expected, found)):
            if wrong := first_difference(value, other, f"{at}[{number}]"):
                return wrong
        return None
    return None if expected == found else f"{at} is {found!r}, not {expected!r}"


