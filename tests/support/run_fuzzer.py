"""Lets one libFuzzer target look for new inputs for a few seconds, beginning with its corpus.

    run_fuzzer.py BUILD TARGET CORPUS

The corpus itself stays as it is. The seed is printed; WALVAULT_TEST_SEED gives it again,
WALVAULT_FUZZ_SECONDS more time.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

SECONDS = int(os.environ.get("WALVAULT_FUZZ_SECONDS", "4"))
# Fewer would say that the target is not linked with what it is to cover, or does not run at all.
EXECUTIONS_MIN = 500
COVERAGE_MIN = 15


def main():
    build, target, corpus = sys.argv[1:]
    program = pathlib.Path(build) / "tests" / "fuzz" / f"fuzz_{target}_live"
    if not program.exists():
        print(f"{program} is not built: ninja -C {build} fuzzers")
        return 1
    seed = int(os.environ.get("WALVAULT_TEST_SEED", time.time_ns() % 1_000_000_007))
    with tempfile.TemporaryDirectory(prefix="walvault-fuzz-") as scratch:
        done = subprocess.run(
            [str(program), f"-max_total_time={SECONDS}", f"-seed={seed}", "-print_final_stats=1",
             "-timeout=10", "-rss_limit_mb=1024", f"-artifact_prefix={scratch}/", scratch, corpus],
            capture_output=True, text=True, errors="replace", timeout=SECONDS + 120)
    print(f"seed {seed} (WALVAULT_TEST_SEED={seed} repeats fuzz_{target}_live)")
    executions = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    covered = re.findall(r" cov: (\d+)", done.stderr)
    # libFuzzer prints an input that fails as Base64.
    if done.returncode != 0 or not executions or not covered:
        print(done.stderr[-20000:])
        return 1
    count, points = int(executions.group(1)), int(covered[-1])
    print(f"{count} inputs, {points} points of the code reached")
    if count < EXECUTIONS_MIN or points < COVERAGE_MIN:
        print(f"less than {EXECUTIONS_MIN} inputs or {COVERAGE_MIN} points")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
