"""Small images in one go on a worker: the bytes of the stages, whatever instant the run was killed at."""

import errno
import itertools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.segmentation import image_job
from pipeline.store.ome.labels import list_labels, read_stack
from pipeline.store.ome.tables import read_table
from pipeline.store.places import local
from pipeline.store.places.address import address


@pytest.fixture
def run_staged(run_job, monkeypatch):
    """Segment stage by stage, as large images are."""

    def run(*arguments, **table):
        with monkeypatch.context() as patch:
            patch.setattr(image_job, "FIELD_TILES", 0)
            record = run_job(*arguments, **table)
        assert "predict" in record.stages and "fields" not in record.stages
        return record

    return run


@pytest.fixture
def numbered(module_of):
    name = module_of(
        """
        from scipy import ndimage
        def numbered(block):
            labels = ndimage.label(block[0] > 0.5, np.ones((3, 3)))[0]
            return np.stack([np.where(labels % 2 == 1, labels, 0), np.where(labels % 2 == 0, labels, 0)])
        """
    )
    return f"{name}:numbered"


IMAGES = {
    "one tile": ({}, {}),
    "four tiles": ({}, {"tiling": {"core": 64}}),
    "zarr v2": ({"ngff": "0.4"}, {"tiling": {"core": 64}}),
    "float": ({"dtype": "float32"}, {"filters": {"min_area": 9, "drop_edge": True}}),
    "raw values": ({"dtype": "uint8"}, {"normalise": {"kind": "none"}}),
    "resampled": ({}, {"scale": 0.7}),
    "planes": ({"axes": ("t", "c", "z", "y", "x")}, {"channel": ["1"]}),
}


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("kind", ["bright", "numbered"])
def test_a_field_gives_the_bytes_of_the_stages(
    case, kind, image_at, noise, run_job, run_staged, files_of, tmp_path, request
):
    options, table = IMAGES[case]
    options = dict(options)
    extent = {"t": 2, "c": 2, "z": 2, "y": 90, "x": 110}
    axes = options.get("axes", ("c", "y", "x"))
    shape = tuple(extent[a] if len(axes) > 3 or a != "c" else 1 for a in axes)
    store = image_at("a.zarr", noise(shape, sigma=3, dtype=options.pop("dtype", "uint16")), **options)
    shutil.copytree(store, tmp_path / "b.zarr")
    table = {"segmenter": request.getfixturevalue(kind), "name": "n"} | table
    record = run_job(store, **table)
    staged = run_staged(tmp_path / "b.zarr", **table)
    assert "fields" in record.stages and "predict" not in record.stages
    assert files_of(store, "n") == files_of(tmp_path / "b.zarr", "n")
    assert record.objects == staged.objects > 0
    assert run_job(store, **table).status == run_job(tmp_path / "b.zarr", **table).status == "unchanged"


@pytest.mark.parametrize("scope", ["image", "well", "plate"])
@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_fields_of_a_plate_and_their_limits(
    scope, executor, plate_at, noise, bright, run_job, run_staged, files_of, tmp_path
):
    wells = {f"A/{w}": [noise((70, 80), seed=10 * w + f) // (1 + f) for f in range(2)] for w in (1, 2)}
    store = plate_at("p.zarr", wells)
    shutil.copytree(store, tmp_path / "b.zarr")
    table = {"segmenter": bright, "name": "n", "normalise": {"scope": scope}}
    record = run_job(store, execution={"executor": executor, "workers": 2}, **table)
    run_staged(tmp_path / "b.zarr", **table)
    assert files_of(store, "n") == files_of(tmp_path / "b.zarr", "n")
    assert ("limits" in record.stages) == (scope != "image")


class Killed(BaseException):
    """Ends a run as a kill would: nothing handles it."""


def kill_at(monkeypatch, write):
    """Let so many files be written, and die instead of the next one; the writes so far come back in a list."""
    original, written = local.LocalFiles.put, []

    def put(self, key, data):
        if len(written) == write:
            raise Killed
        original(self, key, data)
        written.append(key)

    monkeypatch.setattr(local.LocalFiles, "put", put)
    return written


def shown(store):
    """What a reader sees of labels and table; None where no labels are listed."""
    place = address(store)
    if list_labels(place, "") != ["n"]:
        return None
    return read_stack(place, "", "n").tobytes()


def killed_at_every_write(store, good, run, monkeypatch, see):
    """Kill a run at its first write, at its second, ...: the number of writes there were."""
    write = 0
    while True:
        here = Path(f"{store}-{write}.zarr")
        shutil.copytree(store, here)
        with monkeypatch.context() as patch:
            kill_at(patch, write)
            try:
                run(here)
                return write
            except Killed:
                pass
        see(shown(here))
        assert run(here).status in ("complete", "unchanged"), f"killed at write {write}"
        assert see.files_of(here, "n") == good, f"killed at write {write}"
        assert not list(here.rglob("*.partial"))
        write += 1


class Seeing:
    """Checks that a reader sees nothing, or one of the given states."""

    def __init__(self, files_of, *states):
        self.files_of, self.states, self.seen = files_of, states, set()

    def __call__(self, state):
        assert state in self.states
        self.seen.add(self.states.index(state))


def test_a_kill_between_any_two_writes_loses_nothing(
    image_at, noise, bright, run_job, files_of, monkeypatch, tmp_path
):
    store = image_at("a.zarr", noise((70, 80), sigma=3))
    shutil.copytree(store, tmp_path / "good.zarr")
    table = {"segmenter": bright, "name": "n"}
    run_job(tmp_path / "good.zarr", **table)
    see = Seeing(files_of, None, shown(tmp_path / "good.zarr"))
    good = files_of(tmp_path / "good.zarr", "n")
    writes = killed_at_every_write(store, good, lambda s: run_job(s, **table), monkeypatch, see)
    assert writes > 10 and see.seen == {0, 1}


def test_a_write_that_fails_once_is_tried_again(
    image_at, noise, bright, run_job, files_of, monkeypatch, tmp_path
):
    store = image_at("a.zarr", noise((70, 80), sigma=3))
    shutil.copytree(store, tmp_path / "good.zarr")
    table = {"segmenter": bright, "name": "n", "execution": {"retries": 1}}
    run_job(tmp_path / "good.zarr", **table)
    for failing in range(2, 11):
        here = Path(f"{store}-{failing}.zarr")
        shutil.copytree(store, here)
        original, count = local.LocalFiles.put, itertools.count()

        def put(self, key, data, original=original, count=count, failing=failing):
            if next(count) == failing:
                raise OSError(errno.EBUSY, "busy")
            original(self, key, data)

        with monkeypatch.context() as patch:
            patch.setattr(local.LocalFiles, "put", put)
            record = run_job(here, **table)
        assert record.status == "complete" and record.retries == {"fields": 1}
        assert files_of(here, "n") == files_of(tmp_path / "good.zarr", "n")


def test_a_kill_while_labels_are_replaced_leaves_the_old_or_the_new(
    image_at, noise, bright, counted, run_job, files_of, monkeypatch, tmp_path
):
    store = image_at("a.zarr", noise((70, 80), sigma=3))
    run_job(store, segmenter=bright, name="n")
    old = shown(store)
    shutil.copytree(store, tmp_path / "good.zarr")
    table = {"segmenter": counted[0], "name": "n", "overwrite": True}
    run_job(tmp_path / "good.zarr", **table)
    good = files_of(tmp_path / "good.zarr", "n")
    assert shown(tmp_path / "good.zarr") != old
    # Between the first and the last step of the exchange no labels are listed.
    see = Seeing(files_of, old, None, shown(tmp_path / "good.zarr"))
    killed_at_every_write(store, good, lambda s: run_job(s, **table), monkeypatch, see)
    assert see.seen >= {0, 2}


def test_files_of_half_written_labels_of_other_work_are_not_kept(
    image_at, noise, bright, module_of, run_job, files_of, monkeypatch, tmp_path
):
    store = image_at("a.zarr", noise((70, 80)))
    shutil.copytree(store, tmp_path / "good.zarr")
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        with pytest.raises(Killed):
            run_job(store, segmenter=bright, name="n")
    assert list(store.rglob("labels/n*/0/c/*"))
    name = module_of("def nothing(block):\n    return block[:1] > 9e9\n")
    for place in (store, tmp_path / "good.zarr"):
        assert run_job(place, segmenter=f"{name}:nothing", name="n").objects == 0
    assert files_of(store, "n").keys() >= files_of(tmp_path / "good.zarr", "n").keys()
    assert not read_stack(address(store), "", "n").any()


def test_what_a_field_costs_in_files_and_requests(plate_at, noise, bright, run_job, monkeypatch):
    wells = {f"A/{column}": [noise((70, 80), seed=column)] for column in range(1, 4)}
    store = plate_at("p.zarr", wells)
    written = kill_at(monkeypatch, -1)
    run_job(store, segmenter=bright, name="n")
    for well in wells:
        mine = [
            key for key in written if key.startswith(f"{well}/") or f"/{well.replace('/', '~')}~0-" in key
        ]
        labels = [key for key in mine if "/labels/" in key]
        assert sorted(labels) == sorted(
            str(p.relative_to(store)) for p in (store / well / "0/labels").rglob("*") if p.is_file()
        )
        # The table, its group, the list of tables, and the mark.
        assert len(mine) - len(labels) == 1 + 3
    # A part of the plate's table per well and its listings; the job, the fields that are begun, and the record after
    # the group and at the end.
    rest = [key for key in written if not key.startswith("A/") and "/images/" not in key]
    assert sorted(key.rpartition("/")[2] for key in rest) == [
        *(f"A0{column}.parquet" for column in range(1, 4)),
        "begun.json",
        "job.json",
        "record.json",
        "record.json",
        "zarr.json",
        "zarr.json",
    ]


def test_a_failure_in_a_field_names_stage_and_tile(plate_at, noise, picky, run_job, table_of):
    images = [noise((70, 80), seed=s, dtype=np.uint8).astype(np.uint16) for s in range(3)]
    images[1][60, 70] = 5000
    store = plate_at("p.zarr", {"A/1": images})
    record = run_job(
        store, segmenter=picky, name="n", normalise={"kind": "none"}, tiling={"core": 64},
        execution={"retries": 1},
    )  # fmt: skip
    assert record.status == "partial" and sorted(record.images) == ["A/1/0", "A/1/2"]
    assert record.failures == [
        {
            "image": "A/1/1",
            "stage": "predict",
            "where": "A/1/1 plane 0 tile 0,1",
            "reason": "RuntimeError: too bright",
        }
    ]
    assert not (store / "A/1/1/labels").exists() and not (store / "A/1/1/tables").exists()


def test_other_labels_and_tables_stay_listed(image_at, noise, bright, counted, run_job, files_of):
    store = image_at("a.zarr", noise((60, 60)))
    run_job(store, segmenter=bright, name="mine")
    before = files_of(store, "mine")
    run_job(store, segmenter=counted[0], name="n")
    assert files_of(store, "mine") == before and list_labels(address(store), "") == ["mine", "n"]
    pd.testing.assert_frame_equal(
        read_table(address(store), "", "n", columns=["label"]),
        pd.DataFrame({"label": np.arange(1, len(read_table(address(store), "", "n")) + 1, dtype=np.uint32)}),
    )


def test_the_record_tells_where_the_time_went(image_at, noise, bright, run_job, run_staged, tmp_path):
    store = image_at("a.zarr", noise((70, 80), sigma=3))
    shutil.copytree(store, tmp_path / "b.zarr")
    for run, place in ((run_job, store), (run_staged, tmp_path / "b.zarr")):
        record = run(place, segmenter=bright, name="n")
        assert record.time_s.keys() == {"read", "network", "after", "waiting"}
        assert min(record.time_s.values()) >= 0 and record.time_s["after"] > 0
        # One worker: all its seconds are the seconds of the stages.
        stages = sum(stage["seconds"] for stage in record.stages.values())
        assert sum(record.time_s.values()) == pytest.approx(stages, rel=0.02, abs=0.01)
