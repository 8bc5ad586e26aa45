"""The table over a whole plate: written by every run, a part per well, the same however the run went."""

import shutil

import pandas as pd
import pyarrow.dataset
import pytest

from pipeline.store.ome.image_writing import write_image
from pipeline.store.ome.tables import list_tables, read_table
from pipeline.store.places.address import address

PLACE = "tables/n/table.parquet"


@pytest.fixture
def plate(plate_at, noise):
    wells = {"A/1": [noise((40, 40), seed=1), noise((40, 40), seed=2)], "B/12": [noise((40, 40), seed=3)]}
    return plate_at("lab_7.zarr", wells)


def parts(store):
    return {path.name: path.read_bytes() for path in (store / PLACE).iterdir()}


def test_all_objects_of_a_run_are_one_dataset(plate, bright, run_job):
    record = run_job(plate, segmenter=bright, name="n")
    assert sorted(parts(plate)) == ["A01.parquet", "B12.parquet"]
    table = pd.read_parquet(plate / PLACE)
    assert list(table)[:4] == ["plate", "well", "field", "acquisition"]
    assert len(table) == record.objects > 0
    images = [("A01", "0", "A/1/0"), ("A01", "1", "A/1/1"), ("B12", "0", "B/12/0")]
    for well, field, path in images:
        own = table[(table["well"] == well) & (table["field"] == field)]
        assert own["area_px"].tolist() == read_table(address(plate), path, "n")["area_px"].tolist()
    assert set(table["plate"]) == {"lab_7"} and list_tables(address(plate), "") == ["n"]
    found = pyarrow.dataset.dataset(plate / PLACE)
    assert found.count_rows(filter=pyarrow.dataset.field("well") == "B12") == (table["well"] == "B12").sum()


def test_it_does_not_depend_on_workers_or_on_where_the_run_was_ended(
    plate, bright, run_job, stop_after, tmp_path
):
    other = tmp_path / "other" / plate.name
    shutil.copytree(plate, other)
    run_job(plate, segmenter=bright, name="n")
    for pieces in (1, 0):
        with pytest.raises(stop_after.Stop):
            run_job(other, segmenter=bright, name="n", progress=stop_after(pieces))
    run_job(other, segmenter=bright, name="n", execution={"executor": "threads", "workers": 2})
    assert parts(other) == parts(plate)


def test_only_parts_whose_wells_changed_are_written_again(plate, bright, run_job, noise):
    run_job(plate, segmenter=bright, name="n")
    before = {path.name: path.stat().st_mtime_ns for path in (plate / PLACE).iterdir()}
    (plate / PLACE / "B12.parquet").unlink()
    assert run_job(plate, segmenter=bright, name="n").status == "unchanged"
    shutil.rmtree(plate / "A/1/1")
    write_image(address(plate), "A/1/1", noise((40, 40), seed=9)[None], chunks=(64, 64))
    repaired = {path.name: path.stat().st_mtime_ns for path in (plate / PLACE).iterdir()}
    assert repaired["A01.parquet"] == before["A01.parquet"] and "B12.parquet" in repaired
    run_job(plate, segmenter=bright, name="n")
    after = {path.name: path.stat().st_mtime_ns for path in (plate / PLACE).iterdir()}
    assert after["B12.parquet"] == repaired["B12.parquet"] and after["A01.parquet"] > repaired["A01.parquet"]


def test_images_with_other_channels_have_nulls_and_a_single_image_has_its_own_table(
    plate_at, image_at, bright, run_job, noise
):
    store = plate_at("p.zarr", {"A/1": [None, None]})
    for field, channels in enumerate((("DAPI", "GFP"), ("DAPI",))):
        pixels = noise((len(channels), 40, 40), seed=field)
        write_image(address(store), f"A/1/{field}", pixels, chunks=(64, 64), channels=channels)
    run_job(store, segmenter=bright, name="n", channel=["DAPI"])
    table = pd.read_parquet(store / PLACE)
    assert table.groupby("field")["intensity_mean_GFP"].apply(lambda values: values.isna().all()).tolist() == [
        False, True,
    ]  # fmt: skip
    alone = image_at("a.zarr", noise((40, 40)))
    run_job(alone, segmenter=bright, name="n")
    assert (alone / PLACE).is_file()
