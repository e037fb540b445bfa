"""Every metric is exported, moves when it should, and passes promtool."""

import re
import shutil
import subprocess
import unittest

from agent_process import Agent
from cluster import Postgres
from faults import flip_bit, shim_environment
from harness import ROOT, StageCase, wait_until
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
        # Of several servers in one conninfo only: test_failover_hosts has them.
        # And of a second copy and a journal only: test_tiers and test_journal have one.
        elsewhere = {"walvault_standby_slot_ready", "walvault_offloaded_lag_seconds", "walvault_offload_up",
                     "walvault_journal_up", "walvault_journal_gaps_total",
                     "walvault_journal_slot_retained_bytes", "walvault_journal_slot_catalog_xmin_age"}

        def missing():
            exported = {series.split("{")[0] for series in self.agent.metrics()}
            return named - exported - {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported}

        # Some are known after the first look at the server.
        wait_until(lambda: missing() <= elsewhere, f"all of {sorted(named - elsewhere)}")
        self.assertEqual(missing(), elsewhere)

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

    def test_a_server_that_shut_down_is_told_from_one_that_was_lost(self):
        def disconnects():
            return {reason: self.value("walvault_stream_disconnects_total", f'reason="{reason}"')
                    for reason in ("server_ended", "connection_lost")}
        self.assertEqual(disconnects(), {"server_ended": 0, "connection_lost": 0})
        self.primary.stop("fast")
        wait_until(lambda: disconnects()["server_ended"] == 1, "the clean shutdown to be counted")
        self.assertEqual(self.value("walvault_stream_connected"), 0)
        self.primary.start()
        wait_until(lambda: self.value("walvault_stream_connected") == 1, "the stream to be back")
        lost = disconnects()["connection_lost"]
        self.primary.stop("immediate")
        wait_until(lambda: disconnects()["connection_lost"] > lost, "the lost connection to be counted")
        self.assertEqual(disconnects()["server_ended"], 1)

    def test_damaged_pages_of_the_server_and_a_failed_backup_are_seen_also_after_a_restart(self):
        make_table(self.primary, rows=3000)
        path = self.primary.data / self.primary.sql("select pg_relation_filepath('items')")
        self.primary.stop("fast")
        whole = path.read_bytes()
        for page in (0, 2, 3, 5):
            flip_bit(path, page * 8192 + 5000)
        self.primary.start()
        self.agent.wait_ready()
        self.assertNotEqual(self.agent.cli("backup", "--fast", expect=None).returncode, 0)
        wait_until(lambda: self.value("walvault_backups", 'state="failed"') == 1, "the failure to be counted")
        self.assertEqual(self.value("walvault_base_page_checksum_failures_total"), 4)
        self.assertEqual(self.value("walvault_backup_failures_total", 'reason="corrupt"'), 1)
        failed_at = self.value("walvault_backup_last_failure_timestamp_seconds")
        self.assertGreater(failed_at, self.value("walvault_backup_last_success_timestamp_seconds"))
        self.agent.stop()
        self.agent.start()
        wait_until(lambda: self.value("walvault_backups", 'state="failed"') == 1, "it to be known again")
        known_again = self.value("walvault_backup_last_failure_timestamp_seconds")
        self.assertAlmostEqual(known_again, failed_at, delta=5)
        self.primary.stop("fast")
        path.write_bytes(whole)
        self.primary.start()
        self.agent.wait_ready()
        self.agent.cli("backup", "--fast")
        wait_until(lambda: self.value("walvault_backup_last_success_timestamp_seconds") > failed_at,
                   "the success that ends the alert")

    def test_what_a_verify_finds_stays_known_until_one_finds_nothing(self):
        def damaged():
            return self.value("walvault_store_corrupt_chunks")
        self.assertEqual(damaged(), 0)
        pack = max((self.agent.repo / "main" / "base").glob("*_00001.pack"), key=lambda p: p.stat().st_size)
        flip_bit(pack, pack.stat().st_size // 2)
        self.agent.cli("verify", "--level", "chunks", expect=5)
        wait_until(lambda: damaged() > 0, "the damage to be exported")
        self.agent.stop()
        self.agent.start()
        wait_until(lambda: damaged() > 0, "the damage to be known again")
        flip_bit(pack, pack.stat().st_size // 2)
        self.agent.cli("verify", "--level", "chunks")
        wait_until(lambda: damaged() == 0, "the clean look to be exported")

    def test_what_the_repository_fails_at_is_counted_by_what_it_was(self):
        """The ledger on a disk that takes no syncs; a pack that cannot be read back."""
        self.agent.stop()
        armed, report = self.agent.directory / "armed", self.agent.directory / "report"
        self.agent.start(environment=shim_environment(
            self.stage, "sync", "error", 1, self.agent.repo / "ledger", report,
            FAULT_ARMED=str(armed), FAULT_STICKY="1"))
        read = self.value("walvault_store_read_bytes_total")
        self.assertGreater(read, 1000, "what is stored was compared with what came")
        self.assertEqual(self.value("walvault_store_errors_total", 'op="ledger"'), 0)
        self.stage.write(armed, "")
        self.agent.cli("backup", "--fast", expect=None)
        wait_until(lambda: self.value("walvault_store_errors_total", 'op="ledger"') > 0,
                   "the ledger's error to be counted")
        self.agent.kill9()

    def test_a_pack_that_cannot_be_read_is_counted(self):
        make_table(self.primary, rows=20000)
        self.agent.wait_until_flushed()
        self.agent.stop()
        self.agent.start()
        self.assertEqual(self.value("walvault_store_errors_total", 'op="read"'), 0)
        packs = list((self.agent.repo / "main" / "wal").iterdir())
        for path in packs:
            path.chmod(0)
        self.primary.sql("select pg_terminate_backend(pid) from pg_stat_replication")
        wait_until(lambda: self.agent.process.poll() is not None or
                   self.value("walvault_store_errors_total", 'op="read"') > 0,
                   "the failed read to be counted")
        self.assertIsNone(self.agent.process.poll(), "it ended before it was asked")
        for path in packs:
            path.chmod(0o600)

    def test_an_agent_without_trouble_counts_none(self):
        make_table(self.primary, rows=5000)
        self.agent.wait_until_flushed()
        for name in ("store_errors_total", "backup_failures_total", "stream_disconnects_total"):
            found = {series: value for series, value in self.agent.metrics().items()
                     if series.startswith(f"walvault_{name}")}
            self.assertGreater(len(found), 3)
            self.assertEqual({series: value for series, value in found.items() if value}, {})

    def test_probes_and_unknown_paths(self):
        self.assertEqual(self.agent.http("GET", "/livez", over_tcp=True)[0], 200)
        self.assertEqual(self.agent.http("GET", "/readyz", over_tcp=True)[0], 200)
        self.assertEqual(self.agent.http("GET", "/nothing", over_tcp=True)[0], 404)
        self.assertIn(self.agent.http("POST", "/v1/backup", over_tcp=True)[0], (403, 404, 405))


class ProducerTest(unittest.TestCase):
    """A metric that nothing sets is a promise that nobody keeps: every member has its place in the agent."""

    CATALOGUE = {"metrics_catalogue.h", "metrics_catalogue.cc"}

    def setUp(self):
        self.header = (ROOT / "agent" / "metrics_catalogue.h").read_text()
        self.users = "\n".join(path.read_text() for path in sorted((ROOT / "agent").glob("*.cc"))
                               if path.name not in self.CATALOGUE)

    def members(self):
        body = self.header.split("struct AgentMetrics {")[1].split("private:")[0]
        names = re.findall(r"^    (?:Gauge|Counter|Histogram|Kind|std::map<.*>) (\w+);", body, re.MULTILINE)
        return names + re.findall(r"^    void ((?:set|sync)_\w+)\(", body, re.MULTILINE)

    def test_every_member_is_set_outside_the_catalogue(self):
        self.assertGreater(len(self.members()), 45)
        unused = [name for name in self.members() if not re.search(rf"\b{name}\b", self.users)]
        self.assertEqual(unused, [])

    def test_every_reason_and_operation_is_one_that_something_tells(self):
        for kind in ("DisconnectReason", "StoreOperation", "BackupFailure"):
            values = re.search(rf"enum class {kind} {{(.*?)}}", self.header, re.DOTALL).group(1)
            names = re.findall(r"\w+", values)
            self.assertGreater(len(names), 4)
            with self.subTest(kind):
                self.assertEqual([name for name in names if f"{kind}::{name}" not in self.users], [])


if __name__ == "__main__":
    unittest.main()
