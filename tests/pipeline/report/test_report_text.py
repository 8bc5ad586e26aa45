"""Markdown, CSV and numbers for people: inert, complete, in plate order."""

import csv
import io

import pandas as pd
import pytest

from pipeline.errors import BadArgument
from pipeline.report.blocks import Column, KeyNumber, Row, Table, number_text
from pipeline.report.markdown import table_csv, table_markdown
from pipeline.report.wells import axis_names, natural, places, well_name


def test_markdown_and_csv_are_inert():
    table = Table(
        name="t",
        title="t",
        columns=(Column(name="=name"), Column(name="value", digits=2)),
        rows=(
            Row(cells=("=HYPERLINK(1)|<b>", 1 / 3)),
            Row(cells=("a\nb", None)),
            Row(cells=("-1", float("nan"))),
        ),
    )
    assert table_markdown(table).splitlines()[2:] == [
        r"| =HYPERLINK(1)\|&lt;b\> | 0.33 |", "| a b | – |", "| -1 | – |",
    ]  # fmt: skip
    rows = list(csv.reader(io.StringIO(table_csv(table))))
    assert rows == [["'=name", "value"], ["'=HYPERLINK(1)|<b>", repr(1 / 3)], ["a\nb", ""], ["'-1", ""]]


def test_long_tables_are_cut_in_markdown_and_say_so():
    table = Table(
        name="t", title="t", columns=(Column(name="n"),), rows=tuple(Row(cells=(k,)) for k in range(201))
    )
    assert "200 of 201 rows are shown" in table_markdown(table)
    assert table_csv(table).count("\n") == 202


def test_wells_are_in_plate_order():
    names = ["B/10/0", "A/2/0", "AA/1/0", "B/9/0"]
    listing = pd.DataFrame([dict(zip(("image", "row", "column"), (n, *n.split("/")[:2]))) for n in names])
    assert places(listing).images == ("A/2/0", "B/9/0", "B/10/0", "AA/1/0")
    assert places(listing).wells == ("A02", "B09", "B10", "AA01")
    assert sorted(["x10", "x9", "x"], key=natural) == ["x", "x9", "x10"]
    assert axis_names(["C", "A"]) == ("A", "B", "C")
    assert axis_names(["11", "9"]) == ("9", "10", "11")
    assert axis_names(["03", "01"]) == ("01", "02", "03")
    assert axis_names(["x", "A"]) == ("A", "x")
    assert well_name("", "1") == ""


def test_images_are_listed_once():
    with pytest.raises(BadArgument, match="listed twice"):
        places(pd.DataFrame({"image": ["a", "a"]}))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 2, "–"), (float("nan"), 2, "–"), (1234567, None, "1,234,567"), (0.12345, None, "0.123"),
     (12345.6, None, "12,346"), (0.12345, 4, "0.1235"), ("a", 2, "a")],
)  # fmt: skip
def test_numbers_are_written_for_people(value, digits, text):
    assert number_text(value, digits) == text


def test_values_are_checked():
    with pytest.raises(BadArgument, match="expected 1 cells, got 2"):
        Table(name="t", title="t", columns=(Column(name="a"),), rows=(Row(cells=(1, 2)),))
    with pytest.raises(BadArgument, match="best"):
        Column(name="a", best="up")
    with pytest.raises(BadArgument, match="tone"):
        KeyNumber(label="a", value="1", tone="pink")
