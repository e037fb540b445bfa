"""C08: ten minutes in which nothing happens."""

import pathlib
import time
import unittest
import urllib.request
import json

from agent_process import Agent
from cluster import Postgres
from harness import ROOT, StageCase, free_tcp_port, wait_until

MINUTES = 10
GROWTH_BYTES_PER_MINUTE_MAX = 1000

PROMETHEUS = """global:
  scrape_interval: 5s
  evaluation_interval: 5s
rule_files: ["{rules}"]
scrape_configs:
  - job_name: walvault
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class IdleTest(StageCase):
    def test_an_idle_server_is_restorable_until_now_at_no_cost_and_without_an_alarm(self):
        # A new cluster is vacuumed and analyzed by itself in its first minutes: that is not idle.
        primary = Postgres.create(self.stage, settings={"autovacuum": "off"}).start()
        agent = Agent(self.stage, primary, flush_interval="200ms").protect()
        # What the base backup left the server to write is over with a checkpoint.
        primary.sql("checkpoint")
        agent.wait_until_flushed()
        prometheus = self.start_prometheus(agent)
        sizes = [self.stored_bytes(agent)]
        until = [self.recoverable_until(agent)]
        for minute in range(MINUTES):
            ends = time.monotonic() + 60
            wait_until(lambda: time.monotonic() >= ends, "the minute to pass", timeout=90, every=1)
            sizes.append(self.stored_bytes(agent))
            until.append(self.recoverable_until(agent))
            self.assertGreater(until[-1], until[-2] + 45, f"minute {minute}: the newest restorable moment stands still")
            self.assertLess(time.time() - until[-1], 25, f"minute {minute}: it is behind the clock")
            self.assertEqual(self.alerts(prometheus), [])
            self.assertTrue(agent.is_ready())
        print(f"NOTE stored bytes per minute: {[b - a for a, b in zip(sizes, sizes[1:])]}")
        self.assertLess(sizes[-1] - sizes[0], MINUTES * GROWTH_BYTES_PER_MINUTE_MAX)
        agent.check_log()
        self.assertGreater(self.scrapes(prometheus), MINUTES * 10, "Prometheus has not looked")

        # What was proved quiet can be restored to: no commit is missing, none came later.
        target = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(until[-2]))
        agent.cli("resolve", f"time:{target}")

    @staticmethod
    def stored_bytes(agent):
        """What the agent has made durable; its index is a view, which RocksDB rewrites as it likes."""
        files = [path for part in ("main", "ledger", "keyring", "writer")
                 for path in (pathlib.Path(agent.repo) / part).rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in files)

    @staticmethod
    def recoverable_until(agent):
        return next(value for series, value in agent.metrics().items()
                    if series.startswith("walvault_recoverable_until_timestamp_seconds"))

    def start_prometheus(self, agent):
        port = free_tcp_port()
        config = self.stage.directory / "prometheus.yml"
        rules = ROOT / "deploy" / "prometheus" / "walvault.rules.yml"
        copy = self.stage.directory / "walvault.rules.yml"
        self.stage.write(copy, rules.read_text())
        self.stage.write(config, PROMETHEUS.format(rules=copy, port=agent.port))
        self.stage.start(["prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}",
                          f"--storage.tsdb.path={self.stage.make_directory('prometheus')}"],
                         log=self.stage.directory / "prometheus.log")
        wait_until(lambda: self.scrapes(port) >= 1, "the first scrape")
        return port

    @staticmethod
    def ask(port, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def alerts(self, port):
        """Names of the alerts that fire."""
        answer = self.ask(port, "alerts")
        self.assertIsNotNone(answer, "Prometheus does not answer")
        return sorted({alert["labels"]["alertname"] for alert in answer["alerts"] if alert["state"] == "firing"})

    def scrapes(self, port):
        answer = self.ask(port, "query?query=count_over_time(walvault_stream_connected[1h])")
        return int(answer["result"][0]["value"][1]) if answer and answer["result"] else 0


if __name__ == "__main__":
    unittest.main()
