"""Folders of TIFF files: places from names, axes from metadata, and refusal of what is ambiguous."""

import numpy as np
import pytest
import tifffile

from pipeline.datasets.files import folder
from pipeline.errors import BadArgument, BadStore


def plane(value, shape=(6, 7), dtype=np.uint16):
    return np.full(shape, value, dtype)


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **options)


def read(source, **options):
    return folder.read(source, **options).fields


def wells(fields):
    return [("".join(field.well), field.path.rpartition("/")[2], field.channels) for field in fields]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            [
                "plate_B02_s1_w1B71AE91C-75E6.tif",
                "plate_B02_s1_w294C24BD4-45E4.tif",
                "plate_B02_s10_w100C24BD4-45E4.tif",
                "plate_B02_s10_w2F0C24BD4-45E4.tif",
            ],
            [("B2", "1", ("w1", "w2")), ("B2", "10", ("w1", "w2"))],
        ),
        (
            [
                "1649_1109_0003_Amp5-1_B_20070424_A01_w2_15ADF48D.tif",
                "1649_1109_0003_Amp5-1_B_20070424_A11_w2_15ADF48E.tif",
            ],
            [("A1", "0", ("w2",)), ("A11", "0", ("w2",))],
        ),
        (["A01_s1_w2.tif", "A02_s1_w2.tif"], [("A1", "1", ("w2",)), ("A2", "1", ("w2",))]),
        (["r01c02f03-ch1.tif", "r27c02f03-ch1.tif"], [("A2", "3", ("ch1",)), ("AA2", "3", ("ch1",))]),
        (["r01c01f01p01-ch1sk1fk1fl1.tiff", "r01c01f01p01-ch2sk1fk1fl1.tiff"], [("A1", "1", ("ch1", "ch2"))]),
        (
            ["X_C04_T0001F002L01A01Z01C01.tif", "X_C04_T0001F002L01A02Z01C02.tif"],
            [("C4", "2", ("C01", "C02"))],
        ),
        (["exp_A01_field3_DAPI.tif", "exp_A01_field3_GFP.tif"], [("A1", "3", ("DAPI", "GFP"))]),
        (["exp_A01_f12.tif", "exp_A01_f2.tif"], [("A1", "2", ("image",)), ("A1", "12", ("image",))]),
        (["exp_A01_DAPI.tif", "exp_A01_GFP.tif"], [("A1", "0", ("DAPI", "GFP"))]),
        (["run A01 x y.tif", "run B01 x y.tif"], [("A1", "0", ("image",)), ("B1", "0", ("image",))]),
        (
            ["A01.TIF", "H12.tif", "B03.tif"],
            [("A1", "0", ("image",)), ("B3", "0", ("image",)), ("H12", "0", ("image",))],
        ),
    ],
)
def test_common_names_are_understood(tmp_path, files, expected):
    for name in files:
        write(tmp_path / name, plane(1))
    assert wells(read(tmp_path)) == expected


def test_pixels_arrive_at_their_place(tmp_path):
    for well, base in (("A01", 10), ("B03", 20)):
        for channel in (1, 2, 10):
            write(tmp_path / f"p_{well}_ch{channel}.tif", plane(base + channel))
    first, second = read(f"{tmp_path}/*.tif")
    assert (first.axes, first.shape, first.dtype) == ("cyx", (3, 6, 7), np.uint16)
    assert second.channels == ("ch1", "ch2", "ch10")
    np.testing.assert_array_equal(second.load()[:, 0, 0], [21, 22, 30])
    assert first.path == "A/1/0"


def test_time_and_depth_from_names(tmp_path):
    for t in (1, 2):
        for z in (3, 5, 9):
            write(tmp_path / f"X_C04_T{t:04d}F001L01A01Z{z:02d}C01.tif", plane(10 * t + z))
    (only,) = read(tmp_path)
    assert (only.axes, only.shape) == ("tczyx", (2, 1, 3, 6, 7))
    np.testing.assert_array_equal(only.load()[:, 0, :, 0, 0], [[13, 15, 19], [23, 25, 29]])


def test_own_pattern_on_names_and_on_paths(tmp_path):
    write(tmp_path / "well-3-2" / "image.tif", plane(4))
    pattern = r"well-(?P<row>\d+)-(?P<column>\d+)/image"
    (only,) = read(f"{tmp_path}/**/*.tif", pattern=pattern)
    assert only.well == ("C", "2")
    with pytest.raises(BadArgument, match=r"image\.tif"):
        read(f"{tmp_path}/**/*.tif", pattern=r"well-(?P<row>\d+)-(?P<column>\d+)")


def test_channels_can_be_renamed(tmp_path):
    for channel in ("w1", "w2"):
        write(tmp_path / f"A01_{channel}.tif", plane(1))
    (only,) = read(tmp_path, channel_names={"w1": "GFP"})
    assert only.channels == ("GFP", "w2")


def test_ome_metadata_names_axes_channels_and_spacing(tmp_path):
    data = np.arange(2 * 3 * 6 * 7, dtype=np.uint16).reshape(2, 3, 6, 7)
    metadata = {
        "axes": "CZYX",
        "Channel": {"Name": ["DAPI", "GFP"]},
        "PhysicalSizeX": 650.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
    }
    write(tmp_path / "plate_B04.ome.tif", data, metadata=metadata)
    (only,) = read(tmp_path)
    assert (only.axes, only.shape, only.channels) == ("czyx", (2, 3, 6, 7), ("DAPI", "GFP"))
    assert only.spacing_um == pytest.approx((0.5, 0.65))
    np.testing.assert_array_equal(only.load(), data)


def test_imagej_metadata_names_axes_and_spacing(tmp_path):
    data = np.arange(3 * 2 * 6 * 7, dtype=np.uint16).reshape(3, 2, 6, 7)
    write(
        tmp_path / "A02.tif",
        data,
        imagej=True,
        metadata={"axes": "ZCYX", "unit": "um"},
        resolution=(2.0, 4.0),
    )
    (only,) = read(tmp_path)
    assert (only.axes, only.channels, only.spacing_um) == ("czyx", ("channel0", "channel1"), (0.25, 0.5))
    np.testing.assert_array_equal(only.load(), data.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("pages", "axes", "shape"),
    [("z", "czyx", (1, 4, 6, 7)), ("t", "tcyx", (4, 1, 6, 7)), ("c", "cyx", (4, 6, 7))],
)
def test_pages_without_metadata_are_what_the_caller_says(tmp_path, pages, axes, shape):
    for page in range(4):
        write(tmp_path / "A01.tif", plane(page), append=page > 0, metadata=None)
    (only,) = read(tmp_path, pages=pages)
    assert (only.axes, only.shape) == (axes, shape)
    np.testing.assert_array_equal(only.load().reshape(4, -1)[:, 0], range(4))
    with pytest.raises(BadArgument, match=r"A01\.tif: 4 pages"):
        read(tmp_path)
    with pytest.raises(BadArgument, match="'q'"):
        read(tmp_path, pages="q")


def test_colour_becomes_three_channels(tmp_path):
    data = np.arange(6 * 7 * 3, dtype=np.uint8).reshape(6, 7, 3)
    write(tmp_path / "A01.tif", data, photometric="rgb")
    (only,) = read(tmp_path)
    assert (only.axes, only.channels) == ("cyx", ("red", "green", "blue"))
    np.testing.assert_array_equal(only.load(), np.moveaxis(data, -1, 0))


def test_thumbnails_and_hidden_files_are_left_out(tmp_path):
    write(tmp_path / "A01_w1.tif", plane(1))
    write(tmp_path / "A01_w1_thumb12.tif", plane(1, (2, 2)))
    (tmp_path / "._A01_w1.tif").write_bytes(b"macOS")
    (tmp_path / "notes.txt").write_text("x")
    assert wells(read(tmp_path)) == [("A1", "0", ("w1",))]


@pytest.mark.parametrize("other", [plane(1, (6, 8)), plane(1, dtype=np.uint8)])
def test_files_of_a_field_that_differ_are_refused(tmp_path, other):
    write(tmp_path / "A01_w1.tif", plane(1))
    write(tmp_path / "A01_w2.tif", other)
    with pytest.raises(BadArgument, match=r"A/1/0.*A01_w1.tif.*A01_w2.tif"):
        read(tmp_path)


def test_fields_may_differ_from_one_another(tmp_path):
    write(tmp_path / "A01_w1.tif", plane(1))
    write(tmp_path / "A02_w1.tif", plane(1, (3, 3)))
    assert [field.shape for field in read(tmp_path)] == [(1, 6, 7), (1, 3, 3)]


@pytest.fixture
def lacking(tmp_path):
    """Two wells with two channels each, one file of which was lost."""
    for name in ("A01_w1", "A01_w2", "A02_w1"):
        write(tmp_path / f"{name}.tif", plane(1))
    return tmp_path


def test_a_field_that_lacks_a_channel_is_left_out_and_named(lacking):
    scan = folder.read(lacking)
    assert wells(scan.fields) == [("A1", "0", ("w1", "w2"))]
    assert list(scan.left_out) == ["A/2/0"] and "1 of 2 files are missing" in scan.left_out["A/2/0"]
    with pytest.raises(BadArgument, match=r"A/2/0: 1 of 2 files.*'w2'"):
        folder.read(lacking, incomplete="stop")


def test_a_file_that_cannot_be_read_leaves_its_field_out(lacking):
    (lacking / "A02_w2.tif").write_bytes(b"")
    scan = folder.read(lacking)
    assert wells(scan.fields) == [("A1", "0", ("w1", "w2"))]
    assert "A02_w2.tif as TIFF" in scan.left_out["A/2/0"]
    with pytest.raises(BadStore, match=r"A02_w2\.tif"):
        folder.read(lacking, incomplete="stop")


def test_planes_are_those_of_the_plate(tmp_path):
    for well in ("A01", "A02"):
        for z in range(3):
            write(tmp_path / f"p_{well}_z{z}.tif", plane(z))
    (tmp_path / "p_A02_z2.tif").unlink()
    scan = folder.read(tmp_path)
    assert [field.shape for field in scan.fields] == [(1, 3, 6, 7)] and list(scan.left_out) == ["A/2/0"]


def test_channels_with_different_planes_are_refused(tmp_path):
    for z in range(1, 5):
        write(tmp_path / f"P_B03_T0001F001L01A01Z{z:02}C01.tif", plane(z))
    write(tmp_path / "P_B03_T0001F001L01A02Z01C02.tif", plane(9))
    with pytest.raises(BadArgument, match=r"C01: 4, C02: 1.*one at a time"):
        folder.read(tmp_path)
    (only,) = folder.read(f"{tmp_path}/*C01.tif").fields
    assert only.shape == (1, 4, 6, 7)


def test_an_axis_in_names_and_in_files_is_refused(tmp_path):
    for channel in ("w1", "w2"):
        write(tmp_path / f"A01_{channel}.ome.tif", np.zeros((2, 6, 7), np.uint8), metadata={"axes": "CYX"})
    with pytest.raises(BadArgument, match=r"c is both in the names \(2\) and in the files \(2"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(?P<row>[A-H]", "regular expression"),
        (r"(?P<row>[A-H])", "column"),
        (r"(?P<row>.)(?P<column>\d)(?P<x>.)", "'x'"),
    ],
)
def test_patterns_are_checked(tmp_path, pattern, words):
    write(tmp_path / "A01.tif", plane(1))
    with pytest.raises(BadArgument, match=words):
        read(tmp_path, pattern=pattern)


def test_no_files_and_broken_files(tmp_path):
    with pytest.raises(BadStore, match="found none"):
        read(f"{tmp_path}/*.tif")
    (tmp_path / "A01.tif").write_bytes(b"II*\0broken")
    with pytest.raises(BadStore, match=r"A01\.tif"):
        read(tmp_path)


def test_pixels_that_cannot_be_read_are_a_bad_store(tmp_path):
    write(tmp_path / "A01.tif", plane(1, (64, 64)), compression="zlib")
    data = bytearray((tmp_path / "A01.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "A01.tif") as file:
        start, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    data[start : start + count] = b"\xff" * count
    (tmp_path / "A01.tif").write_bytes(bytes(data))
    (only,) = read(tmp_path)
    with pytest.raises(BadStore, match=r"A01\.tif"):
        only.load()


def test_field_numbers_are_those_of_the_names(tmp_path):
    for column, fields in ((2, (1, 2, 3, 4)), (3, (1, 3, 4))):
        for field in fields:
            write(tmp_path / f"r02c{column:02}f{field:02}p01-ch1sk1fk1fl1.tiff", plane(100 * column + field))
    found = {field.path: int(field.load().max()) for field in read(tmp_path)}
    assert found == {f"B/{n // 100}/{n % 100}": n for n in (201, 202, 203, 204, 301, 303, 304)}


def test_every_position_of_a_file_is_a_field(tmp_path):
    for well, base in (("A01", 10), ("A02", 20)):
        with tifffile.TiffWriter(tmp_path / f"exp_{well}.ome.tif", ome=True) as file:
            for position in range(3):
                file.write(plane(base + position), metadata={"axes": "YX", "Name": f"Pos{position}"})
    found = {field.path: (field.title, int(field.load().max())) for field in read(tmp_path)}
    assert found == {f"A/{c}/{p}": (f"Pos{p}", 10 * c + p) for c in (1, 2) for p in range(3)}


def test_positions_in_files_and_fields_in_names_are_refused(tmp_path):
    for field in (1, 2):
        with tifffile.TiffWriter(tmp_path / f"exp_A01_f{field}.ome.tif", ome=True) as file:
            for position in range(3):
                file.write(plane(position), metadata={"axes": "YX"})
    with pytest.raises(
        BadArgument, match=r"exp_A01_f1.*3 images in the file, and the names of files say fields"
    ):
        folder.read(tmp_path)


def test_a_folder_that_is_no_plate_is_a_collection_of_images(tmp_path):
    for number, name in enumerate(("cells 1.tif", "cells_1.tif", "OME.tif", "x/later.tif")):
        write(tmp_path / name, plane(number, (6, 7 + number)))
    found = {field.path: field.title for field in read(f"{tmp_path}/**/*.tif")}
    assert found == {"cells_1": "cells 1", "cells_1_2": "cells_1", "OME_image": "OME", "x_later": "x/later"}


def test_images_of_a_collection_have_their_own_depth_and_all_its_channels(tmp_path):
    for name in ("a_z1", "a_z2", "b_z1"):
        write(tmp_path / "z" / f"{name}.tif", plane(1))
    assert [field.shape for field in read(tmp_path / "z")] == [(1, 2, 6, 7), (1, 6, 7)]
    for name in ("a_DAPI", "a_GFP", "b_DAPI"):
        write(tmp_path / "c" / f"{name}.tif", plane(1))
    scan = folder.read(tmp_path / "c")
    assert [field.path for field in scan.fields] == ["a"] and list(scan.left_out) == ["b"]


def test_one_file_is_one_image(tmp_path):
    write(tmp_path / "slide_A1.tif", plane(3))
    (only,) = read(tmp_path / "slide_A1.tif")
    assert (only.path, only.well, only.shape) == ("", None, (1, 6, 7))


def test_files_in_subfolders_are_taken_where_the_folder_has_none(tmp_path):
    for t in (1, 2):
        for z in (1, 2, 3):
            write(tmp_path / f"TimePoint_{t}/ZStep_{z}/e_A01_s1_w1.tif", plane(10 * t + z))
    (only,) = read(tmp_path)
    assert only.axes == "tczyx"
    np.testing.assert_array_equal(only.load()[:, 0, :, 0, 0], [[11, 12, 13], [21, 22, 23]])
