"""Damage to any file of a repository gives a named error or a rebuild, and never wrong bytes."""

import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import unittest

from agent_process import Agent, checksum
from cluster import Postgres
from faults import flip_bit, truncate_half
from harness import Stage, StageCase, lsn_text, wait_until
from oracle import make_table, read_transactions, time_text
from trees import first_different_file, tree_digest

CORRUPT, NO_REPOSITORY, KEY = 5, 6, 9
SECOND = 1_000_000


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
        cls.primary = primary = Postgres.create(cls.shared, settings={"wal_keep_size": "'1GB'"}).start()
        make_table(primary)
        cls.agent = Agent(cls.shared, primary).protect()
        for round_number in range(4):
            make_table(primary, f"t{round_number}", 8000)
        cls.middle_lsn = primary.current_lsn()
        # The middle is in packs of an earlier segment than the one that a reconnection compares, the late
        # target in the tail.
        primary.sql("select pg_switch_wal()")
        make_table(primary, "between", 16000)
        for number in range(10):
            make_table(primary, f"late{number}", 1500)
            cls.late_lsn = cls.agent.wait_until_flushed()
            cls.wait_until_quiet(primary)
            if sum(path.stat().st_size for path in cls.agent.repo.rglob("*.tail")) > 20000:
                break
        # Killed, so that the last WAL is in an open tail and not in a pack.
        cls.agent.kill9()
        primary.stop("immediate")
        cls.repo = cls.agent.repo
        cls.reference = {}
        for lsn in (cls.middle_lsn, cls.late_lsn):
            cls.reference[lsn] = cls.restore_tree(cls.agent, lsn)[1]
            assert len(cls.reference[lsn]) > 900

    @classmethod
    def wait_until_quiet(cls, primary):
        """A proof of quiet is written after a second; the index then knows how much of the tail was synced.

        Without that a tail that lost its end would be one that a crash has torn.
        """
        quiet = max(t.micros for t in read_transactions(primary, cls.shared)) + SECOND
        wait_until(lambda: cls.agent.cli("resolve", time_text(quiet), expect=None).returncode == 0,
                   "a quiet second to be stored", every=0.2)

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

    def needed(self, kind, paths):
        """One or two files of a kind that a restore reads: the last ones, and the largest."""
        if kind == "index":
            paths = [path for path in paths if path.suffix in (".sst", ".log") or "MANIFEST" in path.name]
        largest = max(paths, key=lambda p: (self.repo / p).stat().st_size)
        return dict.fromkeys([paths[-1], largest] if kind in ("index", "base pack") else paths[-2:])

    def damages(self):
        """(kind, path, what is done, a function that does it), for every kind of file."""
        found = [("index", pathlib.Path("index"), "directory deleted", shutil.rmtree)]
        for kind, paths in self.files_by_kind().items():
            for number, path in enumerate(self.needed(kind, paths)):
                size = (self.repo / path).stat().st_size
                offsets = {0, 20, size // 3, size // 2, size - 1} if number == 0 else {size // 2}
                for offset in sorted(offset for offset in offsets if offset < size):
                    found.append((kind, path, f"bit {offset}", lambda p, o=offset: flip_bit(p, o)))
                found.append((kind, path, "deleted", lambda p: p.unlink()))
                if number == 0:
                    found.append((kind, path, "truncated", truncate_half))
                    found.append((kind, path, "emptied", lambda p: os.truncate(p, 0)))
        return found

    def test_every_kind_of_file_is_in_the_repository(self):
        self.assertLessEqual(KINDS | {"index"}, set(self.files_by_kind()))

    def test_damage_gives_an_error_that_names_it_or_right_bytes(self):
        damages = self.damages()
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(self.try_damage, enumerate(damages)))
        wrong = [text for text, _ in results if text]
        self.assertFalse(wrong, "\n".join(wrong))
        refused = {kind for (kind, *_), (_, was_refused) in zip(damages, results) if was_refused}
        self.assertEqual(refused, KINDS, "damage to these is to be noticed, damage to an index to be healed")

    def try_damage(self, item):
        """(what is wrong or None, whether it was refused)."""
        number, (kind, path, what, damage) = item
        title = f"{kind} {path.name} {what}"
        agent = self.copy(f"damage-{number}")
        damage(agent.repo / path)
        wrong, refused = None, False
        for lsn in (self.middle_lsn, self.late_lsn):
            done, digests = self.restore_tree(agent, lsn)
            if done.returncode == 0:
                different = first_different_file(self.reference[lsn], digests)
                wrong = wrong or (different and f"{title}: restored other bytes: {different}")
            else:
                refused = True
                wrong = wrong or complaint(title, kind, path, what, done)
        shutil.rmtree(agent.directory, ignore_errors=True)
        return wrong, refused

    def copy(self, name, server=None):
        """An agent of a copy of the repository."""
        directory = self.shared.make_directory(name)
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.repo), str(directory / "repo")], check=True)
        return Agent(self.shared, server, name=name, repo=directory / "repo", key=self.agent.key)

    def test_verify_names_every_file_that_is_damaged_or_gone(self):
        for kind in ("wal pack", "base pack", "manifest"):
            for what, damage in (("flipped", lambda p: flip_bit(p, p.stat().st_size // 2)),
                                 ("deleted", lambda p: p.unlink())):
                with self.subTest(kind=kind, what=what):
                    agent = self.copy(f"verify-{kind.split()[0]}-{what}")
                    path = self.files_by_kind()[kind][-1]
                    damage(agent.repo / path)
                    done = agent.cli("verify", "--level", "chunks", expect=CORRUPT)
                    self.assertIn(path.name, done.stdout + done.stderr)

    def test_an_agent_does_not_silently_go_on_after_a_deleted_pack(self):
        """It protects what comes; what needs the pack is refused by name, and a new base ends that."""
        agent = self.copy("goes-on", self.primary)
        path = max(path for path in self.files_by_kind()["wal pack"] if start_lsn(path) < self.middle_lsn)
        (agent.repo / path).unlink()
        self.primary.start()
        try:
            agent.start()
            make_table(self.primary, "after", 3000)
            agent.wait_until_flushed()
            error = agent.error("restore", "--to", "latest", "--pgdata", agent.directory / "pgdata",
                                expect=CORRUPT)
            self.assertIn(path.name, error["message"])
            done = agent.cli("verify", "--level", "wal", expect=CORRUPT)
            self.assertIn(path.name, done.stdout + done.stderr)
            agent.cli("backup", "--fast")
            restored = agent.restore(to="latest").open()
            self.assertEqual(checksum(restored, "after", "id"), checksum(self.primary, "after", "id"))
            restored.discard()
            agent.stop()
        finally:
            self.primary.stop("immediate")


def start_lsn(path):
    """Of a WAL pack, from its name: history, timeline, start, generation."""
    return int(path.name.split("-")[2], 16)


KINDS = {"repository", "keyring", "ledger", "tail", "wal pack", "base pack", "manifest"}


def complaint(title, kind, path, what, done):
    """What is wrong with a refusal: another code than that of damage, or no word of what is damaged."""
    codes = {NO_REPOSITORY} if (kind, what) == ("repository", "deleted") else {CORRUPT}
    if "is sealed under data key" in done.stderr:
        codes = {KEY}  # the flipped bit is in the name of the key
    name = kind if kind in ("repository", "keyring", "ledger") else path.stem
    if done.returncode not in codes:
        return f"{title}: ended with {done.returncode}, not {codes}: {done.stderr.strip()[-300:]}"
    if "error" not in done.stderr or name not in done.stderr:
        return f"{title}: does not name {name}: {done.stderr.strip()[-300:]}"
    return None


if __name__ == "__main__":
    unittest.main()
