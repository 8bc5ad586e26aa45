"""What a field of a plate costs beside the network: the present code against another checkout, in one run.

    git worktree add ../before 0f0a5a5
    python benchmarks/plates.py ../before [--fields 384] [--size 512] [--repeats 2]

A plate of noise is segmented by a threshold that costs nothing, by each executor, in a fresh process each time; the
two checkouts take turns. Wall time includes all but the imports and the start of the workers, which are told apart.
CPU time is that of the process and its workers: on a machine that does other things besides, compare that.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, write_result

SEED = 3
EXECUTORS = ("serial", "threads", "dask")
KINDS = 8
"""Different fields; the plate repeats them."""

SEGMENTER = """
def trivial(block):
    return block[:1] > 0.6

trivial.link, trivial.layers, trivial.halo_px = "touch", 1, 0
"""


def make_plate(folder: Path, fields: int, size: int) -> str:
    """Write a plate of fields of noise with smooth, bright objects."""
    # Imported here: in the other checkout these modules may have other names.
    from pipeline.store.ome.image_writing import create_plate, write_image
    from pipeline.store.places.address import address

    rng, place = np.random.default_rng(SEED), address(folder / "plate.zarr")
    rows = "ABCDEFGHIJKLMNOP"
    wells = [(rows[number % 16], str(number // 16 + 1), 1) for number in range(fields)]
    images = [_smooth(rng, size) for _ in range(KINDS)]
    for number, path in enumerate(create_plate(place, name="plate", wells=wells)):
        write_image(place, path, images[number % KINDS][None], chunks=(size, size))
    return str(place)


def _smooth(rng: np.random.Generator, size: int) -> np.ndarray:
    from scipy import ndimage

    image = ndimage.gaussian_filter(rng.random((size, size)), 12)
    return ((image - image.min()) / np.ptp(image) * 60_000).astype(np.uint16)


def run_once(source: str, output: str, executor: str) -> dict[str, float]:
    """Segment in this process; seconds of wall and CPU, and of the start of the workers."""
    try:
        from flows.segmentation.run import segment
    except ImportError:  # the older layout of the package
        from flows.segment import segment
    from flows.jobs import SegmentJob, job

    began: list[float] = []

    class Begin:
        """Notes when the first stage begins: the workers are there."""

        def start(self, stage: str, total: int) -> None:
            began.append(time.perf_counter())

        def advance(self, stage: str, item: Any) -> None:
            """Nothing to note."""

        def finish(self, stage: str) -> None:
            """Nothing to note."""

    table = {"source": source, "output": output, "segmenter": "plates_segmenter:trivial", "name": "n",
             "execution": {"executor": executor, "workers": 2}}  # fmt: skip
    started = time.perf_counter()
    record = segment(job(SegmentJob, table), progress=Begin())
    ended = time.perf_counter()
    if record.status != "complete":
        raise RuntimeError(f"expected a complete run, got {record.failures[:1]}")
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "wall_s": round(ended - started, 2), "before_first_stage_s": round(began[0] - started, 2),
        "cpu_s": round(sum(one.ru_utime + one.ru_stime for one in used), 2), "objects": record.objects,
    }  # fmt: skip


def measure(checkout: Path, folder: Path, source: str, executor: str) -> dict[str, float]:
    """Segment by the code of a checkout, in a process of its own."""
    output = folder / "out.zarr"
    shutil.rmtree(output, ignore_errors=True)
    paths = os.pathsep.join((str(checkout), str(Path(__file__).parent), str(folder)))
    words = [sys.executable, __file__, "--once", source, str(output), executor]
    done = subprocess.run(
        words, env=os.environ | {"PYTHONPATH": paths}, cwd=folder, capture_output=True, text=True, check=True
    )
    facts = json.loads(done.stdout.splitlines()[-1])
    written = sum(1 for place in output.rglob("*") if place.is_file())
    return facts | {"files": written}


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", nargs="?", type=Path)
    parser.add_argument("--once", nargs=3, help="segment in this process: source, output, executor")
    parser.add_argument("--fields", type=int, default=384)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    if options.once:
        print(json.dumps(run_once(*options.once)))
        return
    here = Path(__file__).resolve().parent.parent
    checkouts = {"before": options.before.resolve(), "now": here}
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "plates_segmenter.py").write_text(SEGMENTER)
        source = make_plate(folder, options.fields, options.size)
        runs: list[dict[str, Any]] = [
            {"code": code, "executor": executor} | measure(checkouts[code], folder, source, executor)
            for executor in EXECUTORS
            for _ in range(options.repeats)
            for code in checkouts
        ]
    finally:
        shutil.rmtree(folder)
    write_result("plates", {
        "what": "a plate of small fields, a segmenter that costs nothing; best of the repeats",
        "machine": machine(SEED), "before": _commit(checkouts["before"]),
        "fields": options.fields, "size": options.size, "best": _best(runs), "runs": runs,
    })  # fmt: skip


def _best(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Smallest wall and CPU time of each code and executor, in ms per field, and their ratios."""
    found: dict[str, dict[str, float]] = {}
    for executor in EXECUTORS:
        line: dict[str, float] = {}
        for measured in ("wall_s", "cpu_s"):
            least = {
                code: min(run[measured] for run in runs if (run["code"], run["executor"]) == (code, executor))
                for code in ("before", "now")
            }
            line |= {f"{measured}_{code}": value for code, value in least.items()}
            line[f"{measured}_ratio"] = round(least["before"] / least["now"], 2)
        found[executor] = line
    return found


def _commit(checkout: Path) -> str:
    words = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
