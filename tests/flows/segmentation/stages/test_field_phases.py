"""Fields where the network has workers of its own: these run it over several at once, others do the rest meanwhile."""

import importlib
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from flows.execution.executors import Pool
from flows.segmentation import run as main_job


@pytest.fixture
def run_apart(run_job, monkeypatch):
    """Segment with one thread for the network, fed by two calls at a time, and two threads for all else."""

    @contextmanager
    def pool(*_, **__):
        with ThreadPoolExecutor(2) as cpu, ThreadPoolExecutor(2) as gpu:
            yield Pool(cpu=cpu, gpu=gpu, workers=4, window=8, together=1000, apart=True, gpu_workers=2)

    def run(*arguments, **table):
        with monkeypatch.context() as patch:
            patch.setattr(main_job, "open_pool", pool)
            return run_job(*arguments, **table)

    return run


@pytest.fixture
def batched(module_of):
    """A segmenter that takes several blocks at once, and notes how many."""
    name = module_of(
        """
        sizes = []

        class Batched:
            link, layers, name = "touch", 1, "batched"

            def __call__(self, block):
                return block[:1] > 0.5

            def many(self, blocks):
                sizes.append(len(blocks))
                return [self(block) for block in blocks]

        batched = Batched()
        """
    )
    return f"{name}:batched", importlib.import_module(name).sizes


def fields_at(plate_at, noise, name, count=24):
    return plate_at(name, {"A/1": [noise((70, 80), seed=seed) for seed in range(count)]})


def test_the_same_bytes_from_batches_of_several_fields(
    plate_at, noise, batched, run_job, run_apart, files_of, tmp_path
):
    name, sizes = batched
    store = fields_at(plate_at, noise, "p.zarr")
    shutil.copytree(store, tmp_path / "b.zarr")
    whole = run_job(tmp_path / "b.zarr", segmenter=name, name="n")
    assert not sizes
    record = run_apart(store, segmenter=name, name="n")
    assert files_of(store, "n") == files_of(tmp_path / "b.zarr", "n")
    assert record.objects == whole.objects > 0 and list(record.stages) == ["fields"]
    assert max(sizes) > 1
    assert record.network_s.keys() == whole.network_s.keys()
    assert run_apart(store, segmenter=name, name="n").status == "unchanged"
    changed = {"segmenter": name, "name": "n", "filters": {"min_area": 20}, "overwrite": True}
    for place, run in ((store, run_apart), (tmp_path / "b.zarr", run_job)):
        assert run(place, **changed).status == "complete"
    assert files_of(store, "n") == files_of(tmp_path / "b.zarr", "n")


def test_a_field_that_fails_is_named_and_the_others_of_its_batch_are_done(plate_at, noise, picky, run_apart):
    images = [noise((70, 80), seed=s, dtype=np.uint8).astype(np.uint16) for s in range(24)]
    images[17][60, 70] = 5000
    store = plate_at("p.zarr", {"A/1": images})
    record = run_apart(store, segmenter=picky, name="n", normalise={"kind": "none"})
    assert record.status == "partial" and len(record.images) == 23
    assert [(f["image"], f["stage"], f["reason"]) for f in record.failures] == [
        ("A/1/17", "predict", "RuntimeError: too bright")
    ]


def test_the_network_does_not_wait_for_the_rest(plate_at, noise, module_of, run_apart, monkeypatch):
    """A chip that takes 150 ms for a field is at work nearly all the time, whatever else has to be done.

    The rest of a field takes 100 ms and more: one after the other, the chip would be idle two fifths of the time.
    """
    name = module_of(
        """
        import time
        busy = []

        def slow(block):
            begun = time.perf_counter()
            time.sleep(0.15)
            busy.append((begun, time.perf_counter()))
            return block[:1] > 0.5
        slow.link, slow.layers = "touch", 1
        """
    )
    finish = main_job.finish_field
    monkeypatch.setattr(main_job, "finish_field", lambda field: time.sleep(0.1) or finish(field))
    count = 12
    store = fields_at(plate_at, noise, "p.zarr", count=count)
    busy = importlib.import_module(name).busy
    run_apart(store, segmenter=f"{name}:slow", name="n")
    spans = busy[-count:]  # after the look at what the segmenter is
    asleep, lasted = sum(end - begin for begin, end in spans), spans[-1][1] - spans[0][0]
    assert all(following[0] >= before[1] for before, following in zip(spans, spans[1:]))
    assert lasted < 1.5 * asleep
