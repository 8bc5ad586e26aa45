"""Other formats through bioio, tried on OME-TIFF: scenes, axes, names, and pixel sizes in the unit of the file."""

import sys
import tracemalloc

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


def test_tiled_files_are_read_by_tiles_and_memory_stays_flat(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 60000, (4096, 6144), np.uint16)
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif", ome=True) as out:
        out.write(pixels, tile=(256, 256), compression="zlib", compressionargs={"level": 1})
    (scene,) = scenes(tmp_path / "slide.ome.tif")
    tracemalloc.start()
    parts = [(region, int(block.sum())) for region, block in scene.blocks()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.7 * pixels.nbytes  # two copies of a band of 1,024 rows
    assert all(total == pixels[region[1:]].sum() for region, total in parts)


def test_pieces_of_a_reader_are_read_one_by_one(positions, monkeypatch):
    """A reader that offers pieces of 16 x 16 px, as those of tiled formats do."""
    (scene,) = scenes(positions("x"))
    opened, asked = bioimage._open(scene.file, 0), []

    class Piecewise:
        dims = opened.dims

        def get_image_dask_data(self, order, **place):
            lazy = opened.get_image_dask_data(order, **place)
            return lazy.map_blocks(lambda block: asked.append(block.size) or block).rechunk((16, 16))

    monkeypatch.setattr(bioimage, "STEP", 16)
    monkeypatch.setattr(bioimage, "_open", lambda path, number: Piecewise())
    monkeypatch.setattr(bioimage.Scene, "_as_tiff", lambda self: None)
    blocks = list(scene.blocks())
    assert len(blocks) == 2 * 3 * 3 * 4 and max(block.size for _, block in blocks) == 16 * 16
    np.testing.assert_array_equal(assembled(scene), STACK)


def test_windows_begin_at_multiples_of_the_chunks_of_a_store():
    assert bioimage._windows((5000,)) == [slice(0, 5000)]
    assert bioimage._windows((512,) * 5) == [slice(0, 1024), slice(1024, 2048), slice(2048, 2560)]
    assert bioimage._windows((1500, 1500)) == [slice(0, 2048), slice(2048, 3000)]


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
