"""What is written opens in the readers and passes the validators that people use."""

import subprocess
import sys
import warnings

import ngio
import numpy as np
import pandas as pd
import pytest
import yaozarrs
import zarr
from ome_zarr.format import FormatV04, FormatV05
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr.writer import write_image as ome_zarr_write

from pipeline.errors import BadArgument, BadStore
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image_writing import create_plate, create_series, write_image
from pipeline.store.ome.labels import create_labels, publish, write_stack
from pipeline.store.ome.mirror import list_published, mirror
from pipeline.store.ome.tables import to_arrow, write_dataset, write_table
from pipeline.store.places.address import address

WELLS = [("A", "1", 1), ("B", "2", 2)]

FORMATS = {"0.4": FormatV04, "0.5": FormatV05}

STACK = np.zeros((2, 300, 400), np.uint32)
STACK[0, 3:30, 4:60] = 1
STACK[1, 20:80, 20:60] = 2

CHECK = """
import sys, zarr
import ome_zarr_models.v04 as v04, ome_zarr_models.v05 as v05
for kind, version, path in (line.split("|") for line in sys.argv[1:]):
    models = v04 if version == "0.4" else v05
    getattr(models, kind).from_zarr(zarr.open_group(path, mode="r"))
    print(path)
"""


def table():
    return pd.DataFrame(
        {
            "label": np.array([1, 2], np.uint32),
            "row": ["A", "A"],
            "overlap_labels": [[2], [1]],
            "area_px": [5, 6],
        }
    )


def results(place, collection):
    """Put labels and tables beside every image."""
    for image in collection.images:
        write_stack(place, image, STACK, name="nuclei")
        write_table(place, image.path, "nuclei", table())
    parts = {image.path.replace("/", "_"): "" for image in collection.images}
    write_dataset(place, "nuclei", parts, lambda part: [to_arrow(table())])


def shapes(path):
    """What the ome-zarr reader finds: the shapes of the finest levels."""
    return [node.data[0].shape for node in Reader(parse_url(path))() if node.data]


def make_stores(base, ngff, shards):
    """A plate with results, its mirror without and with pixels; their paths by name."""
    plate = base.child("plate.zarr")
    pixels = np.random.default_rng(0).integers(0, 4000, (2, 300, 400)).astype("u2")
    for path in create_plate(plate, name="p", wells=WELLS, ngff=ngff):
        write_image(
            plate, path, pixels, ngff=ngff, chunks=(64, 64), shards=shards, spacing_um=(0.5, 0.5),
            channels=("DAPI", "GFP"),
        )  # fmt: skip
    collection = open_collection(plate)
    for name, copy in (("bare.zarr", False), ("full.zarr", True)):
        mirror(collection, base.child(name), copy_images=copy)
        results(base.child(name), collection)
    results(plate, collection)
    return {name: base.child(f"{name}.zarr").url for name in ("plate", "bare", "full")}


@pytest.fixture(scope="module")
def all_stores(tmp_path_factory):
    made = {"0.4": None, "0.5": (128, 128)}
    base = address(tmp_path_factory.mktemp("stores"))
    return {ngff: make_stores(base.child(ngff), ngff, shards) for ngff, shards in made.items()}


@pytest.fixture(params=["0.4", "0.5"])
def stores(request, all_stores):
    return request.param, all_stores[request.param]


@pytest.mark.parametrize("which", ["plate", "full"])
def test_whole_plates_are_valid_and_open(stores, which):
    _, urls = stores
    url = urls[which]
    for path in ("", "/B/2", "/B/2/1", "/B/2/1/labels/nuclei", "/B/2/1/labels/nuclei_layer1"):
        yaozarrs.validate_zarr_store(url + path)
    plate = ngio.open_ome_zarr_plate(url)
    assert plate.images_paths(max_workers=1) == ["A/1/0", "B/2/0", "B/2/1"]
    image = plate.get_images(max_workers=1)["B/2/1"]
    assert image.list_labels() == ["nuclei", "nuclei_layer1"] and image.list_tables() == ["nuclei"]
    np.testing.assert_array_equal(image.get_label("nuclei_layer1").get_as_numpy(), STACK[1])
    assert image.get_table("nuclei").dataframe["area_px"].to_dict() == {1: 5, 2: 6}
    assert len(plate.get_table("nuclei").dataframe) == 6
    assert shapes(url) == [(2, 600, 800)]
    assert shapes(url + "/B/2/1") == [(2, 300, 400), (300, 400), (300, 400)]


@pytest.mark.parametrize("which", ["plate", "bare", "full"])
@pytest.mark.parametrize("layer", [0, 1])
def test_every_label_group_opens_by_itself(stores, which, layer):
    _, urls = stores
    url = f"{urls[which]}/B/2/0/labels/" + ("nuclei", "nuclei_layer1")[layer]
    yaozarrs.validate_zarr_store(url)
    label = ngio.open_label(url)
    np.testing.assert_array_equal(label.get_as_numpy(), STACK[layer])
    assert (label.pixel_size.y, label.pixel_size.x) == (0.5, 0.5)
    assert (300, 400) in shapes(url)
    (own,) = open_collection(address(url)).images
    np.testing.assert_array_equal(own.read((0, 0), (0,), 0, 300, 0, 400)[0], STACK[layer])


def test_ome_zarr_models_agree(all_stores):
    """In a process of its own, because importing ngio first breaks ome-zarr-models 1.7."""
    items = []
    for ngff, urls in all_stores.items():
        items += [
            ("HCS", ngff, urls["plate"]),
            ("HCS", ngff, urls["full"]),
            ("HCS", ngff, urls["bare"]),
            ("Image", ngff, urls["bare"] + "/B/2/1"),
            ("Image", ngff, urls["full"] + "/B/2/1"),
        ]
        for url in urls.values():
            labels = f"{url}/B/2/1/labels"
            items += [("ImageLabel", ngff, f"{labels}/{name}") for name in ("nuclei", "nuclei_layer1")]
            items += [("Labels", ngff, labels)]
    lines = ["|".join(item) for item in items]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHECK, *lines], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [url for _, _, url in items]


def test_a_mirror_holds_no_pixels_and_opens_in_every_reader(stores):
    _, urls = stores
    bare = address(urls["bare"])
    assert all(
        "labels" in key or "tables" in key or key.endswith((".json", ".zattrs", ".zgroup"))
        for key in bare.list()
    )
    opened = open_collection(bare)
    assert [image.path for image in opened.images] == ["A/1/0", "B/2/0", "B/2/1"] and opened.missing == ()
    assert all(image.is_stand_in for image in opened.images)
    np.testing.assert_array_equal(opened.images[0].read((0, 0), (0,), 0, 300, 0, 400)[0], STACK[0])
    for path in ("", "/B/2", "/B/2/1"):
        yaozarrs.validate_zarr_store(bare.url + path)
    plate = ngio.open_ome_zarr_plate(bare.url)
    assert plate.images_paths(max_workers=1) == ["A/1/0", "B/2/0", "B/2/1"]
    assert len(plate.get_table("nuclei").dataframe) == 6
    image = plate.get_images(max_workers=1)["B/2/1"]
    assert image.list_labels() == ["nuclei", "nuclei_layer1"]
    np.testing.assert_array_equal(image.get_image().get_as_numpy(), STACK[0])
    np.testing.assert_array_equal(image.get_label("nuclei_layer1").get_as_numpy(), STACK[1])
    assert shapes(bare.url + "/B/2/1") == [(300, 400), (300, 400), (300, 400)]
    assert shapes(bare.url) == [(600, 800)]


def test_a_mirror_lists_only_the_images_that_were_published(tmp_path):
    source, target = address(tmp_path / "s.zarr"), address(tmp_path / "t.zarr")
    for path in create_plate(source, name="p", wells=WELLS):
        write_image(source, path, np.ones((1, 20, 30), "u1"))
    collection = open_collection(source)
    mirror(collection, target)
    write_stack(target, collection.images[2], np.ones((1, 20, 30), int), name="n")
    list_published(collection, target)
    yaozarrs.validate_zarr_store(target.url)
    assert ngio.open_ome_zarr_plate(target.url).images_paths(max_workers=1) == ["B/2/1"]
    mirror(collection, target)
    write_stack(target, collection.images[0], np.ones((1, 20, 30), int), name="n")
    list_published(collection, target)
    assert [image.path for image in open_collection(target).images] == ["A/1/0", "B/2/1"]


def test_a_full_mirror_holds_the_same_bytes(stores):
    _, urls = stores
    plate, full = address(urls["plate"]), address(urls["full"])
    assert full.list() == plate.list()
    assert all(full.read_bytes(key) == plate.read_bytes(key) for key in plate.list())


def test_a_mirror_leaves_the_source_alone_and_may_be_repeated(tmp_path):
    source, target = address(tmp_path / "s.zarr"), address(tmp_path / "t.zarr")
    write_image(source, "", np.ones((1, 20, 30), "u1"))
    before = {key: source.read_bytes(key) for key in source.list()}
    mirror(open_collection(source), target)
    image = open_collection(source).images[0]
    write_stack(target, image, np.ones((1, 20, 30), int), name="n")
    mirror(open_collection(source), target)
    yaozarrs.validate_zarr_store(f"{target.url}/labels/n")
    mirror(open_collection(source), target, copy_images=True)
    yaozarrs.validate_zarr_store(target.url)
    assert before == {key: source.read_bytes(key) for key in source.list()}


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_a_series_and_a_well_are_mirrored(tmp_path, ngff):
    series, plate = address(tmp_path / "s.zarr"), address(tmp_path / "p.zarr")
    for name in ("left", "right"):
        write_image(series, name, np.ones((1, 20, 30), "u1"), ngff=ngff)
    create_series(series, ["left", "right"], ngff=ngff)
    for path in create_plate(plate, name="p", wells=WELLS, ngff=ngff):
        write_image(plate, path, np.ones((1, 20, 30), "u1"), ngff=ngff)
    for source, paths in ((series, ["left", "right"]), (plate.child("B/2"), ["0", "1"])):
        target = address(tmp_path / f"{source.name}.copy")
        mirror(open_collection(source), target, copy_images=True)
        assert [image.path for image in open_collection(target).images] == paths


def test_a_mirror_lists_only_what_can_be_read(tmp_path):
    source, target = address(tmp_path / "s.zarr"), address(tmp_path / "t.zarr")
    for path in create_plate(source, name="p", wells=WELLS):
        write_image(source, path, np.ones((1, 20, 30), "u1"))
    source.remove("A/1")
    source.remove("B/2/0")
    mirror(open_collection(source), target, copy_images=True)
    copy = open_collection(target)
    assert [image.path for image in copy.images] == ["B/2/1"] and copy.missing == ()
    yaozarrs.validate_zarr_store(target.url)


@pytest.mark.parametrize("below", ["", "/inside"])
def test_a_mirror_into_its_source_is_refused(tmp_path, below):
    source = address(tmp_path / "s.zarr")
    write_image(source, "", np.ones((1, 20, 30), "u1"))
    with pytest.raises(BadArgument, match="another place than the source"):
        mirror(open_collection(source), address(source.url + below))


def test_a_mirror_onto_another_zarr_format_is_refused(tmp_path):
    source, target = address(tmp_path / "s.zarr"), address(tmp_path / "t.zarr")
    write_image(source, "", np.ones((1, 20, 30), "u1"))
    write_image(target, "", np.ones((1, 20, 30), "u1"), ngff="0.4")
    with pytest.raises(BadStore, match="zarr format 3 like the source"):
        mirror(open_collection(source), target)


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_time_series_with_depth_are_valid(tmp_path, ngff):
    place = address(tmp_path / "i.zarr")
    write_image(place, "", np.ones((2, 1, 3, 40, 50), "u1"), axes="tczyx", ngff=ngff)
    (image,) = open_collection(place).images
    writer = create_labels(place, "", name="n", layers=2, image=image)
    for number, plane in enumerate(image.planes):
        writer.write(plane, 0, 0, 0, np.full((40, 50), number + 1))
    publish(writer)
    yaozarrs.validate_zarr_store(place.url)
    label = ngio.open_ome_zarr_container(place.url).get_label("n")
    assert label.shape == (2, 3, 40, 50)
    assert sorted(np.unique(label.get_as_numpy())) == list(range(1, 7))


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_labels_and_tables_are_found_where_metadata_were_consolidated(tmp_path, ngff):
    place = address(tmp_path / "p.zarr")
    (path,) = create_plate(place, name="p", wells=[("A", "1", 1)], ngff=ngff)
    write_image(place, path, np.ones((1, 20, 30), "u1"), ngff=ngff)
    for url in (f"{place.url}/{path}", place.url):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(url)
    image = open_collection(place).images[0]
    write_stack(place, image, np.ones((1, 20, 30), int), name="n")
    write_table(place, path, "n", table())
    for url in (f"{place.url}/{path}", place.url):
        group = zarr.open_group(url, mode="r")
        below = "" if url.endswith(path) else f"{path}/"
        assert group[f"{below}labels/n/0"].shape == (20, 30)
        assert f"{below}tables/n" in group


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
@pytest.mark.parametrize("writer", ["ngio", "ome-zarr"])
def test_images_of_other_writers_are_read(tmp_path, ngff, writer):
    pixels = np.random.default_rng(0).integers(0, 4000, (2, 3, 70, 90)).astype("u2")
    place = address(tmp_path / "i.zarr")
    if writer == "ngio":
        ngio.create_ome_zarr_from_array(
            place.url, pixels, pixelsize=0.5, z_spacing=2.0, axes_names="czyx", channels_meta=["DAPI", "GFP"],
            levels=2, ngff_version=ngff, consolidation_mode="auto",
        )  # fmt: skip
    else:
        group = zarr.open_group(place.url, mode="w", zarr_format=2 if ngff == "0.4" else 3)
        ome_zarr_write(pixels, group, axes="czyx", fmt=FORMATS[ngff](), scale_factors=[2, 4])
    (image,) = open_collection(place).images
    assert (image.axes, image.shape, image.ngff) == (tuple("czyx"), pixels.shape, ngff)
    assert len(image.levels) > 1 and image.absent_chunks() == ()
    np.testing.assert_array_equal(image.read((0, 2), (1, 0), 3, 70, 0, 81), pixels[[1, 0], 2, 3:70, :81])
    if writer == "ngio":
        assert image.channels == ("DAPI", "GFP") and image.spacing_um == (0.5, 0.5)
    write_stack(place, image, np.ones((1, 70, 90), int), name="mine", plane=(0, 1))
    yaozarrs.validate_zarr_store(place.url)
