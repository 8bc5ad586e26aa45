"""Plate layouts: what people write in them, what is refused, and what either side does not know."""

import pandas as pd
import pytest

from pipeline.errors import BadArgument
from pipeline.report.layout import Spot, assign, layout_of, well_text
from pipeline.report.run.conditions import condition_section
from pipeline.report.wells import places


def layout(columns, **options):
    return layout_of(pd.DataFrame(columns), name="map", **options)


@pytest.mark.parametrize("text", ["B3", "b03", " B/3 ", "B-003", "B_3", "B 3"])
def test_wells_as_people_write_them(text):
    assert well_text(text) == "B03"


@pytest.mark.parametrize("text", ["", "3", "B", "B0", "ABC1", "B3x", "3B"])
def test_what_is_no_well(text):
    assert well_text(text) is None


def test_conditions_of_images_and_what_is_not_known():
    found = assign(
        layout({"WELL": ["A1", "A2", "H12"], "Condition": ["drug", None, "drug"]}),
        [Spot(image="A/1/0", well="A01"), Spot(image="A/2/0", well="A02"), Spot(image="B/1/0", well="B01")],
        name="map",
    )
    assert found.conditions == {"A/1/0": "drug", "A/2/0": None, "B/1/0": None}
    assert found.without_condition == ["B/1/0"]  # A02 is named and left blank on purpose
    assert found.unknown_places == ["H12"]


def test_images_and_doses():
    found = assign(
        layout({"image": ["x", "y"], "dose": [0.5, 10.0]}, column="dose"), [Spot(image="y")], name="map"
    )
    assert found.conditions == {"y": "10"}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"well": ["A1"]}, "expected columns well"),
        ({"place": ["A1"], "condition": ["x"]}, "got place, condition"),
        ({"well": [], "condition": []}, "at least one row"),
        ({"well": ["A1", "nine"], "condition": ["x", "y"]}, "row 2: expected a well such as B03, got 'nine'"),
        ({"well": ["A1", "a01"], "condition": ["x", "x"]}, "row 2: A01 is named twice"),
        ({"plate": ["p", "p.zarr"], "well": ["A1", "A1"], "condition": ["x", "y"]}, "p A01 is named twice"),
    ],
)
def test_what_is_refused(columns, words):
    with pytest.raises(BadArgument, match=words):
        layout(columns)


def test_a_layout_of_another_plate_is_refused():
    with pytest.raises(BadArgument, match=r"none of its 1 wells \(H12 .*there are: A01"):
        assign(layout({"well": ["H12"], "condition": ["x"]}), [Spot(image="A/1/0", well="A01")], name="map")


def test_numbers_of_a_run_by_condition():
    images = pd.DataFrame({"image": ["a", "b", "c", "d"], "row": "A", "column": ["1", "2", "3", "4"]})
    table = pd.DataFrame(
        {"condition": ["drug", "drug", "none", ""], "objects": [1.0, 3.0, 8.0, 99.0]}, index=list("abcd")
    )
    section = condition_section(
        places(images), table, {"objects": "objects per image"}, {"of the layout without an image": ["P24"]}
    )
    note, _, numbers = section.blocks
    assert note.text == "1 place of the layout without an image: P24."
    assert [row.cells for row in numbers.rows] == [("drug", 2, 2, 2.0), ("none", 1, 1, 8.0)]
