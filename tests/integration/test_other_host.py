"""WAL that the primary has removed, streamed from another host of the conninfo: all of it, a part, none."""

import unittest

from cluster import Postgres
from harness import lsn_number, wait_until
from test_failover_hosts import HostsCase


class OtherHost(HostsCase):
    def protect_without_standby_slots(self, *servers, patience="5s"):
        agent = self.protect(*servers, server_lines=f'standby_slots = "off"\nwal_fetch_timeout = "{patience}"')
        agent.allowed_events |= {"wal.not_on_other_host"}
        return agent

    def make_keeping_standby(self):
        """A standby that keeps WAL which its primary forgets at once."""
        standby = self.make_standby()
        standby.stop()
        standby.start({"wal_keep_size": "1GB"})
        self.server.sql("alter system set wal_keep_size = '0'")
        self.server.sql("select pg_reload_conf()")
        return standby

    def stop_agent(self):
        """Row 1 is stored, row 2 is not, and no slot holds it; returns the segment that is needed next."""
        self.note(self.server, 1)
        self.agent.wait_until_flushed()
        self.agent.stop()
        needed = self.server.sql("select pg_walfile_name(pg_current_wal_lsn())")
        self.server.sql("select pg_drop_replication_slot('walvault')")
        self.note(self.server, 2)
        return needed

    def forget(self, needed, standby=None):
        """The primary removes `needed`; the standby, if there is one, replays all meanwhile."""
        for _ in range(4):
            self.churn(self.server, 2)
            if standby:
                self.wait_replayed(standby, self.server.current_lsn())
        self.assertFalse(self.server.wal_file(needed).exists(), "nothing was removed")

    def lose_wal(self, standby=None):
        self.forget(self.stop_agent(), standby)

    def come_back(self):
        self.agent.start()
        self.note(self.server, 3)
        self.agent.wait_until_flushed()

    def test_what_the_primary_has_removed_comes_from_its_standby(self):
        standby = self.make_keeping_standby()
        self.protect_without_standby_slots(self.server, standby)
        self.lose_wal(standby)
        self.come_back()
        self.assertEqual(self.info()["gaps"], [])
        came, = self.agent.events("wal.from_another_host")
        self.assertIn(str(standby.socket_directory), came["host"])
        self.assertEqual(self.numbers("latest"), [1, 2, 3])
        self.agent.cli("verify", "--level", "wal")

    def test_a_standby_that_has_removed_it_too_leaves_a_gap_that_says_so(self):
        standby = self.make_standby()
        self.server.sql("alter system set wal_keep_size = '0'")
        self.server.sql("select pg_reload_conf()")
        self.protect_without_standby_slots(self.server, standby)
        self.lose_wal(standby)
        for _ in range(2):
            standby.sql("checkpoint")
        self.come_back()
        gap, = self.info()["gaps"]
        self.assertIn(str(standby.socket_directory), gap["cause"])
        self.assertEqual(self.agent.events("wal.from_another_host"), [])

    def test_a_standby_that_went_its_own_way_gives_what_both_share_and_nothing_else(self):
        standby = self.make_keeping_standby()
        self.protect_without_standby_slots(self.server, standby)
        needed = self.stop_agent()
        self.churn(self.server, 2)
        self.wait_replayed(standby, self.server.current_lsn())
        self.promote(standby)
        self.note(standby, 90)
        self.note(self.server, 4)
        self.forget(needed)
        self.agent.allowed_events |= {"server.two_primaries"}
        self.come_back()
        gap, = self.info()["gaps"]
        self.assertGreaterEqual(lsn_number(gap["from_lsn"]),
                                lsn_number(self.agent.events("wal.from_another_host")[-1]["to_lsn"]))
        self.assertEqual(self.numbers(before="lsn:" + gap["from_lsn"]), [1, 2])
        self.agent.wait_for_backup(2)
        # Row 4 was only in the gap's WAL, but it is in the base backup behind it; 90 is nowhere.
        self.assertEqual(self.numbers("latest"), [1, 2, 3, 4])

    def test_another_cluster_among_the_hosts_is_not_believed(self):
        # Of another size of segments: tests copy a cluster of theirs from one template, identifier and all.
        other = Postgres.create(self.stage, "other", segment_mb=16)
        other.start()
        other.sql("create role walvault superuser login replication")
        self.protect_without_standby_slots(self.server, other)
        self.lose_wal()
        self.come_back()
        gap, = self.info()["gaps"]
        refused = self.agent.events("wal.not_on_other_host")
        self.assertIn("another cluster", refused[0]["message"])
        self.assertEqual(len(refused), 1, "it is not asked again")
        self.assertIsNotNone(gap)

    def test_a_host_that_is_down_is_waited_for(self):
        standby = self.make_keeping_standby()
        self.protect_without_standby_slots(self.server, standby, patience="10m")
        self.lose_wal(standby)
        standby.stop("immediate")
        self.agent.start(wait=False)
        wait_until(lambda: self.agent.events("wal.not_on_other_host"), "the host to be asked")
        self.assertEqual(self.info()["gaps"], [])
        standby.start()
        self.note(self.server, 3)
        self.agent.wait_until_flushed()
        self.assertEqual(self.info()["gaps"], [])
        self.assertEqual(self.numbers("latest"), [1, 2, 3])
        said = [line for line in self.agent.events("wal.not_on_other_host") if "No such file" in line["message"]]
        self.assertEqual(len(said), 1, "a host that stays away is warned of once")


if __name__ == "__main__":
    unittest.main()
