"""What tests/support/run_suites.py makes of the words of a suite: its counts, and what it shows of a failure."""

import os
import pathlib
import stat
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
import run_suites  # noqa: E402

DOCTEST = """[doctest] doctest version is "2.4.9"
===============================================================================
../tests/unit/storage/a_test.cc:7:
TEST CASE:  what fails

../tests/unit/storage/a_test.cc:9: ERROR: CHECK( one == two ) is NOT correct!
  values: CHECK( 1 == 2 )

===============================================================================
[doctest] test cases:  3 |  2 passed | 1 failed | 0 skipped
[doctest] assertions: 10 |  9 passed | 1 failed |
[doctest] Status: FAILURE!
"""

UNITTEST = """test_a (test_x.X) ... FAIL
    (0.1 s)
======================================================================
FAIL: test_a (test_x.X)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "test_x.py", line 5, in test_a
AssertionError: 1 != 2
RESULT passed=4 failed=1 skipped=0
"""


class Runner(unittest.TestCase):
    def test_a_doctest_suite_is_counted_and_its_failed_check_is_shown(self):
        self.assertEqual(run_suites.parse_doctest(DOCTEST, 1), (2, 1, 0))
        self.assertEqual(run_suites.what_failed(DOCTEST),
                         ["TEST CASE:  what fails",
                          "../tests/unit/storage/a_test.cc:9: ERROR: CHECK( one == two ) is NOT correct!",
                          "  values: CHECK( 1 == 2 )"])

    def test_a_unittest_suite_is_counted_and_its_assertion_is_shown(self):
        self.assertEqual(run_suites.parse_unittest(UNITTEST, 1), (4, 1, 0))
        self.assertEqual(run_suites.what_failed(UNITTEST), ["FAIL: test_a (test_x.X)", "AssertionError: 1 != 2"])

    def test_a_suite_that_died_has_failed_once(self):
        for parse in (run_suites.parse_doctest, run_suites.parse_unittest):
            self.assertEqual(parse("began\n", -6), (0, 1, 0))
        passed_and_died = DOCTEST.replace("2 passed | 1 failed", "3 passed | 0 failed")
        self.assertEqual(run_suites.parse_doctest(passed_and_died, -6), (3, 1, 0))

    def test_of_what_ended_without_a_word_the_last_lines_are_shown(self):
        self.assertEqual(run_suites.what_failed("\n".join(f"line {n}" for n in range(100))),
                         [f"line {n}" for n in range(88, 100)])

    def test_of_what_did_not_end_the_last_lines_are_shown_whatever_it_said_before(self):
        late = UNITTEST * 9 + "test_b (test_x.X) ... \nended after 7" + run_suites.LATE + "\n"
        self.assertEqual(run_suites.what_failed(late)[-2:],
                         ["test_b (test_x.X) ...", "ended after 7 s without having finished"])

    def test_directories_of_a_run_are_open_to_the_users_that_tests_become(self):
        made = run_suites.open_directory()
        self.addCleanup(os.rmdir, made)
        self.assertEqual(stat.S_IMODE(os.stat(made).st_mode), 0o755)

    def test_a_hundred_failures_do_not_hide_the_counts(self):
        self.assertEqual(len(run_suites.what_failed(UNITTEST * 100)), run_suites.FAILURE_LINES_MAX)


if __name__ == "__main__":
    unittest.main()
