"""`platelayer evaluate` on stores: numbers, one-sided images, refusals, a baseline."""

import json

import numpy as np
import pandas as pd
import pytest

from flows.cli import run
from pipeline.store.address import address
from pipeline.store.images import open_collection
from pipeline.store.labels import write_stack


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


def test_a_baseline_stands_beside_the_run(plate, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    assert run(["evaluate", plate, "--report", str(before)]) == 0
    assert run(["evaluate", plate, "--report", str(after), "--baseline", str(before)]) == 0
    assert "before" in (after / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--truth-name", "nothing"], "no image has labels"),
        (["--baseline", "nowhere"], "folder of an evaluation"),
    ],
)
def test_what_is_not_there_is_told(plate, tmp_path, capsys, options, words):
    chosen = ["--prediction-name", "found", "--report", str(tmp_path / "e")]
    assert run(["evaluate", plate, *chosen, *options]) == 1
    assert words in capsys.readouterr().err
