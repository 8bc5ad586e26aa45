"""What a store holds is shown whatever is wrong with a part of it."""

import json

import numpy as np
import pytest

from flows.cli import run
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.groups import write_group
from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.labels import write_stack
from pipeline.store.places.address import address


@pytest.fixture
def plate(plate_at, noise):
    path = plate_at("p.zarr", {"A/1": [noise((30, 30))], "A/2": [noise((30, 30))]}, spacing_um=(0.5, 0.25))
    place = address(path)
    for image in open_collection(place).images:
        write_stack(place, image, np.ones((1, 30, 30), int), name="cells")
    return place


def an_array(place):
    place.remove("A/1/0/labels/cells")
    write_image(place, "A/1/0/labels/cells", np.ones((30, 30), "u4"), axes="yx")
    place.copy("A/1/0/labels/cells/0/zarr.json", "A/1/0/labels/cells/zarr.json")


def no_array(place):
    place.remove("A/1/0/labels/cells/0")


def no_multiscales(place):
    write_group(place, "A/1/0/labels/cells", {}, zarr_format=3)


def damaged(place):
    place.write_bytes("A/1/0/labels/cells/zarr.json", b"{not json")


def damaged_list(place):
    place.write_bytes("A/1/0/labels/zarr.json", b"{not json")


@pytest.mark.parametrize("damage", [an_array, no_array, no_multiscales, damaged, damaged_list])
def test_one_broken_label_is_named_and_hides_nothing(plate, damage, capsys):
    damage(plate)
    assert run(["inspect", plate.url]) == 3
    shown = capsys.readouterr().out
    assert "A/1/0" in shown and "A/2/0" in shown and "cells (1)" in shown
    assert "broken label" in shown and "/A/1/0" in shown.partition("broken label")[2]
    assert "0.5 x 0.25" in shown


def test_a_store_of_results_shows_labels_table_and_run(image_at, noise, run_job, bright, tmp_path, capsys):
    run_job(image_at("a.zarr", noise((60, 60))), segmenter=bright, name="n", output=str(tmp_path / "o.zarr"))
    assert run(["inspect", str(tmp_path / "o.zarr")]) == 0
    shown = capsys.readouterr().out
    assert "results without pixels" in shown and "n (2)" in shown and "complete" in shown


def test_a_run_without_results_yet_is_shown(tmp_path, capsys):
    place = address(tmp_path / "o.zarr")
    place.write_bytes(".platelayer/abc/job.json", json.dumps({"name": "n"}).encode())
    assert run(["inspect", place.url]) == 3
    assert "not finished" in capsys.readouterr().out
