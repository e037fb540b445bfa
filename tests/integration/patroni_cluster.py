"""Three PostgreSQL nodes under Debian's Patroni, with an etcd of their own, all on loopback."""

import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import urllib.error
import urllib.request

from cluster import Session
from harness import PG_BIN, lsn_number, wait_until

# The smallest that Patroni accepts: a dead leader's key lasts `ttl` seconds.
TIMING = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3}
NODE = """
scope: oracle
namespace: /walvault-test/
name: {name}
restapi:
  listen: 127.0.0.1:{rest_port}
  connect_address: 127.0.0.1:{rest_port}
etcd3:
  host: 127.0.0.1:{etcd_port}
bootstrap:
  dcs:
    ttl: {ttl}
    loop_wait: {loop_wait}
    retry_timeout: {retry_timeout}
    maximum_lag_on_failover: 1048576
    ignore_slots:
    - name: walvault
      type: physical
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        max_connections: 50
        wal_keep_size: 2GB
        wal_log_hints: "on"
        fsync: "off"
        shared_buffers: 16MB
        max_wal_senders: 10
        max_replication_slots: 10
        track_commit_timestamp: "on"
        timezone: UTC
        log_timezone: UTC
        log_line_prefix: '%m [%p] %a '
        log_checkpoints: "off"
  initdb:
  - encoding: UTF8
  - locale: C.UTF-8
  - data-checksums
  - no-sync
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  data_dir: {data}
  bin_dir: {programs}
  pgpass: {directory}/pgpass
  remove_data_directory_on_diverged_timelines: true
  remove_data_directory_on_rewind_failure: true
  authentication:
    superuser: {{username: postgres}}
    replication: {{username: postgres}}
    rewind: {{username: postgres}}
  parameters:
    unix_socket_directories: '{sockets}'
  pg_hba:
  - local all all trust
  - host all all 127.0.0.1/32 trust
  - host replication all 127.0.0.1/32 trust
"""


def lasting_port():
    """One that no outgoing connection is given while its owner is down: those come from a range above."""
    while True:
        port = random.randrange(15000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class PatroniNode:
    """A Patroni and the postmaster it has started."""

    def __init__(self, cluster, name):
        self.cluster = cluster
        self.stage = cluster.stage
        self.name = name
        self.port = lasting_port()
        self.rest_port = lasting_port()
        self.directory = self.stage.make_directory("patroni", name)
        self.data = self.directory / "data"
        self.sockets = self.stage.make_directory("s", name)
        self.log = self.stage.directory / f"patroni-{name}.log"
        self.config = self.directory / "patroni.yml"
        self.process = None
        self.stage.write(self.config, NODE.format(
            name=name, port=self.port, rest_port=self.rest_port, etcd_port=cluster.etcd_port, data=self.data,
            programs=PG_BIN, directory=self.directory, sockets=self.sockets, **TIMING))

    def start(self):
        self.process = self.stage.start(["/usr/bin/patroni", self.config], log=self.log)
        return self

    def state(self):
        """What its REST interface says, or {} while nothing answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}/patroni", timeout=5) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return json.load(error)
        except (OSError, ValueError):
            return {}

    def is_leader(self):
        state = self.state()
        return state.get("state") == "running" and state.get("role") in ("master", "primary")

    def is_streaming_replica(self, timeline):
        """On the leader's timeline, so that it can take over."""
        state = self.state()
        return (state.get("state") == "running" and state.get("role") == "replica"
                and state.get("timeline") == timeline
                and self.sql("select count(*) from pg_stat_wal_receiver where status = 'streaming'") == "1")

    def postmaster_pid(self):
        return int((self.data / "postmaster.pid").read_text().splitlines()[0])

    def kill9(self):
        """Patroni first, which would start PostgreSQL again, then the postmaster."""
        pid = self.postmaster_pid()
        self.process.kill()
        self.process.wait()
        subprocess.run(["kill", "-9", str(pid)], check=True)
        wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists() or is_zombie(pid),
                   "the killed postmaster to be gone")

    def stop(self):
        """SIGTERM: Patroni ends PostgreSQL first."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        pid_file = self.data / "postmaster.pid"
        if pid_file.exists():
            subprocess.run(["kill", "-9", pid_file.read_text().splitlines()[0]], check=False)

    def sql(self, query):
        done = self.stage.run([PG_BIN / "psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1",
                               "-d", self.conninfo, "-c", query], check=False)
        return done.stdout.rstrip("\n") if done.returncode == 0 else None

    @property
    def conninfo(self):
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"


def is_zombie(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


class PatroniCluster:
    """etcd and three nodes; for clients one server that is wherever the leader is."""

    programs = PG_BIN

    def __init__(self, stage, names=("a", "b", "c")):
        self.stage = stage
        self.etcd_port = lasting_port()
        self.etcd = None
        self.nodes = [PatroniNode(self, name) for name in names]
        stage.closers.append(self.close)

    def start(self):
        peer = lasting_port()
        client_url = f"http://127.0.0.1:{self.etcd_port}"
        self.etcd = self.stage.start(
            ["/usr/bin/etcd", "--name", "one", "--data-dir", self.stage.make_directory("etcd"),
             "--listen-client-urls", client_url, "--advertise-client-urls", client_url,
             "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--unsafe-no-fsync",
             "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", f"one=http://127.0.0.1:{peer}"], log=self.stage.directory / "etcd.log")
        wait_until(lambda: self.stage.run(["etcdctl", "--endpoints", client_url, "endpoint", "health"],
                                          check=False, environment=self.stage.environment(ETCDCTL_API="3"))
                   .returncode == 0, "etcd")
        self.nodes[0].start()
        wait_until(self.leader, "the first leader")
        for node in self.nodes[1:]:
            node.start()
        return self.wait_whole()

    def close(self):
        for node in self.nodes:
            node.stop()

    def leader(self):
        return next((node for node in self.nodes if node.is_leader()), None)

    def wait_whole(self):
        """Until there is a leader, and both others follow it on its timeline."""
        def whole():
            leader = self.leader()
            if not leader:
                return None
            timeline = leader.state().get("timeline")
            return all(node.is_streaming_replica(timeline) for node in self.nodes if node is not leader)
        wait_until(whole, "one leader and two replicas that stream", 120, 0.2)
        return self

    def switch_over(self, candidate):
        """As an operator would; returns the new leader."""
        done = self.stage.run(["/usr/bin/patronictl", "-c", candidate.config, "switchover", "oracle", "--force",
                               "--candidate", candidate.name],
                              environment=self.stage.environment(LC_ALL="C.UTF-8", LANG="C.UTF-8"))
        if "Successfully switched over" not in done.stdout:
            raise AssertionError(f"patronictl: {done.stdout}\n{done.stderr}")
        wait_until(candidate.is_leader, f"{candidate.name} to lead")

    def cut_replicas_off(self):
        """Stops what receives WAL on them, without anybody noticing; for kill_leader()."""
        receivers = [int(node.sql("select pid from pg_stat_wal_receiver"))
                     for node in self.nodes if not node.is_leader()]
        for pid in receivers:
            os.kill(pid, signal.SIGSTOP)
        return receivers

    def kill_leader(self, cut_off=()):
        """kill -9, until Patroni by itself has made another one the leader. Returns the killed node.

        `cut_off`: the receivers that then go, without a look at what the dead leader had sent them.
        """
        victim = self.leader()
        victim.kill9()
        for pid in cut_off:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: next((node for node in self.nodes if node is not victim and node.is_leader()), None),
                   "Patroni to promote another node", 120, 0.2)
        return victim

    # --- what a client sees -----------------------------------------------------------------------

    @property
    def conninfo(self):
        hosts = ",".join("127.0.0.1" for _ in self.nodes)
        ports = ",".join(str(node.port) for node in self.nodes)
        return (f"host={hosts} port={ports} user=postgres dbname=postgres connect_timeout=3 "
                "target_session_attrs=read-write")

    def session(self):
        return Session(self.stage, ["-d", self.conninfo])

    def psql(self, *arguments, **options):
        return self.stage.run([PG_BIN / "psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1",
                               "-d", self.conninfo, *arguments], **options)

    def sql(self, query, **options):
        return self.psql("-c", query, **options).stdout.rstrip("\n")

    def rows(self, query):
        return [tuple(line.split("\t")) for line in self.sql(query).splitlines()]

    def current_lsn(self):
        return lsn_number(self.sql("select pg_current_wal_flush_lsn()"))
