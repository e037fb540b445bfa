"""Runs one module of unittest and ends with a line of counts that run_suites.py can read."""

import sys
import time
import unittest


class TimedResult(unittest.TextTestResult):
    """Prints a line a test as it ends, and counts what passed (unittest itself does not)."""

    passed = 0

    def startTest(self, test):
        super().startTest(test)
        self.began = time.monotonic()

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1

    def stopTest(self, test):
        super().stopTest(test)
        self.stream.writeln(f"    ({time.monotonic() - self.began:.1f} s)")
        self.stream.flush()


def main():
    suite = unittest.defaultTestLoader.loadTestsFromName(sys.argv[1])
    if len(sys.argv) > 2:
        loader = unittest.TestLoader()
        loader.testNamePatterns = [f"*{pattern}*" for pattern in sys.argv[2:]]
        suite = loader.loadTestsFromName(sys.argv[1])
    runner = unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=TimedResult)
    result = runner.run(suite)
    for test, reason in result.skipped:
        print(f"SKIPPED {test}: {reason}")
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"RESULT passed={result.passed} failed={failed} skipped={len(result.skipped)}")
    return 0 if failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
