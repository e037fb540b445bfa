"""Every metric is exported, moves when it should, and passes promtool."""

import re
import shutil
import subprocess
import unittest

from agent_process import Agent
from cluster import Postgres
from harness import StageCase, wait_until
from metrics_in_rules import metrics_in_rules
from oracle import make_table


class MetricsTest(StageCase):
    def setUp(self):
        super().setUp()
        self.primary = Postgres.create(self.stage).start()
        self.agent = Agent(self.stage, self.primary).protect()

    def value(self, name, *labels):
        """The value of the one series of `name` whose labels contain all of `labels`."""
        found = [value for series, value in self.agent.metrics().items()
                 if series.split("{")[0] == name and all(label in series for label in labels)]
        self.assertEqual(len(found), 1, f"{name} with {labels}: {found}")
        return found[0]

    def test_promtool_accepts_the_scrape(self):
        if shutil.which("promtool") is None:
            self.skipTest("promtool is not installed (package prometheus)")
        text = self.agent.http("GET", "/metrics", over_tcp=True)[1]
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stderr.strip(), "")

    def test_every_metric_named_in_the_alert_rules_is_exported(self):
        named = set(metrics_in_rules())
        self.assertGreater(len(named), 5, "found no rules")
        exported = {series.split("{")[0] for series in self.agent.metrics()}
        exported |= {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported}
        self.assertEqual(named - exported, set())

    def test_positions_follow_the_stream(self):
        before = self.value("walvault_durable_lsn_bytes")
        received = self.value("walvault_stream_received_bytes_total")
        make_table(self.primary, rows=20000)
        flushed = self.agent.wait_until_flushed()
        wait_until(lambda: self.value("walvault_durable_lsn_bytes") >= flushed, "the gauge to follow")
        self.assertGreater(flushed, before)
        self.assertGreater(self.value("walvault_stream_received_bytes_total"), received + 1_000_000)
        self.assertEqual(self.value("walvault_stream_connected"), 1)
        self.assertGreater(self.value("walvault_commit_durable_seconds_count"), 0)
        self.assertGreater(self.value("walvault_flush_duration_seconds_count"), 0)
        self.assertLess(abs(self.value("walvault_clock_offset_seconds")), 5)

    def test_positions_are_ordered(self):
        make_table(self.primary, rows=5000)
        self.agent.wait_until_flushed()
        scrape = self.agent.metrics()
        order = [next(value for series, value in scrape.items()
                      if series.startswith(f"walvault_{name}_lsn_bytes"))
                 for name in ("acknowledged", "durable", "written", "received")]
        self.assertEqual(order, sorted(order))

    def test_the_first_base_backup_is_counted(self):
        self.assertEqual(self.value("walvault_backups", 'state="complete"'), 1)
        self.assertGreater(self.value("walvault_backup_last_success_timestamp_seconds"), 1.7e9)
        self.assertGreater(self.value("walvault_backup_last_logical_bytes"), 10 << 20)
        self.assertGreater(self.value("walvault_store_stored_bytes", 'kind="base"'), 1 << 20)
        self.assertEqual(self.value("walvault_backup_running"), 0)

    def test_the_slot_is_seen(self):
        wait_until(lambda: self.value("walvault_slot_active") == 1, "the slot to be seen as active")
        self.assertEqual(self.value("walvault_slot_wal_status", 'status="reserved"'), 1)
        self.assertGreater(self.value("walvault_slot_retained_limit_bytes"), 0)

    def test_an_idle_server_stays_recoverable_until_now(self):
        first = self.value("walvault_recoverable_until_timestamp_seconds")
        wait_until(lambda: self.value("walvault_recoverable_until_timestamp_seconds") > first + 1,
                   "the newest restorable moment to move on without a commit")
        self.assertEqual(self.value("walvault_recoverable_gaps"), 0)

    def test_a_lost_server_is_seen(self):
        self.primary.stop("fast")
        wait_until(lambda: self.value("walvault_stream_connected") == 0, "the lost stream to be seen")
        self.primary.start()
        wait_until(lambda: self.value("walvault_stream_connected") == 1, "the stream to be back")

    def test_probes_and_unknown_paths(self):
        self.assertEqual(self.agent.http("GET", "/livez", over_tcp=True)[0], 200)
        self.assertEqual(self.agent.http("GET", "/readyz", over_tcp=True)[0], 200)
        self.assertEqual(self.agent.http("GET", "/nothing", over_tcp=True)[0], 404)
        self.assertIn(self.agent.http("POST", "/v1/backup", over_tcp=True)[0], (403, 404, 405))


if __name__ == "__main__":
    unittest.main()
