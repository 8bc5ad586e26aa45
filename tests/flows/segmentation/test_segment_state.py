"""The state of a run: who holds an output, what is replaced, what is repaired, what is left alone."""

import errno
import json
import os
import shutil
import threading
import time

import numpy as np
import pandas as pd
import pytest

from flows.cli import run as command
from pipeline.errors import BadArgument, BadStore, RunConflict
from pipeline.store import ledger
from pipeline.store.ledger import LOCK, BadOutput, held
from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.labels import list_labels
from pipeline.store.ome.tables import write_table
from pipeline.store.places import local
from pipeline.store.places.address import address


def files(store):
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


# ---- who holds an output


def test_the_second_run_is_refused_with_the_name_of_the_first(image_at, noise, bright, run_job):
    store = image_at("a.zarr", noise((60, 60)))
    with held(address(store), "first"), pytest.raises(RunConflict, match=f"run first .process {os.getpid()}"):
        run_job(store, segmenter=bright, name="n")
    assert not (store / LOCK).exists() and not (store / "labels").exists()
    assert run_job(store, segmenter=bright, name="n").status == "complete"
    assert not (store / LOCK).exists()


def lock_of(store, **facts):
    with held(address(store), "dead"):
        card = json.loads((store / LOCK).read_text())
    (store / LOCK).write_text(json.dumps(card | facts))


@pytest.mark.parametrize(
    "facts",
    [
        {"pid": 2**22 + 1},  # no such process
        {"born": "1"},  # the number was given to another process
        {"machine": "other", "host": "other", "beat": time.time() - 3600},  # silent for an hour
    ],
)
def test_the_lock_of_a_dead_run_is_taken_over(facts, image_at, noise, bright, run_job):
    store = image_at("a.zarr", noise((60, 60)))
    lock_of(store, **facts)
    assert run_job(store, segmenter=bright, name="n").status == "complete"
    assert not (store / LOCK).exists()


def test_a_lock_of_another_machine_holds_while_it_speaks(image_at, noise, bright, run_job):
    store = image_at("a.zarr", noise((60, 60)))
    lock_of(store, machine="other", host="other", beat=time.time())
    with pytest.raises(RunConflict, match="on other"):
        run_job(store, segmenter=bright, name="n")


def test_a_damaged_lock_does_not_hold(image_at, noise, bright, run_job):
    store = image_at("a.zarr", noise((60, 60)))
    (store / ".platelayer").mkdir()
    (store / LOCK).write_text("{")
    assert run_job(store, segmenter=bright, name="n").status == "complete"


def test_a_holder_notices_that_it_was_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "BEAT_S", 0.02)
    with held(address(tmp_path), "slow") as hold:
        hold.check()
        (tmp_path / LOCK).write_text(json.dumps({"run": "new", "host": "h", "pid": 1, "token": "t"}))
        assert hold.lost.wait(5)
        with pytest.raises(RunConflict, match="took this output over"):
            hold.check()
    assert json.loads((tmp_path / LOCK).read_text())["run"] == "new"


def test_of_runs_that_start_together_one_wins(image_at, noise, module_of, run_job):
    name = module_of(
        """
        import time
        def f(block):
            time.sleep(0.3)
            return block[:1] > 0.5
        f.link, f.layers = "touch", 1
        """
    )
    store = image_at("a.zarr", noise((60, 60)))
    ends = []

    def start():
        try:
            ends.append(run_job(store, segmenter=f"{name}:f", name="n", tiling={"core": 32}).status)
        except RunConflict as error:
            ends.append(str(error))

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends.count("complete") == 1
    assert sum("is writing to it" in end for end in ends) == 2


# ---- what is replaced


def test_labels_of_that_name_are_refused_unless_overwrite_is_given(
    image_at, noise, bright, counted, run_job, stack_of, files_of
):
    store = image_at("a.zarr", noise((60, 60)))
    run_job(store, segmenter=bright, name="n")
    before, (segmenter, calls) = files_of(store, "n"), counted
    with pytest.raises(RunConflict, match=r"'n' are there already and come from other work.*--overwrite"):
        run_job(store, segmenter=segmenter, name="n")
    assert files_of(store, "n") == before and calls() == 0
    record = run_job(store, segmenter=segmenter, name="n", overwrite=True)
    assert record.status == "complete" and files_of(store, "n") != before
    assert list_labels(address(store), "") == ["n"]
    # The first work is not what is there any more; its scratch is, so nothing is computed again.
    record = run_job(store, segmenter=bright, name="n", overwrite=True)
    assert record.status == "complete" and files_of(store, "n") == before and calls() == 1


def test_labels_from_other_tiles_are_refused_before_any_work(image_at, noise, counted, run_job):
    store, (segmenter, calls) = image_at("a.zarr", noise((60, 60))), counted
    run_job(store, segmenter=segmenter, name="n", tiling={"core": 64})
    with pytest.raises(RunConflict, match="other tiles or an earlier state"):
        run_job(store, segmenter=segmenter, name="n", tiling={"core": 32})
    assert calls() == 1
    run_job(store, segmenter=segmenter, name="n", tiling={"core": 32}, overwrite=True)
    assert calls() == 1 + 4


def test_the_old_labels_stay_until_the_new_ones_are_complete(
    image_at, noise, bright, counted, run_job, files_of, stop_after
):
    store, (segmenter, _) = image_at("a.zarr", noise((60, 60))), counted
    run_job(store, segmenter=bright, name="n")
    before = files_of(store, "n")
    with pytest.raises(stop_after.Stop):
        run_job(
            store, segmenter=segmenter, name="n", overwrite=True, tiling={"core": 16}, progress=stop_after(20)
        )
    assert files_of(store, "n") == before


def test_other_labels_and_tables_are_left_alone(image_at, noise, bright, counted, run_job, files_of):
    store = image_at("a.zarr", noise((60, 60)))
    run_job(store, segmenter=bright, name="mine")
    before = files_of(store, "mine")
    run_job(store, segmenter=counted[0], name="other")
    assert files_of(store, "mine") == before
    assert list_labels(address(store), "") == ["mine", "other"]


def test_a_table_of_that_name_is_not_replaced(image_at, noise, bright, run_job):
    store = image_at("a.zarr", noise((60, 60)))
    write_table(address(store), "", "n", pd.DataFrame({"label": [1]}))
    before = files(store / "tables")
    with pytest.raises(RunConflict, match="a table 'n' is there already"):
        run_job(store, segmenter=bright, name="n")
    assert files(store / "tables") == before


def test_labels_that_were_taken_away_are_painted_again(image_at, noise, counted, run_job, files_of):
    store, (segmenter, calls) = image_at("a.zarr", noise((60, 60))), counted
    for core, again in ((16, 0), (32, 4)):  # of a field no scratch is kept
        table = {"segmenter": segmenter, "name": f"n{core}", "tiling": {"core": core}}
        run_job(store, **table)
        before, tiles = files_of(store, f"n{core}"), calls()
        shutil.rmtree(store / "labels")
        assert run_job(store, **table).status == "complete"
        assert files_of(store, f"n{core}") == before and calls() == tiles + again


# ---- another output


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_another_output_leaves_the_source_as_it_was(
    ngff, image_at, noise, bright, run_job, labels_of, tmp_path
):
    store = image_at("a.zarr", noise((60, 60)), ngff=ngff)
    before = files(store)
    run_job(store, segmenter=bright, name="n", output=str(tmp_path / "out.zarr"))
    assert files(store) == before
    run_job(store, segmenter=bright, name="n")
    mirrored, own = labels_of(tmp_path / "out.zarr", "n"), labels_of(store, "n")
    assert mirrored.keys() == own.keys()
    # Only in the store of the image do labels point to it.
    assert {k: v for k, v in mirrored.items() if not k.endswith((".zattrs", "zarr.json"))} == {
        k: v for k, v in own.items() if not k.endswith((".zattrs", "zarr.json"))
    }


def test_the_output_of_a_plate_has_its_layout(plate_at, noise, bright, run_job, table_of, tmp_path):
    store = plate_at("p.zarr", {"A/1": [noise((40, 40))], "B/2": [noise((40, 40))]})
    record = run_job(store, segmenter=bright, name="n", output=str(tmp_path / "o.zarr"))
    assert sorted(record.images) == ["A/1/0", "B/2/0"] and record.status == "complete"
    assert len(table_of(tmp_path / "o.zarr", "n", "B/2/0"))
    assert not list((tmp_path / "o.zarr").rglob("B/2/0/0/c/*"))
    assert run_job(store, segmenter=bright, name="n", output=str(tmp_path / "o.zarr")).status == "unchanged"


@pytest.mark.parametrize("inside", ["", "/results"])
def test_an_output_inside_the_source_is_refused(inside, image_at, noise, bright, run_job):
    store = image_at("a.zarr", noise((40, 40)))
    before = files(store)
    with pytest.raises(BadArgument, match="another place than the source"):
        run_job(store, segmenter=bright, output=f"{store}{inside}")
    assert files(store) == before


# ---- what is repaired

FRAGILE = """
from pathlib import Path
def fragile(block):
    with open({log!r}, "a") as log:
        log.write("x")
    if Path({flag!r}).exists() and block.max() > 1e3:
        raise RuntimeError("too bright")
    return block[:1] > 0.5
fragile.link, fragile.layers = "touch", 1
"""


@pytest.fixture
def fragile(module_of, tmp_path):
    """Fails on blocks with a value above 1000, as long as a file is there."""
    log, flag = tmp_path / "fragile.log", tmp_path / "flag"
    flag.touch()
    name = module_of(FRAGILE.format(log=str(log), flag=str(flag)))
    return f"{name}:fragile", lambda: len(log.read_text()) if log.exists() else 0, flag


@pytest.mark.parametrize("executor", ["serial", "threads"])
def test_an_image_that_fails_is_set_aside_and_repaired_later(
    executor, plate_at, noise, fragile, labels_of, table_of, capsys, tmp_path
):
    segmenter, calls, flag = fragile
    images = [noise((80, 90), seed=s, dtype=np.uint8).astype(np.uint16) for s in range(3)]
    images[1][70, 80] = 5000
    store = plate_at("p.zarr", {"A/1": images[:2], "B/2": images[2:]})
    shutil.copytree(store, tmp_path / "good.zarr")
    words = ["--segmenter", segmenter, "--name", "n", "--executor", executor, "--set", "tiling.core=32",
             "--set", "normalise.kind=none", "--set", "execution.retries=1"]  # fmt: skip
    assert command(["segment", str(store), *words]) == 3
    said = capsys.readouterr().err
    assert "set aside: A/1/1 in predict: RuntimeError: too bright" in said
    # 3 images of 9 tiles, of which one was tried twice.
    assert calls() == 3 * 9 + 1
    assert not (store / "A/1/1/labels").exists() and not (store / "A/1/1/tables").exists()
    assert len(table_of(store, "n", "A/1/0")) and len(table_of(store, "n", "B/2/0"))
    record = json.loads(next(store.glob(".platelayer/*/record.json")).read_text())
    assert record["status"] == "partial" and record["retries"] == {"predict": 1}
    assert [(f["image"], f["where"]) for f in record["failures"]] == [("A/1/1", "A/1/1 plane 0 tile 2,2")]
    flag.unlink()
    assert command(["segment", str(store), *words]) == 0
    assert calls() == 3 * 9 + 2
    assert command(["segment", str(tmp_path / "good.zarr"), *words]) == 0
    assert labels_of(store, "n") == labels_of(tmp_path / "good.zarr", "n")


def test_images_that_share_limits_wait_for_each_other(plate_at, noise, bright, run_job, labels_of, tmp_path):
    images = [noise((40, 40), seed=s) for s in range(3)]
    store = plate_at("p.zarr", {"A/1": images[:2], "B/2": images[2:]})
    shutil.copytree(store, tmp_path / "good.zarr")
    chunk = store / "A/1/1/0/c/0/0/0"
    data, times = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(bytes(len(data)))
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    table = {"segmenter": bright, "name": "n", "normalise": {"scope": "well"}}
    record = run_job(store, **table)
    assert list(record.images) == ["B/2/0"]
    assert (
        "shares its normalisation with A/1/1" in {f["image"]: f["reason"] for f in record.failures}["A/1/0"]
    )
    chunk.write_bytes(data)
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run_job(store, **table).status == "complete"
    run_job(tmp_path / "good.zarr", **table)
    assert labels_of(store, "n") == labels_of(tmp_path / "good.zarr", "n")


def test_only_new_images_of_a_plate_are_computed(plate_at, noise, counted, run_job):
    store, (segmenter, calls) = plate_at("p.zarr", {"A/1": [noise((40, 40)), None]}), counted
    table = {"segmenter": segmenter, "name": "n"}
    record = run_job(store, **table)
    assert calls() == 1 and record.status == "partial" and "A/1/1" in record.missing[0]
    write_image(address(store), "A/1/1", noise((1, 40, 40), seed=1))
    record = run_job(store, **table)
    assert calls() == 2 and record.status == "complete" and sorted(record.images) == ["A/1/0", "A/1/1"]


def test_an_image_that_changed_is_not_taken_for_the_old_one(image_at, noise, counted, run_job, stack_of):
    store, (segmenter, calls) = image_at("a.zarr", noise((40, 40))), counted
    run_job(store, segmenter=segmenter, name="n")
    before = stack_of(store, "n")
    shutil.rmtree(store / "0")
    write_image(address(store), "", noise((1, 40, 40), seed=1), chunks=(64, 64))
    with pytest.raises(RunConflict, match="earlier state of the image"):
        run_job(store, segmenter=segmenter, name="n")
    assert run_job(store, segmenter=segmenter, name="n", overwrite=True).status == "complete"
    assert calls() == 2 and not np.array_equal(stack_of(store, "n"), before)


# ---- an output that cannot be written


def broken(monkeypatch, code, after):
    """Every write to the disk fails from the ``after``-th on."""
    original, count = local.LocalFiles._write_beside, iter(range(10**9))

    def write(self, place, data):
        if next(count) >= after:
            raise OSError(code, os.strerror(code), str(place))
        return original(self, place, data)

    monkeypatch.setattr(local.LocalFiles, "_write_beside", write)


@pytest.mark.parametrize(
    ("core", "after"), [*((20, n) for n in (0, 2, 5, 8, 17)), *((32, n) for n in (0, 3, 6))]
)
def test_a_full_disk_ends_the_run_and_loses_nothing(
    core, after, image_at, noise, counted, run_job, files_of, monkeypatch, tmp_path
):
    segmenter, _ = counted
    store = image_at("a.zarr", noise((60, 60)))
    shutil.copytree(store, tmp_path / "good.zarr")
    table = {"segmenter": segmenter, "name": "n", "tiling": {"core": core}}
    run_job(tmp_path / "good.zarr", **table)
    with monkeypatch.context() as patch:
        broken(patch, errno.ENOSPC, after)
        try:
            record = run_job(store, **table)
        except BadStore as error:
            assert "no space left" in str(error) and (isinstance(error, BadOutput) or after == 0)
        else:
            assert record.status == "partial" and "no space left" in record.failures[0]["reason"]
    good = files_of(tmp_path / "good.zarr", "n")
    if list_labels(address(store), ""):
        assert (
            files_of(store, "n").items()
            >= {k: v for k, v in good.items() if "labels" in k.split("/")}.items()
        )
    run_job(store, **table)
    assert files_of(store, "n") == good
    assert not list(store.rglob("*.partial"))


def test_a_read_only_output_is_told_before_any_work(image_at, noise, counted, monkeypatch, capsys):
    segmenter, calls = counted
    store = image_at("a.zarr", noise((60, 60)))
    before = files(store)
    broken(monkeypatch, errno.EROFS, 0)
    assert command(["segment", str(store), "--segmenter", segmenter]) == 1
    said = capsys.readouterr().err
    assert "read-only; choose another --output" in said and said.count("\n") == 1
    assert calls() == 0 and files(store) == before


def test_a_plate_that_grows_while_it_is_processed_is_reported(plate_at, noise, counted, run_job):
    wells = {"A/1": [noise((40, 40), seed=1)], "A/2": [noise((40, 40), seed=2)]}
    store = plate_at("p.zarr", wells)

    class Growing:
        """Adds a well and replaces another while the network runs."""

        def start(self, stage, total):
            if stage == "fields":
                plate_at(
                    "p.zarr", {"A/1": [noise((40, 40), seed=9)], "A/2": [None], "A/3": [noise((40, 40))]}
                )

        def advance(self, stage, item):
            pass

        def finish(self, stage):
            pass

    record = run_job(store, segmenter=counted[0], name="n", progress=Growing())
    assert record.status == "partial"
    assert [failure["image"] for failure in record.failures] == ["A/1/0"]
    assert "changed while the run was under way" in record.failures[0]["reason"]
    assert [message.split(":")[0] for message in record.missing] == ["A/3/0"]
    again = run_job(store, segmenter=counted[0], name="n", overwrite=True)
    assert again.status == "complete" and set(again.images) == {"A/1/0", "A/2/0", "A/3/0"}
