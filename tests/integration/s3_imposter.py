"""A bucket in memory that the real program talks to: tests/support/s3_imposter, told what to do by lines."""

import subprocess

from harness import BUILD


class Imposter:
    def __init__(self, stage, name="s3"):
        program = BUILD / "tests" / "support" / "s3_imposter"
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stage.closers.append(self.close)
        self.endpoint = self.process.stdout.readline().strip()
        self.key = stage.write(stage.directory / f"{name}.key", "access_key = AK\nsecret_key = SeCrEt\n")

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def say(self, *words):
        self.process.stdin.write(" ".join(str(word) for word in words) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def retrievals(self):
        """How many objects were thawed, and how often that was paid for in all."""
        objects, paid = self.say("retrievals").split()
        return int(objects), int(paid)

    def counts(self):
        return {kind: int(count) for kind, count in (part.split("=") for part in self.say("counts").split())}

    def url(self, prefix="main"):
        return f"s3://bucket/{prefix}?endpoint={self.endpoint}&credentials=file:{self.key}"
