"""Images inside TIFF files: axes, names and pixel sizes from metadata only, pixels in blocks and in flat memory."""

import tracemalloc

import numpy as np
import pytest
import tifffile

from pipeline.datasets.files import tiff
from pipeline.datasets.files.source_files import SourceFile
from pipeline.datasets.files.tiff import look_into
from pipeline.errors import BadArgument, BadStore

NOISE = np.random.default_rng(0).integers(0, 60000, (70, 90), np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 255, (70, 90, 3), np.uint8)
OME_SET = (
    """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{images}</OME>"""
)
OME_IMAGE = """<Image ID="Image:{n}" Name="Pos{n}"><Pixels ID="Pixels:{n}" DimensionOrder="XYZCT" Type="uint16"
 SizeX="90" SizeY="70" SizeC="1" SizeZ="{z}" SizeT="1" PhysicalSizeX="0.{n}5" PhysicalSizeY="0.{n}5">
 <Channel ID="Channel:{n}:0" Name="dye{n}" SamplesPerPixel="1"/>
 <TiffData FirstC="0" FirstZ="0" FirstT="0" IFD="0" PlaneCount="{z}"><UUID FileName="f{n}.ome.tif">urn:uuid:{n}</UUID>
 </TiffData></Pixels></Image>"""


def source(path):
    return SourceFile(place=str(path), relative=path.name)


@pytest.fixture
def saved(tmp_path):
    """Write an array as TIFF and look into the file."""

    def save(array, name="a.tif", pages=None, **options):
        tifffile.imwrite(tmp_path / name, array, **options)
        return look_into(source(tmp_path / name), pages=pages)

    return save


def assembled(image):
    out = np.zeros(image.shape, image.dtype)
    for region, block in image.blocks():
        out[region] = block
    return out


@pytest.mark.parametrize(
    "options",
    [
        {}, {"byteorder": ">"}, {"compression": "zlib", "rowsperstrip": 7}, {"compression": "lzw"},
        {"tile": (16, 32), "compression": "zlib", "predictor": True}, {"tile": (16, 32)}, {"bigtiff": True},
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [32, 1024])
def test_blocks_are_the_pixels_however_they_are_stored(saved, monkeypatch, options, step):
    monkeypatch.setattr(tiff, "STEP", step)
    monkeypatch.setattr(tiff, "BLOCK_BYTES", 32 * 64 * 2)
    (image,) = saved(NOISE, **options).images
    np.testing.assert_array_equal(assembled(image)[0, 0, 0], NOISE)
    assert all(part.start % step == 0 for region, _ in image.blocks() for part in region[-2:])


@pytest.mark.parametrize(
    ("array", "options"),
    [
        (COLOUR, {"photometric": "rgb"}),
        (COLOUR, {"photometric": "rgb", "tile": (16, 32)}),
        (np.moveaxis(COLOUR, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
    ],
)
def test_colour_is_three_channels(saved, monkeypatch, array, options):
    monkeypatch.setattr(tiff, "STEP", 32)
    monkeypatch.setattr(tiff, "BLOCK_BYTES", 32 * 32 * 3)
    (image,) = saved(array, **options).images
    assert image.shape == (1, 3, 1, 70, 90)
    np.testing.assert_array_equal(assembled(image)[0, :, 0], np.moveaxis(COLOUR, -1, 0))


def test_axes_come_in_any_order(saved):
    stack = np.arange(3 * 2 * 5 * 6, dtype=np.uint16).reshape(3, 2, 5, 6)
    (image,) = saved(stack, imagej=True, metadata={"axes": "ZCYX"}).images
    np.testing.assert_array_equal(assembled(image)[0], stack.swapaxes(0, 1))
    (image,) = saved(stack, ome=True, metadata={"axes": "TCYX"}).images
    np.testing.assert_array_equal(assembled(image)[:, :, 0], stack)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imagej": True}, None),
        ({"imagej": True, "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True, "metadata": {"unit": ""}}, None),
        ({"imagej": True, "metadata": {"unit": "um"}, "resolution": (2.0, 4.0)}, (0.25, 0.5)),
        ({"imagej": True, "metadata": {"unit": "cm"}, "resolution": (2e4, 2e4)}, (0.5, 0.5)),
        ({"resolution": (72.0, 72.0), "resolutionunit": "INCH"}, None),
        ({"resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}, None),
        ({"ome": True}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.65, "PhysicalSizeY": 0.5}}, (0.5, 0.65)),
        ({"ome": True, "metadata": {"PhysicalSizeX": 650.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5}},
         (0.5, 0.65)),
        ({"ome": True, "metadata": {"PhysicalSizeX": 1.0, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 1.0}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.0, "PhysicalSizeY": 0.0}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.5}}, None),
        ({"description": "Aperio Image Library v1|AppMag = 20|MPP = 0.4990", "metadata": None}, (0.499, 0.499)),
    ],
)  # fmt: skip
def test_a_pixel_size_is_never_invented(saved, options, expected):
    (image,) = saved(NOISE, **options).images
    assert image.spacing_um == (pytest.approx(expected) if expected else None)


def test_every_position_is_an_image_and_the_label_of_a_slide_is_none(tmp_path):
    with tifffile.TiffWriter(tmp_path / "s.ome.tif", ome=True) as file:
        for number, name in enumerate(("left", "right", "label image", "macro image")):
            file.write(NOISE + number, metadata={"axes": "YX", "Name": name})
    found = look_into(source(tmp_path / "s.ome.tif"))
    assert [image.metadata.name for image in found.images] == ["left", "right"] and found.overviews == 2
    np.testing.assert_array_equal(assembled(found.images[1])[0, 0, 0], NOISE + 1)


def test_levels_of_a_pyramid_are_one_image(tmp_path):
    with tifffile.TiffWriter(tmp_path / "p.tif") as file:
        file.write(NOISE, subifds=1, tile=(16, 16), compression="zlib")
        file.write(NOISE[::2, ::2], subfiletype=1, tile=(16, 16), compression="zlib")
    (image,) = look_into(source(tmp_path / "p.tif")).images
    np.testing.assert_array_equal(assembled(image)[0, 0, 0], NOISE)


def test_images_of_several_sizes_without_metadata(tmp_path):
    for name, shapes in (
        ("overview", [(70, 90), (30, 45), (9, 12)]),
        ("three", [(70, 90), (90, 70), (9, 12)]),
    ):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as file:
            for shape in shapes:
                file.write(np.zeros(shape, np.uint8), metadata=None)
    assert look_into(source(tmp_path / "overview.tif")).overviews == 2
    with pytest.raises(BadArgument, match=r"three.tif: 3 images of different sizes.*\(70, 90\), \(90, 70\)"):
        look_into(source(tmp_path / "three.tif"))


@pytest.mark.parametrize("planes", [1, 3])
def test_a_file_of_a_set_is_read_by_its_own_part_of_the_metadata(tmp_path, planes):
    images = "".join(OME_IMAGE.format(n=n, z=planes) for n in range(3))
    for n in range(3):
        stack = np.stack([NOISE + 10 * n + z for z in range(planes)])
        description = OME_SET.format(images=images)
        tifffile.imwrite(
            tmp_path / f"f{n}.ome.tif",
            stack,
            description=description,
            metadata=None,
            photometric="minisblack",
        )
    for n in range(3):
        (image,) = look_into(source(tmp_path / f"f{n}.ome.tif")).images
        assert image.spacing_um == pytest.approx((0.1 * n + 0.05,) * 2) and image.channels == (f"dye{n}",)
        assert image.shape == (1, 1, planes, 70, 90)
        np.testing.assert_array_equal(
            assembled(image)[0, 0, :, 5, 5], NOISE[5, 5] + 10 * n + np.arange(planes)
        )


def test_headers_are_read_and_pixels_are_not(saved, monkeypatch):
    monkeypatch.setattr(tiff, "open_pixels", None)
    assert saved(NOISE).images[0].shape == (1, 1, 1, 70, 90)


@pytest.mark.parametrize("options", [{}, {"tile": (64, 64)}, {"tile": (64, 64), "compression": "zlib"}])
def test_a_file_that_ends_early_is_refused(tmp_path, options):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 9, (400, 400), np.uint16), **options)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(BadStore, match=r"a\.tif"):
        for image in look_into(source(path)).images:
            assembled(image)


@pytest.mark.parametrize("options", [{}, {"tile": (256, 256), "compression": "zlib"}])
def test_memory_does_not_grow_with_the_image(tmp_path, monkeypatch, options):
    """Copying 32 MiB in blocks of 1 MiB holds a few of them."""
    monkeypatch.setattr(tiff, "STEP", 256)
    monkeypatch.setattr(tiff, "BLOCK_BYTES", 2**20)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.zeros((4096, 4096), np.uint16), **options)
    (image,) = look_into(source(path)).images
    tracemalloc.start()
    try:
        assert sum(block.nbytes for _, block in image.blocks()) == 2**25
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
