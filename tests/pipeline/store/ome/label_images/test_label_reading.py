"""Labels by other writers: unlisted, in stacks known by their names, with ids that break the law of stacks."""

import json

import numpy as np
import pytest

from pipeline.errors import BadStore
from pipeline.stack import check_stack
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.groups import write_group
from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.labels import list_labels, open_label, read_stack, stack_layers, write_stack
from pipeline.store.ome.table_listing import list_tables
from pipeline.store.places.address import address


@pytest.fixture
def place(tmp_path):
    made = address(tmp_path / "i.zarr")
    write_image(made, "", np.ones((1, 30, 40), "u1"))
    return made


def disks(*ids, dtype="u4", shape=(30, 40)):
    """One square of 4 px per id, side by side."""
    out = np.zeros(shape, dtype)
    for number, value in enumerate(ids):
        out[4:8, 1 + 5 * number : 5 + 5 * number] = value
    return out


def foreign(place, name, pixels, axes=("y", "x")):
    write_image(place, f"labels/{name}", pixels, axes=axes)


def test_labels_that_no_list_names_are_found(place):
    for name in ("truth", "mine"):
        foreign(place, name, disks(1, 2))
    write_group(place, "labels", {}, zarr_format=3)
    write_group(place, "labels/notes", {}, zarr_format=3)
    assert list_labels(place, "") == ["mine", "truth"]
    np.testing.assert_array_equal(read_stack(place, "", "truth")[0], disks(1, 2))


def test_labels_and_tables_that_were_deleted_are_gone(place):
    (image,) = open_collection(place).images
    for name in ("old", "new"):
        write_stack(place, image, disks(1)[None], name=name)
    place.remove("labels/old")
    write_group(place, "tables", {"tables": ["old"]}, zarr_format=3)
    assert list_labels(place, "") == ["new"] and list_tables(place, "") == []
    with pytest.raises(BadStore, match=r"label 'old' is listed, but there is no group.*other labels: new"):
        read_stack(place, "", "old")
    write_stack(place, image, disks(2)[None], name="old")
    assert read_stack(place, "", "old").max() == 2


@pytest.mark.parametrize(
    ("deeper", "ids"),
    [((5, 6), [1, 2, 5, 6]), ((1, 2), [1, 2, 3, 4])],
    ids=["ids of their own", "ids that begin again"],
)
def test_layers_of_others_are_a_stack(place, deeper, ids):
    foreign(place, "truth", disks(1, 2))
    foreign(place, "truth_layer1", disks(*deeper))
    assert stack_layers(place, "", "truth") == ["truth", "truth_layer1"]
    assert list_labels(place, "") == ["truth"]
    stack = check_stack(read_stack(place, "", "truth"))
    assert stack.shape == (2, 30, 40) and sorted(np.unique(stack[stack > 0])) == ids
    part = read_stack(place, "", "truth", region=(4, 8, 6, 10))
    np.testing.assert_array_equal(part, stack[:, 4:8, 6:10])


def test_our_stack_does_not_swallow_a_label_of_another_writer(place):
    (image,) = open_collection(place).images
    write_stack(place, image, disks(1)[None], name="truth")
    foreign(place, "truth_layer1", disks(9))
    assert stack_layers(place, "", "truth") == ["truth"]
    assert list_labels(place, "") == ["truth", "truth_layer1"]


def test_a_channel_axis_whose_ids_begin_again_is_a_stack(place):
    foreign(place, "both", np.stack([disks(1, 2, 3), disks(1, 0, 2)]), axes=("c", "y", "x"))
    stack = check_stack(read_stack(place, "", "both"))
    assert [sorted(np.unique(layer[layer > 0])) for layer in stack] == [[1, 2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("pixels", "ids"),
    [
        (disks(2**33, 7, 2**40, dtype="i8"), [2, 1, 3]),
        (disks(2**64 - 1, 2**63, dtype="u8"), [2, 1]),
        (disks(4, 9, dtype="f4"), [4, 9]),
        (disks(3, 3e12, dtype="f8"), [1, 2]),
        (disks(70000, 5, dtype="i4"), [70000, 5]),
    ],
)
def test_ids_that_do_not_fit_are_renumbered_and_others_kept(place, pixels, ids):
    foreign(place, "odd", pixels)
    np.testing.assert_array_equal(read_stack(place, "", "odd")[0], disks(*ids))
    np.testing.assert_array_equal(
        read_stack(place, "", "odd", region=(0, 9, 5, 20))[0], disks(*ids)[:9, 5:20]
    )


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (disks(-1, 2, dtype="i4"), "expected ids from 0, got -1"),
        (disks(-3, dtype="i8"), "expected ids from 0, got -3"),
        (disks(-2.0, dtype="f4"), "expected ids from 0"),
        (disks(0.5, dtype="f4"), "expected integer ids, got fractions"),
        (disks(np.nan, dtype="f4"), "expected integer ids"),
    ],
)
def test_negative_and_fractional_ids_are_refused(place, pixels, says):
    foreign(place, "odd", pixels)
    with pytest.raises(BadStore, match=says):
        read_stack(place, "", "odd")


def test_a_replaced_label_is_numbered_afresh(place):
    foreign(place, "odd", disks(2**33, 7, dtype="u8"))
    assert read_stack(place, "", "odd").max() == 2
    place.remove("labels/odd")
    foreign(place, "odd", disks(2**33, 7, 2**34, dtype="u8"))
    assert read_stack(place, "", "odd").max() == 3


def test_planes_of_a_label_are_projected(place):
    foreign(place, "deep", np.stack([disks(1, 0), disks(0, 2)]), axes=("z", "y", "x"))
    np.testing.assert_array_equal(read_stack(place, "", "deep", project=True)[0], disks(1, 2))
    assert open_label(place, "", "deep").projected("max").planes == [(0, 0)]


def test_labels_with_metadata_in_the_place_of_the_other_version_are_read(place):
    foreign(place, "top", disks(1, 2))
    document = json.loads(place.read_bytes("labels/top/zarr.json"))
    document["attributes"] = document["attributes"]["ome"]
    place.write_bytes("labels/top/zarr.json", json.dumps(document).encode())
    assert list_labels(place, "") == ["top"] and read_stack(place, "", "top").max() == 2
