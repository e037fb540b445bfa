"""Measuring a tool: wall time, CPU of all its processes, peak memory, bytes it left on disk.

CPU is read from a cgroup of the run (v1 cpuacct or v2), so that daemonised and re-parented children
count too. Memory is sampled: PSS summed over the cgroup, and the largest VmHWM of one process.
"""

import os
import pwd
import subprocess
import threading
import time

SAMPLE_SECONDS = 0.2
USER = "postgres"


def environment():
    """What a tool run as the unprivileged user sees; nothing of the caller's libpq settings."""
    home = pwd.getpwnam(USER).pw_dir
    return {"PATH": "/usr/lib/postgresql/15/bin:/usr/bin:/bin", "HOME": home, "LC_ALL": "C.UTF-8"}


class Group:
    """A cgroup of one measured run; also accounts processes that others start inside it."""

    _count = 0

    def __init__(self, label):
        Group._count += 1
        name = f"walvault-bench-{os.getpid()}-{Group._count}-{label}"
        if os.path.isdir("/sys/fs/cgroup/cpuacct"):
            self.path = f"/sys/fs/cgroup/cpuacct/{name}"
        else:
            self.path = f"/sys/fs/cgroup/{name}"
        try:
            os.mkdir(self.path)
        except OSError as error:
            raise SystemExit(f"cannot make the cgroup {self.path}: {error}; CPU cannot be accounted")
        self.pss_peak_bytes = 0
        self.resident_peak_bytes = 0
        self._stop = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    def processes(self):
        with open(f"{self.path}/cgroup.procs") as procs:
            return [int(line) for line in procs]

    def adopt(self, pid):
        with open(f"{self.path}/cgroup.procs", "w") as procs:
            procs.write(str(pid))

    def release(self, pid):
        parent = os.path.dirname(self.path)
        with open(f"{parent}/cgroup.procs", "w") as procs:
            procs.write(str(pid))

    def cpu_seconds(self):
        try:
            with open(f"{self.path}/cpuacct.usage") as usage:
                return int(usage.read()) / 1e9
        except FileNotFoundError:
            with open(f"{self.path}/cpu.stat") as stat:
                fields = dict(line.split() for line in stat)
            return int(fields["usage_usec"]) / 1e6

    def wait_empty(self, but=(), timeout_seconds=30):
        deadline = time.monotonic() + timeout_seconds
        while [pid for pid in self.processes() if pid not in but]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {self.processes()} are still running")
            time.sleep(0.02)

    def close(self):
        self._stop.set()
        self._sampler.join()
        for attempt in range(50):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.05)

    def _sample(self):
        while not self._stop.wait(SAMPLE_SECONDS):
            total = 0
            for pid in self.processes():
                total += read_kib(f"/proc/{pid}/smaps_rollup", "Pss:")
                peak = read_kib(f"/proc/{pid}/status", "VmHWM:")
                self.resident_peak_bytes = max(self.resident_peak_bytes, peak)
            self.pss_peak_bytes = max(self.pss_peak_bytes, total)


def read_kib(path, field):
    """Bytes of a `Name:  123 kB` line; 0 when the process is gone."""
    try:
        with open(path) as lines:
            for line in lines:
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


class Started:
    """A tool running as the unprivileged user inside a group of its own."""

    def __init__(self, command, label, log_path):
        self.group = Group(label)
        self.command = [str(part) for part in command]
        self.log_path = log_path
        self._log = open(log_path, "ab")
        join = 'echo $$ >"$0/cgroup.procs"; exec "$@"'
        launcher = ["sh", "-c", join, self.group.path, "setpriv", f"--reuid={USER}", f"--regid={USER}",
                    "--init-groups", "--"]
        self.began = time.monotonic()
        self.process = subprocess.Popen(launcher + self.command, stdin=subprocess.DEVNULL,
                                        stdout=self._log, stderr=self._log, env=environment(),
                                        cwd="/", start_new_session=True)
        self.pid = self.process.pid

    def running(self):
        return self.process.poll() is None

    def finish(self, signal=None, timeout_seconds=3600):
        """Waits for the end and gives a Run; raises when the tool failed."""
        if signal is not None and self.running():
            self.process.send_signal(signal)
        try:
            code = self.process.wait(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "a time-out"
        wall = time.monotonic() - self.began
        self.group.wait_empty()
        run = Run(wall, self.group)
        self.group.close()
        self._log.close()
        if code != 0:
            raise RuntimeError(f"{' '.join(self.command)} ended with {code}:\n{tail_of(self.log_path)}")
        return run


class Run:
    """Numbers of one run."""

    def __init__(self, wall_seconds, group):
        self.wall_seconds = wall_seconds
        self.cpu_seconds = group.cpu_seconds()
        self.pss_peak_bytes = group.pss_peak_bytes
        self.resident_peak_bytes = group.resident_peak_bytes
        self.stored_bytes = 0
        self.extra = {}

    def as_dict(self):
        return {"wall_seconds": round(self.wall_seconds, 3), "cpu_seconds": round(self.cpu_seconds, 3),
                "pss_peak_bytes": self.pss_peak_bytes, "resident_peak_bytes": self.resident_peak_bytes,
                "stored_bytes": self.stored_bytes, **self.extra}


def processes_with(text):
    """Pids of processes whose command line contains `text`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as command:
                if text.encode() in command.read():
                    found.append(int(pid))
        except OSError:
            pass
    return found


def tail_of(path, lines=25):
    with open(path, errors="replace") as log:
        return "".join(log.readlines()[-lines:])


def as_user(command, check=True, timeout=3600, input_text=None):
    """Runs a command as the unprivileged user, its CPU not accounted; gives its stdout."""
    entry = pwd.getpwnam(USER)
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment(), cwd="/",
                          user=USER, group=entry.pw_gid, extra_groups=os.getgrouplist(USER, entry.pw_gid),
                          timeout=timeout, input=input_text)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n"
                           f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def tree_bytes(path, without=()):
    """Sum of file sizes under `path`, leaving out top-level names in `without`."""
    total = 0
    for directory, names, files in os.walk(path):
        if directory == str(path):
            names[:] = [name for name in names if name not in without]
        for file in files:
            total += os.lstat(os.path.join(directory, file)).st_size
    return total


def settle(*warm_paths):
    """Before each timed run: write back what is dirty, and read the sources into the page cache."""
    os.sync()
    for path in warm_paths:
        for directory, _, files in os.walk(path):
            for file in files:
                warm(os.path.join(directory, file))


def warm(path):
    if not os.path.isfile(path):  # an agent's socket
        return
    try:
        with open(path, "rb", buffering=0) as source:
            while source.read(1 << 22):
                pass
    except FileNotFoundError:
        pass
