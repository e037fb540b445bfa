"""WalDecoder against pg_waldump: the same commits, drops, marks and switches in a real server's WAL.

Needs PostgreSQL 15 and the wal_dump test program (WALVAULT_WAL_DUMP, or found under build/).
"""
import glob
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import unittest

PG = os.environ.get("WALVAULT_PG_BIN", "/usr/lib/postgresql/15/bin")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

WORKLOAD = """
create table t(a int primary key, b text);
insert into t select g, repeat('x', 100) from generate_series(1, 1000) g;
create table m(a int);
copy m from program 'seq 1 5000';
update t set b = 'y' where a <= 100;
delete from t where a > 990;
begin; insert into m values (1); savepoint s; insert into m values (2); release s;
savepoint s2; insert into m values (3); rollback to s2; commit;
create table d1(a int); create table d2(a text);
drop table d1, d2;
begin; truncate m; insert into m values (9); commit;
select pg_create_restore_point('before the fall');
begin; insert into t values (5001, 'p'); prepare transaction 'one';
begin; insert into t values (5002, 'p'); create table pp(a int); prepare transaction 'two';
commit prepared 'one';
rollback prepared 'two';
select pg_logical_emit_message(true, 'x', repeat('z', 3000000)) is null;
select pg_switch_wal() is null;
copy m from program 'seq 1 10000';
checkpoint;
select pg_switch_wal() is null;
vacuum full t;
begin; insert into m values (4); rollback;
"""


def find_wal_dump():
    named = os.environ.get("WALVAULT_WAL_DUMP")
    if named:
        return named
    built = glob.glob(os.path.join(ROOT, "build", "*", "tests", "**", "wal_dump"), recursive=True)
    return max(built, key=os.path.getmtime) if built else None


class Server:
    """A private server: unix socket only, its own directory, stopped and removed by close()."""

    def __init__(self, segment_mb):
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.directory = tempfile.mkdtemp(prefix="wv-decoder-")
        self.data = os.path.join(self.directory, "data")
        self.started = False
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")
        try:
            self.run("initdb", "-D", self.data, "-U", "postgres", "--no-sync", "-A", "trust",
                     f"--wal-segsize={segment_mb}")
            with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as conf:
                conf.write(f"listen_addresses = ''\nunix_socket_directories = '{self.directory}'\n"
                           "wal_level = logical\nmax_prepared_transactions = 10\nfsync = off\n"
                           "wal_keep_size = 2GB\nmax_wal_size = 4GB\nautovacuum = off\n")
            self.start()
        except BaseException:
            self.close()
            raise

    def run(self, program, *arguments):
        command = [os.path.join(PG, program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", self.user, "--", *command]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              cwd=self.directory, timeout=300, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr}")
        return done.stdout

    def start(self):
        self.run("pg_ctl", "-D", self.data, "-l", os.path.join(self.directory, "log"), "-w", "start")
        self.started = True

    def stop(self, mode):
        self.run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")
        self.started = False

    def sql(self, text):
        return self.run("psql", "-h", self.directory, "-U", "postgres", "-AtX", "-q",
                        "-v", "ON_ERROR_STOP=1", *sum((["-c", line] for line in text), []))

    def close(self):
        if self.started:
            self.stop("immediate")
        shutil.rmtree(self.directory, ignore_errors=True)


def lsn_number(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def lsn_text(number):
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def kept_files(description):
    """Relation files as pg_waldump names them: base/DB/REL is tablespace 1663, global/REL is 1664."""
    found = re.search(r"; rels:((?: [^ ;]+)+)", description)
    files = []
    for path in found.group(1).split() if found else []:
        parts = path.split("/")
        if parts[0] == "base":
            files.append(f"1663/{parts[1]}/{parts[2]}")
        elif parts[0] == "global":
            files.append(f"1664/0/{parts[1]}")
        else:
            files.append(f"{parts[1]}/{parts[3]}/{parts[4]}")
    return tuple(files)


def micros(text):
    return text.replace(" ", "T") if "." in text else text.replace(" ", "T") + ".000000"


def from_waldump(output):
    """(kind, lsn, xid, time, detail) of each record that is a finding."""
    line_form = re.compile(r"rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*(\d+), tx:\s*(\d+), "
                           r"lsn: (\S+), prev \S+, desc: (\S+)(.*)$")
    stamp = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC"
    rows = []
    for line in output.splitlines():
        found = line_form.match(line)
        if not found:
            continue
        manager, _, xid, lsn, operation, rest = found.groups()
        lsn = lsn_text(lsn_number(lsn))
        at = re.search(stamp, rest)
        at = micros(at.group(1)) if at else None
        if manager == "Transaction" and operation in ("COMMIT", "ABORT"):
            rows.append((operation.lower(), lsn, xid, at,
                         kept_files(rest) if operation == "COMMIT" else ()))
        elif manager == "Transaction" and operation in ("COMMIT_PREPARED", "ABORT_PREPARED"):
            xid = re.match(r" (\d+):", rest).group(1)
            kind = operation.split("_")[0].lower()
            rows.append((kind, lsn, xid, at, kept_files(rest) if kind == "commit" else ()))
        elif manager == "Transaction" and operation == "PREPARE":
            rows.append(("prepare", lsn, xid, at, ()))
        elif manager == "XLOG" and operation == "RESTORE_POINT":
            rows.append(("restore_point", lsn, "0", None, rest.strip()))
        elif manager == "XLOG" and operation == "SWITCH":
            rows.append(("segment_switch", lsn, "0", None, ()))
        elif manager == "XLOG" and operation.startswith("CHECKPOINT"):
            redo = re.search(r"redo (\S+);", rest).group(1)
            rows.append(("checkpoint", lsn, "0", None, lsn_text(lsn_number(redo))))
        elif manager == "XLOG" and operation == "PARAMETER_CHANGE":
            rows.append(("parameter_change", lsn, "0", None, ()))
        elif manager == "Heap" and operation == "TRUNCATE":
            rows.append(("truncate", lsn, xid, None, ()))
    return rows


def parse_dump(output):
    findings = []
    for line in output.splitlines():
        if line.startswith("end="):
            continue
        kind, rest = line.split(" ", 1)
        fields = {}
        for key in ("start", "end", "xid", "at", "redo", "timeline", "rows", "most", "dropped", "created"):
            fields[key] = re.search(rf"(?:^| ){key}=(\S+)", rest).group(1)
        fields["name"] = re.search(r" name=(.*) redo=", rest).group(1)
        findings.append((kind, fields))
    return findings


def from_dump(findings):
    rows = []
    for kind, fields in findings:
        at = fields["at"].rstrip("Z") if kind in ("commit", "abort", "prepare") else None
        detail = ()
        if kind == "commit" and fields["dropped"] != "-":
            detail = tuple(fields["dropped"].split(","))
        elif kind == "restore_point":
            detail = fields["name"]
        elif kind == "checkpoint":
            detail = fields["redo"]
        rows.append((kind, fields["start"], fields["xid"], at, detail))
    return rows


class WalDecoderTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.wal_dump = find_wal_dump()
        if cls.wal_dump is None:
            raise RuntimeError("wal_dump is not built: ninja -C build/... tests/unit/proto/wal_dump")

    def dump(self, server, segment_mb, start, end, piece_bytes=65536):
        done = subprocess.run([self.wal_dump, "15", os.path.join(server.data, "pg_wal"), "1",
                               str(segment_mb << 20), start, end, str(piece_bytes)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=300, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def waldump(self, server, start, end):
        return server.run("pg_waldump", "-p", os.path.join(server.data, "pg_wal"), "-s", start, "-e", end)

    def first_segment(self, server, segment_mb):
        names = sorted(name for name in os.listdir(os.path.join(server.data, "pg_wal"))
                       if re.fullmatch("[0-9A-F]{24}", name))
        per_high = (1 << 32) // (segment_mb << 20)
        number = int(names[0][8:16], 16) * per_high + int(names[0][16:], 16)
        return lsn_text(number * (segment_mb << 20))

    def check_segment_size(self, segment_mb):
        server = Server(segment_mb)
        self.addCleanup(server.close)
        start = server.sql(["select pg_current_wal_lsn()"]).strip()
        server.sql(filter(None, (line.strip() for line in WORKLOAD.replace("\n", " ").split(";"))))
        end = server.sql(["select pg_switch_wal() is null", "checkpoint",
                          "select pg_current_wal_flush_lsn()"]).split()[-1]
        first = self.first_segment(server, segment_mb)
        whole = self.dump(server, segment_mb, first, end)
        self.assertEqual(whole, self.dump(server, segment_mb, first, end, 1013), "cut differently")

        expected = from_waldump(self.waldump(server, start, end))
        kinds = {row[0] for row in expected}
        self.assertLessEqual({"commit", "abort", "prepare", "restore_point", "segment_switch",
                              "checkpoint", "truncate"}, kinds)
        got = [row for row in from_dump(parse_dump(whole))
               if lsn_number(row[1]) >= lsn_number(start)]
        self.assertEqual(got, expected)
        self.check_rows(parse_dump(whole))
        self.check_resume(server, segment_mb, whole, end)

    def check_rows(self, findings):
        """Row counts of the workload's transactions, catalogues left out."""
        rows = [fields["rows"] for kind, fields in findings if kind == "commit"]
        for expected in ("1000/0/0", "5000/0/0", "0/100/0", "0/0/10", "2/0/0", "10000/0/0"):
            self.assertEqual(rows.count(expected), 1, expected)
        truncated = [fields for kind, fields in findings if kind == "commit"
                     and fields["rows"] == "1/0/0" and fields["dropped"] != "-"]
        self.assertEqual(len(truncated), 1)
        self.assertEqual(truncated[0]["created"], truncated[0]["most"])

    def check_resume(self, server, segment_mb, whole, end):
        """Decoding that begins at any commit gives what followed it."""
        lines = whole.splitlines()
        commits = [index for index, line in enumerate(lines) if line.startswith("commit ")]
        for index in commits[::max(1, len(commits) // 4)]:
            line = lines[index]
            start = re.search(r"start=(\S+)", line).group(1)
            again = self.dump(server, segment_mb, start, end).splitlines()
            strip = [re.sub(r" rows=.*", "", text) for text in lines[index:]]
            self.assertEqual([re.sub(r" rows=.*", "", text) for text in again], strip)

    def test_segments_of_1_mib_agree_with_pg_waldump(self):
        self.check_segment_size(1)

    def test_segments_of_16_mib_agree_with_pg_waldump(self):
        self.check_segment_size(16)

    def test_segments_of_64_mib_agree_with_pg_waldump(self):
        self.check_segment_size(64)


if __name__ == "__main__":
    unittest.main()
