"""The slot governor: what happens when the repository's disk is full and WAL waits on the server."""

import contextlib
import os
import subprocess
import unittest

from agent_process import Agent
from harness import lsn_number, wait_until
from test_histories import TROUBLE, HistoryCase

FULL = {"slot.retains_wal", "slot.giving_up", "slot.given_up", "store.failed", "store.reserve_in_use",
        "store.unreadable", "backup.failed"}


class GovernorCase(HistoryCase):
    def setUp(self):
        super().setUp()
        if os.getuid() != 0:
            self.skipTest("mounting a small file system needs root")

    def mount(self, megabytes=256):
        disk = self.stage.make_directory("disk")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(disk)],
                              capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest(f"mounting tmpfs does not work here: {done.stderr.strip()}")
        self.stage.closers.append(lambda: subprocess.run(["umount", "-l", str(disk)], check=True))
        self.filler = disk / "filler"
        return disk / "repo"

    def protect(self, name="small", slot="small", lines="", **settings):
        """An agent whose repository is on the small disk, with its first base backup."""
        agent = Agent(self.stage, self.server, name, repo=self.mount(), slot=slot,
                      server_lines='slot_limit = "64MiB"\n' + lines, **settings)
        agent.allowed_events |= FULL | TROUBLE
        return agent.protect()

    def fill(self, but=0):
        """Takes what is free on the small disk, but so many megabytes."""
        piece = bytes(1 << 16)
        free = os.statvfs(self.filler.parent)
        left = free.f_bavail * free.f_frsize - (but << 20) if but else 1 << 40
        with open(self.filler, "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while left > 0:
                left -= filler.write(piece)

    def free(self):
        self.filler.unlink()

    def write_wal(self, megabytes):
        self.server.sql("create table if not exists bulk (filler text)")
        self.server.sql("insert into bulk select repeat(md5(g::text), 30) "
                        f"from generate_series(1, {megabytes * 1000}) g")
        self.server.sql("truncate bulk")

    def held_by(self, slot):
        """Bytes that the slot holds back; nothing where it is gone."""
        text = self.server.sql("select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint "
                               f"from pg_replication_slots where slot_name = '{slot}'")
        return int(text) if text else None

    def attempts(self, agent):
        return sum(value for series, value in agent.metrics().items()
                   if series.startswith("walvault_stream_disconnects_total"))

    def step(self, agent, step):
        return agent.metrics()[f'walvault_slot_governor{{server="main",step="{step}"}}'] == 1


class GiveUp(GovernorCase):
    def test_a_slot_that_may_be_given_up_is_and_the_window_opens_again(self):
        agent = self.agent = self.protect(lines='slot_give_up = "64MiB"')
        self.note(self.server, 1)
        agent.wait_until_flushed()
        self.fill()
        self.write_wal(80)
        self.note(self.server, 2)
        given_up = wait_until(lambda: agent.events("slot.given_up"), "the slot to be given up", timeout=180)
        self.assertIn("slot_give_up", given_up[0]["message"])
        wait_until(lambda: self.held_by("small") is None, "the slot to be gone")
        self.assertEqual(agent.metrics()['walvault_slot_given_up_total{server="main"}'], 1)
        # The server frees its disk now, and the agent makes no slot while it has no room for its WAL.
        self.churn(self.server, 8)
        # Either that is what it says, or it has not even the room to close the tail that it had.
        def waits_for_room(line):
            return line["time"] > given_up[0]["time"] and ("made anew" in line["message"]
                                                           or "No space left" in line["message"])
        wait_until(lambda: [*filter(waits_for_room, agent.events("stream.lost"))], "the agent to wait for room")
        # The same words are logged once.
        tried = self.attempts(agent)
        wait_until(lambda: self.attempts(agent) >= tried + 2, "the agent to try again")
        self.assertIsNone(self.held_by("small"))
        self.free()
        agent.wait_for_backup(2)
        self.note(self.server, 3)
        agent.wait_until_flushed()
        gaps = self.info()["gaps"]
        self.assertEqual(len(gaps), 1)
        self.assertIn("given up", gaps[0]["cause"])
        inside = lsn_number(gaps[0]["from_lsn"]) + 5_000_000
        error = agent.error("resolve", f"lsn:{inside >> 32:X}/{inside & 0xFFFFFFFF:X}", expect=3)
        for edge in ("from_lsn", "to_lsn"):
            self.assertIn(gaps[0][edge], error["message"])
        self.assertEqual(self.numbers("latest"), [1, 2, 3])
        self.assertLess(self.held_by("small"), 64 << 20)
        agent.cli("verify", "--level", "wal")

    def test_without_permission_the_slot_stays_and_nothing_is_lost(self):
        # Two agents on one disk: once the one gave up, the other one had every reason to.
        plain = self.protect("plain", "plain")
        may = Agent(self.stage, self.server, "may", repo=plain.repo.parent / "other", slot="may",
                    server_lines='slot_limit = "64MiB"\nslot_give_up = "64MiB"')
        may.allowed_events |= FULL | TROUBLE
        may.protect()
        self.note(self.server, 1)
        self.fill()
        self.write_wal(80)
        wait_until(lambda: plain.events("slot.retains_wal"), "the warning")
        wait_until(lambda: may.events("slot.given_up"), "the other slot to be given up", timeout=180)
        self.assertGreater(self.held_by("plain"), 64 << 20)
        self.assertTrue(self.step(plain, "warn"))
        self.assertEqual(plain.metrics()['walvault_slot_given_up_total{server="main"}'], 0)
        self.free()
        self.agent = plain
        self.note(self.server, 2)
        plain.wait_until_flushed()
        wait_until(lambda: self.step(plain, "fine"), "the governor to see that all is fine")
        self.assertEqual(self.info()["gaps"], [])
        self.assertEqual(self.numbers("latest"), [1, 2])

    def test_an_agent_that_cannot_open_its_repository_gives_the_slot_up_all_the_same(self):
        agent = self.agent = self.protect(lines='slot_give_up = "64MiB"')
        agent.allowed_events |= {"store.not_opened"}
        self.note(self.server, 1)
        agent.wait_until_flushed()
        agent.stop()
        self.fill()
        self.write_wal(80)
        agent.start(wait=False)
        wait_until(lambda: agent.events("store.not_opened"), "the repository not to be opened")
        wait_until(lambda: self.held_by("small") is None, "the slot to be given up", timeout=180)
        self.free()
        agent.wait_ready()
        self.note(self.server, 2)
        agent.wait_until_flushed()
        # The server had removed nothing yet: giving up the slot alone loses nothing.
        self.assertEqual(self.info()["gaps"], [])
        self.assertEqual(self.numbers("latest"), [1, 2])

    def test_a_server_whose_agent_has_a_full_disk_shuts_down_at_once(self):
        agent = self.protect(lines='slot_give_up = "64MiB"')
        self.fill()
        self.write_wal(80)
        wait_until(lambda: agent.events("store.failed"), "the disk to be full")
        self.server.stop("fast", timeout=10)
        self.free()
        self.server.start()
        self.agent = agent
        agent.wait_until_flushed()
        self.assertEqual(self.info()["gaps"], [])


class Spill(GovernorCase):
    def test_the_reserve_is_left_to_wal_and_a_base_backup_gives_way(self):
        agent = self.agent = self.protect(reserve="30%")
        self.note(self.server, 1)
        agent.reload("[server.main.backup]", '[server.main.backup]\nmax_rate = "1MiB/s"')
        asked = self.stage.start([self.stage.walvault, "-c", agent.config, "backup", "--fast"],
                                 log=self.stage.directory / "backup.log")
        wait_until(lambda: agent.status()["backup"]["running"], "the base backup to run")
        self.fill(but=50)
        failed = wait_until(lambda: agent.events("backup.failed"), "the base backup to give way")
        self.assertIn("WAL goes first", failed[0]["message"])
        self.assertIn("reserve", failed[0]["message"])
        self.assertNotEqual(asked.wait(60), 0)
        self.assertTrue(self.step(agent, "spill"))
        # WAL goes on into the reserve.
        self.note(self.server, 2)
        agent.wait_until_flushed()
        self.assertEqual(agent.backup_count(), 1)
        self.free()
        wait_until(lambda: self.step(agent, "fine"), "the reserve to be whole again")
        self.assertEqual(self.numbers("latest"), [1, 2])


if __name__ == "__main__":
    unittest.main()
