"""Connections that the server refuses for a while: nothing is lost, and the agent goes on by itself."""

import subprocess
import unittest

from agent_process import Agent
from cluster import PG_BIN, Postgres
from harness import StageCase, free_tcp_port, wait_until
from oracle import make_table


class ConnectionsTest(StageCase):
    tcp_port = None

    def protect(self, settings=None, **agent_settings):
        self.primary = Postgres.create(self.stage, settings=settings)
        if self.tcp_port:
            self.primary.port = self.tcp_port
            self.primary.configure({"port": self.tcp_port})
        self.primary.start()
        self.agent = Agent(self.stage, self.primary, **agent_settings)
        self.agent.allowed_events |= {"stream.lost", "server.unreachable"}
        return self.agent.protect()

    def connected(self, agent=None):
        agent = agent or self.agent
        return agent.metrics()['walvault_stream_connected{server="main"}'] == 1

    def refusals(self, text):
        return [event for event in self.agent.events("stream.lost") if text in event["message"]]

    def check_nothing_is_missing(self):
        self.agent.wait_until_flushed()
        self.assertEqual(self.agent.json("info", "--gaps")["gaps"], [])
        self.agent.cli("verify", "--level", "wal")

    def test_c06_a_second_agent_waits_for_the_slot_and_takes_nothing(self):
        self.protect()
        make_table(self.primary, rows=1000)
        other = Agent(self.stage, self.primary, name="other")
        other.allowed_events |= {"stream.lost"}
        other.init()
        other.start(wait=False)
        wait_until(lambda: [event for event in other.events("stream.lost") if "is active" in event["message"]],
                   "the second agent to be refused")
        make_table(self.primary, "meanwhile", rows=1000)
        self.check_nothing_is_missing()
        self.assertEqual(self.agent.events("stream.lost"), [])
        self.assertEqual(self.primary.sql("select count(*) from pg_replication_slots"), "1")
        self.agent.stop()
        wait_until(other.is_ready, "the second agent to follow once the first has left")
        other.stop()

    def test_c19_no_walsender_is_left_for_a_while(self):
        self.protect(settings={"max_wal_senders": 2})
        self.agent.kill9()
        holders = [self.receiver(number) for number in range(2)]
        wait_until(lambda: self.primary.sql("select count(*) from pg_stat_replication") == "2",
                   "others to take both walsenders")
        self.agent.start(wait=False)
        wait_until(lambda: self.refusals("max_wal_senders"), "the agent to be refused")
        make_table(self.primary, rows=1000)
        for holder in holders:
            holder.terminate()
            holder.wait()
        self.agent.wait_ready()
        self.check_nothing_is_missing()

    def receiver(self, number):
        directory = self.stage.make_directory(f"taken-{number}")
        return self.stage.start([PG_BIN / "pg_receivewal", "-D", directory, "-d", self.primary.conninfo],
                                log=self.stage.directory / f"taken-{number}.log")

    def test_c20_a_role_that_may_not_log_in_for_a_while(self):
        self.protect()
        self.primary.sql("create role keeper superuser login")
        self.primary.sql("alter role postgres nologin")
        self.primary.psql("-U", "keeper", "-c", "select pg_terminate_backend(pid) from pg_stat_activity "
                          "where usename = 'postgres'")
        wait_until(lambda: self.refusals("not permitted to log in"), "the agent to be refused")
        self.primary.psql("-U", "keeper", "-c", "alter role postgres login")
        wait_until(self.connected, "the agent to be back")
        make_table(self.primary, rows=1000)
        self.check_nothing_is_missing()

    def test_c21_tls_with_the_servers_certificate_checked(self):
        self.make_certificates()
        self.tcp_port = free_tcp_port()
        self.protect(settings={"ssl": "on", "listen_addresses": "'127.0.0.1'",
                               "ssl_cert_file": f"'{self.stage.directory}/server.crt'",
                               "ssl_key_file": f"'{self.stage.directory}/server.key'"},
                     conninfo=self.tls_conninfo("server.crt"))
        make_table(self.primary, rows=1000)
        self.check_nothing_is_missing()
        encrypted = self.primary.sql("select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) "
                                     "where application_name like 'walvault%'")
        self.assertEqual(encrypted, "t")
        stranger = Agent(self.stage, self.primary, name="stranger", conninfo=self.tls_conninfo("other.crt"))
        stranger.cli("key", "generate", "--out", stranger.key)
        error = stranger.error("init", "--conninfo", self.tls_conninfo("other.crt"), expect=None)
        self.assertIn("certificate", error["message"])

    def make_certificates(self):
        for name in ("server", "other"):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                            "-keyout", f"{self.stage.directory}/{name}.key",
                            "-out", f"{self.stage.directory}/{name}.crt"], check=True, capture_output=True)
            for end in ("key", "crt"):
                self.stage.give(self.stage.directory / f"{name}.{end}")

    def tls_conninfo(self, certificate):
        return (f"host=127.0.0.1 port={self.tcp_port} user=postgres dbname=postgres sslmode=verify-full "
                f"sslrootcert={self.stage.directory}/{certificate}")


if __name__ == "__main__":
    unittest.main()
