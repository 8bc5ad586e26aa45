"""`platelayer evaluate` on stores: numbers, one-sided images, refusals, a baseline."""

import json

import numpy as np
import pandas as pd
import pytest
import zarr

from flows.cli import run
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import write_stack
from pipeline.store.places.address import address


def squares(*corners, shape=(64, 64)):
    """A stack of 12 px squares, one layer each."""
    stack = np.zeros((len(corners), *shape), np.uint32)
    for layer, (y, x) in enumerate(corners):
        stack[layer, y : y + 12, x : x + 12] = layer + 1
    return stack


@pytest.fixture
def plate(plate_at, noise):
    """Two overlapping objects in A/1, found; one in B/2, for which nothing was predicted."""
    store = plate_at("p.zarr", {"A/1": [noise((64, 64), seed=1)], "B/2": [noise((64, 64), seed=2)]})
    place = address(store)
    first, second = open_collection(place).images
    write_stack(place, first, squares((4, 4), (10, 10)), name="truth")
    write_stack(place, second, squares((30, 30)), name="truth")
    write_stack(place, first, squares((10, 10), (4, 4)), name="found")
    return str(store)


def test_overlaps_match_and_a_missing_prediction_counts_as_missed(plate, tmp_path, capsys):
    folder = tmp_path / "evaluation"
    assert run(["evaluate", plate, "--report", str(folder), "--markdown", "--csv"]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["AP"]["0.5"] == summary["AP"]["0.9"] == summary["meanAP"] == pytest.approx(2 / 3)
    assert summary["compared"]["without_prediction"] == ["B/2/0"]
    assert "without prediction: B/2/0" in capsys.readouterr().err
    assert sorted(pd.read_parquet(folder / "metrics.parquet")["n_truth"]) == [1, 2]
    assert "<html" in (folder / "report.html").read_text() and (folder / "report.md").exists()


def test_strict_refuses_a_missing_side(plate, tmp_path, capsys):
    assert run(["evaluate", plate, "--report", str(tmp_path / "e"), "--strict"]) == 1
    assert "B/2/0" in capsys.readouterr().err and not (tmp_path / "e").exists()


def test_a_baseline_stands_beside_the_run_with_the_difference(plate, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    assert run(["evaluate", plate, "--report", str(before)]) == 0
    place = address(plate)
    write_stack(place, open_collection(place).images[1], squares((30, 30)), name="found")
    assert run(["evaluate", plate, "--report", str(after), "--baseline", str(before), "--markdown"]) == 0
    found = json.loads((after / "summary.json").read_text())["differences"]["before"]
    assert found["images"] == 2
    assert found["scores"]["meanAP"]["difference"] == pytest.approx(1 / 3)
    # Two images are too few for an interval: it would be their smaller and larger value.
    assert [found["scores"]["meanAP"][end] for end in ("low", "high")] == [None, None]
    assert "| meanAP | 1.0000 | 0.6667 | 0.3333 | – | – |" in (after / "report.md").read_text()


def test_a_baseline_of_another_truth_is_refused(plate, tmp_path, capsys):
    before = tmp_path / "before"
    assert run(["evaluate", plate, "--report", str(before)]) == 0
    place = address(plate)
    write_stack(
        place, open_collection(place).images[1], squares((30, 30), (2, 2)), name="truth", overwrite=True
    )
    assert run(["evaluate", plate, "--report", str(tmp_path / "e"), "--baseline", str(before)]) == 1
    assert "B/2/0: the truth differs, 2 objects in this run and 1" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()


def test_numbers_by_condition(plate, tmp_path, capsys):
    folder, layout = tmp_path / "e", tmp_path / "map.csv"
    layout.write_text("Well;Compound\na1;DMSO\nB02;drug\nC3;drug\n")
    words = ["evaluate", plate, "--report", str(folder), "--layout", str(layout), "--csv"]
    assert run([*words, "--condition-column", "compound"]) == 0
    assert "unknown places: C03" in capsys.readouterr().err
    conditions = json.loads((folder / "summary.json").read_text())["conditions"]
    assert {name: numbers["meanAP"] for name, numbers in conditions.items()} == {"DMSO": 1, "drug": 0}
    assert conditions["drug"]["errors"]["truth"]["missed"] == 1
    assert pd.read_parquet(folder / "metrics_by_condition.parquet")["condition"].tolist() == ["DMSO", "drug"]
    assert pd.read_csv(folder / "by_condition.csv")["meanAP"].tolist() == [1, 0]
    assert run([*words, "--condition-column", "compound", "--strict"]) == 1
    assert "unknown places: C03" in capsys.readouterr().err


def test_plates_of_a_folder_have_their_own_wells(plate_at, noise, tmp_path):
    for number, name in enumerate(("folder/one.zarr", "folder/two.zarr")):
        place = address(plate_at(name, {"A/1": [noise((64, 64), seed=number)]}))
        (image,) = open_collection(place).images
        write_stack(place, image, squares((4, 4)), name="truth")
        write_stack(place, image, squares((4 + 30 * number, 4)), name="found")
    (tmp_path / "map.csv").write_text("plate,well,condition\none,A1,5\ntwo.zarr,A1,10\n")
    words = ["evaluate", str(tmp_path / "folder"), "--report", str(tmp_path / "e")]
    assert run([*words, "--layout", str(tmp_path / "map.csv"), "--strict"]) == 0
    table = pd.read_parquet(tmp_path / "e" / "metrics_by_condition.parquet")
    assert dict(zip(table["condition"], table["meanAP"])) == {"5": 1, "10": 0}
    assert table["condition"].tolist() == ["5", "10"]
    wells = pd.read_parquet(tmp_path / "e" / "metrics_by_well.parquet")
    assert wells["well"].tolist() == ["one A01", "two A01"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--truth-name", "nothing"], "no image has labels"),
        (["--baseline", "nowhere"], "folder of an evaluation"),
        (["--layout", "nowhere.csv"], "no such file"),
    ],
)
def test_what_is_not_there_is_told(plate, tmp_path, capsys, options, words):
    chosen = ["--prediction-name", "found", "--report", str(tmp_path / "e")]
    assert run(["evaluate", plate, *chosen, *options]) == 1
    assert words in capsys.readouterr().err


def test_labels_that_cannot_be_compared_are_named(plate, tmp_path, capsys):
    words = ["evaluate", plate, "--prediction-name", "found", "--report", str(tmp_path / "e")]
    level = zarr.open_group(f"{plate}/A/1/0/labels/found", mode="r+")["0"]
    good = level[:]
    level[4:16, 4:16] = 2  # id 2 lies on the next layer too
    assert run(words) == 1
    assert "A/1/0: prediction: an id must live in one layer only, but id 2" in capsys.readouterr().err
    for wrong, told in ((good + np.float32(0.5), "fractions"), (good.astype(np.int64) - 1, "got -1")):
        zarr.create_array(f"{plate}/A/1/0/labels/found/0", data=wrong, overwrite=True)
        assert run(words) == 1
        assert told in capsys.readouterr().err


def test_shapes_that_differ_are_both_named(plate_at, noise, tmp_path, capsys):
    for name, shape in (("truth", (64, 64)), ("found", (60, 64))):
        place = address(plate_at(f"{name}.zarr", {"A/1": [noise(shape, seed=1)]}))
        write_stack(place, open_collection(place).images[0], squares((4, 4), shape=shape), name=name)
    sides = [str(tmp_path / "found.zarr"), "--truth", str(tmp_path / "truth.zarr")]
    assert run(["evaluate", *sides, "--report", str(tmp_path / "e")]) == 1
    told = capsys.readouterr().err
    assert "A/1/0: expected labels of one shape, got truth (64, 64) and prediction (60, 64)" in told


def test_a_store_without_truth_is_told_about_its_truth(plate, tmp_path, capsys):
    words = ["evaluate", plate, "--truth-name", "gold", "--report", str(tmp_path / "e")]
    assert run(words) == 1
    said = capsys.readouterr().err
    assert "no image has labels 'gold'" in said and "truth" in said and "--truth-name" in said
    assert not (tmp_path / "e").exists()


def test_the_page_says_which_labels_were_scored_and_by_which_code(plate, tmp_path):
    assert run(["evaluate", plate, "--report", str(tmp_path / "e"), "--markdown"]) == 0
    text = (tmp_path / "e/report.md").read_text().replace("\\", "")
    assert f"- Scored labels: found in {plate}" in text and "- Truth: truth in" in text
    assert "- Run: not recorded in the store of the labels" in text and "- Code: platelayer 0" in text
