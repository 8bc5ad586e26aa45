"""Folders of TIFF files: places from names, axes from metadata, and refusal of what is ambiguous."""

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets import folder, names
from pipeline.datasets.tiff import look_into
from pipeline.errors import BadArgument, BadStore


def plane(value, shape=(6, 7), dtype=np.uint16):
    return np.full(shape, value, dtype)


def write(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **options)


def wells(fields):
    return [("".join(field.well), field.field, field.channels) for field in fields]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            [
                "plate_B02_s1_w1ABC.tif",
                "plate_B02_s1_w2DEF.tif",
                "plate_B02_s10_w1X.tif",
                "plate_B02_s10_w2Y.tif",
            ],
            [("B2", "1", ("w1", "w2")), ("B2", "10", ("w1", "w2"))],
        ),
        (
            [
                "1649_1109_0003_Amp5-1_B_20070424_A01_w2_15ADF48D.tif",
                "1649_1109_0003_Amp5-1_B_20070424_A11_w2_9.tif",
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
    assert wells(folder.read(tmp_path)) == expected


def test_pixels_arrive_at_their_place(tmp_path):
    for well, base in (("A01", 10), ("B03", 20)):
        for channel in (1, 2, 10):
            write(tmp_path / f"p_{well}_ch{channel}.tif", plane(base + channel))
    first, second = folder.read(f"{tmp_path}/*.tif")
    assert (first.axes, first.shape, first.dtype) == ("cyx", (3, 6, 7), np.uint16)
    assert second.channels == ("ch1", "ch2", "ch10")
    np.testing.assert_array_equal(second.load()[:, 0, 0], [21, 22, 30])
    assert first.name == "A1/0"


def test_time_and_depth_from_names(tmp_path):
    for t in (1, 2):
        for z in (3, 5, 9):
            write(tmp_path / f"X_C04_T{t:04d}F001L01A01Z{z:02d}C01.tif", plane(10 * t + z))
    (only,) = folder.read(tmp_path)
    assert (only.axes, only.shape) == ("tczyx", (2, 1, 3, 6, 7))
    np.testing.assert_array_equal(only.load()[:, 0, :, 0, 0], [[13, 15, 19], [23, 25, 29]])


def test_own_pattern_on_names_and_on_paths(tmp_path):
    write(tmp_path / "well-3-2" / "image.tif", plane(4))
    pattern = r"well-(?P<row>\d+)-(?P<column>\d+)/image"
    (only,) = folder.read(f"{tmp_path}/**/*.tif", pattern=pattern)
    assert only.well == ("C", "2")
    with pytest.raises(BadArgument, match=r"image\.tif"):
        folder.read(f"{tmp_path}/**/*.tif", pattern=r"well-(?P<row>\d+)-(?P<column>\d+)")


def test_channels_can_be_renamed(tmp_path):
    for channel in ("w1", "w2"):
        write(tmp_path / f"A01_{channel}.tif", plane(1))
    (only,) = folder.read(tmp_path, channel_names={"w1": "GFP"})
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
    (only,) = folder.read(tmp_path)
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
    (only,) = folder.read(tmp_path)
    assert (only.axes, only.channels, only.spacing_um) == ("czyx", ("channel0", "channel1"), (0.25, 0.5))
    np.testing.assert_array_equal(only.load(), data.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("pages", "axes", "shape"),
    [("z", "czyx", (1, 4, 6, 7)), ("t", "tcyx", (4, 1, 6, 7)), ("c", "cyx", (4, 6, 7))],
)
def test_pages_without_metadata_are_what_the_caller_says(tmp_path, pages, axes, shape):
    for page in range(4):
        write(tmp_path / "A01.tif", plane(page), append=page > 0, metadata=None)
    (only,) = folder.read(tmp_path, pages=pages)
    assert (only.axes, only.shape) == (axes, shape)
    np.testing.assert_array_equal(only.load().reshape(4, -1)[:, 0], range(4))
    with pytest.raises(BadArgument, match=r"A01\.tif: 4 pages"):
        folder.read(tmp_path)
    with pytest.raises(BadArgument, match="'q'"):
        folder.read(tmp_path, pages="q")


def test_colour_becomes_three_channels(tmp_path):
    data = np.arange(6 * 7 * 3, dtype=np.uint8).reshape(6, 7, 3)
    write(tmp_path / "A01.tif", data, photometric="rgb")
    (only,) = folder.read(tmp_path)
    assert (only.axes, only.channels) == ("cyx", ("red", "green", "blue"))
    np.testing.assert_array_equal(only.load(), np.moveaxis(data, -1, 0))


def test_lzw_is_read_without_the_optional_codecs(tmp_path):
    data = np.arange(42, dtype=np.uint8).reshape(6, 7)
    Image.fromarray(data).save(tmp_path / "A01.tif", compression="tiff_lzw")
    (only,) = folder.read(tmp_path)
    np.testing.assert_array_equal(only.load()[0], data)


def test_thumbnails_and_hidden_files_are_left_out(tmp_path):
    write(tmp_path / "A01_w1.tif", plane(1))
    write(tmp_path / "A01_w1_thumb12.tif", plane(1, (2, 2)))
    (tmp_path / "._A01_w1.tif").write_bytes(b"macOS")
    (tmp_path / "notes.txt").write_text("x")
    assert wells(folder.read(tmp_path)) == [("A1", "0", ("w1",))]


def test_names_that_do_not_fit_are_listed_with_the_pattern(tmp_path):
    for name in ("A01_s1_w1", "A02_s1_w1", "A03_s1_w1", "overview", "shading1", "shading2", "shading3"):
        write(tmp_path / f"{name}.tif", plane(1))
    with pytest.raises(
        BadArgument, match=r"4 of 7.*P<row>.*overview.tif, shading1.tif, shading2.tif, \.\.\."
    ):
        folder.read(tmp_path)


def test_names_that_fit_nothing_get_an_example(tmp_path):
    write(tmp_path / "scan.tif", plane(1))
    with pytest.raises(BadArgument, match=r"scan.tif.*\(\?P<row>\[A-P\]\)"):
        folder.read(tmp_path)


def test_two_files_for_one_place_are_refused(tmp_path):
    for name in ("2020_A01_w1_a.tif", "2021_A01_w1_b.tif"):
        write(tmp_path / name, plane(1))
    with pytest.raises(BadArgument, match=r"2020_A01_w1_a.tif and 2021_A01_w1_b.tif .*well A1"):
        folder.read(tmp_path)


@pytest.mark.parametrize("other", [plane(1, (6, 8)), plane(1, dtype=np.uint8)])
def test_files_of_a_field_that_differ_are_refused(tmp_path, other):
    write(tmp_path / "A01_w1.tif", plane(1))
    write(tmp_path / "A01_w2.tif", other)
    with pytest.raises(BadArgument, match=r"A1/0.*A01_w1.tif.*A01_w2.tif"):
        folder.read(tmp_path)


def test_fields_may_differ_from_one_another(tmp_path):
    write(tmp_path / "A01_w1.tif", plane(1))
    write(tmp_path / "A02_w1.tif", plane(1, (3, 3)))
    assert [field.shape for field in folder.read(tmp_path)] == [(1, 6, 7), (1, 3, 3)]


def test_a_missing_channel_is_named(tmp_path):
    for name in ("A01_w1", "A01_w2", "A02_w1"):
        write(tmp_path / f"{name}.tif", plane(1))
    with pytest.raises(BadArgument, match=r"A2/0: 1 of 2 files.*'w2'"):
        folder.read(tmp_path)


def test_an_axis_in_names_and_in_files_is_refused(tmp_path):
    for channel in ("w1", "w2"):
        write(tmp_path / f"A01_{channel}.ome.tif", np.zeros((2, 6, 7), np.uint8), metadata={"axes": "CYX"})
    with pytest.raises(BadArgument, match=r"c is both in the names \(2\) and in the files \(2"):
        folder.read(tmp_path)


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
        folder.read(tmp_path, pattern=pattern)


def test_no_files_and_broken_files(tmp_path):
    with pytest.raises(BadStore, match="found none"):
        folder.read(f"{tmp_path}/*.tif")
    (tmp_path / "A01.tif").write_bytes(b"II*\0broken")
    with pytest.raises(BadStore, match=r"A01\.tif"):
        folder.read(tmp_path)


def test_pixels_that_cannot_be_read_are_a_bad_store(tmp_path):
    write(tmp_path / "A01.tif", plane(1, (64, 64)), compression="zlib")
    data = bytearray((tmp_path / "A01.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "A01.tif") as file:
        start, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    data[start : start + count] = b"\xff" * count
    (tmp_path / "A01.tif").write_bytes(bytes(data))
    (only,) = folder.read(tmp_path)
    with pytest.raises(BadStore, match=r"A01\.tif"):
        only.load()


def test_headers_are_read_and_pixels_are_not(tmp_path, monkeypatch):
    write(tmp_path / "A01.tif", plane(1))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)
    assert look_into(tmp_path / "A01.tif").shape == (1, 1, 1, 6, 7)


@given(
    places=st.sets(
        st.tuples(st.sampled_from("ABCP"), st.integers(1, 24), st.integers(0, 12), st.integers(1, 9)),
        min_size=1,
    )
)
def test_names_go_there_and_back(places):
    """Every set of wells, sites and wavelengths is recovered from its names."""
    from pathlib import Path

    files = {Path(f"run_{r}{c:02d}_s{f}_w{w}.tif"): (r, str(c), str(f), f"w{w}") for r, c, f, w in places}
    found = names.places_of(sorted(files), None)
    assert {path: (*place.well, place.field, place.channel) for path, place in found.items()} == files
