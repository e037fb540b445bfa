"""After a power cut every acknowledged byte is there: file-system images copied while the agent streams."""

import os
import shutil
import subprocess
import threading
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import StageCase, lsn_text, seeded_random
from oracle import Writers, difference, read_transactions, rows_by_xid, wait_for_commits

IMAGES = 16
RESTORED_IMAGES = 4


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

    def cut_power(self, agent, number):
        threading.Event().wait(self.random.uniform(0.05, 0.6))
        acknowledged_lsn = agent.restart_lsn()
        image = self.host / f"crash.{number}.ext4"
        subprocess.run(["cp", "--reflink=always", str(self.image), str(image)], check=True)
        return image, acknowledged_lsn

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


if __name__ == "__main__":
    unittest.main()
