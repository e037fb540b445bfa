"""SIGHUP: what is taken at once, what is named as waiting for a restart, what is refused."""

import time
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import StageCase, free_tcp_port, lsn_number, wait_until
from oracle import make_table


class ReloadTest(StageCase):
    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage).start()

    def protect(self, **settings):
        self.agent = Agent(self.stage, self.primary, **settings).protect()

    def metric(self, name):
        return next(value for series, value in self.agent.metrics().items()
                    if series.split("{")[0] == name)

    def test_the_flush_interval_is_taken(self):
        self.protect(flush_interval="10s")
        self.agent.reload('flush_interval = "10s"', 'flush_interval = "10ms"')
        began = time.monotonic()
        for number in range(4):
            self.primary.sql(f"create table t{number} ()")
            self.agent.wait_until_flushed()
        # Less than four times the old interval by far.
        self.assertLess(time.monotonic() - began, 25)

    def test_the_pack_size_is_taken(self):
        self.protect(pack_size="64MiB")
        make_table(self.primary, rows=60000)
        flushed = self.agent.wait_until_flushed()
        self.assertLess(lsn_number(self.agent.status()["closed_lsn"]), flushed)
        self.agent.reload('pack_size = "64MiB"', 'pack_size = "1MiB"')
        make_table(self.primary, "more")
        wait_until(lambda: lsn_number(self.agent.status()["closed_lsn"]) >= flushed,
                   "the tail to be closed at its new size")

    def test_goals_and_the_form_of_the_log_are_taken(self):
        self.protect()
        self.agent.reload('time_zone = "Etc/UTC"', 'time_zone = "Etc/UTC"\nrpo_target = "7s"')
        self.assertEqual(self.metric("walvault_rpo_target_seconds"), 7)
        self.agent.reload_with('format = "json"', 'format = "text"')
        wait_until(lambda: " config.reloaded config=" in self.agent.log.read_text(), "a line of text")

    def test_what_counts_only_from_the_next_start_is_named(self):
        self.protect()
        self.agent.reload(f"127.0.0.1:{self.agent.port}", f"127.0.0.1:{free_tcp_port()}")
        self.assertEqual([line["keys"] for line in self.agent.events("config.restart_needed")],
                         ["web.listen"])
        self.assertEqual(self.agent.http("GET", "/livez", over_tcp=True)[0], 200)
        self.agent.reload('slot = "walvault"', 'slot = "another"')
        self.assertEqual(self.agent.events("config.restart_needed")[-1]["keys"],
                         "server.main.slot, web.listen")

    def test_a_broken_configuration_is_refused_and_the_old_one_kept(self):
        self.protect()
        self.agent.reload_with("slot =", "slott =")
        wait_until(lambda: self.agent.events("config.refused"), "the broken configuration to be refused")
        self.assertEqual(self.metric("walvault_config_last_reload_successful"), 0)
        make_table(self.primary)
        self.agent.wait_until_flushed()
        self.agent.reload("slott =", "slot =")
        self.assertEqual(self.metric("walvault_config_last_reload_successful"), 1)


if __name__ == "__main__":
    unittest.main()
