"""`platelayer evaluate A B C`: several predictions on one page, by label name and by store."""

import json

import numpy as np
import pandas as pd
import pytest

from flows.cli import run
from flows.evaluation.side_by_side import Prediction, page_names, predictions_of
from pipeline.errors import BadArgument
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import write_stack
from pipeline.store.places.address import address

CORNERS = [(4, 4), (30, 30), (4, 40)]


def squares(corners, *, side=12):
    stack = np.zeros((1, 64, 64), np.uint32)
    for number, (y, x) in enumerate(corners, start=1):
        stack[0, y : y + side, x : x + side] = number
    return stack


@pytest.fixture
def plate(plate_at, noise):
    """Six images with three objects each: found by `exact`, found but for one by `lacking`, found small by `small`."""
    wells = [f"A/{column}" for column in range(1, 7)]
    store = plate_at("p.zarr", {well: [noise((64, 64), seed=at)] for at, well in enumerate(wells)})
    place = address(store)
    for number, image in enumerate(open_collection(place).images):
        write_stack(place, image, squares(CORNERS), name="truth")
        write_stack(place, image, squares(CORNERS), name="exact")
        write_stack(place, image, squares(CORNERS[: 2 + number % 2]), name="lacking")
        write_stack(place, image, squares(CORNERS, side=9), name="small")
    return str(store)


def test_labels_of_a_store_stand_side_by_side(plate, tmp_path, capsys):
    folder = tmp_path / "report"
    words = ["evaluate", plate, "exact", "lacking", "small", "--report", str(folder), "--csv", "--markdown"]
    assert run(words) == 0
    told = capsys.readouterr().out
    assert told.count("meanAP") == 3 and f"side by side: {folder / 'report.html'}" in told
    table = pd.read_csv(folder / "side_by_side.csv").set_index("prediction")
    assert table.index.tolist() == ["exact", "lacking", "small"]
    assert table.loc["exact", "meanAP"] == 1 and table.loc["lacking", "meanAP"] == pytest.approx(15 / 18)
    assert table.loc["small", "AP.5"] == 1 and table.loc["small", "AP.6"] == 0  # IoU 81 / 144
    for name, mean in table["meanAP"].items():
        assert json.loads((folder / name / "summary.json").read_text())["meanAP"] == pytest.approx(mean)
    page = (folder / "report.html").read_text()
    assert page.count("<figure id=") == 18 and 'href="lacking/report.html"' in page
    assert page.count('"name":"lacking"') == 1, "one line per prediction in the chart"


def test_every_two_are_compared_on_the_same_images_with_an_interval(plate, tmp_path):
    words = ["evaluate", plate, "small", "exact", "lacking", "--report", str(tmp_path / "r"), "--csv"]
    assert run(words) == 0
    table = pd.read_csv(tmp_path / "r/paired_differences.csv")
    pairs = list(zip(table["better"], table["worse"]))
    assert pairs == [("exact", "small"), ("lacking", "small"), ("exact", "lacking")]
    row = table.iloc[2]
    assert row["meanAP"] == pytest.approx(3 / 18) and row["images"] == 6
    assert 0 <= row["from"] < row["meanAP"] < row["to"]
    # Every second image lacks nothing; the images that differ most come first.
    images = pd.read_csv(tmp_path / "r/side_by_side_images.csv").set_index("image")
    assert images["lacking"].tolist() == pytest.approx([2 / 3, 1] * 3)


def test_stores_stand_side_by_side_against_one_truth(plate, plate_at, noise, tmp_path):
    stores = []
    for name in ("one", "two"):
        place = address(plate_at(f"{name}.zarr", {"A/1": [noise((64, 64), seed=0)]}))
        write_stack(place, open_collection(place).images[0], squares(CORNERS), name="cells")
        stores.append(str(tmp_path / f"{name}.zarr"))
    words = ["evaluate", *stores, "--truth", plate, "--report", str(tmp_path / "r"), "--csv"]
    assert run(words) == 0
    table = pd.read_csv(tmp_path / "r/side_by_side.csv")
    assert table["prediction"].tolist() == ["one", "two"]
    assert table["meanAP"].tolist() == pytest.approx([3 / 18] * 2), (
        "images without a prediction count as missed"
    )


def test_a_prediction_that_is_not_there_leaves_no_page(plate, tmp_path, capsys):
    assert run(["evaluate", plate, "exact", "nothing", "--report", str(tmp_path / "r")]) == 1
    assert "'nothing'" in capsys.readouterr().err and not (tmp_path / "r/report.html").exists()


def test_words_are_stores_followed_by_names_of_labels():
    assert predictions_of(["a.zarr", "x", "y", "b/c"], label="z") == [
        Prediction(place="a.zarr", label="x"),
        Prediction(place="a.zarr", label="y"),
        Prediction(place="b/c", label="z"),
    ]
    with pytest.raises(BadArgument, match=r"got 'a.zarr x' twice"):
        predictions_of(["a.zarr", "x", "x"])


def test_predictions_are_named_by_what_tells_them_apart():
    a, b = Prediction(place="d/a.zarr", label="x"), Prediction(place="d/b.zarr", label="x")
    assert page_names([a, b]) == ["a", "b"]
    assert page_names([a, Prediction(place="d/a.zarr", label="y")]) == ["x", "y"]
    both = [a, b, Prediction(place="d/a.zarr", label="y")]
    assert page_names(both) == ["a x", "b x", "a y"]
    with pytest.raises(BadArgument, match="different names"):
        page_names([a, Prediction(place="e/a.zarr", label="x")])
