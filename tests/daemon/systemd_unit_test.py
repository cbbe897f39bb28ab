"""Goal: systemd takes the unit as it is meant, and finds little that it could still lock
away. Method: systemd-analyze, on the unit with the program that was just built.

    systemd_unit_test.py UNIT PROGRAM
"""

import pathlib
import re
import subprocess
import sys
import tempfile

# Of 100; systemd calls up to 20 "safe".
EXPOSURE_MAX = 20


def analyze(*arguments):
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def main(unit, program):
    text, programs = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={program}", unit.read_text())
    assert programs == 1, "the unit has one ExecStart"
    with tempfile.TemporaryDirectory() as directory:
        copy = pathlib.Path(directory) / unit.name
        copy.write_text(text)
        # What it doesn't know it only complains of.
        code, said = analyze("verify", str(copy))
        assert code == 0 and not said, said
        code, said = analyze(
            "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(copy)
        )
        assert code == 0, said
        print(said.strip().splitlines()[-1])
        copy.write_text(text.replace("Type=notify", "Type=notfy"))
        assert analyze("verify", str(copy))[1], "a misspelt type was not found"


main(pathlib.Path(sys.argv[1]), sys.argv[2])
