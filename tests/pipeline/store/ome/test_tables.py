"""Tables: the same rows make the same bytes, every reader opens them, empty ones keep their columns."""

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import BadArgument, BadStore, RunConflict
from pipeline.store.ome.table_listing import list_tables
from pipeline.store.ome.tables import (
    TableEncoder,
    read_table,
    table_bytes,
    to_arrow,
    write_dataset,
    write_table,
)
from pipeline.store.places.address import address


def objects(count=3, first=1):
    return pd.DataFrame(
        {
            "label": np.arange(first, first + count, dtype=np.uint32),
            "layer": np.zeros(count, np.uint8),
            "row": ["A"] * count,
            "area_um2": np.linspace(0, 1, count),
            "overlap_labels": [list(range(n)) for n in range(count)],
            "touches_edge": np.arange(count) % 2 == 0,
        }
    )


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    return address(tmp_path / "t.zarr" if request.param == "local" else f"memory://{tmp_path.name}/t.zarr")


def test_a_table_comes_back_and_is_listed(place):
    write_table(place, "A/1/0", "nuclei", objects())
    write_table(place, "A/1/0", "worms", objects(5))
    write_table(place, "A/1/0", "nuclei", objects(4))
    assert list_tables(place, "A/1/0") == ["nuclei", "worms"]
    back = read_table(place, "A/1/0", "nuclei")
    assert back["overlap_labels"].map(list).tolist() == [[], [0], [0, 1], [0, 1, 2]]
    pd.testing.assert_frame_equal(
        back.drop(columns="overlap_labels"), objects(4).drop(columns="overlap_labels"), check_dtype=True
    )
    assert list(read_table(place, "A/1/0", "worms", columns=["label"]).columns) == ["label"]


def test_an_empty_table_keeps_its_columns_and_types():
    full, empty = to_arrow(objects()).schema, to_arrow(objects(0)).schema
    assert empty.equals(full)
    assert full.field("overlap_labels").type == pa.list_(pa.uint32())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 50), st.integers(0, 3))
def test_the_same_rows_make_the_same_bytes(count, seed):
    frame = objects(count).assign(score=np.random.default_rng(seed).random(count))
    again = frame.copy()
    again.index = again.index + 7
    again.attrs["written"] = "today"
    assert table_bytes(frame) == table_bytes(again)


def test_a_table_that_comes_in_parts_is_the_table():
    frame, encoder = pd.DataFrame({"label": np.arange(70_000), "row": ["A"] * 70_000}), TableEncoder()
    for start in range(0, 70_000, 32_768):
        encoder.add(frame[start : start + 32_768])
    encoder.add(frame[:0])
    assert encoder.encoded() == table_bytes(frame)


def test_row_groups_have_a_fixed_size():
    data = table_bytes(pd.DataFrame({"label": np.arange(150_000)}))
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    rows = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert rows == [32_768] * 4 + [18_928]
    assert not metadata.metadata


def test_a_table_is_not_replaced_unless_asked(place):
    write_table(place, "", "nuclei", objects(), overwrite=False)
    with pytest.raises(RunConflict, match="such a table"):
        write_table(place, "", "nuclei", objects(1), overwrite=False)
    assert len(read_table(place, "", "nuclei")) == 3


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    place = address(tmp_path)
    write_table(place, "", "nuclei", objects())
    bad = objects().assign(what=[object()] * 3)
    with pytest.raises(BadArgument, match="column 'what': expected numbers, text or lists"):
        write_table(place, "", "nuclei", bad)
    assert len(read_table(place, "", "nuclei")) == 3


def test_missing_and_damaged_tables_are_named(place):
    write_table(place, "", "nuclei", objects())
    with pytest.raises(BadStore, match="no table 'worms'; there are: nuclei"):
        read_table(place, "", "worms")
    place.write_bytes("tables/nuclei/table.parquet", b"PAR1 and then nothing")
    with pytest.raises(BadStore, match=r"table\.parquet: expected Parquet"):
        read_table(place, "", "nuclei")


def test_two_columns_of_one_name_are_refused():
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(BadArgument, match="different column names"):
        table_bytes(frame)


def test_the_dataset_over_all_images_is_one_table_for_every_reader(tmp_path):
    place = address(tmp_path)
    tables = {"A01": [objects(3)], "A02": [objects(0)], "B01": [objects(1, first=10), objects(1, first=11)]}

    def of(part):
        return [to_arrow(frame) for frame in tables[part]]

    made = dict.fromkeys(tables, "first")
    more = [*tables, "C01"]
    assert (
        write_dataset(place, "nuclei", dict.fromkeys(more, "x"), lambda part: [to_arrow(objects(1))]) == more
    )
    assert write_dataset(place, "nuclei", made, of) == ["A01", "A02", "B01"]
    assert write_dataset(place, "nuclei", made, of) == []
    assert write_dataset(place, "nuclei", made | {"A02": "second"}, of) == ["A02"]
    folder = tmp_path / "tables" / "nuclei" / "table.parquet"
    assert sorted(p.name for p in folder.iterdir()) == ["A01.parquet", "A02.parquet", "B01.parquet"]
    (folder / "B01.parquet").unlink()
    assert write_dataset(place, "nuclei", made | {"A02": "second"}, of) == ["B01"]
    labels = [1, 2, 3, 10, 11]
    assert read_table(place, "", "nuclei")["label"].tolist() == labels
    assert pd.read_parquet(folder)["label"].tolist() == labels
    query = f"select label, len(overlap_labels) from read_parquet('{folder}/*.parquet') order by label"
    assert duckdb.sql(query).fetchall() == [(1, 0), (2, 1), (3, 2), (10, 0), (11, 0)]


def test_per_image_tables_open_with_pandas_and_duckdb(tmp_path):
    place = address(tmp_path)
    for path in ("A/1/0", "B/1/0"):
        write_table(place, path, "nuclei", objects())
    file = tmp_path / "A/1/0/tables/nuclei/table.parquet"
    assert pd.read_parquet(file)["touches_edge"].tolist() == [True, False, True]
    query = (
        f"select count(*), sum(area_um2) from read_parquet('{tmp_path}/*/*/*/tables/nuclei/table.parquet')"
    )
    assert duckdb.sql(query).fetchall() == [(6, 3.0)]


def test_a_dataset_does_not_replace_the_table_of_an_image(place):
    write_table(place, "", "nuclei", objects())
    with pytest.raises(RunConflict, match="table of one image"):
        write_dataset(place, "nuclei", {"A01": ""}, lambda part: [to_arrow(objects())])
