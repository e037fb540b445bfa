"""Several servers in one conninfo: which one is streamed, that everything leads to that one, and the slot kept ready
on the others."""

import contextlib
import math
import socket
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import lsn_number, wait_until
from test_histories import HistoryCase

EXPECTED = {"standby.not_ready", "standby.slot_made", "server.notice"}


class HostsCase(HistoryCase):
    """A primary and a standby in one conninfo; the agent's role is the one that init makes."""

    def setUp(self):
        super().setUp()
        self.server.sql("alter system set log_replication_commands = 'on'")
        self.server.sql("select pg_reload_conf()")

    def make_standby(self):
        """A second server, which forgets WAL as soon as it may; the first keeps what the second needs."""
        self.server.sql("alter system set wal_keep_size = '64MB'")
        self.server.sql("select pg_reload_conf()")
        standby = self.standby("standby")
        standby.stop()
        return standby.start({"wal_keep_size": "0"})

    def protect(self, *servers, wanted="read-write", name="agent", wait=True, **settings):
        hosts = ",".join(str(server.socket_directory) for server in servers)
        self.agent = Agent(self.stage, self.server, name=name,
                           conninfo=f"host={hosts} port={self.server.port} user=walvault dbname=postgres "
                                    f"target_session_attrs={wanted} connect_timeout=3", **settings)
        self.agent.allowed_events |= self.trouble | EXPECTED
        self.agent.protect()
        return self.agent

    trouble = {"stream.lost", "slot.made", "history.promoted", "gap.found", "history.opened"}

    def set_option(self, key, value):
        """Into [server.main], before the agent starts."""
        self.agent.write_config(self.agent.config.read_text().replace(
            'slot = "walvault"', f'slot = "walvault"\n{key} = "{value}"'))

    def host(self, server):
        return next(host for host in self.agent.status().get("hosts", [{"host": ""}])
                    if str(server.socket_directory) in host["host"])

    def slot_of(self, server):
        return server.rows("select restart_lsn, active from pg_replication_slots where slot_name = 'walvault'")

    def wait_streamed(self, server):
        wait_until(lambda: (self.slot_of(server) or [("", "f")])[0][1] == "t", f"{server.name} to be streamed from")

    def wait_ready(self, server):
        wait_until(lambda: self.host(server)["slot_ready"], f"the slot to be ready on {server.name}")


class WhichServer(HostsCase):
    def test_every_connection_leads_to_the_server_that_is_streamed(self):
        standby = self.make_standby()
        standby.stop()
        self.protect(standby, self.server, wanted="any")
        self.wait_streamed(self.server)
        # From now on the first host of the conninfo answers, and would be taken by a new connection.
        standby.start({"wal_keep_size": "0"})
        self.wait_ready(standby)
        seen = self.server.log.read_text().count("BASE_BACKUP")
        self.agent.cli("backup", "--fast")
        self.assertGreater(self.server.log.read_text().count("BASE_BACKUP"), seen)
        self.assertNotIn("BASE_BACKUP", standby.log.read_text())
        status = self.agent.status()
        self.assertTrue(status["slot_active"])
        self.assertTrue(self.host(self.server)["streamed"])
        self.assertFalse(self.host(standby)["streamed"])
        # What writes finds the primary, although it is the second one.
        self.agent.json("point", "here")

    def test_a_server_that_says_nothing_does_not_use_up_the_time_of_the_others(self):
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
            agent = Agent(self.stage, self.server)
            agent.settings["conninfo"] = (
                f"host=127.0.0.1,{self.server.socket_directory} port={silent.getsockname()[1]},"
                f"{self.server.port} user=postgres dbname=postgres connect_timeout=2 "
                "target_session_attrs=read-write")
            agent.write_config()
            agent.allowed_events |= EXPECTED
            agent.protect()
            self.note(self.server, 1)
            agent.wait_until_flushed()
            self.assertEqual(agent.events("stream.lost"), [])
            agent.stop()
            agent.check_log()

    def test_d01_d10_a_standby_is_preferred_and_followed_through_its_promotion(self):
        standby = self.make_standby()
        self.protect(self.server, standby, wanted="prefer-standby")
        self.wait_streamed(standby)
        self.note(self.server, 1)
        self.agent.wait_until_flushed(self.server.current_lsn())
        self.wait_ready(self.server)
        # The primary's slot is kept where the stream is, not held back where it is not used.
        self.assertTrue(self.slot_of(self.server))
        self.server.stop("immediate")
        self.promote(standby)
        self.note(standby, 2)
        self.agent.wait_until_flushed(standby.current_lsn())
        self.assertEqual([h["timeline"] for h in self.info()["histories"]], [1, 2])
        self.assertEqual(self.info()["gaps"], [])
        self.assertEqual(self.numbers("latest"), [1, 2])

    def test_init_writes_down_which_of_several_servers_is_wanted(self):
        standby = self.make_standby()
        config = self.stage.make_directory("fresh") / "walvault.toml"
        hosts = f"{standby.socket_directory},{self.server.socket_directory}"
        self.agent.cli("init", "--conninfo", f"host={hosts} port={self.server.port} user=postgres "
                       "target_session_attrs=primary connect_timeout=7", "--repo",
                       f"file://{self.stage.directory}/fresh/repo", config=config)
        text = config.read_text()
        self.assertIn(f"host={hosts}", text)
        self.assertIn("target_session_attrs=primary", text)
        self.assertIn("connect_timeout=7", text)


class StandbySlots(HostsCase):
    def fail_over_while_the_agent_is_down(self, standby):
        """The standby replays, forgets what no slot holds, and is promoted; then the agent comes back."""
        self.note(self.server, 1)
        self.agent.wait_until_flushed()
        flushed = self.agent.flushed_lsn()
        self.agent.stop()
        for _ in range(3):
            self.churn(self.server, 4)
            self.wait_replayed(standby, self.server.current_lsn())
            standby.sql("checkpoint")
        self.note(self.server, 2)
        self.wait_replayed(standby, self.server.current_lsn())
        for restart, _ in self.slot_of(standby):
            self.assertLessEqual(lsn_number(restart), flushed)
        self.server.stop("immediate")
        self.promote(standby)
        self.note(standby, 3)
        self.churn(standby, 4)
        self.agent.start()
        self.agent.wait_until_flushed(standby.current_lsn())

    def test_d03_d04_the_new_primary_has_what_is_needed_next(self):
        standby = self.make_standby()
        self.protect(self.server, standby)
        self.wait_ready(standby)
        self.fail_over_while_the_agent_is_down(standby)
        self.assertEqual(self.info()["gaps"], [])
        self.assertEqual(self.agent.events("slot.made"), [])
        self.assertEqual(self.numbers("latest"), [1, 2, 3])

    def test_d04_without_a_slot_on_the_standby_there_is_a_gap(self):
        standby = self.make_standby()
        self.protect(self.server, standby)
        self.wait_ready(standby)
        self.agent.stop()
        self.agent.cli("--yes", "detach")
        self.set_option("standby_slots", "off")
        # The old primary, which has it, does not come back.
        self.set_option("wal_fetch_timeout", "1s")
        self.agent.allowed_events.add("wal.not_on_other_host")
        self.agent.start()
        self.fail_over_while_the_agent_is_down(standby)
        self.assertEqual(len(self.info()["gaps"]), 1)

    def test_the_slot_on_a_standby_follows_is_shown_and_goes_with_detach(self):
        standby = self.make_standby()
        self.protect(self.server, standby)
        self.wait_ready(standby)
        before = lsn_number(self.slot_of(standby)[0][0])
        self.churn(self.server, 6)
        self.agent.wait_until_flushed()
        wait_until(lambda: lsn_number(self.slot_of(standby)[0][0]) > before + (2 << 20), "the slot to follow")
        self.assertLessEqual(lsn_number(self.slot_of(standby)[0][0]), self.agent.flushed_lsn())
        name = self.host(standby)["host"]
        labels = f'{{host="{name}",server="main",slot="walvault"}}'
        self.assertEqual(self.agent.metrics()[f"walvault_standby_slot_ready{labels}"], 1)
        self.assertIn(f"walvault_standby_slot_retained_bytes{labels}", self.agent.metrics())
        self.assertRegex(self.agent.cli("status").stdout, f"host +{name} +slot ready")
        # Somebody's cleaning up is noticed, and named.
        standby.sql("select pg_drop_replication_slot('walvault')")
        wait_until(lambda: self.slot_of(standby), "the slot to be made again")
        wait_until(lambda: [e for e in self.agent.events("standby.slot_made") if e["level"] == "warn"], "the warning")
        self.assertIn("ignore_slots", self.agent.events("standby.slot_made")[-1]["hint"])
        self.agent.reload('slot = "walvault"', 'slot = "walvault"\nstandby_slots = "off"')
        wait_until(lambda: "hosts" not in self.agent.status(), "the standbys to be left alone")
        self.assertTrue(math.isnan(self.agent.metrics()[f"walvault_standby_slot_ready{labels}"]))
        self.agent.stop()
        # A standby that is away keeps its slot, and detach says so.
        standby.stop()
        error = self.agent.error("--yes", "detach", expect=7)
        self.assertIn(str(standby.socket_directory), error["message"])
        self.assertNotIn(str(self.server.socket_directory), error["message"])
        self.assertEqual(self.slot_of(self.server), [])
        standby.start({"wal_keep_size": "0"})
        self.agent.cli("--yes", "detach")
        self.assertEqual(self.slot_of(standby), [])

    def test_trouble_with_a_standby_does_not_disturb_the_stream(self):
        standby = self.make_standby()
        self.protect(self.server, standby)
        self.wait_ready(standby)
        standby.stop()
        wait_until(lambda: not self.host(standby)["slot_ready"], "the standby to be missed")
        wait_until(lambda: self.agent.events("standby.not_ready"), "the warning")
        self.note(self.server, 1)
        self.agent.wait_until_flushed()
        self.assertEqual(self.agent.events("stream.lost"), [])
        standby.start({"wal_keep_size": "0", "max_wal_senders": "10"})
        self.wait_ready(standby)
        # A slot that is in use is somebody's.
        self.agent.stop()
        holder = self.stage.start(["pg_receivewal", "-D", self.stage.make_directory("held"), "-d",
                                   standby.conninfo, "-S", "walvault", "--no-loop"])
        wait_until(lambda: self.slot_of(standby)[0][1] == "t", "the slot to be in use")
        self.agent.start()
        wait_until(lambda: "somebody" in self.host(standby).get("problem", ""), "the foreign use to be seen")
        self.assertIsNone(holder.poll())
        self.agent.stop()
        self.agent.check_log()

    def test_d10_a_second_primary_is_an_error_in_the_log(self):
        standby = self.make_standby()
        self.protect(self.server, standby)
        self.wait_ready(standby)
        self.promote(standby)
        wait_until(lambda: self.agent.events("server.two_primaries"), "two primaries to be noticed")
        self.assertIn("primary", self.host(standby)["problem"])
        self.note(self.server, 1)
        self.agent.wait_until_flushed()


class Majors(HostsCase):
    """The functions that move a slot on a standby, as each server has them."""

    def check(self, major):
        programs = self.stage.postgres_programs(major)
        if programs is None:
            self.skipTest(f"PostgreSQL {major} is not installed: tests/install-postgres")
        primary = Postgres.create(self.stage, "of-major", segment_mb=1, programs=programs, settings={
            "max_wal_size": "2MB", "min_wal_size": "2MB", "wal_keep_size": "64MB", "hot_standby": "on"})
        standby = self.clone("standby", primary)
        standby.programs = programs
        standby.configure({"primary_conninfo": f"'host={primary.socket_directory} port={primary.port} user=postgres'"})
        self.stage.write(standby.data / "standby.signal", "")
        self.server = primary.start()
        standby.start()
        self.protect(primary, standby)
        self.wait_ready(standby)
        before = lsn_number(self.slot_of(standby)[0][0])
        primary.sql("create table t (n int, filler text)")
        self.note(primary, 1)
        self.churn(primary, 6)
        self.agent.wait_until_flushed()
        wait_until(lambda: lsn_number(self.slot_of(standby)[0][0]) > before + (2 << 20), "the slot to follow")
        primary.stop("immediate")
        self.promote(standby)
        self.note(standby, 2)
        self.agent.wait_until_flushed(standby.current_lsn())
        self.assertEqual([h["timeline"] for h in self.info()["histories"]], [1, 2])
        self.assertEqual(self.info()["gaps"], [])
        self.assertEqual(self.agent.events("slot.made"), [])

    def test_14(self):
        self.check(14)

    def test_16(self):
        self.check(16)

    def test_17(self):
        self.check(17)

    def test_18(self):
        self.check(18)


if __name__ == "__main__":
    unittest.main()
