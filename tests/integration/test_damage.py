"""Damage to any file of a repository gives a named error or a rebuild, and never wrong bytes."""

import concurrent.futures
import hashlib
import os
import shutil
import subprocess
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import Stage, StageCase, lsn_text
from oracle import make_table

# Documented codes of a refusal because of what is stored: corrupt, repository, key, target.
NAMED_EXITS = {3, 5, 6, 9}
# Files of a restored cluster that hold the moment or the way of the restore, not the data.
NOT_COMPARED = {"postmaster.pid", "postmaster.opts", "postgresql.auto.conf", "walvault_restore.json"}


def tree_digest(directory):
    """{relative path: md5} of every file."""
    found = {}
    for base, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(base, name)
            if name not in NOT_COMPARED:
                with open(path, "rb") as file:
                    found[os.path.relpath(path, directory)] = hashlib.md5(file.read()).hexdigest()
    return found


def flip_bit(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def truncate_half(path):
    os.truncate(path, path.stat().st_size // 2)


def kind_of(path):
    """The kind of a file of the repository, by its place."""
    parts = path.parts
    if parts[0] in ("repository", "keyring", "ledger", "index"):
        return parts[0]
    if "wal" in parts:
        return "tail" if path.suffix == ".tail" else "wal pack"
    if "base" in parts:
        return "base pack" if "manifest" not in path.name else "manifest"
    return None


class DamageTest(StageCase):
    """One repository, copied for each damage; every copy is restored to the same two targets."""

    @classmethod
    def setUpClass(cls):
        cls.shared = Stage("damage")
        try:
            cls.prepare()
        except BaseException:
            cls.shared.show_logs()
            cls.shared.close()
            raise

    @classmethod
    def prepare(cls):
        primary = Postgres.create(cls.shared).start()
        make_table(primary)
        cls.agent = Agent(cls.shared, primary).protect()
        for round_number in range(4):
            make_table(primary, f"t{round_number}", 8000)
        cls.middle_lsn = primary.current_lsn()
        make_table(primary, "late", 100)
        cls.late_lsn = cls.agent.wait_until_flushed()
        # Killed, so that the last WAL is in an open tail and not in a pack.
        cls.agent.kill9()
        primary.stop("immediate")
        cls.repo = cls.agent.repo
        cls.reference = {}
        for lsn in (cls.middle_lsn, cls.late_lsn):
            cls.reference[lsn] = cls.restore_tree(cls.agent, lsn)[1]
            assert len(cls.reference[lsn]) > 900

    @classmethod
    def tearDownClass(cls):
        cls.shared.close()

    @classmethod
    def restore_tree(cls, agent, lsn):
        """(the finished command, digests or None). --before an LSN keeps all records that start before it."""
        pgdata = agent.directory / "pgdata"
        done = agent.cli("--progress", "none", "restore", "--before", "lsn:" + lsn_text(lsn),
                         "--pgdata", pgdata, expect=None)
        digests = None
        if done.returncode == 0:
            digests = tree_digest(pgdata)
        shutil.rmtree(pgdata, ignore_errors=True)
        return done, digests

    def files_by_kind(self):
        kinds = {}
        for path in sorted(self.repo.rglob("*")):
            if path.is_file() and path.stat().st_size > 0 and path.suffix != ".sock":
                kind = kind_of(path.relative_to(self.repo))
                if kind:
                    kinds.setdefault(kind, []).append(path.relative_to(self.repo))
        return kinds

    def damages(self):
        """(kind, path, what is done, a function that does it), for every kind of file."""
        found = []
        for kind, paths in self.files_by_kind().items():
            largest = max(paths, key=lambda p: (self.repo / p).stat().st_size)
            path = paths[-1] if kind == "wal pack" else largest
            size = (self.repo / path).stat().st_size
            for offset in sorted({0, 20, size // 3, size // 2, size - 1}):
                if offset < size:
                    found.append((kind, path, f"bit {offset}", lambda p, o=offset: flip_bit(p, o)))
            found.append((kind, path, "truncated", truncate_half))
            found.append((kind, path, "deleted", lambda p: p.unlink()))
            found.append((kind, path, "emptied", lambda p: os.truncate(p, 0)))
        return found

    def test_every_kind_of_file_is_in_the_repository(self):
        kinds = set(self.files_by_kind())
        self.assertLessEqual({"repository", "keyring", "ledger", "index", "tail", "wal pack", "base pack"},
                             kinds)

    def test_damage_gives_a_named_error_or_right_bytes(self):
        damages = self.damages()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(self.try_damage, enumerate(damages)))
        wrong = [text for text, _ in results if text]
        self.assertFalse(wrong, "\n".join(wrong))
        refused = {kind for (kind, *_), (_, was_refused) in zip(damages, results) if was_refused}
        self.assertLessEqual({"repository", "keyring", "ledger", "wal pack", "base pack", "tail"}, refused,
                             "no damage to these was ever noticed")

    def try_damage(self, item):
        """(what is wrong or None, whether it was refused)."""
        number, (kind, path, what, damage) = item
        title = f"{kind} {path.name} {what}"
        copy = self.shared.make_directory(f"damage-{number}")
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.repo), str(copy / "repo")], check=True)
        damage(copy / "repo" / path)
        agent = Agent(self.shared, None, name=f"damage-{number}", repo=copy / "repo", key=self.agent.key)
        wrong, refused = None, False
        for lsn in (self.middle_lsn, self.late_lsn):
            done, digests = self.restore_tree(agent, lsn)
            if done.returncode == 0 and digests != self.reference[lsn]:
                wrong = f"{title}: restored other bytes: " + first_difference(self.reference[lsn], digests)
            elif done.returncode != 0:
                refused = True
                wrong = wrong or complaint(title, done)
        shutil.rmtree(copy, ignore_errors=True)
        return wrong, refused

    def test_an_agent_does_not_silently_go_on_after_a_deleted_pack(self):
        """verify names what is gone, with the code for data that fails its check."""
        for kind in ("wal pack", "base pack"):
            with self.subTest(kind=kind):
                name = f"verify-{kind.split()[0]}"
                copy = self.shared.make_directory(name)
                subprocess.run(["cp", "-a", "--reflink=auto", str(self.repo), str(copy / "repo")], check=True)
                path = self.files_by_kind()[kind][-1]
                flip_bit(copy / "repo" / path, (copy / "repo" / path).stat().st_size // 2)
                agent = Agent(self.shared, None, name=name, repo=copy / "repo", key=self.agent.key)
                done = agent.cli("verify", "--level", "chunks", expect=5)
                self.assertIn(path.name, done.stdout + done.stderr)


def complaint(title, done):
    if done.returncode not in NAMED_EXITS:
        return f"{title}: ended with {done.returncode}: {done.stderr.strip()[-300:]}"
    if "error" not in done.stderr:
        return f"{title}: refused without a word"
    return None


def first_difference(expected, found):
    for path in sorted(set(expected) | set(found)):
        if expected.get(path) != found.get(path):
            return f"{path}: {expected.get(path)} became {found.get(path)}"
    return "nothing"


if __name__ == "__main__":
    unittest.main()
