"""PostgreSQL servers of a test: made from a cached initdb, reached over a unix socket only."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

from harness import PG_BIN, lsn_number, wait_until

SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",  # processes are killed here, never the kernel
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "shared_buffers": "'16MB'",
    "track_commit_timestamp": "on",
    "log_line_prefix": "'%m [%p] %a '",
    "log_checkpoints": "off",
    "timezone": "'UTC'",
    "log_timezone": "'UTC'",
}


def initdb_template(stage, segment_mb, programs=PG_BIN):
    """A cluster directory to copy, made once for all suites of a run."""
    # Of PostgreSQL in .../MAJOR/bin.
    name = f"template-{programs.parent.name}-{segment_mb}"
    cache = os.environ.get("WALVAULT_TEST_CACHE", tempfile.gettempdir())
    if "WALVAULT_TEST_CACHE" not in os.environ:
        return _make_template(stage, stage.directory / name, segment_mb, programs)
    template = pathlib.Path(cache) / name
    if not template.exists():
        made = _make_template(stage, stage.directory / name, segment_mb, programs)
        shared = pathlib.Path(tempfile.mkdtemp(prefix="t-", dir=cache))
        stage.copy_tree(made, shared / "data")
        try:
            os.rename(shared / "data", template)
        except OSError:  # another suite was first
            shutil.rmtree(shared / "data")
        shared.rmdir()
        shutil.rmtree(made)
    return template


def _make_template(stage, path, segment_mb, programs):
    if not path.exists():
        stage.run([programs / "initdb", "-k", "-N", "-A", "trust", "-U", "postgres", "-E", "UTF8",
                   "--locale=C.UTF-8", f"--wal-segsize={segment_mb}", "-D", path])
    return path


class Postgres:
    """One data directory and, while it runs, its postmaster. Clients are those of PG_BIN for every major."""

    def __init__(self, stage, name, data, port=5432, programs=PG_BIN):
        self.stage = stage
        self.name = name
        self.data = pathlib.Path(data)
        self.port = port
        self.programs = programs
        self.socket_directory = stage.make_directory("s", name)
        self.log = stage.directory / f"postgres-{name}.log"
        self.process = None
        self.config_arguments = []

    @classmethod
    def create(cls, stage, name="primary", segment_mb=16, settings=None, programs=PG_BIN):
        server = cls(stage, name, stage.make_directory("pg") / name, programs=programs)
        stage.copy_tree(initdb_template(stage, segment_mb, programs), server.data)
        server.configure({**SETTINGS, "port": server.port,
                          "unix_socket_directories": f"'{server.socket_directory}'", **(settings or {})})
        return server

    def configure(self, settings):
        with open(self.data / "postgresql.conf", "a") as config:
            for key, value in settings.items():
                config.write(f"{key} = {value}\n")

    @property
    def conninfo(self):
        return f"host={self.socket_directory} port={self.port} user=postgres dbname=postgres"

    def start(self, settings=None, wait=True):
        command = [self.programs / "postgres", "-D", self.data, *self.config_arguments]
        for key, value in (settings or {}).items():
            command += ["-c", f"{key}={value}"]
        # After a kill -9 the old backends may still be leaving; PostgreSQL then refuses to start.
        def started():
            self.process = self.stage.start(command, log=self.log)
            return wait_until(lambda: self._ready_or_gone(), f"{self.name} to start") == "ready"
        if wait:
            wait_until(started, f"{self.name} to accept connections", every=0.2)
        else:
            self.process = self.stage.start(command, log=self.log)
        return self

    def _ready_or_gone(self):
        if self.process.poll() is not None:
            if "lock file" not in self.log.read_text(errors="replace")[-2000:] and \
                    "shared memory" not in self.log.read_text(errors="replace")[-2000:]:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n"
                                     + self.log.read_text(errors="replace")[-3000:])
            return "gone"
        done = self.stage.run([PG_BIN / "pg_isready", "-q", "-h", self.socket_directory,
                               "-p", self.port], check=False)
        return "ready" if done.returncode == 0 else None

    def stop(self, mode="fast", timeout=90):
        """Ends the server; returns how long that took in seconds."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal({"smart": signal.SIGTERM, "fast": signal.SIGINT,
                                  "immediate": signal.SIGQUIT}[mode])
        self.process.wait(timeout)

    def kill9(self):
        self.process.kill()
        self.process.wait()

    def psql(self, *arguments, database="postgres", **options):
        return self.stage.run([PG_BIN / "psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1",
                               "-h", self.socket_directory, "-p", self.port, "-U", "postgres",
                               "-d", database, *arguments], **options)

    def sql(self, query, database="postgres", **options):
        """The output of `query`, without the line end: one value is just that value."""
        return self.psql("-c", query, database=database, **options).stdout.rstrip("\n")

    def rows(self, query, database="postgres"):
        text = self.sql(query, database=database)
        return [tuple(line.split("\t")) for line in text.splitlines()]

    def current_lsn(self):
        return lsn_number(self.sql("select pg_current_wal_flush_lsn()"))

    def session(self):
        return Session(self.stage, ["-h", self.socket_directory, "-p", self.port, "-U", "postgres",
                                    "-d", "postgres"])

    def wal_file(self, name):
        return self.data / "pg_wal" / name

    def wait_for_recovery_end(self, timeout=180):
        """Until a restored server has replayed all that it will replay by itself."""
        def done():
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended during recovery:\n"
                                     + self.log.read_text(errors="replace")[-3000:])
            answer = self.psql("-c", "select not pg_is_in_recovery() or pg_get_wal_replay_pause_state()"
                                     " = 'paused'", check=False)
            return answer.returncode == 0 and answer.stdout.strip() == "t"
        wait_until(done, f"{self.name} to end its recovery", timeout)
        return self


class ConnectionLost(Exception):
    pass


LOST = ("connection to server", "terminating connection", "server closed the connection", "not currently connected",
        "recovery mode", "starting up", "shutting down")


def says_lost(text):
    """Whether what psql printed is of a server that went, and not of a statement that is wrong."""
    return any(sign in text for sign in LOST)


class Session:
    """One psql kept open, so that a transaction costs a round trip and no process."""

    MARK = "--done--"

    def __init__(self, stage, where):
        """`where`: psql's arguments that name server, role and database."""
        self.process = stage.start(
            ["stdbuf", "-oL", PG_BIN / "psql", "-X", "-q", "-A", "-t", "-F", "\t", *where],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)

    def execute(self, sql):
        """Lines of the answer. Raises ConnectionLost when the server goes, AssertionError on an error."""
        lines = []
        try:
            self.process.stdin.write(f"{sql}\n\\echo {self.MARK} :ERROR\n")
            self.process.stdin.flush()
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        for line in self.process.stdout:
            line = line.rstrip("\n")
            if line.startswith(self.MARK):
                if line.endswith("true"):
                    raise self._error_for(sql, lines)
                return lines
            lines.append(line)
        raise ConnectionLost("\n".join(lines))

    def _error_for(self, sql, lines):
        text = "\n".join(lines)
        return ConnectionLost(text) if says_lost(text) else AssertionError(f"{sql}: {text}")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        # What the last statement left in the buffer has nowhere to go.
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()
