"""Other formats through bioio, tried on OME-TIFF: scenes, axes, names, and pixel sizes in the unit of the file."""

import sys

import numpy as np
import pytest
import tifffile

from pipeline.datasets.files import bioimage
from pipeline.datasets.files.source_files import find_files
from pipeline.errors import BadArgument, BadStore

STACK = np.random.default_rng(0).integers(0, 60000, (2, 3, 40, 50), np.uint16)


def scenes(path):
    return bioimage.read(find_files(str(path))).fields


def assembled(scene):
    out = np.zeros(scene.shape, scene.dtype)
    for region, block in scene.blocks():
        out[region] = block
    return out


@pytest.fixture
def positions(tmp_path):
    """Write an OME-TIFF with a stack per name."""

    def save(*names, file="scan.ome.tif"):
        with tifffile.TiffWriter(tmp_path / file, ome=True) as out:
            for number, name in enumerate(names):
                out.write(STACK + number, metadata={
                    "axes": "CZYX", "Name": name, "Channel": {"Name": ["DAPI", "GFP"]},
                    "PhysicalSizeX": 650, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm",
                })  # fmt: skip
        return tmp_path / file

    return save


def test_scenes_are_images_with_their_names_axes_and_units(positions):
    first, second = scenes(positions("Pos 0", "Pos 1"))
    assert (first.path, second.path, second.title, second.well) == ("Pos_0", "Pos_1", "Pos 1", None)
    assert (first.axes, first.shape, first.channels) == ("czyx", (2, 3, 40, 50), ("DAPI", "GFP"))
    assert first.spacing_um == pytest.approx((0.5, 0.65))
    np.testing.assert_array_equal(assembled(second), STACK + 1)


def test_scenes_named_after_wells_are_fields(positions):
    found = {scene.path: scene.well for scene in scenes(positions("A1/Pos0", "A1/Pos1", "B12/Pos0"))}
    assert found == {"A/1/0": ("A", "1"), "A/1/1": ("A", "1"), "B/12/0": ("B", "12")}


def test_files_of_one_scene_are_named_after_the_files(positions, tmp_path):
    positions("x", file="left.ome.tif"), positions("x", file="right.ome.tif")
    assert [scene.path for scene in scenes(tmp_path / "*.tif")] == ["left", "right"]
    assert [scene.path for scene in scenes(tmp_path / "left.ome.tif")] == [""]


def test_one_plane_is_held_at_a_time(positions, monkeypatch):
    monkeypatch.setattr(bioimage, "STEP", 16)
    (scene,) = scenes(positions("x"))
    blocks = list(scene.blocks())
    assert len(blocks) == 2 * 3 * 3 and max(block.size for _, block in blocks) == 16 * 50
    assert bioimage._open(scene.file, 0).get_image_dask_data("YX", C=1, Z=2).chunks == ((40,), (50,))


def test_colour_and_no_pixel_size(tmp_path):
    colour = np.random.default_rng(1).integers(0, 255, (40, 50, 3), np.uint8)
    tifffile.imwrite(tmp_path / "rgb.ome.tif", colour, ome=True, photometric="rgb")
    (scene,) = scenes(tmp_path / "rgb.ome.tif")
    assert (scene.channels, scene.spacing_um) == (("red", "green", "blue"), None)
    np.testing.assert_array_equal(assembled(scene), np.moveaxis(colour, -1, 0))


def test_what_no_reader_reads_and_a_missing_package_are_said(tmp_path, monkeypatch):
    (tmp_path / "scan.czi").write_bytes(b"ZISRAWFILE")
    with pytest.raises(BadArgument, match=r"scan.czi: no installed reader.*install bioio-czi"):
        scenes(tmp_path / "scan.czi")
    (tmp_path / "scan.ome.tif").write_bytes(b"II*\0")
    with pytest.raises(BadStore, match="is it whole"):
        scenes(tmp_path / "scan.ome.tif")
    monkeypatch.setitem(sys.modules, "bioio", None)
    with pytest.raises(BadArgument, match=r"pip install 'platelayer\[formats\]'"):
        scenes(tmp_path / "scan.czi")


def test_pixels_that_cannot_be_read_are_a_bad_store(positions):
    path = positions("x")
    (scene,) = scenes(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadStore, match=r"scan\.ome\.tif"):
        assembled(scene)
