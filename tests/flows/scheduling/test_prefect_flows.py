"""Under a real Prefect server: the main job, a watcher that is killed, restarted and cancelled, and a work pool.

Everything runs in processes of its own, as a person would run it; the server is asked over HTTP.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import fields
from datetime import UTC, datetime

import httpx
import numpy as np
import psutil
import pytest
from dask_in_processes import Cluster
from s3_on_loopback import BUCKET, SECRET, environment, s3_on_loopback

from flows.cli import run
from flows.jobs import SegmentJob, WatchJob, job
from flows.scheduling.drift import read_history
from flows.scheduling.watch import open_watch
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import write_stack
from pipeline.store.places.address import address

PLATELAYER = (sys.executable, "-c", "from flows.cli import main; main()")

STAGES = ("limits", "predict", "describe", "join", "paint", "finish")

SLOW = """
import os, time

def slow(block):
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(f"{os.getpid()}\\n")
    time.sleep(0.4)  # long enough that a plate is cancelled in its midst
    return block[:1] > 0.5

slow.link, slow.layers = "touch", 1
"""

TILES = 16


pytestmark = pytest.mark.timeout(900)  # half a minute on a free machine; a busy one is slow, not wrong


def until(look, seconds=400):
    """Wait for an answer that is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = look()
        if answer:
            return answer
        time.sleep(0.3)
    pytest.fail(f"nothing came within {seconds} s: {look.__code__.co_names}")


def is_alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def kill(process):
    """SIGKILL to a process and all it started, at once."""
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    for one in family:
        one.kill()
    process.wait()


class Server:
    """A Prefect server of its own: port, database, settings."""

    def __init__(self, home):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.home = home
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.started = []
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
        self.env = clean | {
            "PREFECT_HOME": str(home), "PREFECT_API_URL": self.url, "DO_NOT_TRACK": "1", "PYTHONPATH": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "CALLS": str(home / "calls.log"), "OMP_NUM_THREADS": "1", "PREFECT_LOGGING_LEVEL": "WARNING",
        }  # fmt: skip

    def start(self):
        words = [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port)]
        with open(self.home / "server.log", "a") as log:
            self.process = subprocess.Popen(
                words, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        until(self.is_healthy)

    def is_healthy(self):
        try:
            return httpx.get(f"{self.url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def ask(self, path, **query):
        return httpx.post(f"{self.url}/{path}", json=query, timeout=60).raise_for_status().json()

    def get(self, path):
        return httpx.get(f"{self.url}/{path}", timeout=60).raise_for_status().json()

    def calls(self):
        """Processes of the tiles that the slow segmenter saw, one by one."""
        log = self.home / "calls.log"
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def look_at(self, plate):
        """Id of the flow run of the watch that is at a plate."""
        named = {"name": {"any_": [f"plate {plate}"]}}
        (run,) = until(lambda: self.ask("flow_runs/filter", flow_runs=named))
        place = f"{self.url}/task_runs/{run['parent_task_run_id']}"
        until(lambda: httpx.get(place, timeout=60).is_success)
        return httpx.get(place, timeout=60).json()["flow_run_id"]

    def looks_since(self, moment):
        """Ids of the flow runs of watches that started after a moment, the first one first."""
        looks = [one for one in self.ask("flow_runs/filter") if one["name"].startswith("watch ")]
        started = sorted((one["start_time"], one["id"]) for one in looks if one["start_time"])
        return [own for time, own in started if datetime.fromisoformat(time) >= moment]

    def platelayer(self, *words, cwd, **env):
        return self.run(*PLATELAYER, *words, cwd=cwd, **env)

    def run(self, *words, cwd, **env):
        with open(self.home / "started.log", "a") as log:
            process = subprocess.Popen(words, env=self.env | env, cwd=cwd, stdout=log, stderr=log)
        self.started.append(process)
        return process


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    home = tmp_path_factory.mktemp("prefect")
    (home / "slow_segmenter.py").write_text(textwrap.dedent(SLOW))
    running = Server(home)
    try:
        running.start()
        yield running
    finally:
        for process in [*running.started, running.process]:
            if process.poll() is None:
                kill(process)


def test_the_main_job_under_prefect(server, plate_at, noise, run_job, files_of, tmp_path):
    wells = {f"{row}/1": [noise((60, 60), seed=row_number)] for row_number, row in enumerate("ABC")}
    wells["D/1"] = [noise((20, 20), seed=3)]  # one tile: all in one task
    plate = plate_at("p.zarr", wells)
    shutil.copytree(plate, tmp_path / "direct.zarr")
    run_job(tmp_path / "direct.zarr", segmenter="threshold", tiling={"core": 24})
    words = ["segment", str(plate), "--segmenter", "threshold", "--set", "tiling.core=24"]
    done = subprocess.run(
        [*PLATELAYER, *words], env=server.env, cwd=tmp_path, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert files_of(plate, "threshold") == files_of(tmp_path / "direct.zarr", "threshold")

    # One task per stage of a group of images, and one for the report: never one per tile (there are 27) or image.
    until(lambda: server.ask("task_runs/count") >= len(STAGES) + 2)
    names = Counter(run["name"].split()[0] for run in server.ask("task_runs/filter"))
    assert names == dict.fromkeys([*STAGES, "fields", "report"], 1)
    assert {run["state_type"] for run in server.ask("flow_runs/filter")} == {"COMPLETED"}
    kinds = {artifact["key"]: artifact["type"] for artifact in server.ask("artifacts/filter")}
    assert kinds["platelayer-images"] == "table"
    assert {"platelayer-run", "platelayer-report"} <= set(kinds)


def test_a_watcher_killed_restarted_and_cancelled_does_nothing_twice(server, plate_at, noise, tmp_path):
    watched, out = tmp_path / "watched", tmp_path / "out"
    watched.mkdir()
    plate = plate_at("plate.zarr", {"A/1": [noise((128, 128), seed=3)]})
    (tmp_path / "job.toml").write_text(
        f'segmenter = "slow_segmenter:slow"\nname = "n"\noutput = "{out}"\ntiling = {{core = 32}}\n'
    )
    words = ["serve", "job.toml", "--watch", "watched", "--every", "15s", "--marker", "{plate}.done"]
    watch = open_watch(
        job(WatchJob, {"place": str(watched), "job": {"source": "x", "output": str(out), "name": "n"}})
    )

    def arrive(name):
        shutil.copytree(plate, watched / name)
        (watched / f"{name}.done").touch()

    def is_done(name):
        outcome = watch.outcome(name)
        return outcome is not None and outcome.status == "complete"

    watcher = server.platelayer(*words, cwd=tmp_path)
    arrive("one.zarr")
    until(lambda: len(server.calls()) > 2)
    kill(watcher)
    kill(server.process)
    assert not is_done("one.zarr")
    arrive("two.zarr")

    server.start()
    watcher = server.platelayer(*words, cwd=tmp_path)
    until(lambda: is_done("one.zarr") and is_done("two.zarr"))
    # Of what was under way at the kill one tile at most is done again.
    assert 2 * TILES <= len(server.calls()) <= 2 * TILES + 1

    before = len(server.calls())
    arrived = datetime.now(UTC)
    arrive("three.zarr")
    until(lambda: len(server.calls()) > before + 2)
    # Begun within one interval: by the first look that started after it came, or by one that was under way.
    looks = server.looks_since(arrived)
    assert server.look_at("three.zarr") in looks[:1] or server.look_at("three.zarr") not in looks
    worker = server.calls()[-1]
    server.ask(
        f"flow_runs/{server.look_at('three.zarr')}/set_state", state={"type": "CANCELLING"}, force=True
    )
    until(lambda: not is_alive(worker))
    assert not is_done("three.zarr")
    until(lambda: is_done("three.zarr"))
    assert 3 * TILES <= len(server.calls()) <= 3 * TILES + 2
    # A plate that was ended between its entry and its outcome has two; the latest counts.
    assert {plate.plate for plate in read_history(watch.history)} == {"one.zarr", "two.zarr", "three.zarr"}
    assert len(read_history(watch.history)) == 3
    watcher.send_signal(signal.SIGTERM)
    watcher.wait(60)


def test_an_evaluation_under_prefect_gives_the_numbers_of_one_without(server, plate_at, noise, tmp_path):
    plate = plate_at("p.zarr", {f"{row}/1": [noise((60, 60), seed=at)] for at, row in enumerate("ABC")})
    place = address(plate)
    for at, image in enumerate(open_collection(place).images):
        truth = np.zeros((2, 60, 60), np.uint32)
        truth[0, 4:20, 4:20], truth[1, 12:30, 12:30], truth[0, 40:50, 40:50] = 1, 2, 3
        write_stack(place, image, truth, name="truth")
        write_stack(place, image, np.where(truth == 1 + at, 0, truth), name="found")
    (tmp_path / "map.csv").write_text("well,condition\nA1,DMSO\nB1,drug\nC1,drug\n")
    words = ["evaluate", str(plate), "--layout", "map.csv", "--report"]
    assert run([*words[:2], "--layout", str(tmp_path / "map.csv"), "--report", str(tmp_path / "direct")]) == 0
    done = subprocess.run(
        [*PLATELAYER, *words, "flow"],
        env=server.env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    for name in ("summary.json", "metrics.parquet", "matches.parquet", "report.html"):
        assert (tmp_path / "flow" / name).read_bytes() == (tmp_path / "direct" / name).read_bytes()

    def ended():
        # The schedules of other deployments on this server go on.
        runs = [one for one in server.ask("flow_runs/filter") if one["name"] == f"evaluate {plate}"]
        return [one for one in runs if one["state_type"] != "RUNNING"]

    (ran,) = until(ended)
    assert ran["state_type"] == "COMPLETED"
    own = [one for one in server.ask("artifacts/filter") if one["flow_run_id"] == ran["id"]]
    shown = {one["key"]: one["data"] for one in own}
    numbers = json.loads((tmp_path / "direct" / "summary.json").read_text())
    assert f"{numbers['meanAP']:.4f}" in shown["platelayer-evaluation"]
    assert "| drug | 2 |" in shown["platelayer-evaluation"]
    assert (tmp_path / "flow" / "report.html").as_uri() in shown["platelayer-report"]


def test_a_bucket_is_watched_and_an_archive_shown_from_bucket_to_bucket(
    server, plate_at, noise, run_job, monkeypatch, tmp_path
):
    plate = plate_at("plate.zarr", {f"{row}/1": [noise((96, 96), seed=at)] for at, row in enumerate("AB")})
    settings = {"segmenter": "threshold", "name": "n", "tiling": {"core": 64}}
    run_job(plate, output=str(tmp_path / "local.zarr"), **settings)

    def results(place):
        keys = [key for key in place.list() if "/labels/" in key or "/tables/" in key]
        return {key: place.read_bytes(key) for key in keys if not key.startswith(".platelayer")}

    with s3_on_loopback() as storage:
        for name, value in environment(storage).items():
            monkeypatch.setenv(name, value)
        bucket = f"s3://{BUCKET}/{tmp_path.name}"
        watched, out = address(f"{bucket}/in"), f"{bucket}/out"
        (tmp_path / "job.toml").write_text(
            f'segmenter = "threshold"\nname = "n"\noutput = "{out}"\ntiling = {{core = 64}}\n'
        )
        words = ["serve", "job.toml", "--watch", watched.url, "--every", "15s", "--marker", "{plate}.done"]
        watcher = server.platelayer(*words, cwd=tmp_path, **environment(storage))
        watch = open_watch(
            job(WatchJob, {"place": watched.url, "job": {"source": "x", "output": out, "name": "n"}})
        )
        local = address(plate)
        for key in local.list():
            if "/labels/" not in key and "/tables/" not in key:
                watched.write_bytes(f"one.zarr/{key}", local.read_bytes(key))
        watched.write_bytes("one.zarr.done", b"")
        outcome = until(lambda: watch.outcome("one.zarr"))
        assert outcome.status == "complete" and not outcome.problems
        expected = results(address(tmp_path / "local.zarr"))
        assert expected and results(address(f"{out}/one.zarr")) == expected
        watcher.send_signal(signal.SIGTERM)
        watcher.wait(60)

        again = ["segment", watched.url, "--match", "*.zarr", "--output", f"{bucket}/archive", "--name", "n"]
        more = ["--segmenter", "threshold", "--set", "tiling.core=64"]
        done = server.platelayer(*again, *more, cwd=tmp_path, **environment(storage))
        assert done.wait(400) == 0
        assert results(address(f"{bucket}/archive/one.zarr")) == expected
    (shown,) = [one for one in server.ask("artifacts/filter") if one["key"] == "platelayer-archive"]
    assert shown["type"] == "table" and "one.zarr" in shown["data"] and watched.url in shown["description"]
    kept = [server.ask(f"{kind}/filter") for kind in ("flow_runs", "deployments", "artifacts", "logs")]
    assert SECRET not in json.dumps(kept)


def test_a_work_pool_runs_a_job_and_a_cancelled_run_that_is_retried_goes_on(
    server, plate_at, noise, tmp_path
):
    plate = plate_at("plate.zarr", {"A/1": [noise((128, 128), seed=4)]})
    (tmp_path / "job.toml").write_text(
        f'source = "{plate}"\nsegmenter = "slow_segmenter:slow"\nname = "n"\ntiling = {{core = 32}}\n'
        'execution = {executor = "dask", workers = 1, window = 2}\n'
    )
    deploy = ["deploy", "job.toml", "--pool", "lab", "--name", "nightly", "--cron", "0 2 * * *", "--tag", "scope",
              "--limit", "1"]  # fmt: skip
    server.ask("work_pools/", name="lab", type="process")
    assert server.platelayer("deploy", "job.toml", "--pool", "lap", cwd=tmp_path).wait(400) == 1
    said = (server.home / "started.log").read_text()
    assert "--pool lap: the Prefect server has no such work pool; did you mean lab?" in said
    assert server.platelayer(*deploy, cwd=tmp_path).wait(400) == 0

    nightly = server.get("deployments/name/segment/nightly")
    assert nightly["tags"] == ["platelayer", "scope"] and nightly["work_pool_name"] == "lab"
    assert nightly["schedules"][0]["schedule"]["cron"] == "0 2 * * *"
    assert nightly["global_concurrency_limit"]["limit"] == 1
    form = nightly["parameter_openapi_schema"]
    assert form["properties"]["job"]["$ref"] == "#/definitions/SegmentJob"
    assert set(form["definitions"]["SegmentJob"]["properties"]) == {
        field.name for field in fields(SegmentJob)
    }
    assert nightly["parameters"]["job"]["tiling"]["core"] == 32
    entries = [entry for kind in form["definitions"].values() for entry in kind["properties"].values()]
    assert all(entry["description"] for entry in entries)

    worker = server.run(sys.executable, "-m", "prefect", "worker", "start", "--pool", "lab", cwd=tmp_path)
    before = len(server.calls())
    run = server.ask(f"deployments/{nightly['id']}/create_flow_run")["id"]
    until(lambda: len(server.calls()) > before + 2)
    dask_worker = server.calls()[-1]
    server.ask(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"}, force=True)
    until(lambda: not is_alive(dask_worker))
    until(lambda: server.get(f"flow_runs/{run}")["state_type"] == "CANCELLED")
    cancelled = len(server.calls()) - before
    assert cancelled < TILES

    retry = {"type": "SCHEDULED", "name": "AwaitingRetry"}  # as the button of the UI does
    assert server.ask(f"flow_runs/{run}/set_state", state=retry)["status"] == "ACCEPT"
    until(lambda: server.get(f"flow_runs/{run}")["state_type"] == "COMPLETED")
    # Of what was under way at the cancellation at most the tiles in flight are done again.
    assert TILES <= len(server.calls()) - before <= TILES + 2
    kill(worker)


def test_a_cancelled_run_stops_on_a_scheduler_that_goes_on(server, plate_at, noise, tmp_path):
    plate = plate_at("plate.zarr", {"A/1": [noise((128, 128), seed=6)]})
    cluster = Cluster(tmp_path, CALLS=server.env["CALLS"], PYTHONPATH=server.env["PYTHONPATH"])
    try:
        cluster.scheduler()
        worker = cluster.worker()
        (tmp_path / "job.toml").write_text(
            f'source = "{plate}"\nsegmenter = "slow_segmenter:slow"\nname = "n"\ntiling = {{core = 32}}\n'
            f'execution = {{executor = "{cluster.address}", window = 2}}\n'
        )
        deploy = ["deploy", "job.toml", "--pool", "far", "--name", "far"]
        server.ask("work_pools/", name="far", type="process")
        assert server.platelayer(*deploy, cwd=tmp_path).wait(400) == 0
        far = server.get("deployments/name/segment/far")
        agent = server.run(sys.executable, "-m", "prefect", "worker", "start", "--pool", "far", cwd=tmp_path)

        before = len(server.calls())
        run = server.ask(f"deployments/{far['id']}/create_flow_run")["id"]
        until(lambda: len(server.calls()) > before + 2)
        assert set(server.calls()[before:]) == {worker.pid}
        server.ask(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"}, force=True)
        until(lambda: server.get(f"flow_runs/{run}")["state_type"] == "CANCELLED")
        time.sleep(1.0)  # what was in flight ends
        cancelled = len(server.calls()) - before
        time.sleep(2.0)  # a dozen tiles more, were they not stopped
        assert len(server.calls()) - before == cancelled < TILES
        assert is_alive(worker.pid)

        retry = {"type": "SCHEDULED", "name": "AwaitingRetry"}
        assert server.ask(f"flow_runs/{run}/set_state", state=retry)["status"] == "ACCEPT"
        until(lambda: server.get(f"flow_runs/{run}")["state_type"] == "COMPLETED")
        assert TILES <= len(server.calls()) - before <= TILES + 2
        kill(agent)
    finally:
        cluster.stop()
