"""Reading and writing OME-Zarr images: versions, axes, shards, plates; and every kind of bad input."""

import json
import pickle
from itertools import combinations

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import BadArgument, BadStore
from pipeline.store.ome.arrays import level_count, level_shapes, mean_of_2x2
from pipeline.store.ome.collection import channel_index, open_collection
from pipeline.store.ome.image_writing import create_image, create_plate, write_image
from pipeline.store.places.address import address
from pipeline.store.places.faults import LeavesStore

AXES = [(*some, "y", "x") for n in range(4) for some in combinations("tcz", n)]
LENGTH = {"t": 2, "c": 2, "z": 2, "y": 40, "x": 25}
LAYOUTS = [("0.4", None), ("0.5", None), ("0.5", (64, 64))]
SMALL = [("0.4", None), ("0.5", None), ("0.5", (48, 32))]


def noise(shape, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def edit(place, key, change):
    """Change a JSON document of a store."""
    document = json.loads(place.read_bytes(key))
    change(document)
    place.write_bytes(key, json.dumps(document).encode())


@pytest.fixture
def image_04(tmp_path):
    place = address(tmp_path / "i.zarr")
    write_image(place, "", noise((2, 70, 45)), chunks=(32, 32), ngff="0.4", levels=2)
    return place


@pytest.fixture
def plate(tmp_path):
    place = address(tmp_path / "plate.zarr")
    for n, path in enumerate(create_plate(place, name="p", wells=[("B", "2", 1), ("A", "1", 2)])):
        write_image(place, path, noise((1, 20, 30), seed=n))
    return place


@pytest.mark.parametrize(("ngff", "shards"), SMALL)
@pytest.mark.parametrize("axes", AXES, ids="".join)
def test_every_plane_and_channel_comes_back(tmp_path, axes, ngff, shards):
    shape = [LENGTH[axis] for axis in axes]
    pixels = noise(shape)
    write_image(address(tmp_path), "", pixels, axes=axes, chunks=(24, 16), shards=shards, ngff=ngff)
    (image,) = open_collection(address(tmp_path)).images
    image = pickle.loads(pickle.dumps(image))
    assert (image.axes, image.shape, image.ngff) == (axes, tuple(shape), ngff)
    assert image.shards == shards and image.chunks == (24, 16)
    assert image.size == (40, 25)
    full = pixels.reshape([LENGTH[axis] if axis in axes else 1 for axis in "tczyx"])
    assert len(image.planes) == full.shape[0] * full.shape[2]
    for t, z in image.planes:
        got = image.read((t, z), range(full.shape[1]), 5, 39, 1, 25)
        np.testing.assert_array_equal(got, full[t, :, z, 5:39, 1:25])


@pytest.mark.parametrize("channels", [(0,), (2, 0), (0, 1, 2), (1, 1)])
def test_channels_in_the_asked_order(tmp_path, channels):
    pixels = noise((3, 20, 20))
    write_image(address(tmp_path), "", pixels)
    (image,) = open_collection(address(tmp_path)).images
    np.testing.assert_array_equal(image.read((0, 0), channels, 0, 20, 3, 9), pixels[list(channels), :, 3:9])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", ">u2", "bool"])
@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_dtypes_are_read_in_native_byte_order(tmp_path, dtype, ngff):
    pixels = noise((1, 9, 8)).astype(dtype)
    write_image(address(tmp_path), "", pixels, ngff=ngff)
    (image,) = open_collection(address(tmp_path)).images
    got = image.read((0, 0), (0,), 0, 9, 0, 8)
    assert got.dtype == image.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize(
    ("unit", "spacing"),
    [
        ("micrometer", (0.5, 0.25)),
        ("nanometer", (5e-4, 2.5e-4)),
        ("millimeter", (500.0, 250.0)),
        (None, None),
    ],
)
def test_pixel_size_in_micrometers(tmp_path, unit, spacing):
    place = address(tmp_path)
    write_image(place, "", noise((1, 9, 8)), spacing_um=(0.5, 0.25))

    def change(document):
        for axis in document["attributes"]["ome"]["multiscales"][0]["axes"][1:]:
            axis.pop("unit")
            if unit:
                axis["unit"] = unit

    edit(place, "zarr.json", change)
    (image,) = open_collection(place).images
    assert image.spacing_um == (pytest.approx(spacing) if spacing else None)


def test_transforms_of_the_whole_pyramid_count_too(tmp_path):
    place = address(tmp_path)
    write_image(place, "", noise((1, 9, 8)), spacing_um=(0.5, 0.25))

    def change(document):
        multiscale = document["attributes"]["ome"]["multiscales"][0]
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": [1, 2, 2]}]
        first = multiscale["datasets"][0]["coordinateTransformations"]
        first.append({"type": "translation", "translation": [0, 3, 4]})

    edit(place, "zarr.json", change)
    (image,) = open_collection(place).images
    assert image.scale == (1.0, 1.0, 0.5) and image.translation == (0.0, 6.0, 8.0)


def version_3(multiscale):
    multiscale |= {"version": "0.3", "axes": ["c", "y", "x"]}


def spelled_out(multiscale):
    multiscale["axes"] = [
        {"name": "channel", "type": "channel"},
        {"name": "Y"},
        {"name": "X", "unit": "micrometer"},
    ]


@pytest.mark.parametrize("change", [version_3, spelled_out])
def test_axes_of_older_and_looser_metadata_are_understood(image_04, change):
    edit(image_04, ".zattrs", lambda document: change(document["multiscales"][0]))
    (image,) = open_collection(image_04).images
    assert image.axes == ("c", "y", "x") and image.read((0, 0), (1,), 0, 70, 0, 45).shape == (1, 70, 45)


def test_the_five_axes_of_version_02_need_not_be_named(tmp_path):
    place = address(tmp_path)
    write_image(place, "", noise((1, 2, 1, 20, 30)), axes="tczyx", ngff="0.4")

    def change(document):
        document["multiscales"][0] = {"version": "0.2", "datasets": [{"path": "0"}]}

    edit(place, ".zattrs", change)
    (image,) = open_collection(place).images
    assert image.axes == ("t", "c", "z", "y", "x") and image.shape == (1, 2, 1, 20, 30)


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_metadata_in_the_place_of_the_other_version_are_read(tmp_path, ngff, caplog):
    place = address(tmp_path)
    write_image(place, "", noise((2, 20, 30)), channels=("DAPI", "GFP"), ngff=ngff)
    if ngff == "0.4":
        place.write_bytes(".zattrs", json.dumps({"ome": json.loads(place.read_bytes(".zattrs"))}).encode())
    else:
        edit(place, "zarr.json", lambda document: document.update(attributes=document["attributes"]["ome"]))
    (image,) = open_collection(place).images
    assert image.channels == ("DAPI", "GFP") and "not their place" in caplog.text


def test_wells_that_do_not_list_their_fields_and_other_zarr_formats_are_read(plate):
    plate.write_bytes("A/1/zarr.json", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    plate.remove("B/2/0")
    write_image(plate, "B/2/0", noise((1, 20, 30)), ngff="0.4")
    assert sorted(image.path for image in open_collection(plate).images) == ["A/1/0", "A/1/1", "B/2/0"]


def test_a_damaged_well_does_not_hide_the_others(plate):
    plate.write_bytes("B/2/zarr.json", b"{not json")
    found = open_collection(plate)
    assert [image.path for image in found.images] == ["A/1/0", "A/1/1"]
    assert len(found.missing) == 1 and "B/2/zarr.json: expected JSON" in found.missing[0]


@pytest.mark.parametrize("axes", ["zyx", "tczyx"])
def test_the_maximum_over_depth_is_an_image_without_it(tmp_path, axes):
    pixels = noise([{"t": 2, "c": 3, "z": 4}.get(axis, 20) for axis in axes])
    write_image(address(tmp_path), "", pixels, axes=axes, chunks=(8, 8), levels=2)
    image = open_collection(address(tmp_path)).images[0].projected("max")
    assert image.axes == tuple(axes.replace("z", "")) and image.coarse(10).shape[-2:] == (10, 10)
    full = pixels.reshape([n if axis in axes else 1 for axis, n in (("t", 2), ("c", 3), ("z", 4))] + [20, 20])
    assert image.planes == [(t, 0) for t in range(full.shape[0])]
    for t, _ in image.planes:
        got = image.read((t, 0), range(full.shape[1]), 3, 20, 1, 18)
        np.testing.assert_array_equal(got, full[t].max(axis=1)[:, 3:20, 1:18])


def test_channel_names_are_unique_and_found(tmp_path):
    place = address(tmp_path)
    write_image(place, "", noise((3, 9, 8)), channels=("DAPI", "GFP", "1"))
    (image,) = open_collection(place).images
    assert [channel_index(image, name) for name in ("DAPI", "1", 1, "0")] == [0, 2, 1, 0]
    with pytest.raises(BadArgument, match=r"no channel 'Cy5'; there are 0: 'DAPI', 1: 'GFP', 2: '1'"):
        channel_index(image, "Cy5")
    with pytest.raises(BadArgument, match="no channel 3"):
        channel_index(image, 3)

    def change(document):
        for channel in document["attributes"]["ome"]["omero"]["channels"]:
            channel["label"] = "same"

    edit(place, "zarr.json", change)
    assert open_collection(place).images[0].channels == ("same", "same_1", "same_2")


def test_a_plate_is_read_in_its_order(plate):
    collection = open_collection(plate)
    assert collection.kind == "plate" and collection.missing == () and collection.ngff == "0.5"
    assert [(i.path, i.well, i.field) for i in collection.images] == [
        ("A/1/0", ("A", "1"), "0"),
        ("A/1/1", ("A", "1"), "1"),
        ("B/2/0", ("B", "2"), "0"),
    ]


@pytest.mark.parametrize(("below", "paths"), [("A/1", ["0", "1"]), ("A/1/0", [""])])
def test_parts_of_a_plate_open_by_themselves(plate, below, paths):
    assert [image.path for image in open_collection(plate.child(below)).images] == paths


def test_absent_wells_and_fields_are_named_and_the_rest_goes_on(plate):
    plate.remove("B/2")
    plate.remove("A/1/1")
    collection = open_collection(plate)
    assert [image.path for image in collection.images] == ["A/1/0"]
    assert len(collection.missing) == 2
    assert "B/2: the plate lists this well" in collection.missing[0]
    assert "A/1/1: this image is listed" in collection.missing[1]


def test_a_field_that_is_no_image_is_named_and_the_rest_goes_on(plate):
    edit(
        plate, "A/1/1/zarr.json", lambda document: document["attributes"]["ome"]["multiscales"][0].pop("axes")
    )
    collection = open_collection(plate)
    assert len(collection.images) == 2 and "A/1/1: expected multiscales[0].axes" in collection.missing[0]


def test_a_plate_without_any_image_is_refused(plate):
    for path in ("A", "B"):
        plate.remove(path)
    with pytest.raises(BadStore, match=r"no readable image .*A/1"):
        open_collection(plate)


def test_a_series_of_images_opens(tmp_path):
    place = address(tmp_path)
    for name in ("0", "1", "10"):
        write_image(place, name, noise((1, 9, 8)), ngff="0.4")
    place.write_bytes(".zgroup", b'{"zarr_format": 2}')
    place.write_bytes(".zattrs", b'{"bioformats2raw.layout": 3}')
    assert [image.path for image in open_collection(place).images] == ["0", "1", "10"]


def test_digests_see_every_change_and_nothing_else(plate):
    collection = open_collection(plate)
    before = collection.digests()
    assert before == {image.path: image.digest() for image in collection.images}
    assert len(set(before.values())) == 3
    plate.write_bytes("A/1/0/labels/x/0/c/0/0", b"1")
    assert open_collection(plate).digests() == before
    chunk = "A/1/0/0/" + next(key for key in plate.list("A/1/0/0") if key.startswith("c"))
    plate.write_bytes(chunk, plate.read_bytes(chunk))
    changed = open_collection(plate).digests()
    assert {path for path in before if before[path] != changed[path]} == {"A/1/0"}


@pytest.mark.parametrize(("ngff", "shards"), LAYOUTS)
def test_blocks_of_a_writer_make_the_same_image(tmp_path, ngff, shards):
    pixels = noise((1, 150, 200))
    write_image(address(tmp_path / "whole"), "", pixels, chunks=(32, 32), shards=shards, ngff=ngff, levels=3)
    place = address(tmp_path / "blocks")
    writer = create_image(
        place,
        axes="cyx",
        shape=(1, 150, 200),
        dtype="u2",
        chunks=(32, 32),
        shards=shards,
        ngff=ngff,
        levels=3,
    )
    for y in range(128, -1, -64):
        for x in range(0, 200, 128):
            window = slice(y, min(y + 64, 150)), slice(x, min(x + 128, 200))
            pickle.loads(pickle.dumps(writer)).write((slice(0, 1), *window), pixels[(slice(None), *window)])
    with pytest.raises(BadStore):
        open_collection(place)  # not an image before it is whole
    writer.finish()
    whole = address(tmp_path / "whole")
    assert place.list() == whole.list()
    for key in place.list():
        if key not in ("zarr.json", ".zattrs"):  # they hold the name
            assert place.read_bytes(key) == whole.read_bytes(key), key


def test_a_block_that_cuts_a_file_in_two_is_refused(tmp_path):
    writer = create_image(
        address(tmp_path), axes="yx", shape=(90, 90), dtype="u1", chunks=(32, 32), shards=(64, 64)
    )
    with pytest.raises(BadArgument, match="whole files"):
        writer.write((slice(32, 90), slice(0, 90)), np.zeros((58, 90), "u1"))
    with pytest.raises(BadArgument, match="shape"):
        writer.write((slice(0, 64), slice(0, 64)), np.zeros((63, 64), "u1"))


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9)))
@settings(deadline=None)
def test_halving_is_the_mean_of_2x2(block):
    small = mean_of_2x2(block)
    assert small.shape == level_shapes(block.shape, 2)[1]
    for y in range(small.shape[-2]):
        for x in range(small.shape[-1]):
            ys = [2 * y, min(2 * y + 1, block.shape[-2] - 1)]
            xs = [2 * x, min(2 * x + 1, block.shape[-1] - 1)]
            mean = np.mean([block[..., a, b].astype(float) for a in ys for b in xs], axis=0)
            assert (np.abs(small[..., y, x] - mean) <= 0.5).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_last_level_is_the_first_small_one(height, width):
    shapes = level_shapes((height, width), level_count((height, width)))
    assert max(shapes[-1]) <= 256
    assert len(shapes) == 1 or max(shapes[-2]) > 256


@pytest.mark.parametrize("window", [(0, 71, 0, 1), (-1, 5, 0, 5), (5, 5, 0, 5), (0, 5, 40, 46)])
def test_windows_outside_are_refused(image_04, window):
    (image,) = open_collection(image_04).images
    with pytest.raises(BadArgument, match="inside 70 x 45"):
        image.read((0, 0), (0,), *window)


@pytest.mark.parametrize(
    ("plane", "channels"), [((1, 0), (0,)), ((0, 1), (0,)), ((0, 0), (2,)), ((0, 0), ())]
)
def test_planes_and_channels_outside_are_refused(image_04, plane, channels):
    (image,) = open_collection(image_04).images
    with pytest.raises(BadArgument):
        image.read(plane, channels, 0, 5, 0, 5)


# Bad input


def nothing(place):
    pass


def a_tiff(place):
    place.write_bytes("", b"II*\0")


def empty_folder(place):
    place.write_bytes("x", b"")
    place.remove("x")


def bare_array(place):
    zarr.create_array(place.zarr_store(), shape=(4, 4), dtype="u1")


def plain_group(place):
    zarr.create_group(place.zarr_store())


def broken_json(place):
    place.write_bytes("zarr.json", b"{not json")


def image_with(change, **options):
    def make(place):
        write_image(place, "", noise((1, 9, 8)), **options)
        if options.get("ngff") == "0.4":
            edit(place, ".zattrs", lambda document: change(document))
        else:
            edit(place, "zarr.json", lambda document: change(document["attributes"]["ome"]))

    return make


def axes(*names):
    def change(ome):
        ome["multiscales"][0]["axes"] = [{"name": name} for name in names]

    return change


def fewer_axes(ome):
    axes("y", "x")(ome)
    del ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]


def set_in(key, value):
    return lambda ome: ome["multiscales"][0].__setitem__(key, value)


def dtyped(dtype):
    def make(place):
        write_image(place, "", noise((1, 9, 8)), ngff="0.4")
        zarr.create_array(
            place.zarr_store(), name="0", shape=(1, 9, 8), dtype=dtype, zarr_format=2, overwrite=True
        )

    return make


BAD = [
    ("nothing", nothing, "no such store"),
    ("tiff", a_tiff, "not a Zarr.*ingest tiff"),
    ("empty folder", empty_folder, "not a Zarr: expected zarr.json or .zgroup"),
    ("bare array", bare_array, "a Zarr array, but no OME-Zarr image"),
    ("plain group", plain_group, "no OME-Zarr image: expected 'multiscales'"),
    ("broken json", broken_json, "zarr.json: expected JSON"),
    ("no axes", image_with(lambda ome: ome["multiscales"][0].pop("axes")), "expected multiscales.0..axes"),
    ("no axes 0.4", image_with(lambda o: o["multiscales"][0].pop("axes"), ngff="0.4"), "multiscales.0..axes"),
    ("swapped axes", image_with(axes("c", "x", "y")), r"with y and x, got \['c', 'x', 'y'\]"),
    ("unknown axis", image_with(axes("q", "y", "x")), r"got \['q', 'y', 'x'\]"),
    ("too few axes", image_with(fewer_axes), r"expected 2 axes \(y, x\).*shape \(1, 9, 8\)"),
    ("no datasets", image_with(set_in("datasets", [])), "datasets"),
    ("leaves", image_with(set_in("datasets", [{"path": "../../x"}])), "leaves the store"),
    ("absolute", image_with(set_in("datasets", [{"path": "/etc"}])), "leaves the store"),
    ("no array", image_with(set_in("datasets", [{"path": "7"}])), "expected an array at '7'"),
    (
        "bad scale",
        image_with(set_in("coordinateTransformations", [{"type": "scale", "scale": [1]}])),
        "scale of 3",
    ),
    ("complex", dtyped("complex64"), "expected pixels of integers or floats, got dtype complex64"),
    ("string", dtyped("U4"), "expected pixels of integers or floats, got dtype <U4"),
    ("no multiscales", image_with(lambda ome: ome.__setitem__("multiscales", [])), "expected 'multiscales'"),
]


@pytest.mark.parametrize(("make", "says"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_bad_input_is_refused_with_a_reason(tmp_path, make, says):
    place = address(tmp_path / ("x.tif" if make is a_tiff else "x.zarr"))
    make(place)
    with pytest.raises(BadStore, match=says) as caught:
        open_collection(place)
    assert place.url in str(caught.value)


@pytest.mark.parametrize(
    ("key", "where"),
    [("zarr.json", ("plate", "wells")), ("A/1/zarr.json", ("well", "images"))],
)
@pytest.mark.parametrize("path", ["../../other", "/etc", "s3://other/bucket"])
def test_wells_and_fields_that_leave_the_store_stop_everything(plate, key, where, path):
    def change(document):
        document["attributes"]["ome"][where[0]][where[1]][0]["path"] = path

    edit(plate, key, change)
    with pytest.raises(LeavesStore, match="leaves the store"):
        open_collection(plate)


def cut(data):
    return data[: len(data) // 2]


def garble(data):
    return bytes(255 - byte for byte in data)


@pytest.mark.parametrize("damage", [cut, garble, lambda data: b""], ids=["cut", "garbled", "empty"])
@pytest.mark.parametrize("incompressible", [False, True])
@pytest.mark.parametrize(("ngff", "shards"), LAYOUTS)
def test_a_damaged_chunk_is_named(tmp_path, ngff, shards, damage, incompressible):
    place = address(tmp_path)
    values = np.random.default_rng(0).integers(0, 65536, (2, 128, 128)).astype("u2")
    pixels = values if incompressible else values // 4096
    write_image(place, "", pixels, chunks=(64, 64), shards=shards, ngff=ngff)
    (image,) = open_collection(place).images
    key = "0/1/1/0" if ngff == "0.4" else "0/c/1/1/0"
    place.write_bytes(key, damage(place.read_bytes(key)))
    with pytest.raises(BadStore, match=rf"{place.url}/0: chunk \(1, 1, 0\) cannot be decoded"):
        image.read((0, 0), (0, 1), 0, 128, 0, 128)
    np.testing.assert_array_equal(image.read((0, 0), (0,), 0, 128, 0, 128), pixels[:1])


@pytest.mark.parametrize(("ngff", "shards"), LAYOUTS)
def test_a_lost_chunk_is_told_from_an_empty_one(tmp_path, ngff, shards):
    pixels = noise((1, 256, 300)) + 1
    pixels[0, :64, :64] = 0
    write_image(address(tmp_path), "", pixels, chunks=(64, 64), shards=shards, ngff=ngff, levels=2)
    place = address(tmp_path)
    prefix = "0/" if ngff == "0.4" else "0/c/"
    for index in ("0/0/0", "0/3/4"):
        place.remove(prefix + index)
    (image,) = open_collection(place).images
    assert image.absent_chunks() == image.lost_chunks() == ((0, 0, 0), (0, 3, 4))
    # Another writer, which leaves empty chunks out:
    document = "zarr.json" if ngff == "0.5" else ".zattrs"
    edit(place, document, lambda d: d.get("attributes", d).pop("platelayer"))
    (image,) = open_collection(place).images
    assert image.absent_chunks() == ((0, 0, 0), (0, 3, 4))
    assert image.lost_chunks() == ((0, 3, 4),)
    assert not image.read((0, 0), (0,), 0, 64, 0, 64).any()


def test_an_intact_image_lacks_nothing(image_04):
    (image,) = open_collection(image_04).images
    assert image.absent_chunks() == image.lost_chunks() == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"axes": ("x", "y")}, "axes out of t, c, z, y, x"),
        ({"axes": ("c", "y", "x")}, "one extent per axis"),
        ({"axes": ("y", "x"), "ngff": "0.3"}, "version 0.4 or 0.5, got '0.3'"),
        ({"axes": ("y", "x"), "ngff": "0.4", "shards": (64, 64)}, "shards need OME-Zarr 0.5"),
        ({"axes": ("y", "x"), "channels": ("a", "b")}, "1 different channel names"),
    ],
)
def test_bad_wishes_for_a_new_image_are_refused(tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        create_image(address(tmp_path), shape=(9, 9), dtype="u1", **options)
