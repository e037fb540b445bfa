"""The stage of an integration test: a scratch directory, the unprivileged user, processes, bounded waits."""

import atexit
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("WALVAULT_BUILD", ROOT / "build" / "asan"))
PG_BIN = pathlib.Path(os.environ.get("WALVAULT_PG_BIN", "/usr/lib/postgresql/15/bin"))
PG_MAJOR = 15  # of PG_BIN
SUPPORTED_MAJORS = (14, 15, 16, 17, 18)
# PostgreSQL of other majors, as tests/install-postgres puts it there: MAJOR/bin, MAJOR/lib, MAJOR/share.
OTHER_POSTGRES = pathlib.Path(os.environ.get("WALVAULT_POSTGRES", ROOT / "build" / "postgres"))
# Every wait has a deadline; this many seconds unless the caller knows better. Sanitized programs
# on a busy machine are slow, so it says "broken", not "slow".
PATIENCE_SECONDS = 90


def _interrupt(*_):
    # The one exception that unittest does not take for a failed test; what is open is closed at exit.
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, _interrupt)


def wait_until(condition, what, timeout=PATIENCE_SECONDS, every=0.05):
    """Polls `condition` until it gives something true, and returns that."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}; the last answer was {value!r}")
        time.sleep(every)


def lsn_number(text):
    """'0/5A2C418' as an integer."""
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(number):
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def now_micros():
    return time.time_ns() // 1000


def free_tcp_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tail_of(path, lines=60):
    try:
        return "\n".join(pathlib.Path(path).read_text(errors="replace").splitlines()[-lines:])
    except OSError as error:
        return f"({error})"


class Stage:
    """Owns a directory and every process started in it; close() leaves neither behind."""

    def __init__(self, name, base=None):
        if not (BUILD / "agent" / "walvault").exists():
            raise FileNotFoundError(f"{BUILD}/agent/walvault is not built")
        self.account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="wv-", dir=base))
        os.chmod(self.directory, 0o755)
        self.give(self.directory)
        self.name = name
        self.processes = []
        self.closers = []
        self.logs = []
        self.walvault = self._reachable_program(BUILD / "agent" / "walvault")
        atexit.register(self.close)

    def close(self):
        atexit.unregister(self.close)
        while self.closers:
            self.closers.pop()()
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
                process.wait()
        self.processes.clear()
        shutil.rmtree(self.directory, ignore_errors=True)

    def give(self, path):
        """Makes the unprivileged user the owner of `path`."""
        if os.getuid() == 0:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def make_directory(self, *parts, mode=0o700):
        path = self.directory.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        for made in [path, *path.parents]:
            if made == self.directory:
                break
            self.give(made)
        os.chmod(path, mode)
        return path

    def write(self, path, text, mode=0o600):
        path = pathlib.Path(path)
        path.write_text(text)
        os.chmod(path, mode)
        self.give(path)
        return path

    def environment(self, **changes):
        kept = {key: value for key, value in os.environ.items()
                if key in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")}
        kept.update(PATH=f"{PG_BIN}:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C.UTF-8", TZ="UTC",
                    HOME=str(self.directory), NO_COLOR="1")
        kept.update(changes)
        return kept

    def user_arguments(self):
        if os.getuid() != 0:
            return {}
        return dict(user=self.account.pw_uid, group=self.account.pw_gid, extra_groups=[])

    def start(self, command, log=None, environment=None, **popen):
        """Starts `command` as the unprivileged user; its output goes to the file `log`."""
        if log is not None:
            self.logs.append(log)
            output = open(log, "ab")
            popen.setdefault("stdout", output)
            popen.setdefault("stderr", subprocess.STDOUT)
        process = subprocess.Popen([str(part) for part in command], cwd=self.directory,
                                   env=environment or self.environment(),
                                   **{"stdin": subprocess.DEVNULL, **popen}, **self.user_arguments())
        if log is not None:
            output.close()
        self.processes.append(process)
        return process

    def run(self, command, check=True, timeout=PATIENCE_SECONDS * 2, environment=None, **popen):
        """Runs `command` to its end as the unprivileged user and returns the CompletedProcess."""
        done = subprocess.run([str(part) for part in command], cwd=self.directory, text=True,
                              errors="replace", env=environment or self.environment(), timeout=timeout,
                              **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                                 "stderr": subprocess.PIPE, **popen}, **self.user_arguments())
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(str(part) for part in command)}\nended with {done.returncode}\n"
                                 f"{done.stdout}\n{done.stderr}")
        return done

    def copy_tree(self, source, target):
        """A copy with owners, modes and times, sharing blocks where the file system can."""
        subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)

    def show_logs(self):
        for log in dict.fromkeys(self.logs):
            print(f"---- the end of {log}\n{tail_of(log)}", flush=True)

    def postgres_programs(self, major):
        """The directory of PostgreSQL's programs of `major`; None where it is not installed."""
        if major == PG_MAJOR:
            return PG_BIN
        place = OTHER_POSTGRES / str(major)
        if not (place / "version").exists():
            return None
        if not self._is_reachable(place / "bin" / "postgres"):
            copy = self.make_directory("postgres", mode=0o755) / str(major)
            if not copy.exists():
                self.copy_tree(place, copy)
            place = copy
        return place / "bin"

    def _is_reachable(self, program):
        return subprocess.run(["test", "-x", str(program)], cwd="/", **self.user_arguments()).returncode == 0

    def _reachable_program(self, program):
        """`program`, or a copy of it where the unprivileged user cannot reach the original."""
        if self._is_reachable(program):
            return program
        copy = self.directory / program.name
        shutil.copy2(program, copy)
        os.chmod(copy, 0o755)
        return copy


class StageCase(unittest.TestCase):
    """A test with a stage of its own; what it logged is shown when it fails."""

    maxDiff = None

    def run(self, result=None):
        self._result = result
        self._failures_before = len(result.failures) + len(result.errors) if result else 0
        return super().run(result)

    def setUp(self):
        self.stage = Stage(self.id())
        self.addCleanup(self._close_stage)

    def _close_stage(self):
        result = self._result
        if result and len(result.failures) + len(result.errors) > self._failures_before:
            self.stage.show_logs()
        self.stage.close()


def seeded_random(test):
    """A generator whose seed is printed, and can be given again in WALVAULT_TEST_SEED."""
    seed = int(os.environ.get("WALVAULT_TEST_SEED", time.time_ns() % 1_000_000_007))
    print(f"seed {seed} (WALVAULT_TEST_SEED={seed} repeats {test})", flush=True)
    return random.Random(seed)


def of_each_major(module, base, name):
    """A class of tests for each major that is supported, as members of the module `module` (its globals()): of the
    mixin `base`, with `major`; `name` has a {} for it."""
    for major in SUPPORTED_MAJORS:
        title = name.format(major)
        module[title] = type(title, (base, unittest.TestCase), {"major": major, "__module__": module["__name__"]})
