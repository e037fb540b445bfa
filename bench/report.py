"""From raw runs to the table: ratios, bars, verdicts, and the machine they were measured on."""

import os
import platform
import re
import subprocess

from cases import median

GIB = 1 << 30
MIB = 1 << 20
BEGIN = "<!-- table: written by bench/run --record -->"
END = "<!-- end of table -->"


class Row:
    """One line: what, the bar, what was measured, and whether it is within the bar."""

    def __init__(self, what, peer, ours, value, bar, unit="×", at_least=False):
        self.what, self.peer, self.ours = what, peer, ours
        self.value, self.bar, self.unit, self.at_least = value, bar, unit, at_least

    @property
    def passed(self):
        if self.value is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def rounded(self):
        """With as many digits, two at least, as it takes to see on which side of the bar it is."""
        for digits in range(2, 6):
            text = f"{self.value:.{digits}f}"
            if self.value == self.bar or float(text) != self.bar:
                break
        return text

    def cells(self):
        sign = "≥" if self.at_least else "≤"
        shown = "–" if self.value is None else f"{self.rounded()} {self.unit}".strip()
        verdict = {True: "pass", False: "**FAIL**", None: "not run"}[self.passed]
        return [self.what, self.peer, self.ours, f"{sign} {self.bar:g} {self.unit}".strip(), shown, verdict]


def of(runs, field):
    return median([run.get(field) for run in runs])


def ratio(ours, theirs):
    return ours / theirs if ours is not None and theirs else None


def drain_rows(case):
    runs = case["runs"]
    ours, plain, backrest = runs.get("walvault", []), runs["plain"], runs["pgbackrest"]
    wal_gib = case["wal_bytes"] / GIB
    rows = [Row("draining a backlog: wall", f"pg_receivewal plain {show(of(plain, 'wall_seconds'), 's')}"
                f" (lz4 {show(of(runs['lz4'], 'wall_seconds'), 's')},"
                f" pgBackRest {show(of(backrest, 'wall_seconds'), 's')})",
                show(of(ours, "wall_seconds"), "s"),
                ratio(of(ours, "wall_seconds"), of(plain, "wall_seconds")), 1.0)]
    cpu_ours, cpu_peer = of(ours, "cpu_seconds"), of(backrest, "cpu_seconds")
    rows.append(Row("CPU per GiB of WAL", f"pgBackRest {show(scaled(cpu_peer, 1 / wal_gib), 's')}",
                    show(scaled(cpu_ours, 1 / wal_gib), "s"), ratio(cpu_ours, cpu_peer), 0.6))
    stored_ours, stored_peer = of(ours, "stored_bytes"), of(backrest, "stored_bytes")
    rows.append(Row("bytes stored for that WAL",
                    f"pgBackRest {show(scaled(stored_peer, 1 / case['wal_bytes']), 'of the WAL', 3)}",
                    show(scaled(stored_ours, 1 / case["wal_bytes"]), "of the WAL", 3),
                    ratio(stored_ours, stored_peer), 1.05))
    rows.append(resident_row("resident memory, streaming flat out", ours))
    return rows


def live_rows(case):
    runs = case["runs"]
    ours = runs.get("walvault", [])
    limit = case["flush_interval_seconds"] + 0.05
    lag = of(ours, "lag_p99")
    p50 = show(scaled(of(ours, "lag_p50"), 1000), "ms", 0)
    rows = [Row("commit → flushed here, p99",
                f"pg_receivewal lz4 {show(scaled(of(runs['lz4'], 'lag_p99'), 1000), 'ms', 0)}",
                f"p50 {p50}, p99 {show(scaled(lag, 1000), 'ms', 0)}", scaled(lag, 1000), limit * 1000, "ms")]
    for name, label, bar in (("lz4", "pg_receivewal lz4", 1.0), ("pgbackrest", "pgBackRest archiving", 0.95)):
        paired = [ratio(mine["tps"], peer["tps"]) for mine, peer in zip(ours, runs[name])]
        rows.append(Row(f"pgbench TPS against {label}", f"{show(of(runs[name], 'tps'), 'TPS', 0)}"
                        f" (nothing attached {show(of(runs['nothing'], 'tps'), '', 0)})",
                        show(of(ours, "tps"), "TPS", 0), median(paired), bar, at_least=True))
    return rows


def synchronous_rows(case):
    ours, peer = case["runs"].get("walvault", []), case["runs"]["receivewal"]
    rows = []
    for field, what in (("p50_ms", "median"), ("p95_ms", "p95")):
        paired = [ratio(mine[field], theirs[field]) for mine, theirs in zip(ours, peer)]
        rows.append(Row(f"commit as the synchronous standby: {what}",
                        f"pg_receivewal --synchronous {show(of(peer, field), 'ms')}", show(of(ours, field), "ms"),
                        median(paired), 1.05))
    paired = [ratio(mine["tps"], theirs["tps"]) for mine, theirs in zip(ours, peer)]
    rows.append(Row("TPS with a synchronous standby",
                    f"pg_receivewal --synchronous {show(of(peer, 'tps'), 'TPS', 0)}",
                    show(of(ours, "tps"), "TPS", 0), median(paired), 0.95, at_least=True))
    return rows


def backup_rows(case):
    rows = []
    for field, what in (("wall_seconds", "wall"), ("cpu_seconds", "CPU")):
        ours, peer = of(case["backup"].get("walvault", []), field), of(case["backup"]["pgbackrest"], field)
        rows.append(Row(f"base backup: {what}", f"pgBackRest {show(peer, 's')}", show(ours, "s"),
                        ratio(ours, peer), 0.8))
    stored = [scaled(of(case["backup"].get(name, []), "stored_bytes"), 1e-9)
              for name in ("walvault", "pgbackrest")]
    rows[-1].ours += f" (stored {show(stored[0], 'GB')})"
    rows[-1].peer += f" (stored {show(stored[1], 'GB')})"
    ours, peer = (of(case["restore"].get(name, []), "wall_seconds") for name in ("walvault", "pgbackrest"))
    rows.append(Row("restore: wall", f"pgBackRest {show(peer, 's')}", show(ours, "s"),
                    ratio(ours, peer), 0.7))
    rows.append(resident_row("resident memory, restoring", case["restore"].get("walvault", [])))
    return rows


def replay_rows(case):
    ours, peer = (case["runs"].get(name, []) for name in ("walvault", "pgbackrest"))
    shown = [f"{show(of(runs, 'wall_seconds'), 's')} (copy {show(of(runs, 'copy_seconds'), 's')})"
             for runs in (peer, ours)]
    return [Row(f"restore and replay of {case['wal_bytes'] / GIB:.1f} GiB to a time: wall",
                f"pgBackRest, asynchronous get, {shown[0]}", shown[1],
                ratio(of(ours, "wall_seconds"), of(peer, "wall_seconds")), 0.8)]


def index_rows(case):
    wall = of(case["runs"], "wall_seconds")
    return [Row("start with the index of 10 TB of WAL", "–", show(wall, "s"), wall, 1.0, "s")]


def resident_row(what, runs):
    peak = [run["resident_peak_bytes"] / MIB for run in runs]
    largest = max(peak) if peak else None
    return Row(what, "–", show(largest, "MiB", 0), largest, 256, "MiB")


def scaled(value, factor):
    return None if value is None else value * factor


def show(value, unit, digits=2):
    return "–" if value is None else f"{value:.{digits}f} {unit}".strip()


MAKERS = {"drain": drain_rows, "live": live_rows, "synchronous": synchronous_rows,
          "backup": backup_rows, "replay": replay_rows, "index": index_rows}


def rows_of(results):
    return [row for name, maker in MAKERS.items() if name in results for row in maker(results[name])]


def table(rows):
    lines = ["| what | peer | walvault | bar | measured | |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines)


def machine(scratch):
    """What a reader needs to judge the numbers."""
    with open("/proc/cpuinfo") as lines:
        model = re.search(r"model name\s*: (.*)", lines.read())
    with open("/proc/meminfo") as lines:
        memory_gib = int(re.search(r"MemTotal:\s+(\d+)", lines.read()).group(1)) / (1 << 20)
    with open("/etc/os-release") as lines:
        system = re.search(r'PRETTY_NAME="(.*)"', lines.read()).group(1)
    kind = subprocess.run(["stat", "-f", "-c", "%T", scratch], capture_output=True, text=True).stdout.strip()
    return {"cores": os.cpu_count(), "cpu": model.group(1).strip() if model else platform.machine(),
            "memory_gib": round(memory_gib, 1), "system": system, "kernel": platform.release(),
            "file_system": kind, "postgresql": version(["/usr/lib/postgresql/15/bin/postgres", "--version"]),
            "pgbackrest": version(["pgbackrest", "version"])}


def version(command):
    text = subprocess.run(command, capture_output=True, text=True).stdout
    found = re.search(r"\d+(\.\d+)+", text)
    return found.group(0) if found else text.strip()


def machine_line(facts):
    return (f"{facts['cores']} cores ({facts['cpu']}), {facts['memory_gib']} GiB, {facts['system']}, kernel "
            f"{facts['kernel']}, {facts['file_system']}; PostgreSQL {facts['postgresql']}, pgBackRest "
            f"{facts['pgbackrest']}, everything on the same machine and disk.")


def record(readme, text):
    with open(readme) as file:
        whole = file.read()
    before, rest = whole.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    with open(readme, "w") as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")
