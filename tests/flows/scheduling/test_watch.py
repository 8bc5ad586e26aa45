"""What a watch sees and does: whatever dies in between, nothing is done twice and nothing is missed."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from flows.jobs import WatchJob, job
from flows.scheduling import plate as plates
from flows.scheduling.watch import Outcome, changed, look, open_watch, signature, tick
from pipeline.errors import BadArgument
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.labels import write_stack
from pipeline.store.places.address import address


@pytest.fixture
def watch_of(tmp_path):
    """A watch of ``tmp_path/in`` with outputs in ``tmp_path/out``: `watch_of(quiet_s=10)`."""
    (tmp_path / "in").mkdir()

    def make(segmenter="threshold", output=True, **table):
        template = {"source": "x", "segmenter": segmenter, "name": "n"}
        template |= {"output": str(tmp_path / "out")} if output else {}
        table = {"quiet_s": 10, **table}
        return open_watch(job(WatchJob, {"place": str(tmp_path / "in"), "job": template, **table}))

    return make


def new_plate(watch, name, text="pixels"):
    watch.place.write_bytes(f"{name}/zarr.json", b"{}")
    watch.place.write_bytes(f"{name}/A/1/0/chunk", text.encode())


def states(watch, now):
    return {seen.plate: seen.state for seen in look(watch, now)}


def done(watch, plate):
    """Stands for the work: keeps a complete outcome."""
    outcome = Outcome(plate=plate, status="complete", signature=signature(watch, plate), attempts=1)
    watch.write_outcome(outcome)
    return outcome


def test_a_plate_is_complete_when_it_was_quiet_long_enough(watch_of):
    watch = watch_of(quiet_s=10)
    new_plate(watch, "p.zarr")
    assert states(watch, 100.0) == {"p.zarr": "waiting"}
    assert states(watch, 109.0) == {"p.zarr": "waiting"}
    new_plate(watch, "p.zarr", "more pixels")
    assert states(watch, 111.0) == {"p.zarr": "waiting"}
    assert look(watch, 112.0)[0].due == 121.0
    assert states(watch, 121.0) == {"p.zarr": "ready"}


def test_the_quiet_period_outlives_the_watcher(watch_of):
    watch = watch_of()
    new_plate(watch, "p.zarr")
    look(watch, 100.0)
    assert states(open_watch(watch.job), 110.0) == {"p.zarr": "ready"}


@pytest.mark.parametrize(("marker", "file"), [("DONE", "p.zarr/DONE"), ("{plate}.done", "p.zarr.done")])
def test_a_marker_says_that_a_plate_is_complete(watch_of, marker, file):
    watch = watch_of(marker=marker)
    new_plate(watch, "p.zarr")
    assert states(watch, 100.0) == {"p.zarr": "waiting"}
    watch.place.write_bytes(file, b"")
    assert states(watch, 100.0) == {"p.zarr": "ready"}


def test_only_stores_that_fit_are_plates_and_results_are_none(watch_of, tmp_path):
    watch = watch_of(match="**/*.zarr", quiet_s=0)
    inside = open_watch(replace(watch.job, job=replace(watch.job.job, output=str(tmp_path / "in/out"))))
    for name in ("a.zarr", "deep/b.zarr", "out/a.zarr", "a.zarr/inner.zarr", ".hidden.zarr", "notes"):
        new_plate(watch, name)
    assert set(states(watch, 0.0)) == {"a.zarr", "deep/b.zarr", "out/a.zarr"}
    assert set(states(inside, 0.0)) == {"a.zarr", "deep/b.zarr"}


def test_results_do_not_change_a_plate_and_pixels_do(watch_of):
    watch = watch_of(output=False)
    new_plate(watch, "p.zarr")
    before = signature(watch, "p.zarr")
    for place in ("labels/n/0/0", "tables/n/table.parquet", ".platelayer/run/mark"):
        watch.place.write_bytes(f"p.zarr/A/1/0/{place}", b"result")
    assert signature(watch, "p.zarr") == before
    watch.place.write_bytes("p.zarr/B/1/0/chunk", b"new")
    assert signature(watch, "p.zarr") != before


def test_a_done_plate_is_looked_at_again_only_when_asked(watch_of):
    watch = watch_of(quiet_s=0)
    new_plate(watch, "p.zarr")
    done(watch, "p.zarr")
    new_plate(watch, "p.zarr", "another scan")
    assert states(watch, 0.0) == {"p.zarr": "done"}
    again = open_watch(replace(watch.job, recheck=True))
    assert states(again, 0.0) == {"p.zarr": "ready"}
    done(again, "p.zarr")
    assert states(again, 0.0) == {"p.zarr": "done"}


@pytest.mark.parametrize("status", ["failed", "partial"])
def test_a_plate_that_fails_is_tried_so_often_and_again_when_it_changes(watch_of, status):
    watch = watch_of(quiet_s=0, attempts=2)
    new_plate(watch, "p.zarr")
    outcome = Outcome(plate="p.zarr", status=status, signature=signature(watch, "p.zarr"), attempts=1)
    watch.write_outcome(outcome)
    assert states(watch, 0.0) == {"p.zarr": "ready"}
    watch.write_outcome(replace(outcome, attempts=2))
    assert states(watch, 0.0) == {"p.zarr": "given up"}
    new_plate(watch, "p.zarr", "repaired")
    assert states(watch, 0.0) == {"p.zarr": "ready"}


def test_a_tick_does_what_is_ready_waits_for_what_settles_and_ends(watch_of):
    watch, now = watch_of(quiet_s=10), [0.0]
    new_plate(watch, "a.zarr")

    def sleep(seconds):
        now[0] += seconds
        if now[0] == 10.0:
            new_plate(watch, "late.zarr")

    found = list(tick(watch, partial(done, watch), clock=lambda: now[0], sleep=sleep))
    assert [outcome.plate for outcome in found] == ["a.zarr"]
    assert now[0] == 10.0
    (late,) = tick(watch, partial(done, watch), clock=lambda: 20.0, sleep=sleep)
    assert late.plate == "late.zarr"
    assert not list(tick(watch, partial(done, watch), clock=lambda: 30.0, sleep=sleep))


def test_a_failing_plate_is_tried_once_per_tick_and_stops_no_other(watch_of):
    watch, tried = watch_of(quiet_s=0), []
    for name in ("a.zarr", "b.zarr"):
        new_plate(watch, name)

    def process(plate):
        tried.append(plate)
        return Outcome(plate=plate, status="conflict") if plate == "a.zarr" else done(watch, plate)

    list(tick(watch, process, clock=lambda: 0.0))
    assert tried == ["a.zarr", "b.zarr"]


def test_of_two_watchers_one_does_a_plate(watch_of, monkeypatch):
    watch = watch_of(quiet_s=0)
    new_plate(watch, "p.zarr")
    begun, go_on, calls = threading.Event(), threading.Event(), []

    def slow(watch, begun_outcome, *_):
        calls.append(begun_outcome.plate)
        begun.set()
        assert go_on.wait(20)
        return replace(begun_outcome, status="complete")

    monkeypatch.setattr(plates, "_tried", slow)
    first = []
    thread = threading.Thread(target=lambda: first.append(plates.process(watch, "p.zarr")))
    thread.start()
    assert begun.wait(20)
    assert plates.process(open_watch(watch.job), "p.zarr").status == "busy"
    go_on.set()
    thread.join()
    assert first[0].status == "complete"
    assert plates.process(watch, "p.zarr").status == "busy"
    assert calls == ["p.zarr"]


def test_the_claim_of_a_dead_process_is_taken_over(watch_of):
    watch = watch_of(quiet_s=0)
    new_plate(watch, "p.zarr")
    words = (
        "import os, signal, sys; from flows.jobs import *; from flows.scheduling.watch import open_watch\n"
        "watch = open_watch(job(WatchJob, eval(sys.argv[1])))\n"
        "claim = watch.claim('p.zarr'); claim.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    table = {"place": str(watch.place), "job": {"source": "x", "output": str(watch.root), "name": "n"}}
    subprocess.run([sys.executable, "-c", words, repr(table)], check=False, timeout=120)
    assert watch.plate("p.zarr").exists(".platelayer/lock.json")
    with watch.claim("p.zarr"):
        pass


def test_a_plate_that_grows_meanwhile_is_not_called_complete(watch_of):
    watch = watch_of()
    new_plate(watch, "p.zarr")
    outcome = Outcome(plate="p.zarr", status="complete", signature=signature(watch, "p.zarr"))
    assert changed(watch, outcome) == outcome
    new_plate(watch, "p.zarr", "and more")
    assert changed(watch, outcome).status == "changed"


def test_results_that_cannot_be_written_are_told_before_anything(tmp_path):
    table = {"place": "https://example.org/plates", "job": {"source": "x"}}
    with pytest.raises(BadArgument, match="output root"):
        open_watch(job(WatchJob, table))


@pytest.fixture
def dots(plate_at, noise):
    """A plate with truth in one well."""
    made = plate_at("dots.zarr", {"A/1": [noise((64, 64), seed=1)], "B/2": [noise((64, 64), seed=2)]})
    pixels = noise((64, 64), seed=1)
    truth = ndimage.label(pixels > 0.5 * pixels.max())[0].astype(np.uint32)[None]
    write_stack(address(made), open_collection(address(made)).images[0], truth, name="truth")
    return made


def test_a_plate_is_segmented_evaluated_reported_and_compared(watch_of, dots, bright, table_of, tmp_path):
    watch = watch_of(segmenter=bright, quiet_s=0)
    shutil.copytree(dots, tmp_path / "in/p.zarr")
    (tmp_path / "in/bad.zarr").mkdir()
    (tmp_path / "in/bad.zarr/notes.txt").write_text("no store")
    found = {outcome.plate: outcome for outcome in tick(watch, partial(plates.process, watch))}
    assert found["bad.zarr"].status == "failed" and "not a Zarr" in found["bad.zarr"].problems[0]
    outcome = found["p.zarr"]
    assert (outcome.status, outcome.images, outcome.problems) == ("complete", 2, [])
    assert outcome.objects == sum(len(table_of(tmp_path / "out/p.zarr", "n", p)) for p in ("A/1/0", "B/2/0"))
    assert 0 < outcome.scores["PQ"] <= 1
    run = tmp_path / "out/p.zarr/.platelayer" / outcome.run
    pages = tmp_path / "out/reports" / watch.name
    assert outcome.report == str(next(pages.glob("p*.html")))
    assert Path(outcome.report).read_bytes() == (run / "report.html").read_bytes()
    assert json.loads((run / "evaluation/summary.json").read_text())["counts"]["images"] == 1
    assert len(watch.history.children()) == 1
    index = (pages / "index.html").read_text()
    assert (
        f'href="{Path(outcome.report).name}"' in index and f'src="{Path(outcome.report).stem}.webp"' in index
    )
    assert "not a Zarr" in index and (pages / f"{Path(outcome.report).stem}.webp").exists()
    assert states(watch, time.time()) == {"bad.zarr": "ready", "p.zarr": "done"}


def test_a_plate_that_grew_is_done_again_and_its_labels_replaced(
    watch_of, dots, bright, noise, tmp_path, stack_of
):
    watch = watch_of(segmenter=bright, quiet_s=0, output=False, recheck=True)
    place = tmp_path / "in/p.zarr"
    shutil.copytree(dots, place)
    first = plates.process(watch, "p.zarr")
    before = stack_of(place, "n", "A/1/0")
    shutil.rmtree(place / "A/1/0/0")
    write_image(address(place), "A/1/0", noise((64, 64), seed=9)[None], chunks=(64, 64))
    second = plates.process(watch, "p.zarr")
    assert (first.status, second.status) == ("complete", "complete")
    after = stack_of(place, "n", "A/1/0")
    assert before.shape != after.shape or (before != after).any()


TICK = """
import sys
from functools import partial
from flows.jobs import WatchJob, job
from flows.scheduling.plate import process
from flows.scheduling.watch import open_watch, tick

watch = open_watch(job(WatchJob, eval(sys.argv[1])))
print([outcome.status for outcome in tick(watch, partial(process, watch))])
"""


def test_a_watcher_killed_in_mid_plate_does_no_tile_twice_and_misses_no_plate(
    watch_of, module_of, plate_at, noise, tmp_path
):
    log = tmp_path / "calls.log"
    name = module_of(
        f"""
        import time
        def slow(block):
            with open({str(log)!r}, "a") as log:
                log.write("x\\n")
            time.sleep(0.2)
            return block[:1] > 0.5
        slow.link, slow.layers = "touch", 1
        """
    )
    watch = watch_of(quiet_s=0)
    plate = plate_at("made.zarr", {"A/1": [noise((128, 128), seed=3)]})
    template = {"source": "x", "segmenter": f"{name}:slow", "name": "n", "output": str(watch.root)}
    table = {"place": str(watch.place), "quiet_s": 0, "job": {**template, "tiling": {"core": 32}}}
    words = [sys.executable, "-c", TICK, repr(table)]
    env = os.environ | {"PYTHONPATH": str(tmp_path)}

    def calls():
        return len(log.read_text().splitlines()) if log.exists() else 0

    shutil.copytree(plate, tmp_path / "in/one.zarr")
    killed = subprocess.Popen(words, env=env)
    while calls() < 4 and killed.poll() is None:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    assert 4 <= calls() < 16 and watch.outcome("one.zarr") is None
    shutil.copytree(plate, tmp_path / "in/two.zarr")
    after = subprocess.run(words, env=env, capture_output=True, text=True, timeout=250)
    assert after.stdout.strip() == "['complete', 'complete']", after.stderr
    assert 32 <= calls() <= 33
    assert states(watch, 0.0) == {"one.zarr": "done", "two.zarr": "done"}


@pytest.mark.parametrize("kept", [True, False])
def test_a_plate_whose_flow_run_ended_before_a_retry_has_the_outcome_beside_the_data(
    watch_of, monkeypatch, kept
):
    from prefect.states import Completed

    from flows.scheduling import prefect_flows

    watch = watch_of()
    new_plate(watch, "p.zarr")
    expected = done(watch, "p.zarr") if kept else None
    # What Prefect returns for a child that the server knows to be complete: a state without its result.
    monkeypatch.setattr(prefect_flows, "plate_flow", lambda *_, **__: Completed(message="ended before"))
    outcome = prefect_flows._as_subflow(watch, "p.zarr")
    if kept:
        assert outcome == expected
    else:
        assert outcome.status == "failed" and "ended before" in outcome.problems[0]
