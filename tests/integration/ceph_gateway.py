"""Ceph's RADOS gateway for a test: started by tests/support/ceph_rgw.sh, asked with curl.

Or another store, by hand: WALVAULT_S3_SCRIPT names a script with the same commands, which then starts it.
"""

import os
import pathlib
import re
import subprocess
import unittest
import urllib.parse

from harness import ROOT

SCRIPT = pathlib.Path(os.environ.get("WALVAULT_S3_SCRIPT", ROOT / "tests" / "support" / "ceph_rgw.sh"))


def missing_packages():
    done = subprocess.run([SCRIPT, "missing"], capture_output=True, text=True, check=True)
    return done.stdout.split()


class Gateway:
    """An empty gateway in `directory`; what is stored survives its death. close() ends it and removes everything."""

    def __init__(self, directory):
        if missing_packages():
            raise unittest.SkipTest(f"needs {' '.join(missing_packages())}")
        self.directory = pathlib.Path(directory)
        self.environment = {**os.environ, "CEPH_STORE": "bluestore", "GATEWAY_OWNER": str(os.getpid())}
        self.run("start")
        lines = (self.directory / "endpoint").read_text().split()
        self.endpoint = dict(line.split("=", 1) for line in lines)
        self.buckets = 0

    def run(self, command):
        done = subprocess.run([SCRIPT, command, self.directory], env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise AssertionError(f"{SCRIPT.name} {command}: {done.stderr}")

    def close(self):
        self.run("wipe")

    def kill(self):
        self.run("kill-gateway")

    def start(self):
        self.run("start-gateway")

    def admin(self, *arguments):
        """radosgw-admin; where this is another store, the test is skipped."""
        if SCRIPT.name != "ceph_rgw.sh":
            raise unittest.SkipTest("keys are made and removed with radosgw-admin")
        subprocess.run(["radosgw-admin", "-c", self.directory / "ceph.conf", "-n", "client.rgw", *arguments],
                       check=True, capture_output=True, timeout=60)

    def ask(self, method, path, query=(), body=""):
        """Sends a signed request and returns the body of its answer."""
        encoded = "&".join(f"{name}={urllib.parse.quote(value, safe='')}" for name, value in sorted(query))
        # In the URL, because an access key of Swift has a colon in it.
        user = ":".join(urllib.parse.quote(self.endpoint[name], safe="") for name in ("ACCESS_KEY", "SECRET_KEY"))
        url = self.endpoint["URL"].replace("://", f"://{user}@") + f"/{path}" + (f"?{encoded}" if encoded else "")
        config = f"""url = "{url}"
request = "{method}"
aws-sigv4 = "aws:amz:{self.endpoint['REGION']}:s3"
header = "x-amz-content-sha256: UNSIGNED-PAYLOAD"
noproxy = "*"
silent
show-error
fail-with-body
"""
        if method == "PUT":
            config += f'data-binary = "{body}"\n'
        done = subprocess.run(["curl", "-q", "-K", "-"], input=config, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise AssertionError(f"{method} {path} {encoded}: {done.stderr}{done.stdout}")
        return done.stdout

    def new_bucket(self):
        self.buckets += 1
        name = f"bucket{self.buckets}"
        self.ask("PUT", name)
        return name

    def list(self, bucket, prefix=""):
        """The objects below `prefix`: {name: (size, ETag)}."""
        found, token = {}, None
        while True:
            query = [("list-type", "2"), ("prefix", prefix)]
            if token:
                query.append(("continuation-token", token))
            page = self.ask("GET", bucket, query)
            for entry in re.findall(r"<Contents>(.*?)</Contents>", page):
                value = lambda tag: re.search(f"<{tag}>(.*?)</{tag}>", entry)[1]
                found[value("Key")] = (int(value("Size")), value("ETag"))
            more = re.search(r"<NextContinuationToken>(.*?)</NextContinuationToken>", page)
            if not more:
                return found
            token = more[1]

    def uploads(self, bucket):
        """The keys of uploads in parts that were begun and not ended."""
        return re.findall(r"<Upload>.*?<Key>(.*?)</Key>", self.ask("GET", bucket, [("uploads", "")]))
