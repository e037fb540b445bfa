"""What a repository answers, in the form in which tests/golden keeps it."""

import hashlib
import shutil

from harness import lsn_number
from trees import tree_digest

# Of the moment, the machine or the way of a restore, not of what is stored.
CHANGING = {"repository", "now", "estimate", "estimated_seconds"}
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


