"""The agent of a test: its configuration, key and repository; run, kill, ask, restore."""

import contextlib
import http.client
import json
import pathlib
import re
import signal
import socket
import subprocess

from cluster import Postgres
from harness import PATIENCE_SECONDS, PG_BIN, free_tcp_port, lsn_number, lsn_text, wait_until
from harness import now_micros  # noqa: F401  (used by those who import this)

CONFIG = """config_version = 1

[server.main]
conninfo = "{conninfo}"
slot = "{slot}"
time_zone = "Etc/UTC"
flush_interval = "{flush_interval}"
{server_lines}

[server.main.backup]
every = "{every}"
checkpoint = "fast"

[repo.primary]
url = "file://{repo}"
reserve = "{reserve}"
pack_size = "{pack_size}"

[encryption]
key = "file:{key}"

[web]
listen = "unix:{socket}, 127.0.0.1:{port}"

[log]
level = "{log_level}"
format = "json"
"""

# What a healthy agent may say above "info" in any test.
EXPECTED_EVENTS = set()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Agent:
    """walvault with one server and one repository."""

    def __init__(self, stage, server, name="agent", repo=None, key=None, **settings):
        self.stage = stage
        self.server = server
        self.name = name
        self.directory = stage.make_directory(name)
        self.repo = pathlib.Path(repo) if repo else self.directory / "repo"
        self.key = pathlib.Path(key) if key else self.directory / "repo.key"
        self.socket = self.directory / "agent.sock"
        self.config = self.directory / "walvault.toml"
        self.log = stage.directory / f"{name}.log"
        self.settings = dict(conninfo=server.conninfo if server else "host=/nowhere", slot="walvault",
                             flush_interval="50ms", every="365d", pack_size="1MiB",
                             port=free_tcp_port(), log_level="info", reserve="0%",
                             server_lines="")  # more of [server.main]
        self.settings.update(settings)
        self.process = None
        self.allowed_events = set(EXPECTED_EVENTS)
        self.restore_count = 0
        self.write_config()

    def write_config(self, text=None):
        text = text or CONFIG.format(repo=self.repo, key=self.key, socket=self.socket, **self.settings)
        self.stage.write(self.config, text)

    @property
    def port(self):
        return self.settings["port"]

    # --- the command line -------------------------------------------------------------------------

    def cli(self, *arguments, expect=0, timeout=300, environment=None, config=None):
        """Runs a verb. `expect` is the exit code it must end with; None: any."""
        command = [self.stage.walvault, "-c", config or self.config, *arguments]
        done = self.stage.run(command, check=False, timeout=timeout, environment=environment)
        self.check_sanitizers(done.stderr)
        if expect is not None and done.returncode != expect:
            raise AssertionError(f"{' '.join(str(part) for part in command)}\nended with {done.returncode}, "
                                 f"not {expect}\nstdout: {done.stdout}\nstderr: {done.stderr}")
        return done

    def json(self, *arguments, **options):
        return json.loads(self.cli("-o", "json", *arguments, **options).stdout)

    def error(self, *arguments, expect, **options):
        """The error object of a verb that must fail with exit code `expect`."""
        done = self.cli("-o", "json", *arguments, expect=expect, **options)
        return json.loads(done.stderr.strip().splitlines()[-1])["error"]

    @staticmethod
    def check_sanitizers(text):
        if "Sanitizer" in text or "runtime error:" in text:
            raise AssertionError(f"a sanitizer complains:\n{text}")

    def make_key(self):
        self.cli("key", "generate", "--out", self.key)
        return self

    def init(self):
        """Key and repository where they are missing, and the role on the server."""
        self.cli("init", "--conninfo", self.server.conninfo)
        return self

    # --- the process ------------------------------------------------------------------------------

    def start(self, wait=True, prefix=(), environment=None):
        if not (self.repo / "repository").exists():
            self.init()
        command = [*prefix, self.stage.walvault, "-c", self.config, "run"]
        self.process = self.stage.start(command, log=self.log, environment=environment)
        if wait:
            self.wait_ready()
        return self

    def wait_ready(self, timeout=PATIENCE_SECONDS):
        wait_until(self.is_ready, f"{self.name} to be ready", timeout)

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode} instead of getting "
                                 f"ready:\n{self.log.read_text(errors='replace')[-3000:]}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.http("GET", "/readyz")[0] == 200
        return False

    def kill9(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def stop(self, timeout=60):
        """SIGTERM; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"{self.name} did not end within {timeout} s of SIGTERM:\n"
                                 f"{self.log.read_text(errors='replace')[-3000:]}") from late
        return code

    def reload_with(self, old, new):
        """SIGHUP after `old` in the configuration became `new`."""
        text = self.config.read_text()
        if old not in text:
            raise AssertionError(f"the configuration does not say {old}")
        self.write_config(text.replace(old, new))
        self.process.send_signal(signal.SIGHUP)

    def reload(self, old, new):
        """The same, until the agent has taken it."""
        before = len(self.events("config.reloaded"))
        self.reload_with(old, new)
        wait_until(lambda: len(self.events("config.reloaded")) > before, "the new configuration to be taken")

    def http(self, method, path, body=None, over_tcp=False):
        connection = (http.client.HTTPConnection("127.0.0.1", self.port, timeout=30) if over_tcp
                      else UnixConnection(self.socket))
        with contextlib.closing(connection):
            connection.request(method, path, body=body)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def metrics(self):
        """The live scrape as {'name{labels}': value}."""
        code, text = self.http("GET", "/metrics", over_tcp=True)
        if code != 200:
            raise AssertionError(f"/metrics answered {code}: {text}")
        values = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                series, value = line.rsplit(" ", 1)
                values[series] = float(value)
        return values

    def status(self):
        """GET /v1/status of the one server."""
        code, text = self.http("GET", "/v1/status")
        if code != 200:
            raise AssertionError(f"/v1/status answered {code}: {text}")
        answer = json.loads(text)
        return answer["servers"][0] if "servers" in answer else answer

    def flushed_lsn(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return lsn_number(self.status().get("flushed_lsn") or "0/0")
        return 0

    def wait_until_flushed(self, lsn=None, timeout=PATIENCE_SECONDS):
        """Until everything the server has flushed by now (or `lsn`) is flushed here."""
        wanted = self.server.current_lsn() if lsn is None else lsn
        wait_until(lambda: self.flushed_lsn() >= wanted, f"{lsn_text(wanted)} to be flushed", timeout)
        return wanted

    def backups(self):
        return self.json("info", "--backups")["backups"]

    def wait_for_backup(self, count=1, timeout=PATIENCE_SECONDS * 2):
        wait_until(lambda: self.backup_count() >= count, f"{count} complete base backup(s)", timeout, 0.2)
        return self

    def backup_count(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.status().get("backup_count", 0)
        return 0

    def restart_lsn(self):
        """What the server holds as acknowledged: the slot's restart_lsn."""
        return lsn_number(self.server.sql("select coalesce(restart_lsn, '0/0') from pg_replication_slots "
                                          f"where slot_name = '{self.settings['slot']}'") or "0/0")

    def protect(self):
        """Key, agent, first base backup: the state most tests start from."""
        self.start()
        self.wait_for_backup()
        return self

    # --- what it said -----------------------------------------------------------------------------

    def log_lines(self):
        lines = []
        for line in self.log.read_text(errors="replace").splitlines() if self.log.exists() else []:
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                lines.append({"level": "error", "event": "not-json", "message": line})
        return lines

    def unexpected_lines(self):
        return [line for line in self.log_lines()
                if line["level"] in ("warn", "error") and line["event"] not in self.allowed_events]

    def check_log(self):
        """No warning, no error, and nothing of a sanitizer, besides what the test allows."""
        unexpected = self.unexpected_lines()
        if unexpected:
            raise AssertionError("unexpected in the log of the agent:\n"
                                 + "\n".join(json.dumps(line) for line in unexpected[:20]))

    def events(self, name):
        return [line for line in self.log_lines() if line["event"] == name]

    # --- restore ----------------------------------------------------------------------------------

    def restore(self, to=None, before=None, pgdata=None, extra=(), expect=0, **options):
        """Restores into a new directory and returns it as a Restored, not yet started."""
        self.restore_count += 1
        name = f"restored-{self.name}-{self.restore_count}"
        pgdata = pathlib.Path(pgdata) if pgdata else self.stage.make_directory("pg") / name
        target = ["--to", to] if to is not None else ["--before", before]
        done = self.cli("restore", *target, "--pgdata", pgdata, *extra, expect=expect, **options)
        programs = self.server.programs if self.server else PG_BIN
        return Restored(self.stage, name, pgdata, done, programs)


class Restored(Postgres):
    """A restored data directory; start() runs it where nothing else can be reached."""

    def __init__(self, stage, name, data, done, programs=PG_BIN):
        super().__init__(stage, name, data, programs=programs)
        self.done = done

    def open(self, timeout=180, **settings):
        """Starts it and waits until it has replayed what it was told to."""
        self.start({"unix_socket_directories": str(self.socket_directory), "port": self.port,
                    "listen_addresses": "", **settings})
        return self.wait_for_recovery_end(timeout)

    def discard(self):
        self.stop("immediate")
        subprocess.run(["rm", "-rf", str(self.data)], check=True)


def checksum(server, table, order_by):
    """Row count and md5 of the rows of `table` in order, as text."""
    return server.rows(f"select count(*), coalesce(md5(string_agg(t::text, e'\\n' order by {order_by})), '')"
                       f" from {table} t")[0]


def error_is_helpful(error):
    """Whether an error object names what is wrong and what to do about it."""
    return bool(re.search(r"\w", error.get("message", ""))) and bool(error.get("hint"))
