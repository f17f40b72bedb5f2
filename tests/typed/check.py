"""Checks the types as a user meets them: `python tests/typed/check.py`, with mypy.

The good calls must pass `mypy --strict`; of the wrong ones each must fail, where it says and with
the error that it says. dropax must be installed, or on MYPYPATH: it is looked for from outside.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
GOOD, WRONG = "test_good_calls.py", "wrong_calls.py"


def expected() -> set[tuple[str, int, str]]:
    """Reads which errors must come, as (file, line, name)."""
    lines = (HERE / WRONG).read_text().splitlines()
    errors = set()
    for number, line in enumerate(lines, 1):
        if comment := re.search(r"# error: ([\w, -]+)$", line):
            errors |= {(WRONG, number, name) for name in comment[1].split(", ")}
    return errors


def found() -> set[tuple[str, int, str]]:
    """Runs mypy on copies, without this project's settings."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    with tempfile.TemporaryDirectory() as folder:
        for name in (GOOD, WRONG):
            shutil.copy(HERE / name, folder)
        done = subprocess.run(
            [*command, GOOD, WRONG], cwd=folder, capture_output=True, text=True, check=False
        )
    if done.returncode not in (0, 1):
        raise RuntimeError(done.stdout + done.stderr)
    # Those of dropax itself are its own: an installed package is not asked for them.
    ours = re.compile(rf"({re.escape(GOOD)}|{re.escape(WRONG)}):\d+: error: ")
    lines = [line for line in done.stdout.splitlines() if ours.match(line)]
    errors = set()
    for line in lines:
        parts = re.fullmatch(r"(.*?):(\d+): error: .*\[([\w-]+)\]", line)
        if parts is None:
            raise RuntimeError(line)
        errors.add((parts[1], int(parts[2]), parts[3]))
    print("\n".join(lines))
    return errors


def main() -> int:
    """Compares; returns the exit code."""
    must, are = expected(), found()
    for error in sorted(must - are):
        print("missing: {}:{} {}".format(*error), file=sys.stderr)
    for error in sorted(are - must):
        print("unexpected: {}:{} {}".format(*error), file=sys.stderr)
    print(f"{len(must)} errors were to come, {len(must & are)} came, {len(are - must)} others")
    return int(must != are or not must)


if __name__ == "__main__":
    sys.exit(main())
