"""SIGTERM, as SLURM and Kubernetes send it: the run ends in order, as after Ctrl-C."""

import os
import signal
import subprocess
import sys
import time

import pytest

SLOW = """
    import time
    def slow(block):
        time.sleep(0.4)
        return block[:1] > 0.5
    slow.link, slow.layers = "touch", 1
"""


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def group_is_empty(group):
    """Whether no process of a group is left, apart from dead ones that nobody collected yet."""
    running = subprocess.run(
        ["ps", "-o", "stat=", "-g", str(group)], capture_output=True, text=True, check=False
    )
    return all(line.startswith("Z") for line in running.stdout.split())


@pytest.mark.parametrize("executor", ["serial", "dask"])
def test_sigterm_ends_a_run_in_order(executor, image_at, noise, module_of, tmp_path, run_job):
    store, name = image_at("a.zarr", noise((150, 400))), module_of(SLOW)
    words = ["segment", str(store), "--segmenter", f"{name}:slow", "--executor", executor, "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "platelayer", *words, "--name", "n", "--set", "tiling.core=50"],
        cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    wait_for(lambda: process.poll() is not None or list(store.glob(".platelayer/*/done/predict/*/*")))
    # SLURM signals every process of the job, the workers included.
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert (
        errors.strip().splitlines()[-1] == "platelayer: terminated; the same command goes on where it stopped"
    )
    assert "Traceback" not in errors
    assert not (store / ".platelayer/lock.json").exists()
    wait_for(lambda: group_is_empty(process.pid), 20)
    done = len(list(store.glob(".platelayer/*/done/predict/*/*")))
    assert 0 < done < 24
    assert run_job(store, segmenter=f"{name}:slow", name="n", tiling={"core": 50}).status == "complete"
