"""A Debian server of its own to install things on: namespaces of this machine whose /etc, /var/lib, /usr/local/bin
and /run are in memory. What a README tells root to do is done there as it stands, and is gone at the end."""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess

from harness import BUILD, PATIENCE_SECONDS, ROOT, wait_until

VERSION = "15"

SET_UP = r"""
set -e
here=$1
ip link set lo up
mount -t tmpfs -o size=2g,mode=755 machine "$here"
cp -a /etc "$here/etc"
rm -rf "$here"/etc/postgresql/* "$here"/etc/walvault "$here"/etc/systemd/system/walvault*
mkdir -p "$here"/etc/systemd/system "$here"/bin "$here"/lib "$here"/run/lock "$here"/log "$here"/source
install -d -o postgres -g postgres -m 755 "$here"/lib/postgresql
install -d -o postgres -g postgres -m 2775 "$here"/run/postgresql
install -d -o root -g postgres -m 1775 "$here"/log/postgresql
mount --bind "$here/etc" /etc
mount --bind "$here/bin" /usr/local/bin
mount --bind "$here/lib" /var/lib
mount --bind "$here/run" /run
mount --bind "$here/log" /var/log
echo ready
exec cat
"""


def why_not():
    """Why there can be no such machine here, or None."""
    if os.getuid() != 0:
        return "only root may make namespaces and clusters"
    for program in ("pg_createcluster", "unshare", "nsenter", "ip", "runuser"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    probe = subprocess.run(["unshare", "--mount", "--net", "mount", "-t", "tmpfs", "probe", "/mnt"],
                           capture_output=True, text=True)
    return None if probe.returncode == 0 else f"no namespaces here: {probe.stderr.strip()}"


class DebianMachine:
    """Root's shell on it, its cluster 15/main, and the agent as its unit would start it."""

    def __init__(self, stage):
        self.stage = stage
        self.place = stage.make_directory("machine", mode=0o755)
        self.keeper = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", SET_UP, "sh", self.place],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stage.closers.append(self.close)
        if self.keeper.stdout.readline() != "ready\n":
            raise AssertionError("the machine could not be set up")
        self.agent = None
        self.agent_log = stage.directory / "unit.log"
        # Where the README's relative paths lead to.
        source = self.place / "source"
        self.run(f"mkdir -p {source}/build/release && ln -s {BUILD}/agent {source}/build/release/agent"
                 f" && ln -s {ROOT}/deploy {source}/deploy")
        self.source = source

    def close(self):
        self.stop_agent(kill=True)
        self.run(f"pg_ctlcluster -m immediate {VERSION} main stop", check=False)
        self.run("for d in /var/lib/postgresql/*/; do runuser -u postgres -- "
                 f"/usr/lib/postgresql/{VERSION}/bin/pg_ctl -D $d -m immediate stop; done", check=False)
        self.keeper.stdin.close()
        self.keeper.wait(30)
        self.keeper.stdout.close()

    def enter(self, *command):
        space = f"/proc/{self.keeper.pid}/ns"
        return ["nsenter", f"--mount={space}/mnt", f"--net={space}/net", "--", *command]

    def environment(self):
        kept = {key: value for key, value in os.environ.items()
                if key in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")}
        # Root's on Debian: PostgreSQL's own programs are not in it.
        kept.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C.UTF-8",
                    HOME="/root", TZ="UTC", NO_COLOR="1")
        return kept

    def run(self, line, check=True, user=None, timeout=PATIENCE_SECONDS * 2):
        """Runs a line of shell as root, or as `user`, in the directory of the source."""
        shell = ["bash", "-c", line]
        if user:
            shell = ["runuser", "-u", user, "--", *shell]
        directory = self.place / "source"
        into = ["bash", "-c", f"cd {directory} 2>/dev/null || cd /; exec \"$@\"", "bash", *shell]
        done = subprocess.run(self.enter(*into), env=self.environment(), stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace", timeout=timeout)
        if check and done.returncode != 0:
            log = self.agent_log.read_text()[-3000:] if self.agent_log.exists() else ""
            raise AssertionError(f"{line}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}\n{log}")
        return done

    # --- PostgreSQL, as Debian sets it up ---------------------------------------------------------

    def create_cluster(self):
        self.run(f"pg_createcluster {VERSION} main")
        self.run(f"pg_ctlcluster {VERSION} main start")
        return self

    def sql(self, query, port=5432):
        return self.run(f"psql -XAtq -p {port} -d postgres -c {shlex.quote(query)}",
                        user="postgres").stdout.strip()

    # --- the agent, as systemd would start it -----------------------------------------------------

    def start_unit(self, name):
        """What `systemctl enable --now walvault@NAME` does, as far as it can be done without systemd."""
        text = self.run("cat /etc/systemd/system/walvault@.service").stdout
        unit = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
        command = unit["ExecStart"].replace("%i", name).split()
        listener = NotifyListener(self.stage.directory / "notify")
        with contextlib.closing(listener):
            environment = {**self.environment(), "NOTIFY_SOCKET": str(listener.path)}
            with open(self.agent_log, "ab") as log:
                self.agent = subprocess.Popen(
                    self.enter("setpriv", f"--reuid={unit['User']}", f"--regid={unit['Group']}",
                               "--init-groups", "--", *command),
                    cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    umask=int(unit["UMask"], 8))
            self.stage.processes.append(self.agent)
            self.stage.logs.append(self.agent_log)
            wait_until(lambda: listener.is_ready() or self.agent.poll() is not None, "the unit to be ready")
        if self.agent.poll() is not None:
            raise AssertionError(f"the unit ended:\n{self.agent_log.read_text()[-3000:]}")

    def stop_agent(self, kill=False):
        if self.agent is None or self.agent.poll() is not None:
            return None
        self.agent.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        return self.agent.wait(60)


class NotifyListener:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.setblocking(False)
        os.chmod(self.path, 0o777)

    def is_ready(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                if b"READY=1" in self.socket.recv(4096).split(b"\n"):
                    return True
        return False

    def close(self):
        self.socket.close()
