"""The tools that are compared, each driven the way its manual says."""

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request

import measure
import server as servers
from measure import Run, Started

FLUSH_INTERVAL_SECONDS = 0.2


def pgbackrest_config(repository, scratch, server):
    """Its configuration in every comparison; `repository` are the lines that say where it stores."""
    return f"""[global]
{repository}
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=benchmark-only-passphrase-of-a-fair-length
compress-type=zst
compress-level=3
process-max=2
archive-async=y
spool-path={scratch}/spool
log-path={scratch}/log
lock-path={scratch}/lock
log-level-console=warn
log-level-file=off
start-fast=y

[main]
pg1-path={server.data}
pg1-socket-path={server.socket}
pg1-port={server.port}
pg1-user=postgres
"""


class PgReceivewal:
    """pg_receivewal with a slot of its own; plain, lz4, or flushing and answering at once."""

    application_name = "pg_receivewal"

    def __init__(self, server, scratch, compression):
        self.server = server
        self.name = f"pg_receivewal {compression}"
        self.compression = compression
        self.slot = f"bench_receivewal_{compression}"
        self.directory = f"{scratch}/receivewal-{compression}"
        self.log = f"{scratch}/receivewal-{compression}.log"
        self.started = None

    def _command(self):
        command = [f"{servers.BIN}/pg_receivewal", "-d", self.server.conninfo(), "-S", self.slot,
                   "-D", self.directory, "-n"]
        return command + {"plain": [], "lz4": ["--compress=lz4"], "synchronous": ["--synchronous"]}[self.compression]

    def drain(self, keeper, start, end):
        self.server.copy_slot(keeper, self.slot)
        servers.make_directory(self.directory)
        # It stops once it has gone past this position: one byte short of the boundary.
        command = self._command() + [f"--endpos={servers.lsn_text(end - 1)}"]
        measure.settle(f"{self.server.data}/pg_wal")
        run = Started(command, "receivewal", self.log).finish()
        run.stored_bytes = measure.tree_bytes(self.directory)
        got = len([name for name in os.listdir(self.directory) if not name.endswith(".partial")])
        if got < len(self.server.segments(start, end)):
            raise RuntimeError(f"{self.name} left {got} segments, expected "
                               f"{len(self.server.segments(start, end))}")
        self.clean()
        return run

    def attach(self):
        self.server.sql(f"SELECT pg_create_physical_replication_slot('{self.slot}', true)")
        servers.make_directory(self.directory)
        # It reports its position when asked or on this interval; ten seconds are its default.
        self.started = Started(self._command() + ["--status-interval=1"], "receivewal", self.log)
        wait_streaming(self.server, "pg_receivewal")

    def wait_synchronous(self):
        """It is so by its command line."""

    def detach(self):
        run = self.started.finish(signal=signal.SIGINT)
        self.clean()
        return run

    def clean(self):
        self.server.drop_slot(self.slot)
        shutil.rmtree(self.directory)


class PgBackRest:
    """pgBackRest: asynchronous, process-max 2, zst level 3, aes-256-cbc."""

    name = "pgBackRest"

    def __init__(self, server, scratch):
        self.server = server
        self.scratch = f"{scratch}/pgbackrest"
        self.repo = f"{self.scratch}/repo"
        self.config = f"{self.scratch}/pgbackrest.conf"
        self.log = f"{scratch}/pgbackrest.log"
        self.group = None

    def prepare(self):
        """An empty repository and spool, and a stanza."""
        self.clean()
        for part in ("", "/repo", "/spool", "/log", "/lock"):
            servers.make_directory(self.scratch + part)
        servers.write_text(self.config, pgbackrest_config(f"repo1-path={self.repo}", self.scratch, self.server))
        measure.as_user(self._command("stanza-create"))

    def _command(self, *arguments):
        return ["/usr/bin/pgbackrest", f"--config={self.config}", "--stanza=main", *arguments]

    def archive_command(self):
        return " ".join(self._command("archive-push", "%p"))

    def drain(self, keeper, start, end):
        """PostgreSQL's archiver hands over the backlog; done when its last segment is archived."""
        self.prepare()
        self.server.set_archive_command("")
        self.server.skip_archiving()
        self.server.archive_again(start, end)
        measure.settle(f"{self.server.data}/pg_wal")
        group = measure.Group("pgbackrest")
        archiver = self.server.archiver_pid()
        group.adopt(archiver)
        last = f"{self.server.data}/pg_wal/archive_status/{self.server.segments(start, end)[-1]}.done"
        began = time.monotonic()
        self.server.set_archive_command(self.archive_command())
        servers.wait_until(lambda: os.path.exists(last), "the backlog is not archived", 3600)
        run = self._finish_archiving(group, archiver, time.monotonic() - began)
        run.stored_bytes = measure.tree_bytes(f"{self.repo}/archive")
        self.clean()
        return run

    def stop_archiving(self):
        """Archiving off, and no process of it left: the archiver may be within a command."""
        self.server.set_archive_command("")
        servers.wait_until(lambda: not measure.processes_with(self.config),
                           "pgBackRest is still archiving", 120)

    def _finish_archiving(self, group, archiver, wall):
        self.stop_archiving()
        group.wait_empty(but=(archiver,), timeout_seconds=120)
        group.release(archiver)
        run = Run(wall, group)
        group.close()
        return run

    def attach(self):
        self.prepare()
        self.server.skip_archiving()
        self.group = measure.Group("pgbackrest")
        self.archiver = self.server.archiver_pid()
        self.group.adopt(self.archiver)
        self.began = time.monotonic()
        self.server.set_archive_command(self.archive_command())

    def detach(self):
        run = self._finish_archiving(self.group, self.archiver, time.monotonic() - self.began)
        self.server.skip_archiving()
        self.clean()
        return run

    def archive_now(self):
        """Archiving on, without accounting; for backups, which wait for their WAL."""
        self.server.skip_archiving()
        self.server.set_archive_command(self.archive_command())

    def backup(self):
        run = Started(self._command("--type=full", "backup"), "pgbackrest-backup", self.log).finish()
        run.stored_bytes = measure.tree_bytes(f"{self.repo}/backup")
        return run

    def restore(self, into, *options):
        servers.make_directory(into)
        return Started(self._command(f"--pg1-path={into}", "--archive-mode=off", *options, "restore"),
                       "pgbackrest-restore", self.log).finish()

    def clean(self):
        shutil.rmtree(self.scratch, ignore_errors=True)


class Walvault:
    """walvault as installed: one process, the settings of its example configuration."""

    name = "walvault"
    application_name = "walvault"

    def __init__(self, server, scratch, binary):
        self.server = server
        self.binary = binary
        self.scratch = f"{scratch}/walvault"
        self.repo = f"{self.scratch}/repo"
        self.config = f"{self.scratch}/walvault.toml"
        self.key = f"{self.scratch}/repo.key"
        self.log = f"{scratch}/walvault.log"
        self.web_port = server.port + 1
        self.started = None

    def prepare(self):
        """A new key and a new, empty repository."""
        self.clean()
        servers.make_directory(self.scratch)
        self.run_verb("key", "generate", "--out", self.key, with_config=False)
        servers.write_text(self.config, f"""config_version = 1

[server.main]
conninfo = "{self.server.conninfo()}"
slot = "walvault"
flush_interval = "{int(FLUSH_INTERVAL_SECONDS * 1000)}ms"

[server.main.backup]
every = "off"
checkpoint = "fast"

[repo.primary]
url = "file://{self.repo}"
reserve = "1%"

[encryption]
key = "file:{self.key}"

[web]
listen = "127.0.0.1:{self.web_port}"
""")
        self.run_verb("init")

    def _command(self, *arguments):
        return [self.binary, "--config", self.config, *arguments]

    def run_verb(self, *arguments, with_config=True, timeout=600):
        command = self._command(*arguments) if with_config else [self.binary, *arguments]
        return measure.as_user(command, timeout=timeout)

    def drain(self, keeper, start, end):
        self.prepare()
        self.server.copy_slot(keeper, "walvault")
        measure.settle(f"{self.server.data}/pg_wal")
        run = Started(self._command("run", "--once"), "walvault", self.log).finish()
        run.stored_bytes = measure.tree_bytes(self.repo)
        run.extra["index_bytes"] = measure.tree_bytes(f"{self.repo}/index")
        for name in (self.server.segments(start, end)[0], self.server.segments(start, end)[-1]):
            self._require_same_segment(name)
        self.server.drop_slot("walvault")
        self.clean()
        return run

    def _require_same_segment(self, name):
        """What wal-get returns is PostgreSQL's own segment, byte for byte."""
        copy = f"{self.scratch}/{name}"
        self.run_verb("wal-get", name, copy)
        with open(copy, "rb") as ours, open(f"{self.server.data}/pg_wal/{name}", "rb") as theirs:
            if ours.read() != theirs.read():
                raise RuntimeError(f"wal-get {name} is not PostgreSQL's segment")
        os.unlink(copy)

    def attach(self):
        """The agent at work, with the base backup behind it that it takes by itself at first."""
        self.prepare()
        self.start()
        servers.wait_until(lambda: 'walvault_backups{server="main",state="complete"} 1' in self.metrics(),
                           "the first base backup is not complete", 600)

    def start(self):
        self.started = Started(self._command("run"), "walvault", self.log)
        wait_streaming(self.server, "walvault")

    def wait_synchronous(self):
        """It looks every few seconds whether commits wait for it."""
        servers.wait_until(lambda: 'walvault_stream_synchronous{server="main"} 1' in self.metrics(),
                           "walvault does not know that commits wait for it", 60)

    def detach(self):
        run = self.stop()
        self.server.drop_slot("walvault")
        self.clean()
        return run

    def stop(self):
        return self.started.finish(signal=signal.SIGTERM)

    def backup(self):
        """The first base backup of an empty repository, by a command that attaches by itself."""
        run = Started(self._command("backup"), "walvault-backup", self.log).finish()
        run.stored_bytes = measure.tree_bytes(self.repo, without=("index",))
        return run

    def restore(self, into, *options):
        return Started(self._command("restore", *options, "--pgdata", into), "walvault-restore",
                       self.log).finish()

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    def clean(self):
        shutil.rmtree(self.scratch, ignore_errors=True)


def histogram(exposition, name):
    """Cumulative counts by upper bound, summed over the series of `name`."""
    counts = {}
    for line in exposition.splitlines():
        match = re.match(rf'{name}_bucket{{.*le="([^"]+)"}} ([0-9.e+]+)', line)
        if match:
            bound = float("inf") if match.group(1) == "+Inf" else float(match.group(1))
            counts[bound] = counts.get(bound, 0) + float(match.group(2))
    return counts


def histogram_quantile(before, after, quantile):
    """As Prometheus does: linear within the bucket; None without observations."""
    bounds = sorted(after)
    counts = [after[bound] - before.get(bound, 0) for bound in bounds]
    if not counts or counts[-1] == 0:
        return None
    wanted = quantile * counts[-1]
    below_bound, below_count = 0.0, 0.0
    for bound, count in zip(bounds, counts):
        if count >= wanted:
            if bound == float("inf"):
                return below_bound
            return below_bound + (bound - below_bound) * (wanted - below_count) / (count - below_count)
        below_bound, below_count = bound, count
    return below_bound


def wait_streaming(server, application):
    servers.wait_until(
        lambda: server.sql("SELECT count(*) FROM pg_stat_replication "
                           f"WHERE application_name LIKE '{application}%' AND state = 'streaming'") != "0",
        f"{application} is not streaming", 60)


def start_postgres(data, port, socket):
    """Starts a restored cluster without waiting; gives the Started whose group holds every process."""
    return Started([f"{servers.BIN}/postgres", "-D", data, "-p", port, "-c", "listen_addresses=",
                    "-c", f"unix_socket_directories={socket}"], "restored", f"{socket}/restored.log")


def promoted(port, socket):
    """True once the server takes connections and has left recovery."""
    done = subprocess.run([f"{servers.BIN}/psql", "-XAtq", "-h", socket, "-p", str(port), "-U", "postgres",
                           "-d", "postgres", "-c", "SELECT pg_is_in_recovery()"],
                          capture_output=True, text=True, env=measure.environment())
    return done.stdout.strip() == "f"
