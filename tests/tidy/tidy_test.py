"""The shape of the tree: layout, include direction, sizes, banned calls, READMEs.

Reads what git tracks; needs nothing but Python. Run: python3 tests/tidy/tidy_test.py
"""

import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOP_LEVEL = {
    "CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md",
    "client", "daemon", "deploy", "kernels", "proto", "retrieval", "tests", "tiers",
}  # fmt: skip
# folder -> what it may include besides itself.
MAY_INCLUDE = {
    "kernels": set(),
    "tiers": {"kernels"},
    "retrieval": {"kernels"},
    "daemon": {"kernels", "tiers", "retrieval", "proto"},
    "client": {"kernels", "retrieval", "proto"},
}
# No file is longer; 400 lines is the habit.
LINES_MAX = 600
README_LINES_MAX = {"client/python/README.md": 60, "README.md": 150}


def tracked():
    out = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [pathlib.PurePath(line) for line in out.splitlines() if (ROOT / line).is_file()]


def text(path):
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


FILES = tracked()
CODE = [p for p in FILES if p.suffix in (".h", ".cc")]


class Tidy(unittest.TestCase):
    def test_top_level_is_fixed(self):
        entries = {p.parts[0] for p in FILES if not p.parts[0].startswith(".")}
        self.assertLessEqual(entries, TOP_LEVEL)

    def test_folders_include_only_what_is_below_them(self):
        for path in CODE:
            folder = path.parts[0]
            if folder not in MAY_INCLUDE:
                continue
            for target in re.findall(r'#include "(\w+)/', text(path)):
                if target in MAY_INCLUDE or target == "tests":
                    with self.subTest(file=str(path), includes=target):
                        self.assertIn(target, MAY_INCLUDE[folder] | {folder})

    def test_grpc_headers_stay_behind_the_wire(self):
        pattern = r'#include [<"](grpc|google/protobuf|kvtier/v1)'
        for path in CODE:
            if str(path).startswith(("daemon/", "client/cpp/", "proto/", "tests/")):
                continue
            with self.subTest(file=str(path)):
                self.assertIsNone(re.search(pattern, text(path)))

    def test_include_guards_are_the_full_path(self):
        for path in CODE:
            if path.suffix == ".h":
                guard = "KVTIER_" + re.sub(r"[^A-Za-z0-9]", "_", str(path)).upper() + "_"
                with self.subTest(file=str(path)):
                    self.assertIn(f"#ifndef {guard}\n#define {guard}\n", text(path))

    def test_files_are_a_comfortable_read(self):
        for path in FILES:
            if path.suffix in (".h", ".cc", ".py", ".proto"):
                with self.subTest(file=str(path)):
                    self.assertLessEqual(len(text(path).splitlines()), LINES_MAX)

    def test_the_environment_is_read_in_main_only(self):
        for path in CODE:
            if path.name != "main.cc" and path.parts[0] != "tests":
                with self.subTest(file=str(path)):
                    self.assertNotRegex(text(path), r"\bgetenv\(")

    def test_tests_do_not_sleep(self):
        pattern = r"\b(sleep_for|usleep|SleepFor|time\.sleep)\s*\("
        for path in FILES:
            if path.parts[0] == "tests" and path.suffix in (".cc", ".h", ".py"):
                if path.name != "tidy_test.py":
                    with self.subTest(file=str(path)):
                        self.assertNotRegex(text(path), pattern)

    def test_every_folder_says_what_it_is(self):
        for folder in [*MAY_INCLUDE, "proto", "deploy", "."]:
            with self.subTest(folder=folder):
                self.assertTrue((ROOT / folder / "README.md").is_file())

    def test_readmes_are_short(self):
        for path in FILES:
            if path.name == "README.md":
                with self.subTest(file=str(path)):
                    limit = README_LINES_MAX.get(str(path), 40)
                    self.assertLessEqual(len(text(path).splitlines()), limit)


if __name__ == "__main__":
    unittest.main()
