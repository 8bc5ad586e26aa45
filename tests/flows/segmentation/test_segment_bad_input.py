"""Bad input: what was expected, what came, what to do; nothing lost, nothing half-written."""

import json
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from flows.cli import run as command
from pipeline.errors import BadArgument, BadStore
from pipeline.store.ledger import held
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.tables import write_table
from pipeline.store.places.address import address


@pytest.fixture
def above(module_of):
    return module_of("def f(block):\n    return block[:1] > 0.5\n") + ":f"


def files(store):
    return {str(p.relative_to(store)): p.read_bytes() for p in Path(store).rglob("*") if p.is_file()}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["percentile", "none"])
def test_values_that_are_no_numbers(value, kind, image_at, run_job, above, stack_of):
    image = np.zeros((90, 100), np.float32)
    image[70, 33] = value
    store = image_at("a.zarr", image)
    record = run_job(store, segmenter=above, name="n", tiling={"core": 64}, normalise={"kind": kind})
    assert record.status == "partial"
    reason = record.failures[0]["reason"]
    assert "expected finite intensities" in reason and "y=70, x=33" in reason and "replace NaN" in reason
    assert not (store / "labels").exists()


def test_a_constant_image_has_no_objects(image_at, run_job, above, table_of, stack_of):
    for number, dtype in enumerate((np.uint16, np.float32)):
        store = image_at(f"{number}.zarr", np.full((70, 70), 7, dtype))
        record = run_job(store, segmenter=above, name="n", tiling={"core": 32})
        assert record.status == "complete" and record.objects == 0
        table = table_of(store, "n")
        assert len(table) == 0 and {"label", "area_px", "overlap_labels"} <= set(table)
        stack = stack_of(store, "n")
        assert stack.shape == (1, 70, 70) and not stack.any()


def test_a_numbered_empty_answer_is_an_empty_label(image_at, run_job, module_of, table_of, stack_of):
    name = module_of("def f(block):\n    return np.zeros((1, *block.shape[1:]), np.int32)\n")
    store = image_at("a.zarr", np.zeros((70, 70), np.uint8))
    record = run_job(store, segmenter=f"{name}:f", name="n", tiling={"core": 32})
    assert record.status == "complete" and len(table_of(store, "n")) == 0 and not stack_of(store, "n").any()


def test_a_corrupt_chunk_is_named(image_at, noise, run_job, above, capsys):
    store = image_at("a.zarr", noise((130, 130)))
    chunk = store / "0" / "c" / "0" / "1" / "0"
    chunk.write_bytes(b"\x00" * 20)
    assert (
        command(["segment", str(store), "--segmenter", above, "--name", "n", "--set", "tiling.core=64"]) == 3
    )
    said = capsys.readouterr().err
    assert "chunk (0, 1, 0)" in said and "0" in said and "set aside" in said
    assert not (store / "labels").exists()


def test_a_lost_chunk_is_named_where_the_pyramid_shows_it(image_at, noise, run_job, above):
    store = image_at("a.zarr", noise((600, 600), sigma=20), chunks=(128, 128))
    (store / "0" / "c" / "0" / "1" / "2").unlink()
    record = run_job(store, segmenter=above, name="n")
    assert "(0, 1, 2)" in record.failures[0]["reason"] and "missing" in record.failures[0]["reason"]
    assert not (store / "labels").exists()


def test_an_absent_channel_lists_those_there_are(image_at, noise, run_job, above):
    store = image_at("a.zarr", noise((2, 20, 20)), channels=("DAPI", "GFP"))
    before = files(store)
    with pytest.raises(BadArgument, match="no channel 'Cy5'; there are 0: 'DAPI', 1: 'GFP'"):
        run_job(store, segmenter=above, channel=["Cy5"])
    assert files(store) == before


def test_a_field_without_the_channel_is_left_out_and_is_no_failure(plate_at, noise, run_job, above, tmp_path):
    store = plate_at("p.zarr", {"A/1": [noise((30, 30))], "A/2": [noise((30, 30))]}, channels=("DAPI",))
    place = store / "A/2/0/zarr.json"
    place.write_text(place.read_text().replace("DAPI", "GFP"))
    record = run_job(store, segmenter=above, name="n", channel=["DAPI"], output=str(tmp_path / "o.zarr"))
    assert record.status == "complete" and list(record.images) == ["A/1/0"] and record.failures == []
    assert list(record.left_out) == ["A/2/0"] and "no channel 'DAPI'" in record.left_out["A/2/0"]
    assert [image.path for image in open_collection(address(tmp_path / "o.zarr")).images] == ["A/1/0"]
    again = run_job(store, segmenter=above, name="n", channel=["DAPI"], output=str(tmp_path / "o.zarr"))
    assert again.status == "unchanged"


def test_absent_chunks_may_be_declared_zeros(image_at, noise, run_job, above):
    store = image_at("a.zarr", noise((600, 600), sigma=20), chunks=(128, 128))
    (store / "0" / "c" / "0" / "1" / "2").unlink()
    assert run_job(store, segmenter=above, name="n", absent_chunks="zeros").status == "complete"


def test_results_without_pixels_are_no_source(image_at, noise, run_job, above, tmp_path):
    run_job(image_at("a.zarr", noise((60, 60))), segmenter=above, name="n", output=str(tmp_path / "o.zarr"))
    with pytest.raises(BadArgument, match="got a store of results without pixels; give its source"):
        run_job(tmp_path / "o.zarr", segmenter=above, name="again")


def edited(store, change):
    place = Path(store) / "zarr.json"
    document = json.loads(place.read_text())
    change(document["attributes"]["ome"]["multiscales"][0])
    place.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("axes"),
        lambda m: m["axes"].reverse(),
        lambda m: m["axes"].pop(),
        lambda m: m["axes"][1].update(name="q"),
    ],
)
def test_wrong_axes(change, image_at, noise, run_job, above):
    store = image_at("a.zarr", noise((30, 40)))
    edited(store, change)
    with pytest.raises(BadStore, match=r"ax[ei]s"):
        run_job(store, segmenter=above)
    assert not (store / ".platelayer").exists()


@pytest.mark.filterwarnings("ignore:The data type")
@pytest.mark.parametrize("dtype", ["complex64", "<U4"])
def test_types_that_are_no_pixels(dtype, image_at, noise, run_job, above):
    store = image_at("a.zarr", noise((30, 40)))
    array = zarr.create_array(store / "0", shape=(1, 30, 40), dtype=dtype, overwrite=True)
    assert array.shape == (1, 30, 40)
    with pytest.raises(BadStore, match="type"):
        run_job(store, segmenter=above)


def test_paths_that_leave_the_store(image_at, noise, run_job, above):
    store = image_at("a.zarr", noise((30, 40)))
    edited(store, lambda m: m["datasets"][0].update(path="../b.zarr/0"))
    with pytest.raises(BadStore, match="leaves the store"):
        run_job(store, segmenter=above)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p, "no such store"),
        (lambda p: p.mkdir() or p, "not a Zarr"),
        (lambda p: (zarr.create_group(p), p)[1], "OME|multiscales"),
        (lambda p: (zarr.create_array(p, shape=(3, 3), dtype="u1"), p)[1], "no OME-Zarr image"),
    ],
)
def test_places_without_an_image(make, message, tmp_path, run_job, above, capsys):
    store = make(tmp_path / "x.zarr")
    assert command(["segment", str(store), "--segmenter", above]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said) and "Traceback" not in said and said.count("\n") == 1
    assert not (store / ".platelayer").exists()


def test_an_absent_well_is_reported_and_the_rest_is_done(plate_at, noise, above, capsys, table_of):
    store = plate_at(
        "p.zarr", {"A/1": [noise((30, 30))], "A/2": [noise((30, 30)), None], "B/7": [noise((30, 30))]}
    )
    shutil.rmtree(store / "B" / "7")
    arguments = ["segment", str(store), "--segmenter", above, "--name", "n"]
    assert command(arguments) == 3
    said = capsys.readouterr().err
    assert "B/7" in said and "A/2/1" in said and said.count("missing") == 2
    assert len(table_of(store, "n", "A/1/0")) and len(table_of(store, "n", "A/2/0"))
    assert command(arguments) == 3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tiling.cor=5", "did you mean tiling.core"),
        ("segmentr=threshold", "did you mean segmenter"),
        ("normalise.kind=percentil", "percentile"),
        ("tiling.core=0", "tiling.core"),
        ("filters.min_area=many", "filters.min_area"),
        ("execution.executor=desk", "serial, threads, dask"),
        ("normalise.low=60", "low < high"),
        ("name=a/b", "label name"),
        ("model=nucleii", "did you mean|neither a shipped model"),
    ],
)
def test_words_of_a_job_that_mean_nothing(setting, message, image_at, noise, above, capsys):
    store = image_at("a.zarr", noise((30, 40)))
    before = files(store)
    given = [] if setting.startswith(("model", "segmentr")) else ["--segmenter", above]
    high = ["--set", "normalise.high=50"]
    assert command(["segment", str(store), *given, "--set", setting, *high]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert files(store) == before


class Evil:
    def __reduce__(self):
        return (Path.write_text, (Path("pwned"), "x"))


@pytest.mark.parametrize("place", ["model.pt", "folder"])
def test_a_pickle_is_never_loaded(place, image_at, noise, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = image_at("a.zarr", noise((30, 40)))
    path = tmp_path / place
    target = path
    if place == "folder":
        path.mkdir()
        target = path / "weights.pt"
    target.write_bytes(pickle.dumps(Evil()))
    assert command(["segment", str(store), "--model", str(path)]) == 1
    assert "card.json" in capsys.readouterr().err
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(block):\n    return block[:1, 1:] > 0\n", "expected layers of shape"),
        ("def f(block):\n    return block\n", "expected integer ids"),
        ("def f(block):\n    raise ZeroDivisionError('zero')\n", "ZeroDivisionError: zero"),
        ("f = 3\n", "expected a function"),
        ("import no_such_module\n", "no_such_module"),
        ("def g(block):\n    return block[:1] > 0\n", "has no attribute 'f'"),
        ("def f(block):\n    return block[:1] > 0\nf.link = 'glue'\n", "touch or match"),
        ("def f(block):\n    return block[:1] > 0\nf.stride = 1.5\n", "stride"),
        ("def f(block):\n    return np.ones((65, *block.shape[1:]), bool)\n", "at most 64 layers"),
        ("def f(block):\n    return np.ones((2, *block.shape[1:]), int)\n", "one layer only"),
        ("def f(block):\n    return block[:1] > 0\nf.channels = 2\n", "expects 2 channel"),
    ],
)
def test_segmenters_that_cannot_be_used(source, message, image_at, noise, module_of, run_job):
    store = image_at("a.zarr", noise((30, 40)))
    before = files(store)
    with pytest.raises(BadArgument, match=message):
        run_job(store, segmenter=module_of(source) + ":f")
    assert files(store) == before


def test_a_gpu_that_was_asked_for_and_is_not_there(image_at, noise, module_of, capsys):
    store = image_at("a.zarr", noise((30, 40)))
    assert command(["segment", str(store), "--segmenter", "threshold", "--device", "cuda"]) == 1
    assert "CPU only" in capsys.readouterr().err
    assert not (store / ".platelayer").exists()


def test_more_than_65535_objects(image_at, run_job, above, table_of, stack_of):
    image = np.zeros((600, 600), np.uint8)
    image[::2, ::2] = 255
    store = image_at("a.zarr", image, chunks=(512, 512))
    run_job(store, segmenter=above, name="n", tiling={"core": 256}, normalise={"kind": "none"})
    assert len(table_of(store, "n")) == 90_000 and stack_of(store, "n").max() == 90_000


def test_a_dry_run_names_a_corrupt_chunk_as_the_run_does_and_counts_the_memory_of_the_program(
    image_at, noise, above, capsys
):
    store = image_at("a.zarr", noise((200, 200)))
    chunk = store / "0" / "c" / "0" / "0" / "0"
    chunk.write_bytes(b"\x00" * 20)
    words = ["segment", str(store), "--segmenter", above, "--set", "tiling.core=64", "--dry-run"]
    assert command(words) == 0
    said = capsys.readouterr().out
    assert "unreadable" in said and "the run would set this image aside" in said
    memory = float(said.partition("memory      about ")[2].split()[0])
    assert memory > 100, "the program alone takes more than its arrays here"


def test_a_dry_run_refuses_a_held_output_and_foreign_tables_and_counts_what_is_left(
    plate_at, noise, above, run_job, capsys
):
    store = plate_at("p.zarr", {"A/1": [noise((40, 40), seed=1)], "A/2": [noise((40, 40), seed=2)]})
    words = ["segment", str(store), "--segmenter", above, "--name", "n"]
    with held(address(store), "another"):
        for more in ([], ["--dry-run"]):
            assert command([*words, *more]) == 1
            assert "run another" in capsys.readouterr().err
    write_table(address(store), "A/2/0", "n", pd.DataFrame({"label": [1]}))
    for more in ([], ["--dry-run"]):
        assert command([*words, *more]) == 1
        assert "a table 'n' is there already" in capsys.readouterr().err
    shutil.rmtree(store / "A/2/0/tables")
    run_job(store, segmenter=above, name="n")
    assert command([*words, "--dry-run"]) == 0
    assert "to do       0 of 2 image(s), 2 finished before" in capsys.readouterr().out


def test_a_dry_run_refuses_labels_of_other_work_as_the_run_does(image_at, noise, above, run_job, capsys):
    store = image_at("a.zarr", noise((60, 60)))
    run_job(store, segmenter=above, name="n", filters={"min_area": 3})
    words = ["segment", str(store), "--segmenter", above, "--name", "n"]
    for more in ([], ["--dry-run"]):
        assert command([*words, *more]) == 1
        assert "labels 'n' are there already" in capsys.readouterr().err
    assert command([*words, "--dry-run", "--overwrite"]) == 0
    assert command([*words, "--dry-run", "--set", "filters.min_area=3"]) == 0
