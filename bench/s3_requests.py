#!/usr/bin/python3
"""Counts the requests that walvault and pgBackRest make of a bucket for the same work (docs/cost.md).

    bench/s3_requests.py [--walvault build/release/agent/walvault] [--wal-mib 512] [--scale 20] [--trickle 60]
                         [--bundle]

As root, for PostgreSQL runs as another user. The store is a Ceph gateway on loopback (tests/support/ceph_rgw.sh);
its own log of accesses is what is counted.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse

import measure
import server as servers
import tools

ROOT = pathlib.Path(__file__).resolve().parents[1]
GATEWAY = ROOT / "tests" / "support" / "ceph_rgw.sh"
GIB = 1 << 30
PUT_DOLLARS, GET_DOLLARS = 0.005 / 1000, 0.0004 / 1000
WRITING = ("PUT", "PART", "BEGIN", "COMPLETE", "LIST")
ACCESS = re.compile(r'"([A-Z]+) (\S+) HTTP/1\.[01]" (\d+)')


def wait_until(condition, what, seconds):
    servers.wait_until(condition, what, seconds)


class Gateway:
    def __init__(self, directory):
        self.directory = directory
        # Several seconds, and not ours to shorten.
        subprocess.run([GATEWAY, "start", directory], check=True, env={**os.environ, "GATEWAY_OWNER": str(os.getpid())})
        self.facts = dict(line.split("=", 1) for line in (directory / "endpoint").read_text().splitlines())
        self.log = next(directory.glob("log/client.rgw*.log"))
        self.seen = 0

    def close(self):
        subprocess.run([GATEWAY, "wipe", self.directory], check=True)

    def make_bucket(self, name):
        subprocess.run(["curl", "--silent", "--fail", "--noproxy", "*", "--aws-sigv4", "aws:amz:default:s3", "--user",
                        f"{self.facts['ACCESS_KEY']}:{self.facts['SECRET_KEY']}", "-X", "PUT",
                        "-H", f"x-amz-content-sha256: {hashlib.sha256().hexdigest()}",
                        f"{self.facts['URL']}/{name}"], check=True)

    def counts(self):
        """What came since the last call."""
        with open(self.log, errors="replace") as lines:
            lines.seek(self.seen)
            text = lines.read()
            self.seen = lines.tell()
        counts = collections.Counter()
        for method, target, _status in ACCESS.findall(text):
            counts[kind_of(method, target)] += 1
        return counts


def kind_of(method, target):
    path, _, query = target.partition("?")
    names = {pair.partition("=")[0] for pair in query.split("&")}
    if method == "GET":
        return "LIST" if urllib.parse.unquote(path).count("/") < 2 or path.rstrip("/").count("/") < 2 else "GET"
    if method == "PUT":
        return "PART" if "partNumber" in names else "PUT"
    if method == "POST":
        return "BEGIN" if "uploads" in names else "COMPLETE" if "uploadId" in names else "DELETE"
    return method


def dollars(counts):
    return (sum(counts[kind] for kind in WRITING) * PUT_DOLLARS +
            (counts["GET"] + counts["HEAD"]) * GET_DOLLARS)


class Walvault:
    name = "walvault"

    def __init__(self, program, gateway, server, scratch):
        self.gateway, self.server = gateway, server
        self.directory = f"{scratch}/walvault"
        servers.make_directory(self.directory)
        self.program = f"{self.directory}/program"
        shutil.copy(program, self.program)
        os.chmod(self.program, 0o755)
        self.config = f"{self.directory}/walvault.toml"
        facts = gateway.facts
        servers.write_text(f"{self.directory}/s3.key",
                           f"access_key = {facts['ACCESS_KEY']}\nsecret_key = {facts['SECRET_KEY']}\n")
        subprocess.run(["chown", measure.USER, f"{self.directory}/s3.key"], check=True)
        os.chmod(f"{self.directory}/s3.key", 0o600)
        servers.write_text(self.config, f"""config_version = 1
[server.main]
conninfo = "{server.conninfo()}"
[server.main.backup]
every = "off"
checkpoint = "fast"
[repo.primary]
url = "file://{self.directory}/repo"
reserve = "0%"
[repo.bucket]
url = "s3://walvault/main"
endpoint = "{facts['URL']}"
region = "default"
credentials = "file:{self.directory}/s3.key"
[encryption]
key = "file:{self.directory}/repo.key"
[web]
listen = "off"
""")
        self.process = None

    def cli(self, *arguments):
        return measure.as_user([self.program, "-c", self.config, *arguments])

    def prepare(self):
        self.cli("init", "--conninfo", self.server.conninfo(), "--no-backup")
        self.cli("repo", "add", "bucket")
        log = open(f"{self.directory}/log", "ab")
        self.process = subprocess.Popen(
            ["setpriv", f"--reuid={measure.USER}", f"--regid={measure.USER}", "--init-groups", "--",
             self.program, "-c", self.config, "run"],
            stdout=log, stderr=log, env=measure.environment(), cwd="/")
        wait_until(lambda: self.tier().get("up"), "the bucket is not reached", 60)

    def tier(self):
        try:
            status = json.loads(self.cli("-o", "json", "status"))
        except (RuntimeError, subprocess.CalledProcessError):
            return {}
        return (status.get("tiers") or [{}])[0]

    def catch_up(self, boundary):
        wait_until(lambda: servers.lsn_value(self.tier().get("offloaded_lsn") or "0/0") >= boundary,
                   "the bucket does not get everything", 600)

    def backup(self):
        self.cli("backup", "--fast")
        self.catch_up(self.server.lsn())

    def begin_wal(self):
        """It streams already."""

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class PgBackRest:
    """Asynchronous, zst, encrypted, its other options as they are by default, but for bundling."""

    name = "pgBackRest"

    def __init__(self, gateway, server, scratch, bundle):
        self.gateway, self.server = gateway, server
        self.directory = f"{scratch}/pgbackrest"
        for part in ("", "/spool", "/log", "/lock"):
            servers.make_directory(self.directory + part)
        facts = gateway.facts
        host, _, port = facts["TLS_URL"].removeprefix("https://").partition(":")
        self.config = f"{self.directory}/pgbackrest.conf"
        repository = f"""repo1-type=s3
repo1-path=/main
repo1-s3-bucket=pgbackrest
repo1-s3-endpoint=s3.localhost
repo1-s3-region=default
repo1-s3-uri-style=path
repo1-s3-key={facts['ACCESS_KEY']}
repo1-s3-key-secret={facts['SECRET_KEY']}
repo1-storage-host={host}
repo1-storage-port={port}
repo1-storage-verify-tls=n
repo1-bundle={"y" if bundle else "n"}"""
        servers.write_text(self.config, tools.pgbackrest_config(repository, self.directory, server))

    def command(self, *arguments):
        return ["/usr/bin/pgbackrest", f"--config={self.config}", "--stanza=main", *arguments]

    def prepare(self):
        measure.as_user(self.command("stanza-create"))

    def begin_wal(self):
        self.server.skip_archiving()
        self.server.set_archive_command(" ".join(self.command("archive-push", "%p")))

    def catch_up(self, boundary):
        last = self.server.segment_name(boundary - 1)
        wait_until(lambda: self.server.sql("SELECT last_archived_wal FROM pg_stat_archiver") >= last,
                   "the last segment is not archived", 600)

    def backup(self):
        measure.as_user(self.command("backup", "--type=full"))

    def stop(self):
        self.server.set_archive_command("")


def trickle(tool, gateway, server, seconds):
    """A server with little to do: what is paid for time, not for bytes."""
    start = server.lsn()
    server.pgbench(["-n", "-c", "2", "-R", "50", "-T", str(seconds)])
    return {"trickle": gateway.counts(), "trickle_bytes": server.lsn() - start, "trickle_seconds": seconds}


def one(tool, gateway, server, wal_bytes, seconds):
    tool.prepare()
    gateway.counts()
    tool.begin_wal()
    start = server.lsn()
    began = time.monotonic()
    boundary = server.make_wal(wal_bytes)
    tool.catch_up(boundary)
    took = time.monotonic() - began
    wal = gateway.counts()
    made = server.lsn() - start
    tool.backup()
    base = gateway.counts()
    base_bytes = int(server.sql("SELECT sum(pg_database_size(oid)) FROM pg_database"))
    slow = trickle(tool, gateway, server, seconds)
    tool.stop()
    return slow | {"wal": wal, "wal_bytes": made, "wal_seconds": took, "base": base, "base_bytes": base_bytes}


def show(name, result):
    for part in ("wal", "base"):
        counts, size = result[part], result[f"{part}_bytes"]
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        per_gib = GIB / size
        seconds = f" in {result['wal_seconds']:.0f} s" if part == "wal" else ""
        print(f"{name:10} {part:4}  {size / GIB:.2f} GiB{seconds}: {kinds};  per GiB "
              f"{sum(counts.values()) * per_gib:.0f} requests, {dollars(counts) * per_gib:.4f} USD", flush=True)


def show_trickle(name, result):
    counts, seconds = result["trickle"], result["trickle_seconds"]
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())) or "none"
    per_day = 86400 / seconds
    print(f"{name:10} 50 transactions a second for {seconds} s, {result['trickle_bytes'] / (1 << 20):.1f} MiB of WAL: "
          f"{kinds};  a day {sum(counts.values()) * per_day:.0f} requests, {dollars(counts) * per_day:.3f} USD",
          flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--walvault")
    arguments.add_argument("--wal-mib", type=int, default=512)
    arguments.add_argument("--scale", type=int, default=20)
    arguments.add_argument("--trickle", type=int, default=60, metavar="SECONDS")
    arguments.add_argument("--bundle", action="store_true", help="pgBackRest with repo-bundle=y")
    arguments.add_argument("--port", type=int, default=55431)
    chosen = arguments.parse_args()
    scratch = tempfile.mkdtemp(prefix="walvault-requests-")
    os.chmod(scratch, 0o755)
    gateway = Gateway(pathlib.Path(scratch) / "gateway")
    server = servers.Server(f"{scratch}/server", chosen.port)
    tools = []
    try:
        server.create(chosen.scale)
        for bucket in ("walvault", "pgbackrest"):
            gateway.make_bucket(bucket)
        if chosen.walvault:
            tools.append(Walvault(chosen.walvault, gateway, server, scratch))
        tools.append(PgBackRest(gateway, server, scratch, chosen.bundle))
        for tool in tools:
            result = one(tool, gateway, server, chosen.wal_mib << 20, chosen.trickle)
            show(tool.name, result)
            show_trickle(tool.name, result)
    finally:
        if tools and tools[0].name == "walvault":
            tools[0].stop()
        server.close()
        gateway.close()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
