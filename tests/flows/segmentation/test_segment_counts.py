"""Gates on what a run costs in counts, which no machine changes: store operations, tasks, files."""

from collections import Counter

import numpy as np
import pytest
from zarr.storage import LocalStore

from flows.execution import executors
from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from pipeline.store import ledger
from pipeline.store.places import local


@pytest.fixture
def operations(monkeypatch):
    """Counts of store operations: reads, writes, listings."""
    monkeypatch.setattr(ledger, "BEAT_S", 3600)  # the lock's heartbeat counts time, not tiles
    counts = Counter()

    def watch(owner, name, kind):
        original = getattr(owner, name)

        def watched(self, *arguments, **options):
            counts[kind] += 1
            return original(self, *arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    for name, kind in (("get", "read"), ("put", "write"), ("put_new", "write"), ("entries", "list")):
        watch(local.LocalFiles, name, kind)
    for name, kind in (("get", "read"), ("set", "write")):
        watch(LocalStore, name, kind)
    return counts


@pytest.fixture
def tasks(monkeypatch):
    """Counts of submitted pieces of work by function."""
    counts = Counter()
    original = executors.Serial.submit

    def submit(self, fn, /, *arguments, **options):
        counts[getattr(fn, "__name__", None) or fn.func.__name__] += 1
        return original(self, fn, *arguments, **options)

    monkeypatch.setattr(executors.Serial, "submit", submit)
    return counts


def test_store_operations_per_tile(image_at, noise, counted, run_job, operations):
    image, spent = noise((512, 512)), {}
    for core in (128, 64):
        store = image_at(f"{core}.zarr", image)
        operations.clear()
        run_job(store, segmenter=counted[0], name="n", tiling={"core": core})
        spent[core] = dict(operations)
    # From 16 tiles to 64, chunk 64: a tile writes its mask and its mark, and its mask is read once.
    more = {kind: spent[64][kind] - spent[128][kind] for kind in ("read", "write", "list")}
    assert more == {"read": 48, "write": 2 * 48, "list": 0}
    # What an image costs beside its tiles does not grow by accident.
    assert spent[128]["list"] <= 12
    assert spent[128]["write"] - 2 * 16 <= 40
    assert spent[128]["read"] - 16 - 3 * 64 <= 80


def test_tasks_are_tiles_blocks_and_images(plate_at, noise, counted, run_job, tasks):
    store = plate_at("p.zarr", {"A/1": [noise((130, 130))] * 2, "A/2": [noise((130, 130))]})
    run_job(store, segmenter=counted[0], name="n", tiling={"core": 64})
    per_image = dict.fromkeys(
        ("check_pixels", "count_levels", "describe_unit", "join_image", "paint_or_measure", "finish_image"), 3
    )
    assert tasks == {"ready": 1, "predict": 3 * 9, "write_plate_part": 2, **per_image}


def test_prefect_tasks_are_stages_of_groups(plate_at, noise, counted, run_job, tasks):
    names = []

    def step(call, *arguments, name):
        names.append(name)
        return call(*arguments)

    wells = {f"A/{column}": [np.zeros((20, 20), np.uint8)] * 2 for column in range(1, 4)}
    store = plate_at("p.zarr", wells)
    segment(SegmentJob(source=str(store), segmenter=counted[0], name="n"), step=step)
    assert names == ["fields group 0"]
    assert tasks == {"ready": 1, "segment_field": 6, "write_plate_part": 3}
    names.clear()
    large = {"source": str(store), "segmenter": counted[0], "name": "m", "tiling": {"core": 8}}
    segment(job(SegmentJob, large), step=step)
    assert names == [f"{s} group 0" for s in ("limits", "predict", "describe", "join", "paint", "finish")]


def test_files_of_a_run(image_at, noise, counted, run_job):
    store = image_at("a.zarr", noise((200, 200)))
    run_job(store, segmenter=counted[0], name="n", tiling={"core": 50})
    scratch = [
        str(p.relative_to(store / ".platelayer")) for p in (store / ".platelayer").rglob("*") if p.is_file()
    ]
    kinds = Counter(name.split("/")[1] if "done" not in name else name.split("/")[2] for name in scratch)
    run = {name.split("/")[0] for name in scratch}
    assert len(run) == 1
    # 16 tiles: a chunk of the mask and a mark each; one block; one image.
    assert kinds == {
        "mask": 16, "predict": 16, "pieces": 2, "paint": 1, "join": 1, "limits": 1, "staging": 1, "images": 1,
        "job.json": 1, "record.json": 1,
    }  # fmt: skip


def test_labels_have_one_file_per_chunk_that_holds_something(image_at, run_job, module_of):
    name = module_of("def f(block):\n    return block[:1] > 0.5\n")
    image = np.zeros((2100, 300), np.uint8)
    image[2090:, 10:20] = 1
    store = image_at("a.zarr", image, chunks=(512, 512))
    run_job(store, segmenter=f"{name}:f", name="n", normalise={"kind": "none"})
    chunks = [str(p.relative_to(store / "labels/n/0")) for p in (store / "labels/n/0").rglob("c/*/*")]
    assert chunks == ["c/2/0"]
