"""Any image: axes, types, versions, sizes; one (t, z) plane after the other."""

import json

import numpy as np
import pandas as pd
import pytest
import zarr

from flows.evaluation.report import ReportOn, report_page
from pipeline.errors import BadArgument
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import open_label
from pipeline.store.ome.tables import read_table
from pipeline.store.places.address import address

AXES = {
    "yx": ("y", "x"),
    "cyx": ("c", "y", "x"),
    "zyx": ("z", "y", "x"),
    "tcyx": ("t", "c", "y", "x"),
    "tczyx": ("t", "c", "z", "y", "x"),
}
EXTENT = {"t": 2, "c": 2, "z": 3, "y": 70, "x": 90}


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_every_plane_is_segmented_and_labels_keep_t_and_z(
    axes, ngff, image_at, noise, bright, run_job, table_of, stack_of, oracle, objects_in
):
    names = AXES[axes]
    image = noise(tuple(EXTENT[a] for a in names), sigma=3, dtype=np.uint8)
    store = image_at("a.zarr", image, axes=names, ngff=ngff)
    run_job(store, segmenter=bright, name="n", tiling={"core": 64}, channel=[0])
    labels = open_collection(address(store / "labels" / "n")).images[0]
    assert labels.axes == tuple(a for a in names if a != "c")
    assert labels.shape == tuple(EXTENT[a] for a in labels.axes)
    source = open_collection(address(store)).images[0]
    table = table_of(store, "n")
    assert table.label.tolist() == list(range(1, len(table) + 1))
    seen = set()
    for t, z in source.planes:
        ids = set(np.unique(stack_of(store, "n", plane=(t, z)))) - {0}
        assert ids == set(table.label[(table.t == t) & (table.z == z)])
        assert ids and not ids & seen
        seen |= ids


def test_planes_share_the_limits_of_their_image(image_at, module_of, run_job, stack_of):
    image = np.zeros((2, 1, 40, 40), np.uint16)
    image[0, :, 5:10, 5:10], image[1, :, 5:10, 5:10] = 100, 1000
    store = image_at("a.zarr", image, axes=("t", "c", "y", "x"))
    name = module_of("def f(block):\n    return block[:1] > 0.5\n")
    run_job(store, segmenter=f"{name}:f", name="n", normalise={"low": 0, "high": 100})
    assert not stack_of(store, "n", plane=(0, 0)).any()
    assert (stack_of(store, "n", plane=(1, 0)) > 0).sum() == 25


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int16", "uint32", "float32", "float64"])
def test_types_of_pixels(dtype, image_at, noise, module_of, run_job, table_of):
    image = noise((80, 75), dtype=np.uint8)
    image = image > 120 if dtype == "bool" else image.astype(dtype)
    name = module_of("def f(block):\n    return block[:1] > 0.5\n")
    store = image_at("a.zarr", image.astype(np.uint8) if dtype == "bool" else image)
    if dtype == "bool":
        zarr.create_array(store / "0", data=image[None], overwrite=True)
    run_job(store, segmenter=f"{name}:f", name="n", tiling={"core": 32}, normalise={"low": 0, "high": 100})
    table = table_of(store, "n")
    assert len(table)
    inside = table.intensity_mean_channel_0
    assert ((table.intensity_min_channel_0 <= inside) & (inside <= table.intensity_max_channel_0)).all()


def test_a_float_image_gives_the_objects_of_the_same_integers(image_at, noise, module_of, run_job, stack_of):
    image = noise((90, 100), dtype=np.uint8)
    name = module_of("def f(block):\n    return block[:1] > 0.5\n")
    stacks = []
    for dtype in ("uint8", "float32"):
        store = image_at(f"{dtype}.zarr", image.astype(dtype))
        run_job(store, segmenter=f"{name}:f", name="n", tiling={"core": 32})
        stacks.append(stack_of(store, "n") > 0)
    # Limits of float images lie within a bin, 1/65536 of the range.
    assert np.count_nonzero(stacks[0] != stacks[1]) <= 0.002 * image.size


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 130), (130, 1), (65, 129), (64, 64), (63, 66)])
def test_sizes_that_do_not_fit_tiles(
    shape, image_at, noise, bright, run_job, stack_of, objects_in, tmp_path, table_of
):
    image = noise(shape, sigma=1, dtype=np.uint8)
    stores = [image_at(f"{core}.zarr", image) for core in (32, 512)]
    for store, core in zip(stores, (32, 512)):
        run_job(store, segmenter=bright, name="n", tiling={"core": core})
    one, other = (stack_of(store, "n") for store in stores)
    assert one.shape[1:] == shape
    assert np.array_equal(one, other)
    pd.testing.assert_frame_equal(*(table_of(store, "n") for store in stores))


def test_shards_and_other_chunks_change_nothing(image_at, noise, bright, run_job, labels_of):
    image = noise((200, 260))
    plain = image_at("plain.zarr", image)
    sharded = image_at("sharded.zarr", image, chunks=(32, 32), shards=(128, 128))
    for store in (plain, sharded):
        run_job(store, segmenter=bright, name="n", tiling={"core": 64})
    assert labels_of(plain, "n") == labels_of(sharded, "n")


def test_channels_by_name_and_index_reach_the_segmenter(
    image_at, noise, module_of, run_job, table_of, labels_of, tmp_path
):
    image = np.stack([noise((60, 60), seed=s) for s in range(3)])
    store = image_at("a.zarr", image, channels=("DAPI", "GFP", "RFP"))
    name = module_of("def f(block):\n    return block[:1] > 0.5\nf.channels = 2\n")
    run_job(store, segmenter=f"{name}:f", name="n", channel=["GFP", "0"])
    run_job(store, segmenter=f"{name}:f", name="m", channel=[1, "DAPI"])
    pd.testing.assert_frame_equal(table_of(store, "n"), table_of(store, "m"))


def test_all_channels_are_measured_unless_some_are_chosen(
    image_at, noise, module_of, run_job, table_of, stack_of
):
    image = np.stack([noise((60, 60), seed=s) for s in range(3)])
    store = image_at("a.zarr", image, channels=("DAPI", "GFP", "RFP"))
    name = module_of("def f(block):\n    return block > 0.5\n")
    run_job(store, segmenter=f"{name}:f", name="all", channel=["GFP"], tiling={"core": 32})
    run_job(store, segmenter=f"{name}:f", name="two", channel=["GFP"], measure={"channels": ["RFP", 0]})
    table, stack = table_of(store, "all"), stack_of(store, "all")
    for label, mean in zip(table["label"], table["intensity_mean_RFP"]):
        assert np.isclose(mean, image[2][(stack == label).any(axis=0)].mean())
    chosen = [c for c in table if not c.endswith("_GFP")]
    pd.testing.assert_frame_equal(table[chosen], table_of(store, "two")[chosen])
    assert not [c for c in table_of(store, "two") if c.endswith("_GFP")]


def test_limits_of_an_image_its_well_or_its_plate(plate_at, module_of, run_job, table_of):
    def scene(height):
        image = np.zeros((40, 40), np.uint16)
        image[5:15, 5:15] = height
        return image

    name = module_of("def f(block):\n    return block[:1] > 0.5\n")
    wells = {"A/1": [scene(10), scene(100)], "B/1": [scene(1000)]}
    found = {}
    for scope in ("image", "well", "plate"):
        store = plate_at(f"{scope}.zarr", wells)
        run_job(store, segmenter=f"{name}:f", name="n", normalise={"low": 0, "high": 100, "scope": scope})
        found[scope] = [len(table_of(store, "n", path)) for path in ("A/1/0", "A/1/1", "B/1/0")]
    assert found == {"image": [1, 1, 1], "well": [0, 1, 1], "plate": [0, 0, 1]}


def test_raw_values_without_normalisation(image_at, module_of, run_job, stack_of):
    image = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    name = module_of("def f(block):\n    return block[:1] == 4242\n")
    store = image_at("a.zarr", image)
    run_job(store, segmenter=f"{name}:f", name="n", tiling={"core": 32}, normalise={"kind": "none"})
    assert np.array_equal(stack_of(store, "n")[0] > 0, image == 4242)


def test_table_columns_hold_what_they_say(plate_at, module_of, run_job, table_of):
    image = np.zeros((50, 60), np.uint16)
    image[10:14, 20:28] = 200
    store = plate_at("p.zarr", {"B/3": [image]}, channels=("DAPI",), spacing_um=(0.5, 0.25))
    name = module_of("def f(block):\n    return block[:1] > 0.5\n")
    run_job(store, segmenter=f"{name}:f", name="n", tiling={"core": 12}, normalise={"kind": "none"})
    row = table_of(store, "n", "B/3/0").iloc[0]
    assert (row.label, row.layer, row["row"], row.column, row.field) == (1, 0, "B", "3", "0")
    assert (row.centroid_y, row.centroid_x, row.area_px, row.area_um2) == (11.5, 23.5, 32, 4.0)
    assert (row.bbox_y0, row.bbox_x0, row.bbox_y1, row.bbox_x1) == (10, 20, 14, 28)
    assert (row.intensity_mean_DAPI, row.intensity_sum_DAPI, row.overlap_px) == (200, 6400, 0)
    assert not row.touches_edge and list(row.overlap_labels) == []


def two_cycles(plate_at, noise):
    """A plate of one well, whose two fields are two acquisitions of the same place."""
    store = plate_at("p.zarr", {"A/1": [noise((60, 60)), noise((60, 60), seed=1)]}, channels=("DAPI",))
    place = store / "A/1/zarr.json"
    document = json.loads(place.read_text())
    for number, image in enumerate(document["attributes"]["ome"]["well"]["images"]):
        image["acquisition"] = number
    place.write_text(json.dumps(document))
    return store


def test_an_acquisition_is_segmented_named_in_the_table_and_reported_alone(plate_at, noise, run_job, bright):
    store = two_cycles(plate_at, noise)
    with pytest.raises(BadArgument, match=r"several acquisitions.*choose one with --acquisition"):
        run_job(store, segmenter=bright, name="n")
    record = run_job(store, segmenter=bright, name="n", acquisition="1")
    assert list(record.images) == ["A/1/1"] and record.status == "complete"
    table = read_table(address(store), "A/1/1", "n")
    assert set(table["acquisition"]) == {"1"}
    both = run_job(store, segmenter=bright, name="both", acquisition="all")
    assert list(both.images) == ["A/1/0", "A/1/1"]
    pages = {name: str(report_page(ReportOn(store=str(store), name=name))) for name in ("n", "both")}
    assert "A/1/0" not in pages["n"] and "A/1/0" in pages["both"]
    assert "A/1/1" not in str(report_page(ReportOn(store=str(store), name="both", acquisition="0")))


def test_the_maximum_over_z_is_segmented_into_flat_labels(
    image_at, noise, run_job, bright, stack_of, table_of
):
    deep = noise((1, 3, 90, 100), seed=2)
    flat = image_at("flat.zarr", deep.max(axis=1))
    stack = image_at("deep.zarr", deep, axes="czyx")
    for store, options in ((flat, {}), (stack, {"project": "max"})):
        run_job(store, segmenter=bright, name="n", tiling={"core": 64}, **options)
    np.testing.assert_array_equal(stack_of(stack, "n"), stack_of(flat, "n"))
    assert open_label(address(stack), "", "n").axes == ("y", "x")
    assert len(table_of(stack, "n")) == len(table_of(flat, "n"))
