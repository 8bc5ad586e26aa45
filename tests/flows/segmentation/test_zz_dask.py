"""The same work on Dask: workers of this machine and of an existing scheduler, their deaths and their absence."""

import shutil
import sys
from collections import Counter

import pytest
from distributed.cfexecutor import ClientExecutor

from flows.cli import run as command
from flows.execution import clusters, windows
from flows.execution.executors import describe_error
from pipeline.errors import RunConflict

SOURCE = """
import os, signal
from pathlib import Path
import numpy as np

def note(name):
    with open({log!r}, "a") as log:
        log.write(name + "\\n")

def plain(block):
    note("plain")
    return block[:1] > 0.5

def mortal(block):
    note("mortal")
    try:
        os.rename({flag!r}, {flag!r} + ".used")
    except FileNotFoundError:
        return block[:1] > 0.5
    os.kill(os.getpid(), signal.SIGKILL)

for f in (plain, mortal):
    f.link, f.layers = "touch", 1
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """An existing scheduler with two worker processes that know the segmenters: address, call log, flag."""
    from distributed import LocalCluster

    clusters._quiet()
    place = tmp_path_factory.mktemp("modules")
    log, flag = place / "calls.log", place / "flag"
    (place / "dask_segmenters.py").write_text(SOURCE.format(log=str(log), flag=str(flag)))
    sys.path.insert(0, str(place))
    try:
        with LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50, memory_limit=0
        ) as running:
            yield running, log, flag
    finally:
        sys.path.remove(str(place))


@pytest.fixture
def plate(plate_at, noise):
    return plate_at("p.zarr", {"A/1": [noise((100, 120), seed=1)], "B/2": [noise((100, 120), seed=2)]})


def test_dask_gives_the_bytes_of_serial(cluster, plate, run_job, files_of, tmp_path):
    address = cluster[0].scheduler_address
    shutil.copytree(plate, tmp_path / "serial.zarr")
    table = {"segmenter": "dask_segmenters:plain", "name": "n", "tiling": {"core": 50}}
    run_job(plate, execution={"executor": address}, **table)
    run_job(tmp_path / "serial.zarr", **table)
    assert files_of(plate, "n") == files_of(tmp_path / "serial.zarr", "n")


def test_fields_on_dask_give_the_bytes_of_serial_in_few_calls(
    cluster, plate_at, noise, run_job, files_of, tmp_path, monkeypatch
):
    plate = plate_at("f.zarr", {f"A/{c}": [noise((40, 40), seed=c)] for c in range(1, 41)})
    shutil.copytree(plate, tmp_path / "serial.zarr")
    table = {"segmenter": "dask_segmenters:plain", "name": "n"}
    monkeypatch.setattr(windows, "CALL_S", 5)
    calls, submit = [], ClientExecutor.submit
    monkeypatch.setattr(ClientExecutor, "submit", lambda *given: calls.append(given) or submit(*given))
    run_job(plate, execution={"executor": cluster[0].scheduler_address}, **table)
    run_job(tmp_path / "serial.zarr", **table)
    assert files_of(plate, "n") == files_of(tmp_path / "serial.zarr", "n")
    names = Counter(batch.__name__ for _, batch, _ in calls)
    assert names["segment_field"] <= 30 and names["write_plate_part"] <= 30


def test_a_worker_that_dies_costs_its_tiles_in_flight(cluster, plate, run_job, files_of, tmp_path):
    running, log, flag = cluster
    shutil.copytree(plate, tmp_path / "serial.zarr")
    table = {"segmenter": "dask_segmenters:mortal", "name": "n", "tiling": {"core": 50}}
    flag.touch()
    log.write_text("")
    record = run_job(plate, execution={"executor": running.scheduler_address}, **table)
    assert record.status == "complete" and not record.failures
    assert not flag.exists()
    assert 12 < len(log.read_text().splitlines()) <= 12 + 2
    run_job(tmp_path / "serial.zarr", **table)
    assert files_of(plate, "n") == files_of(tmp_path / "serial.zarr", "n")


def test_nothing_is_left_on_the_scheduler_by_a_run_that_ended_early(cluster, plate, run_job, stop_after):
    from distributed import Client

    running = cluster[0]
    execution = {"executor": running.scheduler_address, "window": 8}
    with pytest.raises(stop_after.Stop):
        run_job(plate, segmenter="dask_segmenters:plain", tiling={"core": 20}, execution=execution,
                progress=stop_after(8))  # fmt: skip
    with Client(running.scheduler_address) as client:
        assert client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0


def test_a_segmenter_unknown_to_the_workers_is_told_before_any_work(cluster, plate, module_of, run_job):
    name = module_of("def f(block):\n    return block[:1] > 0.5\n")
    with pytest.raises(ValueError, match=r"cannot be imported.*also of the workers"):
        run_job(plate, segmenter=f"{name}:f", execution={"executor": cluster[0].scheduler_address})
    assert not (plate / ".platelayer").exists()


def test_a_gpu_no_worker_offers_is_an_error(cluster, plate, run_job):
    log = cluster[1]
    log.write_text("")
    with pytest.raises(RunConflict, match="no worker offers one"):
        run_job(plate, segmenter="dask_segmenters:plain",
                execution={"executor": cluster[0].scheduler_address, "device": "cuda"})  # fmt: skip
    assert not (plate / ".platelayer").exists()
    assert (
        len(log.read_text().splitlines()) <= 1
    )  # the client asks the function what it is, and nobody predicts


def test_workers_of_another_installation_are_refused(cluster, plate, run_job, monkeypatch):
    mine = clusters.versions()
    monkeypatch.setattr(clusters, "TOLD", ("numpy", "colour"))
    monkeypatch.setattr(clusters, "versions", _older)
    with pytest.raises(RunConflict, match=f"another installation: numpy {mine['numpy']} .here 1.0"):
        clusters._check_workers(_Told({"tcp://w": mine}), "tcp://s")


def test_workers_without_platelayer_are_refused_and_one_that_died_is_not_asked_again():
    mine = clusters.versions()
    with pytest.raises(RunConflict, match=r"cannot run platelayer .No module named 'flows'"):
        clusters._check_workers(
            _Told({"tcp://w": mine, "tcp://x": ImportError("No module named 'flows'")}), "tcp://s"
        )
    clusters._check_workers(_Told({"tcp://w": mine, "tcp://x": OSError("Stream is closed")}), "tcp://s")


class _Told:
    """A client whose workers tell given versions."""

    def __init__(self, told):
        self.told = told

    def wait_for_workers(self, count, timeout):
        pass

    def run(self, function, on_error):
        assert on_error == "return"
        return self.told


def _older():
    return {"numpy": "1.0"}


def test_no_scheduler_and_no_workers(plate, run_job, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr(clusters, "CONNECT_S", 1)
    with pytest.raises(RunConflict, match="no Dask scheduler answered at tcp"):
        run_job(plate, segmenter="threshold", execution={"executor": "tcp://127.0.0.1:9"})
    with (
        LocalCluster(n_workers=0, processes=True, dashboard_address=":0", silence_logs=50) as empty,
        pytest.raises(RunConflict, match="has no workers"),
    ):
        run_job(plate, segmenter="threshold", execution={"executor": empty.scheduler_address})
    assert not (plate / ".platelayer").exists()


def test_a_run_gives_up_when_the_last_worker_has_gone(monkeypatch):
    monkeypatch.setattr(clusters, "ALONE_S", -1)

    class Client:
        def scheduler_info(self, n_workers):
            return {"workers": {}}

    with pytest.raises(RunConflict, match="no Dask worker for"):
        clusters._watch(Client(), apart=False)(False)


def test_a_cluster_on_this_machine_is_quiet(plate, bright, capfd, table_of):
    words = ["--segmenter", bright, "--name", "n", "--executor", "dask", "--workers", "1"]
    assert command(["segment", str(plate), *words]) == 0
    said = capfd.readouterr()
    assert said.err == "" and "distributed" not in said.out
    assert len(table_of(plate, "n", "A/1/0"))


def test_a_killed_worker_in_plain_words():
    KilledWorker = type("KilledWorker", (Exception,), {})
    assert "every worker process that tried it died" in describe_error(KilledWorker("task"))
