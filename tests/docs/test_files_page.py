"""The page on the file layout names what runs really write."""

import re
from pathlib import Path

import pandas as pd
import pytest
from given_files import GIVEN

from flows.cli import run

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "files.md").read_text()


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    """A plate after a run and an evaluation."""
    store = tmp_path_factory.mktemp("files") / "plate.zarr"
    GIVEN["plate.zarr"](store)
    assert run(["segment", str(store), "--segmenter", "threshold"]) == 0
    assert run(["evaluate", str(store), "--report", str(store.parent / "evaluation")]) == 0
    return store


def test_every_column_of_the_object_table_is_described(plate):
    columns = pd.read_parquet(plate / "A/1/0/tables/threshold/table.parquet").columns
    rows = re.findall(r"^\| (`.*?) \|", PAGE[PAGE.index("## The object table") :], re.MULTILINE)
    described = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    named = {re.sub(r"_brightfield$", "_C", column) for column in columns}
    assert named - described == set()


def test_every_file_of_an_evaluation_is_described(plate):
    for path in (plate.parent / "evaluation").iterdir():
        assert f"`{path.name}`" in PAGE


def test_the_folders_of_a_plate_are_as_described(plate):
    run_folder = next(path for path in (plate / ".platelayer").iterdir() if path.is_dir())
    assert {"job.json", "record.json"} <= {path.name for path in run_folder.iterdir()}
    assert (plate / "A/1/0/labels/threshold").is_dir() and (plate / "A/1/0/0").is_dir()
