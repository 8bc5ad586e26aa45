"""The reduce step alone: pieces of all blocks become objects and their table, in time and memory.

    python benchmarks/reduce.py [--objects 1000 100000 10000000]

No image is made: the tables that describing would have left are drawn from a seed, for squares of 20 px on eight
layers, one per 40 x 40 px, cut where they meet the border of a block; one in ten overlaps another. Each case runs in
a process of its own; its peak memory counts the tables it starts from.
"""

import argparse
import json
import math
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import psutil
from machine import machine, write_result

from pipeline.links import touch_links
from pipeline.measure import Columns, object_columns, stacked
from pipeline.spans import Spans
from pipeline.stitch import DECIDING, Filters, join, whole
from pipeline.store.ome.tables import table_bytes

SEED = 5
SIDE = 20
"""Side of an object in px."""
PITCH = 40
"""One object per so many px squared."""
LIMIT_GIB = 16
CASES = ((10**3, 10**2), (10**5, 10**3), (10**5, 10**5), (10**7, 10**4))
"""Objects and (about) blocks."""


def pieces(rng: np.random.Generator, objects: int, blocks: int) -> tuple[dict[str, np.ndarray], int, int]:
    """Rectangles of all pieces in the order of their blocks, the side of the image, and that of a block."""
    side = math.ceil(math.sqrt(objects)) * PITCH
    core = max(math.ceil(side / math.sqrt(blocks)), SIDE)
    y, x = rng.integers(0, side - SIDE + 1, (2, objects))
    layer = rng.integers(0, 8, objects).astype(np.uint8)
    parts = []
    for down in (0, 1):
        for right in (0, 1):
            row, column = y // core + down, x // core + right
            y0, x0 = np.maximum(y, row * core), np.maximum(x, column * core)
            y1, x1 = np.minimum(y + SIDE, (row + 1) * core), np.minimum(x + SIDE, (column + 1) * core)
            there = (y1 > y0) & (x1 > x0)
            block = row * -(-side // core) + column
            parts.append([column[there] for column in (block, layer, y0, y1, x0, x1)])
    block, *rest = (np.concatenate(column) for column in zip(*parts))
    order = np.argsort(block, kind="stable")
    names = ("layer", "y0", "y1", "x0", "x1")
    return {"block": block[order], **{n: c[order] for n, c in zip(names, rest)}}, side, core


def rows_of(p: dict[str, np.ndarray], side: int) -> Columns:
    """The additive columns that describing would give for filled rectangles."""
    height, width = p["y1"] - p["y0"], p["x1"] - p["x0"]
    area = height * width
    sum_y, sum_x = (p["y0"] + p["y1"] - 1) * area // 2, (p["x0"] + p["x1"] - 1) * area // 2
    edge = (p["y0"] == 0) | (p["x0"] == 0) | (p["y1"] == side) | (p["x1"] == side)
    shape = {
        "area": area, "unshared": area, "sum_y": sum_y, "sum_x": sum_x, "sum_yy": sum_y * p["y0"],
        "sum_xx": sum_x * p["x0"], "sum_xy": sum_y * p["x0"], "first": p["y0"] * side + p["x0"],
        "y0": p["y0"], "x0": p["x0"], "y1": p["y1"], "x1": p["x1"], "edge": edge.astype(np.int64),
    }  # fmt: skip
    bright = {f"{name}_0": area * 100 for name in ("sum", "sumsq", "unshared_sum")}
    return shape | bright | {f"{name}_0": np.full(len(area), 100) for name in ("min", "max")}


def border_of(p: dict[str, np.ndarray], core: int) -> tuple[Spans, np.ndarray]:
    """Spans at block borders and the number of their piece over all blocks."""
    at_border = (p["y0"] % core == 0) | (p["y1"] % core == 0) | (p["x0"] % core == 0) | (p["x1"] % core == 0)
    own = np.flatnonzero(at_border)
    height = (p["y1"] - p["y0"])[own]
    piece = np.repeat(own, height)
    y = p["y0"][piece] + np.arange(len(piece)) - np.repeat(np.cumsum(height) - height, height)
    none = np.zeros(len(piece), bool)
    return Spans(
        layer=p["layer"][piece], y=y, x0=p["x0"][piece], x1=p["x1"][piece], stretch=none, shared=none
    ), piece


def descriptions(p: dict[str, np.ndarray], side: int, core: int) -> list[dict[str, Any]]:
    """What joining reads of each block: rows, layers, border, overlaps."""
    rows, (spans, owner) = rows_of(p, side), border_of(p, core)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(p["block"])) + 1, [len(p["block"])]])
    cuts = np.searchsorted(owner, starts)
    found = []
    for a, b, c, d in zip(starts, starts[1:], cuts, cuts[1:]):
        first = np.arange(0, b - a - 1, 10)
        border = Spans(
            layer=spans.layer[c:d], y=spans.y[c:d], x0=spans.x0[c:d], x1=spans.x1[c:d],
            stretch=spans.stretch[c:d], shared=spans.shared[c:d],
        )  # fmt: skip
        found.append(
            {
                "rows": {name: column[a:b] for name, column in rows.items()}, "layer": p["layer"][a:b],
                "border": (border, owner[c:d] - a), "pairs": np.stack([first, first + 1], axis=1),
                "pair_pixels": np.full(len(first), 50),
            }
        )  # fmt: skip
    return found


def reduce(parts: list[dict[str, Any]]) -> dict[str, float]:
    """Join and measure as a run does with the descriptions of a plane; seconds of the parts."""
    marks = [time.perf_counter()]
    offsets = np.concatenate([[0], np.cumsum([len(part["layer"]) for part in parts])])
    rows = {name: np.concatenate([part["rows"][name] for part in parts]) for name in DECIDING}
    layer = np.concatenate([part["layer"] for part in parts])
    pairs = np.concatenate([part["pairs"] + offset for part, offset in zip(parts, offsets)])
    pixels = np.concatenate([part["pair_pixels"] for part in parts])
    marks.append(time.perf_counter())
    links = touch_links([part["border"] for part in parts], offsets)
    marks.append(time.perf_counter())
    objects, linked = join(rows, layer, links, pairs, pixels, Filters()), len(links)
    del rows, links
    marks.append(time.perf_counter())
    rows = whole(stacked([part["rows"] for part in parts]), objects.of_piece, len(objects))
    table = object_columns(rows, ["image"], None)
    marks.append(time.perf_counter())
    table_bytes(table)
    marks.append(time.perf_counter())
    names = ("stack_s", "link_s", "join_s", "measure_s", "parquet_s")
    spent = {name: round(b - a, 3) for name, a, b in zip(names, marks, marks[1:])}
    return spent | {
        "seconds": round(marks[-1] - marks[0], 3),
        "objects_found": len(objects),
        "links": linked,
    }


def case(objects: int, blocks: int) -> dict[str, Any]:
    """Time and memory of one size, in this process."""
    p, side, core = pieces(np.random.default_rng(SEED), objects, blocks)
    parts = descriptions(p, side, core)
    count = len(p["block"])
    del p
    process, peak, stop = psutil.Process(), [0], threading.Event()
    start = process.memory_info().rss

    def sample() -> None:
        while not stop.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    cpu = time.process_time()
    spent = reduce(parts)
    cpu = time.process_time() - cpu
    stop.set()
    thread.join()
    return {
        "objects": objects, "blocks": len(parts), "pieces": count, "image_px": side, "block_px": core, **spent,
        "cpu_s": round(cpu, 3), "us_per_object": round(1e6 * cpu / objects, 2),
        "ns_per_n_log2_n": round(1e9 * cpu / (count * math.log2(count)), 1),
        "tables_gib": round(start / 2**30, 2), "peak_gib": round(max(peak[0], start) / 2**30, 2),
    }  # fmt: skip


def main() -> None:
    """Run the cases, each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, nargs="+", default=[objects for objects, _ in CASES])
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        sys.stdout.write(json.dumps(case(*given.one)))
        return
    found = []
    for objects, blocks in CASES:
        if objects in given.objects:
            words = [sys.executable, __file__, "--one", str(objects), str(blocks)]
            found.append(json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout))
    fits = all(one["peak_gib"] < LIMIT_GIB for one in found)
    write_result("reduce", {"machine": machine(SEED), "limit_gib": LIMIT_GIB, "fits": fits, "cases": found})


if __name__ == "__main__":
    main()
