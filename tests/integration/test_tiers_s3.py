"""A copy in a bucket of a real Ceph gateway: the host is lost, the gateway dies, the keys are wrong."""

import pathlib
import shutil
import tempfile
import threading
import unittest
import urllib.parse

from agent_process import Agent
from ceph_gateway import Gateway
from harness import lsn_number, wait_until
from oracle import Writers, wait_for_commits
from test_tiers import OFFLOAD_SECONDS, PIECE, TierCase

GATEWAY_KILLS = 20
PREFIX = "pg/main"


def setUpModule():
    global gateway, directory
    directory = pathlib.Path(tempfile.mkdtemp(prefix="wv-rgw-"))
    directory.chmod(0o755)
    unittest.addModuleCleanup(shutil.rmtree, directory, True)
    gateway = Gateway(directory / "ceph")
    unittest.addModuleCleanup(gateway.close)


class BucketCase(TierCase):
    """An agent with a tier of one second in a new bucket."""

    URL = "URL"

    def setUp(self):
        self.bucket = gateway.new_bucket()
        super().setUp()

    def write_keys(self, access_key=None, secret_key=None):
        self.stage.write(self.keys, f"access_key = {access_key or gateway.endpoint['ACCESS_KEY']}\n"
                                    f"secret_key = {secret_key or gateway.endpoint['SECRET_KEY']}\n")

    def options(self):
        options = {"region": gateway.endpoint["REGION"], "endpoint": gateway.endpoint[self.URL],
                   "credentials": f"file:{self.keys}"}
        if self.URL == "TLS_URL":
            options["ca_file"] = str(self.stage.write(self.stage.directory / "ca.pem",
                                                      pathlib.Path(gateway.endpoint["CA"]).read_text()))
        return options

    def add_table(self, agent, _directory, bucket=None):
        self.keys = self.stage.directory / "s3.keys"
        self.write_keys()
        lines = "".join(f'{name} = "{value}"\n' for name, value in self.options().items())
        agent.write_config(agent.config.read_text() +
                           f'\n[repo.second]\nurl = "s3://{bucket or self.bucket}/{PREFIX}"\n'
                           f'offload_interval = "{OFFLOAD_SECONDS}s"\n{lines}')

    def from_tier(self):
        query = urllib.parse.urlencode(self.options())
        return ["--from", f"s3://{self.bucket}/{PREFIX}?{query}", "--key-file", self.agent.key]

    def objects(self):
        return {name.removeprefix(PREFIX + "/"): size for name, (size, _)
                in gateway.list(self.bucket, PREFIX + "/").items()}

    def pieces(self):
        return [name for name in self.objects() if PIECE.search(name)]

    def check_is_whole_copy(self):
        """With the agent stopped: the bucket has the packs of the repository, and nothing that no ledger names."""
        self.assertEqual(self.pieces(), [])
        there = self.objects()
        packs = {name: size for name, size in there.items() if name.startswith("main/")}
        self.assertEqual(packs, {name: (self.agent.repo / name).stat().st_size
                                 for name in self.names(self.agent.repo) if name.startswith("main/")})
        known = ("main/", "ledger/", "keyring/", "repository", "tier")
        self.assertEqual([name for name in there if not name.startswith(known)], [])
        self.assertEqual(gateway.uploads(self.bucket), [])


class HostLostTest(BucketCase):
    URL = "TLS_URL"

    def test_what_is_offloaded_is_restored_where_everything_else_is_gone(self):
        self.check_lost_host(("copy", "fetch", "auto", *["copy"] * 7))


class GatewayKilledTest(BucketCase):
    def setUp(self):
        super().setUp()
        # So that some packs are put in parts.
        self.agent.settings["pack_size"] = "40MiB"
        self.agent.write_config()
        self.add_table(self.agent, None)

    def test_a_gateway_killed_again_and_again_loses_nothing_and_keeps_nothing_twice(self):
        self.start()
        self.agent.allowed_events.add("offload.failed")
        self.primary.sql("create table bulk (body text)")
        writers = Writers(self.primary, self.random, count=2).start()
        tick = threading.Event()
        for number in range(GATEWAY_KILLS):
            self.primary.sql("insert into bulk select string_agg(md5(random()::text), '') from "
                             "generate_series(1, 250000) i group by i % 1000")
            before = self.agent.metrics()[self.series("uploaded_bytes_total")]
            wait_until(lambda: self.agent.metrics()[self.series("uploaded_bytes_total")] > before, "something to go")
            tick.wait(self.random.uniform(0, 0.4))
            gateway.kill()
            committed = writers.committed_count()
            wait_for_commits(writers, committed + 20)
            gateway.start()
        writers.stop()
        self.wait_until_offloaded()
        self.cli("verify")
        wait_until(lambda: not gateway.uploads(self.bucket), "unfinished uploads to be aborted", every=1)
        self.check_nothing_is_lost()

    def series(self, name):
        return f'walvault_offload_{name}{{repo="second",server="main"}}'


class BucketRefusalsTest(BucketCase):
    def test_a_bucket_is_made_a_copy_only_where_nothing_is_and_serves_one_repository(self):
        self.agent.init()
        self.agent.start()
        wait_until(lambda: self.state().get("error"), "the agent to tell of the empty bucket")
        self.assertIn("walvault repo add", self.state()["error"]["hint"])
        gateway.ask("PUT", f"{self.bucket}/{PREFIX}/keepsake", body="not yours")
        tried = self.agent.error("--dry-run", "repo", "add", "second", expect=4)
        self.assertEqual(tried, self.agent.error("repo", "add", "second", expect=4))
        self.assertIn("keepsake", tried["message"])
        self.assertEqual(list(self.objects()), ["keepsake"])
        gateway.ask("DELETE", f"{self.bucket}/{PREFIX}/keepsake")
        gateway.ask("PUT", f"{self.bucket}/elsewhere", body="not below the prefix")
        self.agent.cli("repo", "add", "second")
        self.agent.cli("repo", "add", "second")
        self.agent.wait_for_backup()
        self.wait_until_offloaded()

        other = Agent(self.stage, self.primary, name="other", slot="other")
        self.add_table(other, None)
        other.init()
        self.assertIn("of the repository", other.error("repo", "add", "second", expect=4)["message"])
        other.start()
        wait_until(lambda: other.status()["tiers"][0].get("error"), "the foreign tier to be told of")
        self.assertIn("is a tier of the repository", other.status()["tiers"][0]["error"]["message"])
        other.kill9()
        self.cli("verify")
        self.check_readers()
        self.assertIn("elsewhere", gateway.list(self.bucket))

    def check_readers(self):
        """What is asked of a bucket is answered as by the repository; nothing is written there."""
        self.agent.kill9()
        before = self.objects()
        for verb in (["info", "--timelines"], ["log", "--kind", "commit"], ["resolve", "latest"]):
            self.assertEqual(self.json(*verb).keys(), self.agent.json(*verb).keys())
        # What is shown can be given to a shell as it is.
        self.assertIn(f"--from '{self.from_tier()[1]}'", self.cli("resolve", "latest").stdout)
        self.cli("verify")
        self.assertEqual(self.objects(), before)
        wrong = ["--from", self.from_tier()[1].replace(PREFIX, "pg/other"), "--key-file", self.agent.key]
        self.assertIn("prefix", self.agent.error("info", *wrong, expect=6)["hint"])
        wrong[1] = self.from_tier()[1].replace(self.bucket, "no-such-bucket")
        self.assertIn("NoSuchBucket", self.agent.error("info", *wrong, expect=6)["message"])
        wrong[1] = f"s3://key:SeCrEt@{self.bucket}/x"
        done = self.agent.cli("info", *wrong, expect=2)
        self.assertNotIn("SeCrEt", done.stdout + done.stderr)

    def test_capture_goes_on_while_keys_are_wrong_or_over_and_what_is_wrong_is_told(self):
        self.agent.init()
        missing = Agent(self.stage, self.primary, name="missing", slot="missing")
        self.add_table(missing, None, bucket="no-such-bucket")
        missing.init()
        error = missing.error("repo", "add", "second", expect=6)
        self.assertIn("NoSuchBucket", error["message"])
        self.assertIn("Make the bucket", error["hint"])

        self.start()
        self.agent.allowed_events.add("offload.failed")
        self.primary.sql("create table meanwhile (n int)")
        self.wait_until_offloaded()
        self.write_keys(secret_key="SeCrEt")
        self.agent.kill9()
        self.agent.start()
        self.check_failing("SignatureDoesNotMatch", "secret_key")
        self.write_keys()
        self.wait_until_offloaded()
        # As a key that is over: the store does not know it any more, in the middle of everything.
        gateway.admin("key", "create", "--uid", "test", "--key-type", "s3", "--access-key", "another",
                      "--secret-key", "anotherSecret")
        self.write_keys("another", "anotherSecret")
        self.agent.kill9()
        self.agent.start()
        self.wait_until_offloaded()
        gateway.admin("key", "rm", "--uid", "test", "--key-type", "s3", "--access-key", "another")
        self.check_failing("InvalidAccessKeyId", "access_key")
        # The agent reads them again by itself.
        self.write_keys()
        self.wait_until_offloaded()
        self.assertNotIn("SeCrEt", self.agent.log.read_text())
        self.assertNotIn("anotherSecret", self.agent.log.read_text())
        restored = self.restore("latest")
        self.assertEqual(restored.sql("select count(*) from meanwhile"), "2")
        restored.discard()
        self.assertEqual(self.agent.stop(), 0)
        self.check_is_whole_copy()
        self.agent.check_log()

    def check_failing(self, code, hint):
        self.primary.sql("insert into meanwhile values (1)")
        wait_until(lambda: code in (self.state().get("error") or {}).get("message", ""), f"{code} to be told")
        self.assertIn(hint, self.state()["error"]["hint"])
        self.agent.wait_until_flushed()
        self.assertGreater(self.state()["lag_bytes"], 0)
        self.assertIn("failing", self.agent.cli("status").stdout)
        metrics = self.agent.metrics()
        labels = '{repo="second",server="main"}'
        self.assertEqual(metrics["walvault_offload_up" + labels], 0)
        self.assertGreater(metrics["walvault_offload_errors_total" + labels], 0)


if __name__ == "__main__":
    unittest.main()
