"""What `import dropax` adds to `import jax`: `python -m benchmarks.imports`."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_ROOT = Path(__file__).parents[1]
# In one process, one after the other: both meet the machine in the same state.
_CODE = """
import time
start = time.perf_counter(), time.process_time()
import jax
middle = time.perf_counter(), time.process_time()
import dropax
end = time.perf_counter(), time.process_time()
print([[b - a for a, b in zip(*pair)] for pair in ((start, middle), (middle, end))])
"""


def measure(repetitions: int) -> np.ndarray:
    """Times both imports in new processes.

    Args:
      repetitions: how many processes; one more comes first, which writes the bytecode that the
        others read, as it is with an installed package.

    Returns:
      Seconds, shape (repetitions, 2, 2): jax or dropax, then wall-clock or processor time.
    """
    times = []
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(1 + repetitions):
            done = subprocess.run(
                [sys.executable, "-c", _CODE],
                cwd=_ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            times.append(json.loads(done.stdout))
    return np.array(times[1:])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--limit", type=float, help="percent of jax's processor time")
    options = parser.parse_args(argv)
    times = 1000 * measure(options.repetitions)
    percent = 100 * times[:, 1] / times[:, 0]
    for clock, name in enumerate(("wall-clock", "processor")):
        jax, dropax = np.median(times[..., clock], axis=0)
        low, median, high = np.percentile(percent[:, clock], [10, 50, 90])
        print(
            f"{name:10} jax {jax:6.0f} ms, dropax {dropax:5.1f} ms more: "
            f"{median:.1f} % (10th to 90th percentile {low:.1f} to {high:.1f} %)"
        )
    return int(options.limit is not None and np.median(percent[:, 1]) > options.limit)


if __name__ == "__main__":
    sys.exit(main())
