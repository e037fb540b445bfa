"""tests/tidy sees each kind of mistake, in a tree made for it, and accepts what is right."""

import pathlib
import subprocess
import tempfile
import unittest

TIDY = pathlib.Path(__file__).resolve().parents[1] / "tidy"
RULE_COUNT = 12

GOOD = {
    "base/good.h": "// Good: a header with a purpose.\n#pragma once\n",
    "wal/good.cc": '#include <libpq-fe.h>\n#include "base/good.h"\n#include "proto/good.h"\n',
    "agent/long_class.cc": "class Long {\npublic:\n" + "    int f() { return 1; }\n" * 100 + "};\n",
    "agent/table.cc": "const int kTable[] = {\n" + "    1,\n" * 100 + "};\n",
    "agent/text.cc": 'const char* kText = R"(\n' + "{ ( ) {\n" * 100 + ')";\nint f(int a) { return a; }\n',
    "agent/made.cc": "Made::Made(int a) : a_(a), b_{a} {\n" + "    ++a_;\n" * 60 + "}\nint f() {\n"
                     + "    g();\n" * 60 + "}\n",
    "base/task_group.h": "// TaskGroup: owns tasks.\nauto d = asio::detached;\nstd::mutex m;\n",
}

BAD = {
    "wal may not include": {"wal/a.cc": '#include "storage/keyring.h"\n'},
    "base may not include": {"base/a.cc": '#include "proto/lsn.h"\n'},
    "belongs to wal": {"agent/a.cc": "#include <libpq-fe.h>\n"},
    "belongs to base/asio": {"agent/a.cc": "#include <boost/asio/post.hpp>\n"},
    "stays out of headers": {"base/a.h": "// A: purpose.\n#include <fmt/format.h>\n"},
    "this function has 72 lines": {"agent/a.cc": "int f() {\n" + "    g();\n" * 70 + "}\n"},
    "g has 71 lines": {"tests/a.py": "def g():\n" + "    f()\n" * 70},
    "the file has 601 lines": {"base/a.cc": "\n" * 601},
    "121 columns": {"base/a.cc": "// " + "x" * 118 + "\n"},
    "begins with a sentence": {"base/a.h": "#pragma once\n"},
    "finish it": {"base/a.cc": "// TO" + "DO later\n"},
    "are started by a TaskGroup": {"agent/a.cc": "auto d = asio::detached;\n"},
    "a lock needs a reason": {"agent/a.cc": "std::mutex m;\n"},
    "wait for a condition": {"tests/unit/base/a_test.cc": "void f() { std::this_thread::sleep_for(1s); }\n"},
    "path of one machine": {"docs/a.md": "see /" + "work/main\n"},
}


class TidyTest(unittest.TestCase):
    def run_on(self, files):
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = pathlib.Path(root) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return subprocess.run([TIDY, root], capture_output=True, text=True, timeout=60)

    def test_a_right_tree_passes_every_rule(self):
        done = self.run_on(GOOD)
        self.assertEqual((done.returncode, done.stdout), (0, f"{RULE_COUNT} passed, 0 failed\n"))

    def test_each_mistake_is_found_at_its_line_and_by_one_rule(self):
        for expected, files in BAD.items():
            with self.subTest(expected):
                done = self.run_on({**GOOD, **files})
                self.assertEqual(done.returncode, 1)
                *found, counts = done.stdout.splitlines()
                self.assertEqual(counts, f"{RULE_COUNT - 1} passed, 1 failed", done.stdout)
                self.assertEqual(len(found), 1, done.stdout)
                self.assertIn(expected, found[0])
                self.assertRegex(found[0], f"^{next(iter(files))}:\\d+: ")

    def test_what_clang_format_would_change_is_found_unless_it_is_listed(self):
        style = {".clang-format": "BasedOnStyle: Google\nIndentWidth: 4\n"}
        formed, unformed = {"base/a.cc": "int f() { return 1; }\n"}, {"base/a.cc": "int  f(){return 1;}\n"}
        listed = {"tests/unformatted.txt": "base/a.cc\n"}
        self.assertEqual(self.run_on({**style, **formed}).returncode, 0)
        self.assertIn("base/a.cc:1: clang-format", self.run_on({**style, **unformed}).stdout)
        self.assertEqual(self.run_on({**style, **unformed, **listed}).returncode, 0)
        self.assertIn("strike it", self.run_on({**style, **formed, **listed}).stdout)

    def test_words_in_comments_and_texts_are_not_code(self):
        text = '// std::mutex and asio::detached\nconst char* k = "std::mutex {";\n'
        done = self.run_on({"agent/a.cc": text})
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
