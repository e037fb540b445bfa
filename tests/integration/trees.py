"""Directories as values: what is in them, and where two of them differ."""

import hashlib
import os

# Files of a restored cluster that hold the moment or the way of the restore, not the data.
OF_THE_RESTORE = {"postmaster.pid", "postmaster.opts", "postgresql.auto.conf", "walvault_restore.json"}


def tree_digest(directory, without=frozenset(OF_THE_RESTORE)):
    """{relative path: SHA-256} of every file."""
    found = {}
    for base, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(base, name)
            if name not in without:
                with open(path, "rb") as file:
                    found[os.path.relpath(path, directory)] = hashlib.sha256(file.read()).hexdigest()
    return dict(sorted(found.items()))


def first_different_file(expected, found):
    for path in sorted(set(expected) | set(found)):
        if expected.get(path) != found.get(path):
            return f"{path}: {expected.get(path)} became {found.get(path)}"
    return None
