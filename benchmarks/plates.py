"""What a field of a plate costs beside the network: the present code against another checkout, in one run.

    git worktree add ../before 0f0a5a5
    TMPDIR=/dev/shm python benchmarks/plates.py ../before [--part compare] [--fields 405] [--size 512] [--repeats 2]

In memory (``/dev/shm``) the code is timed, and not a disk that others use at the same time.
Each part replaces its entry of the result:

compare    A plate of noise is segmented by a threshold that costs nothing, by each executor, in a fresh process each
           time; the two checkouts take turns. Wall time includes all but the imports. CPU time is that of the process
           and of all that it started: on a machine that does other things besides, compare that. "dask started" runs
           on workers that had started before. The floor is the time of the codecs alone on the same chunks, and of
           plainly writing files of the same names and sizes.
planning   A plate of 3,456 fields is planned by both codes.
asleep     A segmenter that sleeps, one field at a time, as a chip beside the processor would, on two threads.
nuclei     The model `nuclei` on two workers, on drawn cells; the time of all workers over that in the network.
"""

import argparse
import ctypes
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from floor import floor
from machine import RESULTS, machine, write_result

SEED = 3
EXECUTORS = ("serial", "threads", "dask")
STARTED = "dask started"
"""Dask workers that had started before the run."""
WORKERS = 2
PLANNED = 3456
"""Fields of the plate that is planned only."""
SLEEPS_MS = (20, 40, 80)
"""Times in a network that is not on the processor: 20 was asked for, where a field took 10 on the processor."""
NUCLEI_PX = 1080
NUCLEI_FIELDS = 144

KINDS = 8
"""Different fields; the plate repeats them."""

SEGMENTERS = """
import time

def trivial(block):
    return block[:1] > 0.6

def asleep(ms):
    def segmenter(block):
        time.sleep(ms / 1e3)
        return block[:1] > 0.6
    return segmenter

asleep_20, asleep_40, asleep_80 = asleep(20), asleep(40), asleep(80)

for one in (trivial, asleep_20, asleep_40, asleep_80):
    one.link, one.layers, one.halo_px = "touch", 1, 0
"""


def make_plate(place_of: Path, fields: int, size: int, images: Sequence[np.ndarray] = ()) -> str:
    """Write a plate of nine fields in a well: images ``(y, x)`` in turn, or noise with smooth, bright objects."""
    # Imported here: in the other checkout these modules may have other names.
    from pipeline.store.ome.image_writing import create_plate, write_image
    from pipeline.store.places.address import address

    rng, place = np.random.default_rng(SEED), address(place_of)
    rows = "ABCDEFGHIJKLMNOP"
    wells = [(rows[number % 16], str(number // 16 + 1), min(9, fields)) for number in range(-(-fields // 9))]
    images = images or [_smooth(rng, size) for _ in range(KINDS)]
    for number, path in enumerate(create_plate(place, name="plate", wells=wells)):
        write_image(place, path, images[number % len(images)][None], chunks=(size, size))
    return str(place)


def _smooth(rng: np.random.Generator, size: int) -> np.ndarray:
    from scipy import ndimage

    image = ndimage.gaussian_filter(rng.random((size, size)), 12)
    return ((image - image.min()) / np.ptp(image) * 60_000).astype(np.uint16)


def run_once(table: dict[str, Any]) -> dict[str, Any]:
    """Segment in this process; seconds of wall and CPU, and where the time went."""
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

    with _cluster(table):
        started, cpu = time.perf_counter(), time.process_time()
        record = segment(job(SegmentJob, table), progress=Begin())
        ended = time.perf_counter()
    if record.status != "complete":
        raise RuntimeError(f"expected a complete run, got {record.failures[:1]}")
    return {
        "wall_s": round(ended - started, 2), "before_first_stage_s": round(began[0] - started, 2),
        "own_cpu_s": round(time.process_time() - cpu, 2), "objects": record.objects,
        "network_s": record.network_s.get("network_s", 0.0), "stages": record.stages,
    }  # fmt: skip


@contextmanager
def _cluster(table: dict[str, Any]) -> Iterator[None]:
    """Start the workers of a job in advance, if it asks for started ones."""
    if table["execution"]["executor"] != STARTED:
        yield
        return
    from distributed import default_client

    from flows.execution.pools import open_pool
    from flows.jobs import Execution
    from flows.segmentation import WORKER_MODULES

    with open_pool(Execution(executor="dask", workers=WORKERS), preload=WORKER_MODULES):
        table["execution"]["executor"] = default_client().scheduler.address
        yield


def plan_once(table: dict[str, Any]) -> dict[str, Any]:
    """Plan in this process; seconds of wall and CPU."""
    try:
        from flows.segmentation.plan import make_plan
    except ImportError:
        from flows.plan import make_plan
    from flows.jobs import SegmentJob, job

    started, cpu = time.perf_counter(), time.process_time()
    images = len(make_plan(job(SegmentJob, table)).works)
    seconds = time.perf_counter() - started
    return {"wall_s": round(seconds, 2), "cpu_s": round(time.process_time() - cpu, 2), "fields": images}


def measure(checkout: Path, folder: Path, table: dict[str, Any], *, what: str = "run") -> dict[str, Any]:
    """Segment or plan by the code of a checkout, in a process of its own; CPU time of it and all it started."""
    output = folder / "out.zarr"
    shutil.rmtree(output, ignore_errors=True)
    paths = os.pathsep.join((str(checkout), str(Path(__file__).parent), str(folder)))
    words = [sys.executable, __file__, "--once", what, json.dumps(table | {"output": str(output)})]
    before = _cpu_of_children()
    done = subprocess.run(
        words, env=os.environ | {"PYTHONPATH": paths}, cwd=folder, capture_output=True, text=True, check=True
    )
    _reap()
    facts = json.loads(done.stdout.splitlines()[-1])
    written = sum(1 for place in output.rglob("*") if place.is_file())
    facts = {"tree_cpu_s": round(_cpu_of_children() - before, 2), "files": written} | facts
    print(checkout.name, table["execution"]["executor"], what, facts, flush=True)
    return facts


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _adopt_orphans() -> None:
    """Let this process wait for what outlives its parent, such as the process that workers are forked from."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def _reap() -> None:
    """Wait for all orphans, so that their CPU time is counted."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def a_job(source: str, executor: str) -> dict[str, Any]:
    """A segmentation of a plate by an executor with two workers."""
    execution = {"executor": executor, "workers": WORKERS}
    return {
        "source": source,
        "segmenter": "plates_segmenter:trivial",
        "name": "n",
        "execution": execution,
    }


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", nargs="?", type=Path)
    parser.add_argument(
        "--once", nargs=2, help="segment or plan in this process: run or plan, the job as JSON"
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="default: all")
    parser.add_argument(
        "--executor",
        choices=(*EXECUTORS, STARTED),
        action="append",
        help="of compare; the runs by others are kept",
    )
    parser.add_argument("--fields", type=int, default=405)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    if options.once:
        what, table = options.once
        print(json.dumps((run_once if what == "run" else plan_once)(json.loads(table))))
        return
    _adopt_orphans()
    checkouts = {"before": options.before.resolve(), "now": Path(__file__).resolve().parent.parent}
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "plates_segmenter.py").write_text(SEGMENTERS)
        for part in options.part or PARTS:
            found = PARTS[part](checkouts, folder, options)
            facts = {
                "machine": machine(SEED), "before": _commit(checkouts["before"]), "folder": str(folder.parent)
            }  # fmt: skip
            write_result("plates", _earlier() | {part: facts | found})
    finally:
        shutil.rmtree(folder)


def _earlier() -> dict[str, Any]:
    """The parts that were measured before."""
    file = RESULTS / "plates.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    what = "plates of small fields by this code and by an earlier commit; ratios are of runs in turns"
    return {"what": what} | {part: kept[part] for part in PARTS if "machine" in kept.get(part, {})}


def compare(checkouts: dict[str, Path], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Runs of both codes by every executor, in turns."""
    source = make_plate(folder / "plate.zarr", options.fields, options.size)
    chosen = options.executor or (*EXECUTORS, STARTED)
    earlier = _earlier().get("compare", {})
    runs = [run for run in earlier.get("runs", []) if run["executor"] not in chosen]
    # In turns, because a shared machine changes its pace by a third from minute to minute.
    turns = [(one, code) for one in chosen for code in checkouts if (one, code) != (STARTED, "before")]
    for executor, code in turns * options.repeats:
        facts = {"code": code, "executor": executor, "load_before": round(os.getloadavg()[0], 2)}
        runs.append(facts | measure(checkouts[code], folder, a_job(source, executor)))
    lowest = floor(Path(source), folder / "out.zarr", folder / "floor.zarr")
    return {
        "fields": options.fields, "size": options.size, "median": _medians(runs), "floor": lowest, "runs": runs
    }  # fmt: skip


def planning(checkouts: dict[str, Path], folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """Time to plan a plate of thousands of fields, by both codes."""
    source = make_plate(folder / "many.zarr", PLANNED, 16)
    return {
        code: measure(checkout, folder, a_job(source, "serial"), what="plan")
        for code, checkout in checkouts.items()
    }


def asleep(checkouts: dict[str, Path], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A network that is not on the processor: the least time of the stage over the time in the network."""
    fields, checkout = 90, checkouts["now"]
    source, found = make_plate(folder / "asleep.zarr", fields, 512), {}
    for sleep_ms in SLEEPS_MS:
        job = a_job(source, "threads") | {"segmenter": f"plates_segmenter:asleep_{sleep_ms}"}
        runs = [measure(checkout, folder, job) for _ in range(options.repeats)]
        seconds = min(run["stages"]["fields"]["seconds"] for run in runs)
        found[f"{sleep_ms} ms"] = {
            "seconds": seconds,
            "over_sleep": round(seconds / (fields * sleep_ms / 1e3), 3),
        }
    return {"fields": fields} | found


def nuclei(checkouts: dict[str, Path], folder: Path, _: argparse.Namespace) -> dict[str, Any]:
    """A real model on two workers: their time over that in the network alone."""
    from pipeline.datasets.synthetic.scenes import scene

    fields, shape = NUCLEI_FIELDS, (NUCLEI_PX, NUCLEI_PX)
    drawn = [scene("cells", shape, seed=seed).sample(str(seed)).image[0] for seed in range(KINDS)]
    source = make_plate(folder / "nuclei.zarr", fields, NUCLEI_PX, drawn)
    job = a_job(source, "dask") | {"segmenter": None, "model": "nuclei"}
    found = measure(checkouts["now"], folder, job)
    total, network = WORKERS * found["stages"]["fields"]["seconds"], found["network_s"]
    return {"fields": fields, "size": NUCLEI_PX, "over_network": round(total / network, 3)} | found


PARTS = {"compare": compare, "planning": planning, "asleep": asleep, "nuclei": nuclei}


def _medians(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median times of each code and executor in seconds, and their ratios."""
    found: dict[str, dict[str, float]] = {}
    for executor in dict.fromkeys(run["executor"] for run in runs):
        line: dict[str, float] = {}
        mine = [run for run in runs if run["executor"] == executor]
        for measured in ("wall_s", "stages_s", "tree_cpu_s", "own_cpu_s"):
            times = {code: _median(mine, code, measured) for code in sorted({run["code"] for run in mine})}
            line |= {f"{measured}_{code}": value for code, value in times.items()}
            if "before" in times:
                line[f"{measured}_ratio"] = round(times["before"] / times["now"], 2)
        found[executor] = line
    pairs = {"start included": ("dask", "wall_s_now"), "started before": (STARTED, "stages_s_now")}
    return found | {
        "dask over serial": {
            name: round(found["serial"][time_s] / found[executor][time_s], 2)
            for name, (executor, time_s) in pairs.items()
            if executor in found and "serial" in found
        }
    }


def _median(runs: list[dict[str, Any]], code: str, measured: str) -> float:
    """The median of the repeats; ``stages_s`` is the wall time without what comes before the first stage."""
    mine = [run for run in runs if run["code"] == code]
    if measured == "stages_s":
        return round(median(run["wall_s"] - run["before_first_stage_s"] for run in mine), 2)
    return median(run[measured] for run in mine)


def _commit(checkout: Path) -> str:
    words = ("git", "-C", str(checkout), "rev-parse", "--short", "HEAD")
    return subprocess.check_output(words, text=True).strip()


if __name__ == "__main__":
    main()
