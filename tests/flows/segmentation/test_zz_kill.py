"""Killed at any instant, the same command goes on: only missing tiles are computed, the same bytes come out."""

import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest

from flows.cli import main

TILES = 12
FILES = 60
"""About as many files as the scratch of this run has at its end."""


@pytest.fixture(scope="module")
def starter():
    """A way to start a process that has everything imported and nothing opened."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["flows.cli", "flows.commands.segment", "flows.segmentation.run"])
    return context


def scratch_files(store):
    """Files of the run so far; what vanishes while it is counted does not matter."""
    return sum(len(names) for _, _, names in os.walk(store / ".platelayer"))


def killed(process, store, files):
    """Let a process run until its scratch has so many files, then kill it; whether it was still alive."""
    process.start()
    deadline = time.monotonic() + 60
    while process.exitcode is None and scratch_files(store) < files and time.monotonic() < deadline:
        time.sleep(0.002)
    alive = process.exitcode is None
    if alive:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_run_goes_on(seed, starter, image_at, noise, counted, run_job, files_of, tmp_path):
    segmenter, calls = counted
    store = image_at("a.zarr", noise((150, 200)))
    shutil.copytree(store, tmp_path / "good.zarr")
    words = ["segment", str(store), "--segmenter", segmenter, "--name", "n", "--set", "tiling.core=50"]
    # Instants spread over the run: one draw in each quarter of what it writes.
    files = int(np.random.default_rng().integers(seed * FILES // 4, (seed + 1) * FILES // 4))
    alive = killed(starter.Process(target=main, args=(words,)), store, max(files, 1))
    marks = len(list(store.glob(".platelayer/*/done/predict/*/*")))
    before = calls()
    record = run_job(store, segmenter=segmenter, name="n", tiling={"core": 50})
    assert record.status == "complete" or not alive
    assert calls() - before == TILES - marks, f"killed at {files} files"
    table = {"segmenter": segmenter, "name": "n", "tiling": {"core": 50}}
    run_job(tmp_path / "good.zarr", **table)
    assert files_of(store, "n") == files_of(tmp_path / "good.zarr", "n"), f"killed at {files} files"
    assert not list(store.rglob("labels/**/*.partial")) and not (store / ".platelayer/lock.json").exists()


FIELDS = 12
FIELD_FILES = 3 + FIELDS
"""Files of the scratch of a run over fields, at its end."""


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_over_fields_goes_on(
    seed, starter, plate_at, noise, counted, run_job, files_of, tmp_path
):
    segmenter, calls = counted
    store = plate_at("p.zarr", {"A/1": [noise((90, 100), seed=number) for number in range(FIELDS)]})
    shutil.copytree(store, tmp_path / "good.zarr")
    table = {"segmenter": segmenter, "name": "n"}
    words = ["segment", str(store), "--segmenter", segmenter, "--name", "n"]
    files = int(np.random.default_rng().integers(seed * FIELD_FILES // 3, (seed + 1) * FIELD_FILES // 3))
    alive = killed(starter.Process(target=main, args=(words,)), store, max(files, 1))
    marks = len(list(store.glob(".platelayer/*/images/*.json")))
    before = calls()
    record = run_job(store, **table)
    assert record.status == "complete" or not alive or marks == FIELDS
    assert calls() - before == FIELDS - marks, f"killed at {files} files"
    run_job(tmp_path / "good.zarr", **table)
    assert files_of(store, "n") == files_of(tmp_path / "good.zarr", "n"), f"killed at {files} files"
    assert not list(store.rglob("labels/**/*.partial")) and not (store / ".platelayer/lock.json").exists()
