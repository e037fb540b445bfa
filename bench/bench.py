"""Runs the cases and prints the table; exit code 1 when a bar is missed."""

import argparse
import datetime
import json
import os
import shutil
import signal
import sys
import tempfile

import cases
import report
import server as servers

HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; medians are shown")
    parser.add_argument("--wal-gib", type=float, default=4.0, help="the backlog")
    parser.add_argument("--cluster-gib", type=float, default=4.0, help="data files of the cluster")
    parser.add_argument("--replay-gib", type=float, default=1.0, help="WAL after the base backup")
    parser.add_argument("--index-tb", type=float, default=10.0, help="WAL in the generated index")
    parser.add_argument("--turns", type=int, default=8, help="of each tool beside pgbench; many short ones, for the "
                        "machine's speed changes within minutes; medians of the ratios within turns")
    parser.add_argument("--live-seconds", type=int, default=15, help="of pgbench for each tool and turn")
    parser.add_argument("--scale", type=int, default=50, help="of pgbench")
    parser.add_argument("--only", action="append", choices=sorted(cases.CASES), help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="0.5 GiB and one round: does it work at all")
    parser.add_argument("--peers-only", action="store_true", help="leave walvault out")
    parser.add_argument("--record", action="store_true", help="write the table into bench/README.md")
    parser.add_argument("--json", default=f"{HERE}/last_run.json", help="raw numbers")
    parser.add_argument("--dir", help="scratch directory; default: a new one in /var/tmp")
    parser.add_argument("--port", type=int, default=54500, help="first of three ports")
    parser.add_argument("--walvault", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--make-large-index", required=True, help=argparse.SUPPRESS)
    if "--quick" in sys.argv:
        parser.set_defaults(rounds=1, turns=2, wal_gib=0.5, cluster_gib=1.0, replay_gib=0.25, index_tb=0.1,
                            live_seconds=8)
    options = parser.parse_args()
    options.walvault = os.path.abspath(options.walvault)
    options.make_large_index = os.path.abspath(options.make_large_index)
    partial = options.only or options.quick or options.peers_only
    is_small = options.rounds < 3 or options.turns < 8 or options.wal_gib < 4 or options.cluster_gib < 4
    if options.record and (partial or is_small):
        parser.error("--record needs every case at full size, at least 3 rounds and 8 turns")
    if partial and options.json == f"{HERE}/last_run.json":
        options.json = None
    return options


def run_cases(options, scratch):
    context = cases.Context(scratch, options)
    try:
        cases.say(f"creating a cluster in {scratch}")
        context.server.create(options.scale)
        return {name: case(context) for name, case in cases.CASES.items()
                if not options.only or name in options.only}
    finally:
        context.close()


def copies_for_the_user(options, scratch):
    """The unprivileged user may not be able to read the build directory."""
    if options.peers_only:
        return
    for name in ("walvault", "make_large_index"):
        copy = f"{scratch}/bin-{name}"
        shutil.copy(getattr(options, name), copy)
        os.chmod(copy, 0o755)
        setattr(options, name, copy)


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scratch = tempfile.mkdtemp(prefix="walvault-bench-", dir=options.dir or "/var/tmp")
    try:
        servers.make_directory(scratch)
        copies_for_the_user(options, scratch)
        facts = report.machine(scratch)
        results = run_cases(options, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    rows = report.rows_of(results)
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    shape = (f"{when}, {options.rounds} rounds, {options.turns} turns beside pgbench, {options.wal_gib:g} GiB of WAL, "
             f"a cluster of {options.cluster_gib:g} GiB. {report.machine_line(facts)}")
    text = f"\n{shape}\n\n{report.table(rows)}\n"
    print(text)
    if options.json:
        with open(options.json, "w") as file:
            asked = {name: value for name, value in vars(options).items()
                     if name not in ("walvault", "make_large_index", "dir", "json")}
            json.dump({"when": when, "machine": facts, "options": asked, "results": results}, file, indent=1)
            file.write("\n")
    if options.record:
        report.record(f"{HERE}/README.md", text)
    return 1 if any(row.passed is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
