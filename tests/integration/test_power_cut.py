"""After a power cut every acknowledged byte is there: file-system images copied while the agent streams."""

import os
import shutil
import subprocess
import threading
import unittest

from agent_process import Agent, Restored, checksum
from cluster import Postgres
from harness import StageCase, lsn_text, seeded_random, wait_until
from oracle import Writers, difference, make_table, read_transactions, rows_by_xid, wait_for_commits
from test_synchronous import Writers as SynchronousWriters
from trees import first_different_file, tree_digest

IMAGES = 16
RESTORED_IMAGES = 6
SYNCHRONOUS_ROUNDS = 20


def reason_not_to_run():
    if os.getuid() != 0:
        return "mounting file-system images needs root"
    for tool in ("mkfs.xfs", "mkfs.ext4", "mount", "losetup"):
        if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            return f"{tool} is not installed"
    return None


def tool(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                          env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    if done.returncode != 0:
        raise unittest.SkipTest(f"{command[0]} does not work here: {done.stderr.strip()}")


class PowerCutTest(StageCase):
    """The repository lies on ext4 in an image on XFS; a reflink copy of the image is what a cut leaves."""

    def setUp(self):
        reason = reason_not_to_run()
        if reason:
            self.skipTest(reason)
        super().setUp()
        self.random = seeded_random(self.id())
        self.mounts = []
        self.stage.closers.append(self.unmount_all)
        host_image = self.stage.directory / "host.xfs"
        with open(host_image, "wb") as file:
            file.truncate(2 << 30)
        tool("mkfs.xfs", "-q", "-m", "reflink=1", host_image)
        self.host = self.mount(host_image, "h")
        self.image = self.host / "repo.ext4"
        with open(self.image, "wb") as file:
            file.truncate(400 << 20)
        tool("mkfs.ext4", "-q", self.image)
        self.disk = self.mount(self.image, "m")
        self.stage.give(self.disk)

    def mount(self, image, name):
        point = self.stage.directory / name
        point.mkdir(exist_ok=True)
        tool("mount", "-o", "loop", image, point)
        self.mounts.append(point)
        return point

    def unmount(self, point):
        subprocess.run(["umount", str(point)], check=True)
        self.mounts.remove(point)

    def unmount_all(self):
        for process in self.stage.processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for point in reversed(self.mounts):
            subprocess.run(["umount", str(point)], check=False)

    def test_every_image_opens_and_holds_what_was_acknowledged_before_it(self):
        primary = Postgres.create(self.stage, settings={"wal_keep_size": "'4GB'"}).start()
        agent = Agent(self.stage, primary, repo=self.disk / "repo").protect()
        writers = Writers(primary, self.random).start()
        wait_for_commits(writers, 100)
        images = [self.cut_power(agent, number) for number in range(IMAGES)]
        writers.stop()
        transactions = read_transactions(primary, self.stage)
        truth = rows_by_xid(primary)
        agent.stop()
        agent.check_log()

        restored = set(self.random.sample(range(IMAGES), RESTORED_IMAGES))
        for number, (image, acknowledged_lsn) in enumerate(images):
            with self.subTest(image=number, acknowledged=lsn_text(acknowledged_lsn)):
                self.check_image(agent, image, acknowledged_lsn, transactions, truth, number in restored)
        self.assertGreater(images[-1][1], images[0][1], "nothing was acknowledged between the images")

    def cut_power(self, agent, number, wait=True):
        if wait:
            threading.Event().wait(self.random.uniform(0.05, 0.6))
        acknowledged_lsn = agent.restart_lsn()
        return self.copy_image(f"crash.{number}"), acknowledged_lsn

    def copy_image(self, name):
        image = self.host / f"{name}.ext4"
        subprocess.run(["cp", "--reflink=always", str(self.image), str(image)], check=True)
        return image

    def check_image(self, agent, image, acknowledged_lsn, transactions, truth, with_restore):
        disk = self.mount(image, "c")
        try:
            survivor = Agent(self.stage, agent.server, name=image.stem, repo=disk / "repo", key=agent.key)
            # An LSN is reached when a restore to just before it is possible.
            survivor.cli("resolve", "--before", "lsn:" + lsn_text(acknowledged_lsn))
            survivor.cli("verify", "--level", "wal")
            if with_restore:
                self.check_restore(survivor, acknowledged_lsn, transactions, truth)
        finally:
            self.unmount(disk)
            image.unlink()

    def check_restore(self, survivor, acknowledged_lsn, transactions, truth):
        restored = survivor.restore(to="latest").open()
        there = rows_by_xid(restored)
        restored.discard()
        owed = {t.xid for t in transactions
                if t.committed and t.end_lsn <= acknowledged_lsn and t.xid in truth}
        self.assertFalse(owed - set(there), "acknowledged commits are missing")
        order = [t.xid for t in transactions if t.committed and t.xid in truth]
        self.assertIsNone(difference(set(order[:len(there)]), truth, there))

    def test_a_cut_in_the_middle_of_a_base_backup_leaves_the_one_before(self):
        primary = Postgres.create(self.stage, settings={"wal_keep_size": "'4GB'"}).start()
        agent = Agent(self.stage, primary, repo=self.disk / "repo").protect()
        config = agent.config.read_text()
        agent.stop()
        agent.write_config(config.replace('checkpoint = "fast"', 'checkpoint = "fast"\nmax_rate = "4MiB/s"'))
        agent.start()
        make_table(primary, rows=30000)
        agent.wait_until_flushed()
        self.stage.start([self.stage.walvault, "-c", agent.config, "backup", "--fast"],
                         log=self.stage.directory / "backup.log")
        images = []
        for share in (0.1, 0.5, 0.9):
            wait_until(lambda: self.backup_share(agent) > share, f"{share:.0%} of the backup")
            images.append(self.cut_power(agent, len(images), wait=False))
        self.assertEqual(agent.backup_count(), 1, "the images were cut too late")
        agent.kill9()
        for image, acknowledged_lsn in images:
            with self.subTest(image=image.name):
                disk = self.mount(image, "c")
                survivor = Agent(self.stage, primary, name=image.stem, repo=disk / "repo", key=agent.key)
                self.assertEqual(len(survivor.backups()), 1, "a torn backup looks complete")
                survivor.cli("resolve", "--before", "lsn:" + lsn_text(acknowledged_lsn))
                survivor.cli("verify", "--level", "chunks")
                survivor.start()
                survivor.cli("backup", "--fast")
                survivor.stop()
                restored = survivor.restore(to="latest").open()
                self.assertEqual(checksum(restored, "items", "id"), checksum(primary, "items", "id"))
                restored.discard()
                self.unmount(disk)
                image.unlink()

    @staticmethod
    def backup_share(agent):
        """How much of the running backup is done; 0 where none runs."""
        backup = agent.status()["backup"]
        return backup.get("done_bytes", 0) / max(1, backup.get("expected_bytes", 1))

    def test_what_a_restore_calls_done_is_there_after_a_cut(self):
        """F23: the power goes in the moment in which the command has ended."""
        primary = Postgres.create(self.stage).start()
        make_table(primary, rows=20000)
        agent = Agent(self.stage, primary).protect()
        make_table(primary, "later", rows=5000)
        agent.wait_until_flushed()
        agent.cli("--progress", "none", "restore", "--to", "latest", "--pgdata", self.disk / "restored")
        image = self.host / "done.ext4"
        subprocess.run(["cp", "--reflink=always", str(self.image), str(image)], check=True)
        disk = self.mount(image, "c")
        self.assertIsNone(first_different_file(tree_digest(self.disk / "restored", without=()),
                                               tree_digest(disk / "restored", without=())))
        restored = Restored(self.stage, "after-the-cut", disk / "restored", None).open()
        self.assertEqual(checksum(restored, "later", "id"), checksum(primary, "later", "id"))
        restored.stop("immediate")
        self.unmount(disk)

    def test_an_agent_goes_on_from_the_image_of_a_power_cut(self):
        primary = Postgres.create(self.stage, settings={"wal_keep_size": "'4GB'"}).start()
        agent = Agent(self.stage, primary, repo=self.disk / "repo").protect()
        writers = Writers(primary, self.random).start()
        wait_for_commits(writers, 200)
        image, acknowledged_lsn = self.cut_power(agent, 0)
        agent.kill9()
        disk = self.mount(image, "c")
        survivor = Agent(self.stage, primary, name="survivor", repo=disk / "repo", key=agent.key).start()
        wait_for_commits(writers, writers.committed_count() + 100)
        writers.stop()
        self.assertGreaterEqual(survivor.wait_until_flushed(), acknowledged_lsn)
        self.assertEqual(survivor.json("info", "--gaps")["gaps"], [])
        truth = rows_by_xid(primary)
        restored = survivor.restore(to="latest").open()
        self.assertIsNone(difference(set(truth), truth, rows_by_xid(restored)))
        restored.discard()
        survivor.stop()
        self.unmount(disk)

    def test_c22_what_a_client_saw_succeed_is_in_the_image_when_the_server_is_lost(self):
        """walvault is the synchronous standby; in each round agent, server, both or the power goes."""
        primary = Postgres.create(self.stage, settings={"wal_keep_size": "'1GB'"}).start()
        primary.sql("create table t (worker int, number int)")
        agent = Agent(self.stage, primary, repo=self.disk / "repo")
        agent.allowed_events |= {"stream.lost", "slot.made"}
        agent.protect()
        primary.sql("alter system set synchronous_standby_names = 'walvault'")
        primary.sql("select pg_reload_conf()")
        wait_until(lambda: agent.status()["synchronous"], "the agent to know that commits wait")
        writers = SynchronousWriters(primary).start()
        for number in range(SYNCHRONOUS_ROUNDS):
            wanted = sum(writers.acknowledged) + self.random.randint(10, 200)
            wait_until(lambda: sum(writers.acknowledged) >= wanted, "more commits that returned")
            dies = self.random.choice(["nothing", "agent", "server", "both"])
            with self.subTest(round=number, dies=dies):
                if dies in ("agent", "both"):
                    agent.kill9()
                if dies in ("server", "both"):
                    primary.stop("immediate")
                returned = list(writers.acknowledged)
                image = self.copy_image(f"synchronous-{number}")
                if dies in ("server", "both"):
                    primary.start()
                self.check_returned(agent, image, returned)
                if dies in ("agent", "both"):
                    agent.start()
        writers.stop()
        agent.stop()
        agent.check_log()

    def check_returned(self, agent, image, returned):
        disk = self.mount(image, "c")
        try:
            survivor = Agent(self.stage, agent.server, name=image.stem, repo=disk / "repo", key=agent.key)
            restored = survivor.restore(to="latest").open()
            stored = dict(restored.rows("select worker, max(number) from t group by worker"))
            restored.discard()
            for worker, number in enumerate(returned):
                self.assertGreaterEqual(int(stored.get(str(worker), 0)), number,
                                        f"worker {worker}: commit {number} returned and is not in the image")
        finally:
            self.unmount(disk)
            image.unlink()


if __name__ == "__main__":
    unittest.main()
