"""Runs the suites of a build, two at a time, and adds up what they report."""

import argparse
import concurrent.futures
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
UNIT_TIMEOUT_SECONDS = 1500
SIMULATION_TIMEOUT_SECONDS = 1500
INTEGRATION_TIMEOUT_SECONDS = 1500
MEMORY_DIRECTORY_BYTES_MIN = 4 << 30
# To write down where each piece of memory was allocated took a sixth of a suite's time with 30 frames.
SANITIZERS = {
    "ASAN_OPTIONS": "abort_on_error=1:detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1:"
                    "malloc_context_size=6",
    "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
}

# They start walvault thousands of times, and each time the fences around global data took half of its CPU
# until it did something. Unit suites have them.
BRIEF_PROCESSES = {"ASAN_OPTIONS": SANITIZERS["ASAN_OPTIONS"] + ":report_globals=0"}


@dataclasses.dataclass
class Suite:
    name: str
    command: list
    timeout_seconds: int
    parse: object
    environment: dict = dataclasses.field(default_factory=dict)  # beside what all have


@dataclasses.dataclass
class Outcome:
    suite: Suite
    passed: int
    failed: int
    skipped: int
    seconds: float
    output: str


def parse_doctest(output, exit_code):
    """Counts of doctest's last summary line; a process that died before it has failed once."""
    found = re.findall(r"\[doctest\] test cases:\s*(\d+) \|\s*(\d+) passed \|\s*(\d+) failed", output)
    if not found:
        return 0, 1, 0
    _, passed, failed = (int(number) for number in found[-1])
    if exit_code != 0 and failed == 0:
        failed = 1
    return passed, failed, 0


def parse_skippable_doctest(output, exit_code):
    """As parse_doctest; one that says SKIPPED and ends well was skipped as a whole."""
    if exit_code == 0 and re.search(r"^SKIPPED ", output, re.MULTILINE):
        return 0, 0, 1
    return parse_doctest(output, exit_code)


def parse_unittest(output, exit_code):
    """The line that tests/support/run_unittest.py prints last."""
    found = re.findall(r"^RESULT passed=(\d+) failed=(\d+) skipped=(\d+)$", output, re.MULTILINE)
    if not found:
        return 0, 1, 0
    passed, failed, skipped = (int(number) for number in found[-1])
    if exit_code != 0 and failed == 0:
        failed = 1
    return passed, failed, skipped


# What says that something failed, in the words of doctest, unittest and the sanitizers.
FAILURE = re.compile(r"^TEST CASE: |^  values: |: (FATAL )?ERROR: |^(FAIL|ERROR): |^\w*(Error|Exception): |"
                     r"^==\d+==ERROR: |runtime error: |^SUMMARY: ")
FAILURE_LINES_MAX = 12
LATE = " s without having finished"


def what_failed(output):
    """The lines of a failed suite to read first; of what ended without such a line, its last ones."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    said = [line for line in lines if FAILURE.search(line)]
    # doctest names a test case before each thing it says of it: once is enough.
    said = [line for index, line in enumerate(said) if index == 0 or line != said[index - 1]]
    if not said or LATE in lines[-1]:
        return lines[-FAILURE_LINES_MAX:]  # what it was doing
    return said[:FAILURE_LINES_MAX]


def parse_exit_code(_output, exit_code):
    return (1, 0, 0) if exit_code == 0 else (0, 1, 0)


def find_suites(build, fuzz_build, in_memory):
    suites = []
    tidy = ROOT / "tests" / "tidy"
    if tidy.exists():
        suites.append(Suite("tidy", [str(tidy)], UNIT_TIMEOUT_SECONDS, parse_exit_code))
    for path in executables(build / "tests" / "unit", "test_*"):
        name = "unit/" + path.name.removeprefix("test_")
        suites.append(Suite(name, [str(path)], UNIT_TIMEOUT_SECONDS, parse_doctest, in_memory))
    for path in executables(build / "tests" / "simulation", "test_simulation"):
        suites.append(Suite("simulation", [str(path)], SIMULATION_TIMEOUT_SECONDS, parse_doctest))
    for path in executables(build / "tests" / "simulation", "test_keeping"):
        suites.append(Suite("keeping", [str(path)], SIMULATION_TIMEOUT_SECONDS, parse_doctest))
    for path in executables(build / "tests" / "simulation", "test_year"):
        suites.append(Suite("year", [str(path)], SIMULATION_TIMEOUT_SECONDS, parse_doctest))
    for path in executables(build / "tests" / "rgw", "test_s3_rgw"):
        suites.append(Suite("s3_rgw", [str(path)], UNIT_TIMEOUT_SECONDS, parse_skippable_doctest))
    for path in executables(build / "tests" / "fuzz", "fuzz_*"):
        target = path.name.removeprefix("fuzz_")
        if not target.endswith("_live"):
            corpus = ROOT / "tests" / "fuzz" / "corpus" / target
            suites.append(Suite("fuzz/" + target, [str(path), str(corpus)], UNIT_TIMEOUT_SECONDS,
                                parse_exit_code))
    # Found by their corpora: one that is not built fails, it is not left out.
    for corpus in sorted((ROOT / "tests" / "fuzz" / "corpus").iterdir()) if fuzz_build else []:
        command = ["/usr/bin/python3", str(ROOT / "tests" / "support" / "run_fuzzer.py"), str(fuzz_build),
                   corpus.name, str(corpus)]
        suites.append(Suite("fuzz-live/" + corpus.name, command, UNIT_TIMEOUT_SECONDS, parse_exit_code))
    for path in sorted((ROOT / "tests" / "integration").glob("test_*.py")):
        command = ["/usr/bin/python3", str(ROOT / "tests" / "support" / "run_unittest.py"), path.stem]
        suites.append(Suite("integration/" + path.stem.removeprefix("test_"), command,
                            INTEGRATION_TIMEOUT_SECONDS, parse_unittest, BRIEF_PROCESSES))
    return suites


def memory_directory():
    """For suites that make thousands of small repositories, and whose faults are not the disk's. None: no room."""
    shared = pathlib.Path("/dev/shm")
    if not (shared.is_dir() and os.access(shared, os.W_OK)):
        return None
    space = os.statvfs(shared)
    if space.f_bavail * space.f_frsize < MEMORY_DIRECTORY_BYTES_MIN:
        return None
    return open_directory(shared)


def open_directory(parent=None):
    """A new one that others may look into: tests become other users."""
    made = tempfile.mkdtemp(prefix="walvault-tests-", dir=parent)
    os.chmod(made, 0o755)
    return made


def executables(directory, pattern):
    return [path for path in sorted(directory.rglob(pattern))
            if path.is_file() and os.access(path, os.X_OK) and not path.suffix]


# What takes a minute or more, the longest first, so that none of it is left running alone at the end.
LONGEST_FIRST = [
    "unit/storage", "nth_fault", "keeping", "tiers_s3", "simulation", "wal_shapes", "missing_wal", "damage",
    "power_cut", "failover_hosts", "logical", "patroni", "publication", "journal_questions",
    "lifecycle", "histories", "index", "oracle", "tiers", "journal", "versions",
    "golden_repository", "synchronous", "demo", "metrics",
]
# They wait for the clock most of the time: beside the others, from the beginning on.
IDLE = {"integration/idle", "integration/retention", "integration/tier_retention", "integration/archive",
        "integration/backups", "integration/governor", "integration/journal_faults"}
IDLE_AT_ONCE = 2


def by_length(suite):
    short = suite.name.removeprefix("integration/")
    return LONGEST_FIRST.index(short) if short in LONGEST_FIRST else len(LONGEST_FIRST)


running = set()


def end_gently(process):
    """Suites remove what they made when they are told to end; SIGKILL for one that does not."""
    process.terminate()
    try:
        output, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
    return output


def run_suite(suite, environment):
    began = time.monotonic()
    process = subprocess.Popen(suite.command, cwd=ROOT, env=environment | suite.environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    running.add(process)
    late = ""
    try:
        output, _ = process.communicate(timeout=suite.timeout_seconds)
    except subprocess.TimeoutExpired:
        output = end_gently(process)
        late = f"\nended after {suite.timeout_seconds}{LATE}\n"
    running.discard(process)
    text = output.decode(errors="replace") + late
    exit_code = process.returncode if not late else 1
    passed, failed, skipped = suite.parse(text, exit_code)
    return Outcome(suite, passed, failed, skipped, time.monotonic() - began, text)


def report(outcome):
    counts = f"{outcome.passed:4} passed"
    if outcome.failed:
        counts += f", {outcome.failed} FAILED"
    if outcome.skipped:
        counts += f", {outcome.skipped} skipped"
    print(f"{outcome.suite.name:32} {counts:32} {outcome.seconds:7.1f} s", flush=True)
    if outcome.failed:
        print(f"\n==== {outcome.suite.name} ====\n{outcome.output}", flush=True)
    for line in outcome.output.splitlines():
        if line.startswith(("SKIPPED ", "NOTE ")):
            print("    " + line, flush=True)


def select(suites, arguments):
    if arguments.unit:
        suites = [suite for suite in suites if not suite.name.startswith("integration/")]
    if arguments.patterns:
        suites = [suite for suite in suites if any(p in suite.name for p in arguments.patterns)]
    return suites


def run_all(suites, environment, jobs):
    outcomes = []
    with (concurrent.futures.ThreadPoolExecutor(jobs) as pool,
          concurrent.futures.ThreadPoolExecutor(IDLE_AT_ONCE) as beside):
        pending = [(beside if suite.name in IDLE else pool).submit(run_suite, suite, environment)
                   for suite in sorted(suites, key=by_length)]
        try:
            for future in concurrent.futures.as_completed(pending):
                outcomes.append(future.result())
                report(outcomes[-1])
        except KeyboardInterrupt:
            for each in (pool, beside):
                each.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()
            raise
    return outcomes


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True, type=pathlib.Path)
    parser.add_argument("--fuzz-build", type=pathlib.Path,
                        help="the build of the libFuzzer targets; none: they are left out")
    parser.add_argument("--unit", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("patterns", nargs="*")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    fuzz_build = arguments.fuzz_build.resolve() if arguments.fuzz_build else None

    signal.signal(signal.SIGTERM, interrupt)
    scratch = open_directory()
    memory = memory_directory()
    environment = dict(os.environ, **SANITIZERS, WALVAULT_BUILD=str(build),
                       WALVAULT_TEST_CACHE=scratch, PYTHONDONTWRITEBYTECODE="1",
                       PYTHONPATH=str(ROOT / "tests" / "integration"))
    began = time.monotonic()
    try:
        suites = find_suites(build, fuzz_build, {"TMPDIR": memory} if memory else {})
        outcomes = run_all(select(suites, arguments), environment, arguments.jobs)
    except KeyboardInterrupt:
        print("\ninterrupted\n0 passed, 1 failed")
        return 130
    finally:
        # What an aborted suite left, too: it would stay in memory.
        for directory in filter(None, [scratch, memory]):
            shutil.rmtree(directory, ignore_errors=True)

    for outcome in outcomes:
        if outcome.failed:
            print(f"FAILED {outcome.suite.name}: its output stands above; of it:")
            print("\n".join("    " + line for line in what_failed(outcome.output)))
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    skipped = sum(outcome.skipped for outcome in outcomes)
    print(f"\n{len(outcomes)} suites in {time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
