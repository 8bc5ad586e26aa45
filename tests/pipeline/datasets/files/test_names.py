"""What names of files say: every microscope's example, names by their parts, and refusal of what may be two things."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.files.name_patterns import PATTERNS
from pipeline.datasets.files.names import read_names
from pipeline.datasets.files.places import Place
from pipeline.datasets.files.source_files import SourceFile
from pipeline.errors import BadArgument

EXAMPLES = {
    "Opera Phenix, Operetta": Place(well=("B", "3"), field="4", channel="ch1", t=1, z=1),
    "CellVoyager": Place(well=("B", "3"), field="2", channel="C01", t=1, z=1),
    "CQ1": Place(well=("C", "3"), field="1", channel="C1", t=1, z=1),
    "ImageXpress": Place(well=("B", "3"), field="1", channel="w2"),
    "InCell": Place(well=("B", "3"), field="1", channel="DAPI"),
    "InCell, short form": Place(well=("A", "1"), field="1", channel="xUV_mDAPI", t=1, z=1),
    "Micro-Manager, wells": Place(well=("B", "3"), field="1", channel="channel000"),
    "Micro-Manager": Place(image="position000", channel="channel000"),
    "Micro-Manager 1.4": Place(image="Pos0", channel="DAPI"),
    "NIS-Elements": Place(well=("B", "3"), field="0", channel="DAPI"),
    "ArrayScan, EVOS": Place(well=("B", "3"), field="0", channel="d1"),
    "Leica matrix": Place(well=("C", "2"), field="X0Y0", channel="C00"),
    "Cytation": Place(well=("B", "3"), field="1", channel="DAPI", t=1),
    "Incucyte": Place(well=("B", "3"), field="1", t=400),
}


def files(*names):
    return [SourceFile(place=f"scan/{name}", relative=name) for name in names]


def places(*names, **options):
    return list(read_names(files(*names), **options).places.values())


def wells(*names):
    return ["".join(place.well) for place in places(*names)]


@pytest.mark.parametrize("kind", PATTERNS, ids=lambda kind: kind.title)
def test_the_example_of_every_microscope_is_read(kind):
    reading = read_names(files(f"{kind.example}.tif"))
    assert reading.title == f"as {kind.title} names them"
    assert list(reading.places.values()) == [EXAMPLES[kind.title]]


@pytest.mark.parametrize("kind", PATTERNS, ids=lambda kind: kind.title)
def test_every_microscope_is_in_the_documentation(kind):
    page = (Path(__file__).parents[4] / "docs/bring-your-data.md").read_text()
    assert f"| {kind.title} | `{kind.example}." in page


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("image--L0000--S00--U01--V02--J08--E00--O00--X01--Y03--T0000--Z02--C01.ome.tif",
         Place(well=("C", "2"), field="X1Y3", channel="C01", z=2)),
        ("slide--S00/chamber--U01--V02/field--X01--Y03/image--L0000--S00--U01--V02--J08--E00--O00--X01--Y03--T0001"
         "--Z02--C01.ome.tif", Place(well=("C", "2"), field="X1Y3", channel="C01", t=1, z=2)),
        ("scan_Plate_R_p00_0_B03f00d1.TIF", Place(well=("B", "3"), field="0", channel="d1")),
        ("AS_09125_050118150001_A03f02d0.TIF", Place(well=("A", "3"), field="2", channel="d0")),
        ("A - 01(fld 12 wv Green - dsRed z 3 time 2 - 500 ms).tif",
         Place(well=("A", "1"), field="12", channel="Green - dsRed", t=2, z=3)),
        ("B3_01_1_4_DAPI 377,447_002.tif", Place(well=("B", "3"), field="4", channel="DAPI 377,447", t=2)),
        ("VID9_H12_3_01d02h30m.tif", Place(well=("H", "12"), field="3", t=10230)),
        ("VID9_H12_3_2024y03m02d_10h30m.tif", Place(well=("H", "12"), field="3", t=202403021030)),
        ("exp/TimePoint_2/ZStep_3/exp_A01_s1_w1B71AE91C-75E6.tif",
         Place(well=("A", "1"), field="1", channel="w1", t=2, z=3)),
        ("exp_A01_s294C24BD4-45E4.tif", Place(well=("A", "1"), field="2")),
        ("p_S05_s1_w1B71AE91C.tif", Place(well=("S", "5"), field="1", channel="w1")),
        ("r27c110f03-ch1.tif", Place(well=("AA", "110"), field="3", channel="ch1")),
    ],
)  # fmt: skip
def test_variants_of_the_microscopes(name, expected):
    assert places(name) == [expected]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["exp_A01_f1_z01.tif", "exp_A01_f1_z02.tif"], [Place(well=("A", "1"), field="1", z=z) for z in (1, 2)]),
        (["exp_A01_t01.tif", "exp_A01_t02.tif"], [Place(well=("A", "1"), t=t) for t in (1, 2)]),
        (["exp_A01_F1.tif", "exp_A01_F2.tif"], [Place(well=("A", "1"), field=f) for f in "12"]),
        (["exp_A01_s1w1.tif", "exp_A01_s1w2.tif"],
         [Place(well=("A", "1"), field="1", channel=w) for w in ("w1", "w2")]),
        (["exp_A01_site_3_DAPI.tif", "exp_A01_site_3_Alexa488.tif"],
         [Place(well=("A", "1"), field="3", channel=c) for c in ("DAPI", "Alexa488")]),
        (["exp_WellB2_Pos0.tif", "exp_WellB2_Pos1.tif"], [Place(well=("B", "2"), field=f) for f in "01"]),
        (["B02/img_w1.tif", "B03/img_w1.tif"], [Place(well=("B", c), channel="w1") for c in "23"]),
        (["x/TimePoint_1/ZStep_1/e_A01_w1.tif", "x/TimePoint_2/ZStep_1/e_A01_w1.tif"],
         [Place(well=("A", "1"), channel="w1", t=t, z=1) for t in (1, 2)]),
        (["exp_C01_DAPI.tif", "exp_C01_GFP.tif"], [Place(well=("C", "1"), channel=c) for c in ("DAPI", "GFP")]),
        (["exp_B03f1z2.tif"], [Place(well=("B", "3"), field="1", z=2)]),
        (["p_A001.tif", "p_B110.tif"], [Place(well=("A", "1")), Place(well=("B", "110"))]),
    ],
)  # fmt: skip
def test_parts_of_names_are_what_they_say(names, expected):
    assert places(*names) == expected


def test_the_number_of_a_plate_is_no_well():
    assert wells("day3_P1_A01.tif", "day3_P1_A02.tif", "day3_P1_B01.tif") == ["A1", "A2", "B1"]
    assert wells("day3_P1_A01.tif") == ["A1"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ["exp_A01_rep1.tif", "exp_A01_rep2.tif"],
            r"'rep1', 'rep2'.*scan/exp_A01_rep1.tif, scan/exp_A01_rep2",
        ),
        (["exp_A01_001.tif", "exp_A01_002.tif"], r"'001', '002' tells files apart.*--pattern"),
        (["exp_A01_DMSO.tif", "exp_A02_Taxol.tif"], "'DMSO', 'Taxol'"),
        (["day3_P1_A01.tif", "day3_P2_A01.tif"], "'P1', 'P2'"),
        (["C1-exp.tif", "C2-exp.tif"], "'C1' may be a well or something else"),
        (["exp_F01.tif", "exp_F02.tif"], "'F01' may be a well"),
        (["mouse_M1.tif", "mouse_M2.tif"], "'M1' may be a well"),
        (["A01_B02.tif", "A03_B04.tif"], "'A01' and 'B02' may be a well"),
        (["a_A01_s1_f1.tif", "a_A01_s2_f2.tif"], "both 's1' and 'f1' look like the field"),
        (["A01_w1.tif", "A02_w1.tif", "overview.tif"], r"1 of 3 names have no well: scan/overview.tif"),
        (
            ["A01_w1.tif", "A02_w1.tif", "A03_w1_x.tif"],
            r"1 of 3 names have more or fewer parts.*A03_w1_x.tif",
        ),
        (
            ["r01c01f01p01-ch1.tif", "r01c02f01p01-ch1.tif", "flat.tif"],
            r"1 of 3 .*Opera Phenix.*scan/flat.tif",
        ),
        (["a/r01c01f01p01-ch1.tif", "b/r01c01f02p01-ch1.tif"], r"differ in a part.*scan/a/r01.*scan/b/r01"),
        (["x_A01_s1_w1B71AE91C.tif", "x_A01_s1_w1B71AE91D.tif"], "have the same place"),
        (["r01c00f01p01-ch1.tif"], "column from 1, got '00'"),
        (["r00c01f01p01-ch1.tif"], "row of letters or a number from 1, got '00'"),
    ],
)
def test_what_may_mean_two_things_is_refused(names, words):
    with pytest.raises(BadArgument, match=words):
        places(*names)


def test_the_pattern_that_an_error_suggests_reads_the_names():
    names = ["P1_A1-z2_DAPI-405.tif", "P1_A1-z2_DAPI-488.tif"]
    with pytest.raises(BadArgument) as error:
        places(*names)
    pattern = str(error.value).partition("--pattern '")[2].partition("'")[0]
    expected = [Place(well=("A", "1"), field=field, channel="DAPI", z=2) for field in ("405", "488")]
    assert places(*names, pattern=pattern) == expected


def test_column_zero_is_no_column():
    assert places("exp_A00.tif") == [Place(image="exp_A00")]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["cells_001.tif", "cells_002.tif"], [Place(image="cells_001"), Place(image="cells_002")]),
        (["stack_z01.tif", "stack_z02.tif"], [Place(image="stack", z=1), Place(image="stack", z=2)]),
        (["a_DAPI.tif", "a_GFP.tif"], [Place(image="a", channel="DAPI"), Place(image="a", channel="GFP")]),
        (["a_DAPI.tif", "b_GFP.tif"],
         [Place(image="a_DAPI", channel="DAPI"), Place(image="b_GFP", channel="GFP")]),
        (["f1_t1.tif", "f1_t2.tif", "f2_t1.tif"],
         [Place(image="f1", t=1), Place(image="f1", t=2), Place(image="f2", t=1)]),
        (["xy1c1.tif", "xy1c2.tif", "xy2c1.tif"],
         [Place(image="xy1", channel="c1"), Place(image="xy1", channel="c2"), Place(image="xy2", channel="c1")]),
        (["a/cells.tif", "b/cells.tif"], [Place(image="a/cells"), Place(image="b/cells")]),
        (["mouse_M1_001.tif", "mouse_M1_002.tif"], [Place(image="mouse_M1_001"), Place(image="mouse_M1_002")]),
    ],
)  # fmt: skip
def test_names_without_wells_are_names_of_images(names, expected):
    assert places(*names) == expected


def test_projections_of_imagexpress_are_left_out():
    names = [f"TimePoint_1/ZStep_{z}/e_A01_s1_w1.tif" for z in range(3)]
    reading = read_names(files(*names))
    assert [place.z for place in reading.places.values()] == [1, 2]
    assert reading.notes == ("1 file(s) in folders ZStep_0 hold projections: left out",)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, ("I", "8")), ({"plate_wells": 384}, ("I", "8")), ({"plate_wells": 1536}, ("E", "8"))],
)
def test_numbers_of_wells_count_along_rows(options, expected):
    (place,) = places("W0200F0001T0001Z001C1.tif", **options)
    assert place.well == expected


def test_a_number_of_a_well_that_the_plate_lacks_is_refused():
    with pytest.raises(BadArgument, match="0200 is not in a plate of 96"):
        places("W0200F0001T0001Z001C1.tif", plate_wells=96)
    with pytest.raises(BadArgument, match="expected one of 6, 12"):
        places("W0200F0001T0001Z001C1.tif", plate_wells=97)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(?P<row>[A-H]", "regular expression"),
        (r"(?P<row>[A-H])", "column"),
        (r"(?P<row>.)(?P<column>\d)(?P<x>.)", "'x'"),
        (r"(?P<row>.)(?P<column>\d)(?P<image>.)", "image"),
        (r"(?P<row>.)(?P<column>\d+)_(?P<field>.+)", "letters and digits as field, got 's1_w1'"),
        (r"(?P<row>B)(?P<column>\d+)", r"1 of 1 file names do not fit.*scan/A01_s1_w1.tif"),
    ],
)
def test_own_patterns_are_checked(pattern, words):
    with pytest.raises(BadArgument, match=words):
        places("A01_s1_w1.tif", pattern=pattern)


def test_own_pattern_names_images_and_stacks():
    found = places("exp-rep1-1.tif", "exp-rep1-2.tif", pattern=r"(?P<image>rep\d+)-(?P<z>\d+)")
    assert found == [Place(image="rep1", z=1), Place(image="rep1", z=2)]


@given(
    found=st.sets(
        st.tuples(st.sampled_from("ABHJ"), st.integers(1, 24), st.integers(0, 12), st.integers(1, 9)),
        min_size=1,
    )
)
@settings(deadline=None)
def test_names_go_there_and_back(found):
    """Every set of wells, sites and wavelengths is recovered from its names."""
    named = {f"run_{r}{c:02d}_s{f}_w{w}.tif": (r, str(c), str(f), f"w{w}") for r, c, f, w in found}
    read = read_names(files(*sorted(named)))
    assert {
        file.name: (*place.well, place.field, place.channel) for file, place in read.places.items()
    } == named


def test_columns_of_wells_may_have_three_digits():
    assert wells("exp_A001_f1.tif", "exp_B100_f1.tif", "exp_B101_f1.tif") == ["A1", "B100", "B101"]
