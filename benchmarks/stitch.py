"""Everything after the network: link, filter, relabel, write labels with pyramid and table.

    python benchmarks/stitch.py [--size 16384] [--workers 1 2] [--repeats 5] [--before ../before]

A layer mask of 8 layers, about 6 % foreground each, is put where `predict` would have left it; then the real main
job runs on it, with each number of workers in turn, several times over: a shared machine changes its pace by a third
from minute to minute, so medians are told. Beside it, in the same run: connected components of the same mask by cc3d
on the whole array in memory (the floor), the naive per-block prototype (cc3d and bincount), and dask-image's label on
a part of it (it does not finish on the whole). What a second worker can gain at most on this machine is measured too,
by two runs of one worker each at the same time. With ``--before`` another checkout takes turns with this one, and the
floor is told (`stitch_floor`).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from machine import RESULTS, machine, write_result
from skimage.draw import disk
from stitch_floor import floor

from flows.jobs import SegmentJob, job
from flows.segmentation.plan import make_plan
from flows.segmentation.run import segment
from flows.segmentation.stages.layer_mask import read_mask, write_mask
from pipeline.segment import bits
from pipeline.store.ome.image_writing import create_image
from pipeline.store.places.address import address

LAYERS = 8
CORE = 2048
SEED = 7
SETTLE_S = 5
PART = 4096


class EightLayers:
    """Says what a network would say; never called, because its answers are there already."""

    name, link, layers, halo_px, stride, digest = "eight", "touch", LAYERS, 0, 1, "benchmark"

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Never called."""
        raise RuntimeError("the mask is there already")


def mask_block(rng: np.random.Generator) -> np.ndarray:
    """A block of packed layers: disks of 8 to 20 px until every layer has 6 % foreground."""
    layers = np.zeros((LAYERS, CORE, CORE), bool)
    for layer in layers:
        while layer.mean() < 0.06:
            for _ in range(40):
                y, x = disk(rng.integers(0, CORE, 2), rng.integers(8, 21), shape=layer.shape)
                layer[y, x] = True
    return bits(layers)


def make_input(folder: Path, size: int) -> None:
    """An image of noise, chunk by chunk."""
    rng = np.random.default_rng(SEED)
    writer = create_image(address(folder / "image.zarr"), axes=("y", "x"), shape=(size, size), dtype="uint16")
    for y in range(0, size, CORE):
        for x in range(0, size, CORE):
            noise = rng.integers(0, 4000, (min(CORE, size - y), min(CORE, size - x)), dtype=np.uint16)
            writer.write((slice(y, y + noise.shape[0]), slice(x, x + noise.shape[1])), noise)
    writer.finish()


def the_job(folder: Path, workers: int, output: str) -> SegmentJob:
    """The main job with one or more worker processes."""
    return job(
        SegmentJob,
        {
            "source": str(folder / "image.zarr"), "output": str(folder / f"out{output}.zarr"),
            "segmenter": "benchmarks.stitch:EightLayers", "normalise": {"kind": "none"},
            "tiling": {"core": CORE}, "filters": {"min_area": 50},
            "execution": {"executor": "serial" if workers == 1 else "dask", "workers": workers},
        },
    )  # fmt: skip


def predicted(work: SegmentJob) -> None:
    """Leave the mask and its marks as `predict` does."""
    plan = make_plan(work)
    rng = np.random.default_rng(SEED)
    blocks = [mask_block(rng) for _ in range(2)]
    (image,) = plan.works
    for number, item in enumerate(image.items(image.tiles())):
        core = item.tile.core
        block = np.roll(blocks[number % 2], rng.integers(0, CORE, 2), axis=(0, 1))
        write_mask(item, block[: core.shape[0], : core.shape[1]])
        plan.ledger.mark("predict", image.key, item.key)


def run(folder: Path, size: int, workers: int, output: str, core: int = 0) -> dict[str, Any]:
    """Time the main job after the network; one worker is held to one core, as zarr decodes in threads of its own."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core} if workers == 1 else cores)
    try:
        return timed(folder, size, workers, output)
    finally:
        os.sched_setaffinity(0, cores)


def timed(folder: Path, size: int, workers: int, output: str) -> dict[str, Any]:
    """Run the main job on a mask that is there.

    Into a store of its own: for minutes after files were removed, ext4 takes longer to make others in their place.
    """
    work = the_job(folder, workers, output)
    predicted(work)
    # Every run begins alike: what was written before is on the disk, and freed memory is back at the machine.
    os.sync()
    time.sleep(SETTLE_S)
    started = time.perf_counter()
    record = segment(work)
    total = time.perf_counter() - started
    busy = {name: facts["seconds"] for name, facts in record.stages.items()}
    spent = sum(busy.values())
    px = size * size / 1e6
    return {
        "workers": workers, "objects": record.objects, "seconds": {**busy, "total_with_start": round(total, 2)},
        "Mpx_per_s": round(px / total, 1), "Mpx_per_s_without_start": round(px / spent, 1),
    }  # fmt: skip


def alone(folder: Path, size: int, workers: int, output: str) -> dict[str, Any]:
    """Run in a process of its own: threads that zarr has started already would not be held to a core."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run, folder, size, workers, output).result()


def at_once(folder: Path, size: int) -> float:
    """What a second core is worth here: gain of two runs of one worker side by side, that share nothing but it."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        runs = list(
            pool.map(partial(run, folder, size, 1), ("left", "right"), sorted(os.sched_getaffinity(0)))
        )
    return sum(r["Mpx_per_s_without_start"] for r in runs)


def against(before: Path, folder: Path, size: int, repeats: int) -> dict[str, Any]:
    """Runs of one worker by another checkout and by this one in turns, each in a process of its own."""
    checkouts = {"before": before.resolve(), "now": Path(__file__).resolve().parent.parent}
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    for turn in range(repeats):
        for name, checkout in checkouts.items():
            code = (
                "import json, pathlib, stitch; "
                f"print(json.dumps(stitch.run(pathlib.Path({str(folder)!r}), {size}, 1, '{name}{turn}')))"
            )
            paths = os.pathsep.join((str(checkout), str(checkout / "benchmarks")))
            done = subprocess.run(
                [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, cwd=checkout,
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            runs[name].append(json.loads(done.stdout.splitlines()[-1]))
            if turn or name == "before":  # the floor reads the first output of this checkout
                shutil.rmtree(folder / f"out{name}{turn}.zarr")
    rates = {name: median(run["Mpx_per_s_without_start"] for run in own) for name, own in runs.items()}
    return {
        "Mpx_per_s": rates, "ratio": round(rates["now"] / rates["before"], 2),
        "floor_s": library_calls(folder, "now0"), "runs": runs,
    }  # fmt: skip


def library_calls(folder: Path, output: str) -> dict[str, float]:
    """Seconds that this job cannot do without, see `stitch_floor`."""
    work = make_plan(the_job(folder, 1, output)).works[0]
    files = [
        key.read_bytes() for key in (folder / f"out{output}.zarr").glob("labels/*/*/c/**/*") if key.is_file()
    ]
    cores = [item.tile.core for item in work.items(work.tiles())]
    tiles = [(partial(work.read, 0, core, (0,)), partial(read_mask, work, 0, core)) for core in cores]
    return floor(tiles, files)


def the_mask(folder: Path, output: str) -> np.ndarray:
    """The layer mask of a run, ``(y, x)``."""
    work = make_plan(the_job(folder, 1, output)).works[0]
    return read_mask(work, 0, work.whole.core)


def cc3d_whole(mask: np.ndarray) -> dict[str, Any]:
    """The floor: components of each layer of the whole array in memory, nothing read or written."""
    import cc3d

    started, count = time.perf_counter(), 0
    for layer in range(LAYERS):
        labels, found = cc3d.connected_components((mask >> layer) & 1, connectivity=8, return_N=True)
        count += int(found)
        del labels
    seconds = time.perf_counter() - started
    return {
        "seconds": round(seconds, 2),
        "Mpx_per_s": round(mask.size / 1e6 / seconds, 1),
        "components": count,
    }


def naive_block(mask: np.ndarray) -> dict[str, Any]:
    """The prototype per block: unpack, cc3d, areas and moments by bincount; no writing."""
    import cc3d

    y, x = np.indices(mask.shape)
    started = time.perf_counter()
    for layer in range(LAYERS):
        labels = cc3d.connected_components((mask >> layer) & 1, connectivity=8)
        inside = labels > 0
        ids = labels[inside]
        for weights in (None, y[inside], x[inside], y[inside] ** 2, x[inside] ** 2, (y * x)[inside]):
            np.bincount(ids, weights=weights)
    seconds = time.perf_counter() - started
    return {"ms_per_Mpx": round(1e3 * seconds / (mask.size / 1e6), 1)}


def our_block(mask: np.ndarray) -> dict[str, Any]:
    """The same work by spans: components, areas, moments, overlaps; no reading, no writing."""
    from pipeline.measure import Frame
    from pipeline.spans import spans_of_bits
    from pipeline.stitch import describe
    from pipeline.tiling import Box

    box = Box(0, mask.shape[0], 0, mask.shape[1])
    started = time.perf_counter()
    describe(*spans_of_bits(mask), box, Frame(*mask.shape))
    seconds = time.perf_counter() - started
    return {"ms_per_Mpx": round(1e3 * seconds / (mask.size / 1e6), 1)}


def dask_image_part(mask: np.ndarray) -> dict[str, Any]:
    """dask-image labels one layer of a part of the mask."""
    try:
        import dask.array as da
        from dask_image.ndmeasure import label
    except ImportError:
        return {"skipped": "dask-image is not installed"}
    started = time.perf_counter()
    labels, _ = label(da.from_array((mask & 1).astype(np.uint8), chunks=1024), structure=np.ones((3, 3)))
    labels.compute(scheduler="synchronous")
    seconds = time.perf_counter() - started
    return {
        "size": len(mask), "layers": 1, "seconds": round(seconds, 2),
        "Mpx_per_s_and_8_layers": round(mask.size / 1e6 / seconds / LAYERS, 2),
    }  # fmt: skip


def in_turn(folder: Path, size: int, workers: list[int], repeats: int) -> dict[str, Any]:
    """Runs with each number of workers one after the other, again and again; the rate of each is their median."""
    runs = [alone(folder, size, number, f"{turn}_{number}") for turn in range(repeats) for number in workers]
    rates = {
        str(number): median(r["Mpx_per_s_without_start"] for r in runs if r["workers"] == number)
        for number in workers
    }
    first, last = rates[str(workers[0])], rates[str(workers[-1])]
    gain = round(last / first, 2) if len(workers) > 1 else None
    return {"runs": runs, "median_Mpx_per_s_without_start": rates, "second_worker_gain": gain}


def main() -> None:
    """Run everything and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=16384)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--before", type=Path, help="another checkout to compare with, and nothing else")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp())
    try:
        make_input(folder, options.size)
        if options.before:
            found = against(options.before, folder, options.size, options.repeats)
            kept = json.loads((RESULTS / "stitch.json").read_text())
            facts = {"size": options.size, "machine": machine(SEED)}
            write_result("stitch", kept | {"against 0f0a5a5": facts | found})
            return
        result = {"what": __doc__.split("\n")[0], "size": options.size, "machine": machine(SEED)}
        result |= in_turn(folder, options.size, options.workers, options.repeats)
        rate = result["median_Mpx_per_s_without_start"][str(options.workers[0])]
        result["two_separate_runs_gain"] = round(at_once(folder, options.size) / rate, 2)
        mask = the_mask(folder, f"0_{options.workers[0]}")
        block = mask[:CORE, :CORE]
        result["describe_block"] = {"spans": our_block(block)}
        if find_spec("cc3d"):
            result["cc3d_whole_in_memory"] = cc3d_whole(mask)
            result["describe_block"]["naive_cc3d_bincount"] = naive_block(block)
        result["dask_image"] = dask_image_part(mask[:PART, :PART])
        write_result("stitch", result)
    finally:
        if options.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
