"""The cases of the table. Each gives rows of raw runs; report.py turns them into ratios and verdicts."""

import os
import shutil
import signal
import statistics
import time

import lag
import measure
import server as servers
from tools import (FLUSH_INTERVAL_SECONDS, PgBackRest, PgReceivewal, Walvault, histogram,
                   histogram_quantile, promoted, start_postgres)

GIB = 1 << 30


class Context:
    """One cluster, the tools, and what the options ask for."""

    def __init__(self, scratch, options):
        self.scratch = scratch
        self.options = options
        self.server = servers.Server(f"{scratch}/server", options.port)
        self.filled = False
        self.peers = {"plain": PgReceivewal(self.server, scratch, "plain"),
                      "lz4": PgReceivewal(self.server, scratch, "lz4"),
                      "pgbackrest": PgBackRest(self.server, scratch)}
        self.walvault = None if options.peers_only else Walvault(self.server, scratch, options.walvault)
        self.started = []

    def tools(self):
        return self.peers | ({"walvault": self.walvault} if self.walvault else {})

    def fill(self):
        if not self.filled:
            say(f"filling the cluster to {self.options.cluster_gib} GiB")
            self.server.fill(int(self.options.cluster_gib * GIB))
            self.filled = True

    def close(self):
        for started in self.started:
            if started.running():
                started.process.terminate()
                started.process.wait(timeout=60)
        for tool in self.tools().values():
            live = getattr(tool, "started", None)
            if live is not None and live.running():
                live.process.kill()
                live.process.wait()
        self.server.close()


def say(text):
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def note(case, tool, run):
    say(f"{case:12} {tool:20} {run.wall_seconds:8.2f} s  {run.cpu_seconds:7.2f} CPU s  "
        f"{run.stored_bytes / 1e6:9.1f} MB  PSS {run.pss_peak_bytes >> 20} MiB")
    return run.as_dict()


def drain(context):
    """A backlog of WAL that each tool finds when it is attached."""
    server = context.server
    keeper = "bench_keeper"
    start = server.switch()
    server.sql(f"SELECT pg_create_physical_replication_slot('{keeper}', true)")
    start = max(start, servers.lsn_value(server.sql(
        f"SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '{keeper}'")))
    start -= start % servers.SEGMENT_BYTES
    say(f"generating {context.options.wal_gib} GiB of WAL")
    end = server.make_wal(int(context.options.wal_gib * GIB))
    server.checkpoint()
    result = {"wal_bytes": end - start, "runs": {name: [] for name in context.tools()}}
    for _ in range(context.options.rounds):
        for name, tool in context.tools().items():
            run = tool.drain(keeper, start, end)
            result["runs"][name].append(note("drain", tool.name, run))
    server.drop_slot(keeper)
    server.skip_archiving()
    server.checkpoint()
    return result


def live(context):
    """pgbench with each tool attached in turn; interleaved, so that drift hits all alike."""
    server = context.server
    lag.install(server)
    seconds = context.options.live_seconds
    result = {"seconds": seconds, "flush_interval_seconds": FLUSH_INTERVAL_SECONDS,
              "runs": {name: [] for name in ["nothing", "lz4", "pgbackrest", "walvault"]
                       if name == "nothing" or name in context.tools()}}
    names = list(result["runs"])
    for number in range(context.options.turns):
        for name in names[number % len(names):] + names[:number % len(names)]:
            run = live_run(context, name, seconds)
            result["runs"][name].append(run)
            say(f"live         {name:20} {run['tps']:8.0f} TPS  " + "  ".join(
                f"{key} {run[key]:.3f}" for key in ("lag_p50", "lag_p99", "cpu_share")
                if run.get(key) is not None))
    return result


def live_run(context, name, seconds):
    server = context.server
    tool = context.tools().get(name)
    server.checkpoint()
    os.sync()
    if tool:
        tool.attach()
    before = {}
    if name == "walvault":
        before = histogram(context.walvault.metrics(), "walvault_commit_durable_seconds")
    cpu_before = tool_group(tool).cpu_seconds() if tool else 0
    load = server.start_pgbench(seconds)
    sampler = lag.start(server, seconds - 1)
    output, errors = load.communicate()
    _, samples = sampler.communicate()
    if load.returncode != 0:
        raise RuntimeError(f"pgbench failed:\n{errors[-2000:]}")
    run = {"tps": servers.tps_of(output)}
    if tool:
        run["cpu_share"] = (tool_group(tool).cpu_seconds() - cpu_before) / seconds
    if name == "walvault":
        after = histogram(context.walvault.metrics(), "walvault_commit_durable_seconds")
        for share in (0.5, 0.99):
            run[f"agent_lag_p{int(share * 100)}"] = histogram_quantile(before, after, share)
    if name in ("lz4", "walvault"):
        ordered = lag.lags(lag.samples_of(samples))
        run |= {"lag_p50": lag.quantile(ordered, 0.5), "lag_p99": lag.quantile(ordered, 0.99),
                "lag_samples": len(ordered)}
    if tool:
        ended = tool.detach()
        run |= {"pss_peak_bytes": ended.pss_peak_bytes, "resident_peak_bytes": ended.resident_peak_bytes}
    server.skip_archiving()
    return run


def synchronous(context):
    """Every commit waits for the tool: single inserts, eight clients."""
    server = context.server
    server.sql("CREATE TABLE IF NOT EXISTS bench_commits (client int, at timestamptz DEFAULT clock_timestamp())")
    servers.write_text(f"{server.scripts}/commit.sql", "INSERT INTO bench_commits VALUES (:client_id);\n")
    tools = {"receivewal": PgReceivewal(server, context.scratch, "synchronous")}
    if context.walvault:
        tools["walvault"] = context.walvault
    seconds = max(5, context.options.live_seconds // 2)
    result = {"seconds": seconds, "runs": {name: [] for name in tools}}
    names = list(tools)
    for number in range(context.options.turns):
        for name in names[number % len(names):] + names[:number % len(names)]:
            run = synchronous_run(context, tools[name], seconds)
            result["runs"][name].append(run)
            say(f"synchronous  {tools[name].name:26} {run['tps']:6.0f} TPS  p50 {run['p50_ms']:.2f} ms  "
                f"p95 {run['p95_ms']:.2f} ms")
    return result


def synchronous_run(context, tool, seconds):
    server = context.server
    server.checkpoint()
    os.sync()
    tool.attach()
    context.started.append(tool.started)
    server.set_synchronous(tool.application_name)
    tool.wait_synchronous()
    output, latencies = server.pgbench_latencies(f"{server.scripts}/commit.sql", seconds)
    server.set_synchronous("")
    tool.detach()
    latencies.sort()
    return {"tps": servers.tps_of(output), "p50_ms": lag.quantile(latencies, 0.5) / 1000,
            "p95_ms": lag.quantile(latencies, 0.95) / 1000}


def tool_group(tool):
    return tool.started.group if hasattr(tool, "started") else tool.group


def backup_and_restore(context):
    """A full base backup into an empty repository, and its restore into an empty directory."""
    context.fill()
    server = context.server
    result = {"cluster_bytes": measure.tree_bytes(server.data, without=("pg_wal",)),
              "backup": {}, "restore": {}}
    takers = {"pgbackrest": one_pgbackrest_round}
    if context.walvault:
        takers["walvault"] = one_walvault_round
    for _ in range(context.options.rounds):
        for name, taker in takers.items():
            server.checkpoint()
            measure.settle(server.data)
            backup, restore = taker(context)
            result["backup"].setdefault(name, []).append(note("base backup", name, backup))
            result["restore"].setdefault(name, []).append(note("restore", name, restore))
    return result


def one_pgbackrest_round(context):
    tool = context.peers["pgbackrest"]
    target = f"{context.scratch}/restored"
    tool.prepare()
    tool.archive_now()
    backup = tool.backup()
    tool.stop_archiving()
    measure.settle(tool.repo)
    restore = tool.restore(target)
    check_restored(target)
    shutil.rmtree(target)
    tool.clean()
    context.server.skip_archiving()
    return backup, restore


def one_walvault_round(context):
    tool = context.walvault
    target = f"{context.scratch}/restored"
    tool.prepare()
    backup = tool.backup()
    measure.settle(tool.repo)
    restore = tool.restore(target, "--to", "immediate")
    check_restored(target)
    shutil.rmtree(target)
    context.server.drop_slot("walvault")
    tool.clean()
    return backup, restore


def check_restored(target):
    if not os.path.exists(f"{target}/global/pg_control"):
        raise RuntimeError(f"{target} holds no cluster after the restore")


def replay(context):
    """Restore to a time after 1 GiB of WAL, until the server takes connections and may be written to."""
    context.fill()
    server = context.server
    names = ["pgbackrest"] + (["walvault"] if context.walvault else [])
    result = {"runs": {name: [] for name in names}}
    backrest = context.peers["pgbackrest"]
    backrest.prepare()
    backrest.archive_now()
    if context.walvault:
        context.walvault.attach()
    server.checkpoint()
    backrest.backup()
    begin = server.lsn()
    say(f"generating {context.options.replay_gib} GiB of WAL to replay")
    server.make_wal(int(context.options.replay_gib * GIB))
    server.sql("CREATE TABLE bench_target AS SELECT count(*) AS rows FROM pgbench_history")
    target = server.sql("SELECT clock_timestamp() + interval '1 second'")
    time.sleep(2)
    server.sql("CREATE TABLE bench_after_target ()")
    end = server.switch()
    result["wal_bytes"] = end - begin
    done = f"{server.data}/pg_wal/archive_status/{server.segment_name(end - 1)}.done"
    servers.wait_until(lambda: os.path.exists(done), "the WAL to replay is not archived", 600)
    if context.walvault:
        wait_flushed(server, end)
        context.walvault.stop()
    # The measured time is the tools' and the restored server's; production stands still.
    backrest.stop_archiving()
    for _ in range(context.options.rounds):
        result["runs"]["pgbackrest"].append(replay_pgbackrest(context, target))
        if context.walvault:
            result["runs"]["walvault"].append(replay_walvault(context, target))
    backrest.clean()
    if context.walvault:
        server.drop_slot("walvault")
        context.walvault.clean()
    server.sql("DROP TABLE bench_target, bench_after_target")
    server.skip_archiving()
    return result


def wait_flushed(server, end):
    servers.wait_until(lambda: server.sql(
        "SELECT count(*) FROM pg_stat_replication WHERE application_name LIKE 'walvault%' "
        f"AND flush_lsn >= '{servers.lsn_text(end)}'") != "0",
        "walvault has not flushed the WAL to replay", 120)


def replay_pgbackrest(context, target):
    tool = context.peers["pgbackrest"]
    into = f"{context.scratch}/restored"
    measure.settle(tool.repo)
    began = time.monotonic()
    copied = tool.restore(into, "--type=time", f"--target={target}", "--target-action=promote")
    started = start_postgres(into, context.server.port + 2, context.server.socket)
    context.started.append(started)
    wait_promoted(context, started)
    return finish_replay(context, "pgBackRest", time.monotonic() - began, copied, started, into)


def replay_walvault(context, target):
    tool = context.walvault
    into = f"{context.scratch}/restored"
    measure.settle(tool.repo)
    began = time.monotonic()
    copied = tool.restore(into, "--to", f"time:{target}", "--action", "promote")
    started = start_postgres(into, context.server.port + 2, context.server.socket)
    context.started.append(started)
    wait_promoted(context, started)
    return finish_replay(context, "walvault", time.monotonic() - began, copied, started, into)


def wait_promoted(context, started):
    port, socket = context.server.port + 2, context.server.socket
    deadline = time.monotonic() + 600
    while not promoted(port, socket):
        if not started.running() or time.monotonic() > deadline:
            raise RuntimeError(f"the restored server did not promote:\n{measure.tail_of(started.log_path)}")
        time.sleep(0.05)


def finish_replay(context, name, wall, copied, started, into):
    check_target(context)
    run = started.finish(signal=signal.SIGINT)
    run.wall_seconds = wall
    run.cpu_seconds += copied.cpu_seconds
    run.resident_peak_bytes = copied.resident_peak_bytes
    run.extra["copy_seconds"] = round(copied.wall_seconds, 3)
    shutil.rmtree(into)
    return note("replay", name, run)


def check_target(context):
    """The restored server holds what was before the target and not what came after it."""
    found = measure.as_user([f"{servers.BIN}/psql", "-XAtq", "-h", context.server.socket, "-p",
                             context.server.port + 2, "-U", "postgres", "-d", "postgres", "-c",
                             "SELECT to_regclass('bench_target') IS NOT NULL, "
                             "to_regclass('bench_after_target') IS NULL"]).strip()
    if found != "t|t":
        raise RuntimeError(f"the restored server is not at the target: {found}")


def large_index(context):
    """Start on a repository whose index holds 10 TB of WAL: from the process' start until it streams."""
    if context.walvault is None:
        return {"runs": []}
    wal_bytes = int(context.options.index_tb * 1e12)
    high = servers.Server(f"{context.scratch}/high", context.server.port + 10)
    tool = Walvault(high, f"{context.scratch}/high", context.options.walvault)
    try:
        high.create(scale=1)
        high.move_wal_to(wal_bytes + (1 << 30))
        tool.attach()
        high.pgbench(["-n", "-c", "1", "-t", "200"])
        tool.stop()
        say(f"generating the index of {context.options.index_tb:g} TB of WAL")
        measure.as_user([context.options.make_large_index, tool.repo, tool.key, "main", wal_bytes])
        return time_starts(context, tool)
    finally:
        if tool.started and tool.started.running():
            tool.started.finish(signal=signal.SIGTERM)
        high.close()


def time_starts(context, tool):
    result = {"index_bytes": measure.tree_bytes(f"{tool.repo}/index"),
              "ledger_bytes": measure.tree_bytes(f"{tool.repo}/ledger"), "runs": []}
    for _ in range(context.options.rounds):
        measure.settle(f"{tool.repo}/index", f"{tool.repo}/ledger")
        began = time.monotonic()
        tool.start()
        wall = time.monotonic() - began
        run = tool.stop()
        run.wall_seconds = wall
        result["runs"].append(note("large index", tool.name, run))
    return result


CASES = {"drain": drain, "live": live, "synchronous": synchronous, "backup": backup_and_restore,
         "replay": replay, "index": large_index}


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None
