"""A throw-away PostgreSQL 15: own directory, own port, unix socket only, fsync on; and its load."""

import glob
import os
import re
import shutil
import subprocess
import time

import measure

BIN = "/usr/lib/postgresql/15/bin"
SEGMENT_BYTES = 16 << 20

# Bulk rows: text and jsonb that do not repeat, a primary key that grows and an index that does not.
SCHEMA = """
CREATE TABLE bulk (id bigserial PRIMARY KEY, token text, document jsonb, noted_at timestamptz);
CREATE INDEX ON bulk (token);
CREATE TABLE ballast (id bigserial PRIMARY KEY, token text, document jsonb, noted_at timestamptz);
"""
ROWS = """INSERT INTO {table} (token, document, noted_at)
SELECT md5(random()::text) || ' ' || md5(random()::text),
       jsonb_build_object('customer', (random() * 1e6)::int, 'name', md5(random()::text),
                          'amount', round((random() * 1e4)::numeric, 2), 'state', 'delivered',
                          'tags', jsonb_build_array('tag' || (random() * 50)::int, md5(g::text)),
                          'comment', md5(random()::text) || repeat(' left at the door', (random() * 2)::int)),
       clock_timestamp()
FROM generate_series(1, {count}) g;
"""


class Server:
    """One cluster under `directory`; every process of it is stopped by close()."""

    def __init__(self, directory, port):
        self.directory = directory
        self.data = f"{directory}/data"
        self.socket = f"{directory}/socket"
        self.port = port
        self.scripts = f"{directory}/scripts"

    def create(self, scale=50):
        for path in (self.directory, self.socket, self.scripts):
            make_directory(path)
        measure.as_user([f"{BIN}/initdb", "-D", self.data, "-A", "trust", "-U", "postgres",
                         "--data-checksums", "-E", "UTF8", "--no-locale", "--no-sync"])
        with open(f"{self.data}/postgresql.conf", "a") as conf:
            conf.write(f"""
port = {self.port}
listen_addresses = ''
unix_socket_directories = '{self.socket}'
shared_buffers = 1GB
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
max_wal_size = 1GB
checkpoint_timeout = 5min
autovacuum = off
archive_mode = on
archive_command = ''
hot_standby = on
log_checkpoints = off
""")
        self.start()
        for name, count in (("bulk", 2000), ("ballast", 20000)):
            write_text(f"{self.scripts}/{name}.sql", ROWS.format(table=name, count=count))
        self.sql(SCHEMA)
        self.pgbench(["-i", "-q", "-s", str(scale)])

    def move_wal_to(self, lsn):
        """Stops the cluster and lets its WAL go on at `lsn`, as if all before had been written."""
        measure.as_user([f"{BIN}/pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop"])
        measure.as_user([f"{BIN}/pg_resetwal", "-l", self.segment_name(lsn), self.data])
        self.start()

    def start(self):
        measure.as_user([f"{BIN}/pg_ctl", "-D", self.data, "-w", "-t", "120", "-l",
                         f"{self.directory}/server.log", "start"])

    def close(self):
        if os.path.exists(f"{self.data}/postmaster.pid"):
            measure.as_user([f"{BIN}/pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop"], check=False)

    def conninfo(self, database="postgres"):
        return f"host={self.socket} port={self.port} user=postgres dbname={database}"

    def sql(self, text):
        return measure.as_user([f"{BIN}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo(),
                                "-c", text]).strip()

    def sql_file(self, path):
        return measure.as_user([f"{BIN}/psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", self.conninfo(),
                                "-f", path])

    def pgbench(self, arguments):
        return measure.as_user([f"{BIN}/pgbench", "-h", self.socket, "-p", self.port, "-U", "postgres",
                                *arguments, "postgres"])

    def start_pgbench(self, seconds):
        """The live load; read its TPS from communicate()."""
        command = [f"{BIN}/pgbench", "-h", self.socket, "-p", str(self.port), "-U", "postgres", "-n",
                   "-c", "8", "-j", "2", "-T", str(seconds), "postgres"]
        return subprocess.Popen(["setpriv", f"--reuid={measure.USER}", f"--regid={measure.USER}",
                                 "--init-groups", "--"] + command, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=measure.environment(), cwd="/")

    def set_synchronous(self, application_name):
        """Commits wait for `application_name` from now on, or for nobody."""
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{application_name}'")
        self.sql("SELECT pg_reload_conf()")
        if application_name:
            wait_until(lambda: self.sql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1",
                       f"{application_name} is not the synchronous standby", 60)

    def pgbench_latencies(self, script, seconds):
        """pgbench's output and the microseconds that each transaction took."""
        prefix = f"{self.scripts}/latency"
        output = self.pgbench(["-n", "-c", "8", "-j", "2", "-T", str(seconds), "-f", script, "-l",
                               f"--log-prefix={prefix}"])
        latencies = []
        for path in glob.glob(f"{prefix}.*"):
            with open(path) as lines:
                latencies += [int(line.split()[2]) for line in lines]
            os.unlink(path)
        return output, latencies

    def lsn(self):
        return lsn_value(self.sql("SELECT pg_current_wal_flush_lsn()"))

    def fill(self, size_bytes):
        """Grows the cluster to `size_bytes` of data files, then leaves it vacuumed and checkpointed."""
        while int(self.sql("SELECT pg_database_size('postgres')")) < size_bytes:
            self.pgbench(["-n", "-c", "2", "-j", "2", "-t", "2", "-f", f"{self.scripts}/ballast.sql"])
            self.skip_archiving()
        self.sql("VACUUM (ANALYZE)")
        self.sql("CHECKPOINT")
        self.skip_archiving()

    def make_wal(self, size_bytes):
        """pgbench and bulk inserts, mixed, until so many bytes of WAL exist; the boundary after them."""
        start = self.lsn()
        while self.lsn() - start < size_bytes:
            self.pgbench(["-n", "-c", "8", "-j", "2", "-T", "3", "-b", "tpcb-like@40",
                          "-f", f"{self.scripts}/bulk.sql@1"])
        return self.switch()

    def switch(self):
        """Ends the current segment, with a little WAL after it; gives the boundary."""
        boundary = lsn_value(self.sql("SELECT pg_switch_wal()"))
        boundary = (boundary + SEGMENT_BYTES - 1) // SEGMENT_BYTES * SEGMENT_BYTES
        self.sql("SELECT pg_create_restore_point('bench')")
        return boundary

    def checkpoint(self):
        self.sql("CHECKPOINT")

    def segment_name(self, lsn):
        number = lsn // SEGMENT_BYTES
        per_id = (1 << 32) // SEGMENT_BYTES
        return f"{1:08X}{number // per_id:08X}{number % per_id:08X}"

    def copy_slot(self, source, name):
        self.sql(f"SELECT pg_copy_physical_replication_slot('{source}', '{name}')")

    def drop_slot(self, name):
        """Waits for its walsender to end first."""
        wait_until(lambda: self.sql(f"SELECT count(*) FROM pg_replication_slots "
                                    f"WHERE slot_name = '{name}' AND active") == "0",
                   f"slot {name} is still in use", 30)
        self.sql(f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                 f"WHERE slot_name = '{name}'")

    def archiver_pid(self):
        return int(self.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'archiver'"))

    def set_archive_command(self, command):
        quoted = command.replace("'", "''")
        self.sql(f"ALTER SYSTEM SET archive_command = '{quoted}'")
        self.sql("SELECT pg_reload_conf()")
        wait_until(lambda: self.sql("SHOW archive_command") == command, "archive_command is not set", 10)

    def skip_archiving(self):
        """Marks every waiting segment as archived, so that WAL nobody needs can go."""
        for ready in glob.glob(f"{self.data}/pg_wal/archive_status/*.ready"):
            os.rename(ready, ready[:-len(".ready")] + ".done")

    def archive_again(self, start, end):
        """Makes every segment of [start, end) wait for the archiver."""
        for name in self.segments(start, end):
            status = f"{self.data}/pg_wal/archive_status/{name}"
            if os.path.exists(f"{status}.done"):
                os.rename(f"{status}.done", f"{status}.ready")
            if not os.path.exists(f"{status}.ready"):
                raise RuntimeError(f"segment {name} has no archive status")

    def segments(self, start, end):
        first = start // SEGMENT_BYTES * SEGMENT_BYTES
        return [self.segment_name(lsn) for lsn in range(first, end, SEGMENT_BYTES)]


def lsn_value(text):
    high, low = text.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(value):
    return f"{value >> 32:X}/{value & 0xFFFFFFFF:X}"


def make_directory(path, mode=0o700):
    os.makedirs(path, mode=mode, exist_ok=True)
    shutil.chown(path, measure.USER, measure.USER)


def write_text(path, text, mode=0o600):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    shutil.chown(path, measure.USER, measure.USER)


def tps_of(output):
    return float(re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE).group(1))


def wait_until(condition, complaint, timeout_seconds):
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{complaint} after {timeout_seconds} s")
        time.sleep(0.02)
