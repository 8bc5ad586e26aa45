"""How large the report of a 384-well plate is, and how fast a browser that was just started opens it.

    python benchmarks/reports.py [--repeats 3]

Needs Chromium. Each opening is a new browser with an empty profile, without a debugger. ``load_s`` is what the page
itself says at its load event, when it can be read. ``drawn_s`` is the wall time of the whole program until the charts
in view are drawn, less that of the same program on an empty page; the rest is drawn when it comes into view.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import machine, write_result
from scipy.ndimage import gaussian_filter

from pipeline.report.run.numbers import Run
from pipeline.report.run.page import run_report

SEED = 5
WELLS = [(row, str(column)) for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]
FIELD_PX = 512
OBJECTS = 60
"""Per field."""

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage")


def field(seed: int) -> tuple[np.ndarray, None, np.ndarray]:
    """Blurred noise with disks, and their label stack."""
    rng = np.random.default_rng(seed)
    grey = gaussian_filter(rng.normal(400, 200, (FIELD_PX, FIELD_PX)), 1.0)
    stack = np.zeros((2, FIELD_PX, FIELD_PX), np.uint32)
    disk = np.hypot(*np.ogrid[-14:15, -14:15]) <= 14
    for label in range(1, OBJECTS + 1):
        y, x = rng.integers(0, FIELD_PX - 29, 2)
        stack[label % 2, y : y + 29, x : x + 29][disk] = label
        grey[y : y + 29, x : x + 29][disk] += 600
    return grey, None, stack


def plate() -> Run:
    """A plate with two channels and a condition for every well."""
    rng = np.random.default_rng(SEED)
    names = [f"{row}/{column}/0" for row, column in WELLS]
    images = pd.DataFrame({"image": names, "row": [row for row, _ in WELLS]})
    images = images.assign(column=[column for _, column in WELLS], field="0", status="done")
    images = images.assign(
        height_px=FIELD_PX, width_px=FIELD_PX, condition=[f"dose {at % 8}" for at in range(384)]
    )
    number = OBJECTS * len(names)
    objects = pd.DataFrame(
        {
            "image": np.repeat(names, OBJECTS), "area_px": rng.integers(400, 700, number),
            "eccentricity": rng.random(number), "overlap_px": rng.integers(0, 3, number),
            "intensity_mean_DAPI": rng.normal(900, 90, number), "intensity_mean_GFP": rng.gamma(5, 90, number),
        }
    )  # fmt: skip
    return Run(title="384 wells", objects=objects, images=images, facts={"run": "benchmark"})


def opened(page: str, *options: str) -> tuple[float, str]:
    """Seconds of a new browser on a page, and the page as it stood at the end."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("this benchmark needs Chromium: apt-get install -y chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *FLAGS, f"--user-data-dir={profile}", "--window-size=1280,900", *options]
        started = time.perf_counter()
        done = subprocess.run([*command, "--dump-dom", page], capture_output=True, text=True, check=True)
        return time.perf_counter() - started, done.stdout


def opening(page: str) -> dict[str, float]:
    """Open a page once for its load event and once until its charts in view are drawn."""
    _, loaded = opened(page)
    # a second of the page's own clock, which stands still while it works: enough for what follows the load event
    empty, _ = opened("about:blank", "--virtual-time-budget=1000")
    whole, drawn = opened(page, "--virtual-time-budget=1000")
    ready = re.search(r'data-ready="(\d+)"', loaded)
    if ready is None or "main-svg" not in drawn:
        raise SystemExit("the page did not come to stand, or no chart was drawn")
    return {"load_s": int(ready[1]) / 1000, "drawn_s": round(whole - empty, 2)}


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    fields = [field(seed) for seed in range(16)]
    facts = machine(SEED)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        path.write_text(run_report(plate(), picture=lambda name: fields[sum(name.encode()) % 16]))
        size = path.stat().st_size
        times = [opening(path.as_uri()) for _ in range(options.repeats)]
    result: dict[str, Any] = {
        "what": "report.html of a 384-well plate, opened in a new headless Chromium; wall time, best of the repeats",
        "machine": facts, "images": len(WELLS), "size_MB": round(size / 1e6, 2), "repeats": options.repeats,
        **{name: min(one[name] for one in times) for name in ("load_s", "drawn_s")}, "all": times,
    }  # fmt: skip
    write_result("reports", result)


if __name__ == "__main__":
    main()
