"""Copying images into a new store: what is listed, what is left out, and what remains when copying fails."""

import numpy as np
import pytest
import tifffile

from flows.ingest.files import Understood, copy_images
from flows.ingest.new_store import UNFINISHED, new_store
from pipeline.datasets.files import folder
from pipeline.errors import BadArgument, BadStore, RunConflict
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.groups import find_group
from pipeline.store.places.address import address


@pytest.fixture
def plate(tmp_path):
    """Two wells with two fields each, and the fields 1 and 3 in the second."""
    for well, fields in (("A01", (1, 2)), ("B12", (1, 3))):
        for field in fields:
            path = tmp_path / "scan" / f"exp_{well}_s{field}.ome.tif"
            path.parent.mkdir(exist_ok=True)
            pixels = np.full((1030, 40), int(well[1:]) * 10 + field, np.uint16)
            metadata = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
            tifffile.imwrite(path, pixels, ome=True, metadata=metadata, compression="zlib")
    return tmp_path / "scan"


def understood(source, **options):
    scan = folder.read(source, **options)
    return Understood(images=scan.fields, left_out=scan.left_out, origin={"files": scan.files})


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_a_plate_keeps_the_numbers_of_its_fields(plate, tmp_path, ngff):
    made = copy_images(understood(plate), str(tmp_path / "p.zarr"), ngff=ngff)
    assert (made.images, made.total) == (4, 4)
    images = open_collection(address(tmp_path / "p.zarr")).images
    found = {
        (image.path, image.field): int(image.read((0, 0), (0,), 1020, 1030, 0, 40).max()) for image in images
    }
    assert found == {("A/1/1", "1"): 11, ("A/1/2", "2"): 12, ("B/12/1", "1"): 121, ("B/12/3", "3"): 123}
    assert {image.spacing_um for image in images} == {(0.5, 0.5)}
    record = find_group(address(tmp_path / "p.zarr")).attributes["platelayer"]["ingest"]
    assert record == {"files": 4, "images": 4, "left_out": {}}


def test_pixels_that_cannot_be_read_leave_their_field_out_or_stop(plate, tmp_path):
    found = understood(plate)
    broken = plate / "exp_A01_s2.ome.tif"
    broken.write_bytes(broken.read_bytes()[:250])
    made = copy_images(found, str(tmp_path / "p.zarr"))
    assert list(made.left_out) == ["A/1/2"] and made.images == 3
    collection = open_collection(address(tmp_path / "p.zarr"))
    assert collection.missing == () and "A/1/2" not in [image.path for image in collection.images]
    assert not (tmp_path / "p.zarr/A/1/2").exists()
    with pytest.raises(BadStore, match="exp_A01_s2"):
        copy_images(found, str(tmp_path / "q.zarr"), stop=True)
    assert not (tmp_path / "q.zarr").exists()


def test_a_collection_and_a_single_image(tmp_path):
    for name in ("cells_001", "cells_002"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.full((30, 40), 7, np.uint8))
    copy_images(understood(tmp_path), str(tmp_path / "c.zarr"))
    found = open_collection(address(tmp_path / "c.zarr")).images
    assert [(image.path, image.name) for image in found] == [
        ("cells_001", "cells_001"),
        ("cells_002", "cells_002"),
    ]
    copy_images(understood(tmp_path / "cells_001.tif"), str(tmp_path / "one.zarr"), spacing_um=0.25)
    (only,) = open_collection(address(tmp_path / "one.zarr")).images
    assert (only.path, only.spacing_um, only.name) == ("", (0.25, 0.25), "one")
    assert find_group(address(tmp_path / "one.zarr")).attributes["platelayer"]["ingest"]["images"] == 1


def test_the_position_of_a_field_is_where_its_first_pixel_lies(plate, tmp_path):
    from dataclasses import replace

    found = understood(plate)
    moved = [replace(image, position_um=(-200.0, 150.0)) for image in found.images]
    copy_images(Understood(images=moved, left_out={}), str(tmp_path / "p.zarr"))
    place = address(tmp_path / "p.zarr")
    first = open_collection(place).images[0]
    assert first.translation == (0.0, -200.0, 150.0)
    attributes = find_group(place, first.path).attributes["platelayer"]
    assert attributes == {"position_um": {"y": -200.0, "x": 150.0}, "chunks": "all"}


def test_a_store_that_was_not_finished_is_made_anew(plate, tmp_path):
    target = tmp_path / "p.zarr"
    with pytest.raises(KeyboardInterrupt), new_store(str(target)) as place:
        place.write_bytes("A/zarr.json", b"{}")
        raise KeyboardInterrupt
    assert not target.exists()
    address(target).write_bytes(UNFINISHED, b"")
    address(target).write_bytes("Z/zarr.json", b"{}")
    copy_images(understood(plate), str(target))
    assert not (target / "Z").exists() and not (target / ".platelayer").exists()
    with pytest.raises(RunConflict, match="something already"):
        copy_images(understood(plate), str(target))


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_is_a_positive_number(plate, tmp_path, size):
    with pytest.raises(BadArgument, match="--pixel-size-um: expected a positive number"):
        copy_images(understood(plate), str(tmp_path / "p.zarr"), spacing_um=size)


def test_a_plate_in_a_bucket_is_read_by_ranges_and_written_there(plate, cloud):
    place, _ = cloud
    for file in plate.iterdir():
        place.write_bytes(f"scan/{file.name}", file.read_bytes())
    found = understood(f"{place}/scan")
    assert len(found.images) == 4
    copy_images(found, f"{place}/out.zarr")
    assert len(open_collection(place.child("out.zarr")).images) == 4
    assert len(understood(f"{place}/scan/exp_A01_*.tif").images) == 2
    (only,) = understood(f"{place}/scan/exp_A01_s2.ome.tif").images
    assert only.path == "" and int(only.load().max()) == 12
    with pytest.raises(BadStore, match="found none"):
        understood(f"{place}/elsewhere/*.tif")
