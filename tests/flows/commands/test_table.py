"""One table over all images of a store: CSV on standard output, or one Parquet dataset that other tools open."""

import io
import subprocess
import sys

import duckdb
import pandas as pd
import pytest

from flows.cli import run as command
from pipeline.store.ome.groups import find_group, write_group
from pipeline.store.places.address import address


@pytest.fixture
def segmented(plate_at, noise, bright, run_job):
    store = plate_at(
        "lab_7.zarr", {"A/1": [noise((40, 40), seed=1), noise((40, 40), seed=2)], "B/12": [noise((40, 40))]}
    )
    run_job(store, segmenter=bright, name="n")
    return store


def test_csv_has_every_object_with_its_plate_well_and_field(segmented, capsys, table_of):
    assert command(["table", str(segmented)]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out), dtype={"well": str, "field": str})
    assert list(table)[:5] == ["plate", "well", "field", "acquisition", "label"]
    assert set(zip(table["plate"], table["well"], table["field"])) == {
        ("lab_7", "A01", "0"), ("lab_7", "A01", "1"), ("lab_7", "B12", "0"),
    }  # fmt: skip
    parts = [table_of(segmented, "n", path) for path in ("A/1/0", "A/1/1", "B/12/0")]
    assert table["area_px"].tolist() == pd.concat(parts)["area_px"].tolist()
    first = table["overlap_labels"].fillna("").map(lambda text: [int(label) for label in str(text).split()])
    assert first.tolist() == [list(ids) for ids in pd.concat(parts)["overlap_labels"]]


def test_a_dataset_is_opened_by_pandas_and_duckdb_and_knows_acquisitions(segmented, capsys):
    group = find_group(address(segmented), "A/1")
    group.ome["well"]["images"][1]["acquisition"] = 4
    write_group(
        address(segmented), "A/1", group.attributes | {"ome": group.ome}, zarr_format=group.zarr_format
    )
    assert command(["table", str(segmented), "--dataset"]) == 0
    place = segmented / "tables/n/table.parquet"
    table = pd.read_parquet(place)
    assert f"2 part(s) -> {place}" in capsys.readouterr().out
    known = table.loc[table["field"] == "1", "acquisition"]
    assert set(known) == {4} and table.loc[table["field"] == "0", "acquisition"].isna().all()
    found = duckdb.sql(
        f"select well, count(*) from '{place}/*.parquet' group by well order by well"
    ).fetchall()
    assert found == [(well, int(n)) for well, n in table["well"].value_counts().sort_index().items()]


def test_a_store_without_tables_is_told(image_at, noise, capsys):
    store = image_at("a.zarr", noise((20, 20)))
    assert command(["table", str(store)]) == 1
    assert "expected one object table, got none" in capsys.readouterr().err
    assert command(["table", str(store), "--name", "n"]) == 1
    assert "no image has a table 'n'" in capsys.readouterr().err


def test_whoever_reads_the_csv_may_stop_early(segmented):
    program = f"from flows.cli import main; main(['table', {str(segmented)!r}])"
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    writer.stdout.close()
    assert writer.wait(timeout=120) == 0
    assert writer.stderr.read() == b""
