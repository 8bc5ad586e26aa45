"""Acquisitions of a plate and series of a converted file: chosen, or refused with a list of what there is."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import BadArgument
from pipeline.store.ome.collection import Image, open_collection
from pipeline.store.ome.image_writing import create_plate, create_series, write_image
from pipeline.store.ome.selection import select_images
from pipeline.store.places.address import address


@pytest.fixture
def cycles(tmp_path):
    """A plate of one well with two staining cycles of one field."""
    place = address(tmp_path / "p.zarr")
    channels = [("DAPI", "GFP"), ("DAPI", "Cy5")]
    for path, names in zip(create_plate(place, name="p", wells=[("A", "1", 2)]), channels):
        write_image(place, path, np.ones((2, 9, 8), "u1"), channels=names)
    plate, well = (json.loads(place.read_bytes(key)) for key in ("zarr.json", "A/1/zarr.json"))
    plate["attributes"]["ome"]["plate"]["acquisitions"] = [{"id": 3, "name": "first"}, {"id": 7}]
    for image, number in zip(well["attributes"]["ome"]["well"]["images"], (3, 7)):
        image["acquisition"] = number
    place.write_bytes("zarr.json", json.dumps(plate).encode())
    place.write_bytes("A/1/zarr.json", json.dumps(well).encode())
    return open_collection(place)


def paths(collection):
    return [image.path for image in collection.images]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"acquisition": "first"}, ["A/1/0"]),
        ({"acquisition": 7}, ["A/1/1"]),
        ({"acquisition": "7"}, ["A/1/1"]),
        ({"acquisition": "all"}, ["A/1/0", "A/1/1"]),
        ({"channels": ["Cy5"]}, ["A/1/0", "A/1/1"]),  # only one cycle has it, so nothing is counted twice
    ],
)
def test_an_acquisition_is_chosen_by_id_or_name(cycles, options, kept):
    assert paths(select_images(cycles, **options)) == kept
    assert [image.acquisition for image in cycles.images] == [3, 7]


@pytest.mark.parametrize("options", [{}, {"channels": ["DAPI"]}, {"acquisition": "second"}])
def test_what_there_is_is_said_where_a_choice_is_needed_or_wrong(cycles, options):
    with pytest.raises(BadArgument, match=r"3 'first' \(1 image\(s\), channels DAPI, GFP\); 7 \(1 image"):
        select_images(cycles, **options)


@pytest.fixture
def slide(tmp_path):
    place = address(tmp_path / "s.zarr")
    write_image(place, "0", np.ones((1, 90, 80), "u2"), channels=("DAPI",))
    write_image(place, "1", np.ones((3, 9, 8), "u1"))
    for path, name in (("0", "slide"), ("1", "label image")):
        document = json.loads(place.read_bytes(f"{path}/zarr.json"))
        document["attributes"]["ome"]["multiscales"][0]["name"] = name
        place.write_bytes(f"{path}/zarr.json", json.dumps(document).encode())
    create_series(place, ["0", "1"])
    return open_collection(place)


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"series": 0}, ["0"]),
        ({"series": "slide"}, ["0"]),
        ({"series": "label image"}, ["1"]),
        ({"series": "all"}, ["0", "1"]),
        ({"channels": ["DAPI"]}, ["0", "1"]),
    ],
)
def test_a_series_is_chosen_by_number_or_name(slide, options, kept):
    assert paths(select_images(slide, **options)) == kept


@pytest.mark.parametrize("options", [{}, {"series": "macro"}])
def test_the_series_are_listed_where_they_differ(slide, options):
    with pytest.raises(BadArgument, match=r"0 'slide' \(90 x 80 px, channels DAPI\); 1 'label image'"):
        select_images(slide, **options)


def test_positions_of_one_kind_need_no_choice(tmp_path):
    place = address(tmp_path / "s.zarr")
    for name in "01":
        write_image(place, name, np.ones((1, 9, 8), "u1"))
    create_series(place, ["0", "1"])
    assert paths(select_images(open_collection(place))) == ["0", "1"]


def test_a_single_image_has_no_series_to_choose(tmp_path):
    place = address(tmp_path / "s.zarr")
    write_image(place, "", np.ones((1, 9, 8), "u1"))
    with pytest.raises(BadArgument, match="no converted file of series"):
        select_images(open_collection(place), series=1)


def test_no_image_is_compared_with_all_others(tmp_path, monkeypatch):
    """Of a plate of thousands of images that would take most of the time of planning."""
    place, fields = address(tmp_path / "p.zarr"), 40
    (path, *_) = create_plate(place, name="p", wells=[("A", "1", 1)])
    write_image(place, path, np.ones((1, 9, 8), "u1"))
    first = open_collection(place)
    images = tuple(replace(first.images[0], path=f"A/1/{number}") for number in range(fields))
    compared = []
    monkeypatch.setattr(Image, "__eq__", lambda one, other: compared.append(one) or one is other)
    assert len(select_images(replace(first, images=images)).images) == fields
    assert len(compared) <= fields
