"""Kill the main job at random instants, give the same command again, compare every byte with a run left alone.

    python benchmarks/kill.py [--instants 10] [--seed 0] [--executor serial]

Writes benchmarks/results/kill.json: for each instant how far the run was, what was computed again (nothing that
had a mark), and whether labels, tables and their listings came out the same.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import RESULTS, machine, write_result

from flows.ingest.samples import ingest_synthetic

WELLS = [("A", "1"), ("A", "2"), ("B", "1")]


def main() -> None:
    """Measure and keep the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instants", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executor", default="serial")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), chosen.instants, chosen.seed, chosen.executor)
    place = RESULTS / "kill.json"
    known = json.loads(place.read_text()) if place.exists() else {}
    write_result("kill", known | {chosen.executor: result})


def measured(folder: Path, instants: int, seed: int, executor: str) -> dict:
    """Kill so many runs at random and compare each with one that was left alone."""
    source, whole = folder / "source.zarr", folder / "whole.zarr"
    ingest_synthetic(str(source), kind="cells", size=(700, 900), wells=WELLS, seed=1)
    shutil.copytree(source, whole)
    started = time.perf_counter()
    subprocess.run(command(whole, executor), check=True, capture_output=True)
    seconds, files = time.perf_counter() - started, scratch(whole)
    rng = np.random.default_rng(seed)
    killed = [one_kill(folder, executor, int(n)) for n in np.sort(rng.integers(0, files, instants))]
    return {
        "machine": machine(seed),
        "seconds_uninterrupted": round(seconds, 1),
        "scratch_files": files,
        "instants": instants,
        "identical": sum(k["identical"] for k in killed),
        "computed_again": sum(k["computed_again"] for k in killed),
        "killed": killed,
    }


def one_kill(folder: Path, executor: str, files: int) -> dict:
    """Kill a fresh run when its scratch has so many files, then run it to its end."""
    store = folder / "killed.zarr"
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(folder / "source.zarr", store)
    process = subprocess.Popen(command(store, executor), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and scratch(store) < files:
        time.sleep(0.001)
    alive = process.poll() is None
    if alive:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    marks = {p: p.stat().st_mtime_ns for p in store.glob(".platelayer/*/done/*/*/*")}
    ended = subprocess.run(command(store, executor), capture_output=True, text=True)
    again = sum(p.stat().st_mtime_ns != written for p, written in marks.items())
    return {
        "at_files": files,
        "was_running": alive,
        "tiles_and_blocks_done": len(marks),
        "exit_code": ended.returncode,
        "computed_again": again,
        "identical": outcome(store) == outcome(folder / "whole.zarr"),
    }


def command(store: Path, executor: str) -> list[str]:
    """The words a person would type."""
    words = ["--segmenter", "threshold", "--executor", executor, "--set", "tiling.core=256"]
    return [str(Path(sys.executable).parent / "platelayer"), "segment", str(store), *words]


def scratch(store: Path) -> int:
    """Files of the run so far."""
    return sum(len(names) for _, _, names in os.walk(store / ".platelayer"))


def outcome(store: Path) -> dict[str, bytes]:
    """Everything a reader sees."""
    files = (p for p in store.rglob("*") if p.is_file() and ".platelayer" not in p.parts)
    return {str(p.relative_to(store)): p.read_bytes() for p in files}


if __name__ == "__main__":
    main()
