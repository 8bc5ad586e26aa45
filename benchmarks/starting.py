"""What a command and a cluster take before they do anything: the present code against another checkout, in turns.

    git worktree add ../before 0f0a5a5
    python benchmarks/starting.py ../before [--repeats 5]

inspect    The whole command `platelayer inspect` on a plate of 18 small fields, with the start of Python.
dask       Two Dask workers: from the call that opens them, through one call on each, to their end; imports excluded.

Medians of processes of their own.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from machine import machine, write_result
from plates import SEED, make_plate

FIELDS = 18

INSPECT = "import sys; from flows.cli import main; sys.exit(main())"

DASK = """
import time
try:
    from flows.execution.pools import open_pool as opened
    from flows.segmentation import WORKER_MODULES
    options = {"preload": WORKER_MODULES}
except ImportError:  # the older layout of the package
    from flows.executors import pool as opened
    options = {}
from flows.jobs import Execution

if __name__ == "__main__":
    started = time.perf_counter()
    with opened(Execution(executor="dask", workers=2), **options) as workers:
        for result in [workers.cpu.submit(abs, number) for number in range(2)]:
            result.result()
    print(time.perf_counter() - started)
"""


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    checkouts = {"before": options.before.resolve(), "now": Path(__file__).resolve().parent.parent}
    seconds: dict[str, dict[str, list[float]]] = {
        part: {name: [] for name in checkouts} for part in ("inspect", "dask")
    }
    folder = Path(tempfile.mkdtemp())
    try:
        plate = make_plate(folder / "plate.zarr", FIELDS, 64)
        (folder / "workers.py").write_text(DASK)
        for _ in range(options.repeats):
            for name, checkout in checkouts.items():
                started = time.perf_counter()
                run(checkout, folder, "-c", INSPECT, "inspect", plate)
                seconds["inspect"][name].append(round(time.perf_counter() - started, 3))
                seconds["dask"][name].append(round(float(run(checkout, folder, "workers.py").split()[-1]), 3))
    finally:
        shutil.rmtree(folder)
    medians = {part: {name: median(times) for name, times in both.items()} for part, both in seconds.items()}
    ratios = {part: round(both["before"] / both["now"], 2) for part, both in medians.items()}
    about = {
        "what": "seconds to start by this code and by an earlier commit, in turns",
        "machine": machine(SEED),
    }
    write_result(
        "starting", about | {"before": "0f0a5a5", "median_s": medians, "ratio": ratios, "seconds": seconds}
    )


def run(checkout: Path, folder: Path, *words: str) -> str:
    """Run Python with the code of a checkout; return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
