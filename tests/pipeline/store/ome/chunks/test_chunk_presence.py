"""Absent chunks: empty ones are zeros, lost ones are an error, and names with another separator are found."""

import json

import numpy as np
import pytest
import zarr

from pipeline.errors import BadStore
from pipeline.store.ome.chunks.presence import check_chunks
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image_writing import write_image
from pipeline.store.places.address import address


def smoothed(pixels, taps, step):
    """Smooth by a kernel along both axes, then keep every ``step``-th pixel, as Gaussian pyramids do."""
    half = len(taps) // 2
    wide = np.pad(pixels.astype(float), half, mode="edge")
    for axis in (0, 1):
        size = wide.shape[axis] - 2 * half
        wide = sum(
            w * np.take(wide, range(k, k + size), axis) for k, w in enumerate(np.divide(taps, sum(taps)))
        )
    return wide[::step, ::step]


def gaussian(sigma, truncate=4):
    reach = int(truncate * sigma + 0.5)
    return np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)


KERNELS = {
    "binomial": ([1, 4, 6, 4, 1], 2),
    "gaussian 2": (gaussian(1.0), 2),
    "gaussian 4": (gaussian(1.5), 4),
}


def sparse_store(place, dtype, taps, step, lost=()):
    """A mosaic with two tiles that were not scanned, its smoothed level, and no empty chunk; some chunks removed."""
    full = np.random.default_rng(0).integers(80, 4000, (256, 384)).astype(dtype)
    full[128:, 128:256] = 0
    full[:128, 256:] = 0
    coarse = smoothed(full, taps, step)
    levels = [full, (np.rint(coarse) if np.dtype(dtype).kind in "ui" else coarse).astype(dtype)]
    scales = [[1.0, 1.0], [float(step)] * 2]
    datasets = [
        {"path": str(n), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for n, scale in enumerate(scales)
    ]
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    group = zarr.create_group(place.zarr_store(), zarr_format=2)
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    for n, pixels in enumerate(levels):
        array = group.create_array(
            str(n), shape=pixels.shape, dtype=pixels.dtype, chunks=(128, 128), fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "/"}, config={"write_empty_chunks": False},
        )  # fmt: skip
        array[...] = pixels
    for key in lost:
        place.remove(key)
    return open_collection(place).images[0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_empty_chunks_are_no_loss_whatever_the_pyramid_was_smoothed_with(tmp_path, dtype, kernel):
    image = sparse_store(address(tmp_path), dtype, *KERNELS[kernel])
    assert image.absent_chunks() == ((0, 2), (1, 1)) and image.lost_chunks() == ()
    check_chunks(image)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_lost_chunk_among_empty_ones_is_still_found(tmp_path, dtype, kernel):
    image = sparse_store(address(tmp_path), dtype, *KERNELS[kernel], lost=["0/0/1"])
    assert image.lost_chunks() == ((0, 1),)
    with pytest.raises(BadStore, match=r"chunk \(0, 1\), as the coarser level shows.*--absent-chunks zeros"):
        check_chunks(image)


def edit_json(place, key, change):
    document = json.loads(place.read_bytes(key))
    change(document)
    place.write_bytes(key, json.dumps(document).encode())


@pytest.mark.parametrize("ngff", ["0.4", "0.5"])
def test_an_image_without_any_chunk_is_refused(tmp_path, ngff):
    place = address(tmp_path)
    write_image(place, "", np.ones((1, 40, 50), "u1"), chunks=(16, 16), ngff=ngff)
    for key in place.list("0"):
        if not key.endswith((".zarray", ".zattrs", "zarr.json")):
            place.remove(f"0/{key}")
    place.write_bytes("0/readme.txt", b"pixels to follow")
    first = "0/0/0" if ngff == "0.4" else "c/0/0/0"
    with pytest.raises(
        BadStore, match=rf"not one chunk is there: looked for '{first}'.*such as 'readme.txt'"
    ):
        check_chunks(open_collection(place).images[0])


def drop_separator(document):
    document.pop("dimension_separator")


def dots(document):
    document["dimension_separator"] = "."


def v3_dots(document):
    document["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "."}}


@pytest.mark.parametrize(
    ("ngff", "key", "change"),
    [("0.4", "0/.zarray", drop_separator), ("0.4", "0/.zarray", dots), ("0.5", "0/zarr.json", v3_dots)],
)
def test_chunks_with_the_other_separator_are_read(tmp_path, ngff, key, change, caplog):
    place, pixels = address(tmp_path), np.arange(2000, dtype="u2").reshape(1, 40, 50)
    write_image(place, "", pixels, chunks=(16, 16), ngff=ngff)
    edit_json(place, key, change)
    (image,) = open_collection(place).images
    np.testing.assert_array_equal(image.read((0, 0), (0,), 0, 40, 0, 50), pixels)
    assert image.absent_chunks() == ()
    assert "chunks are named with '/', the metadata say '.'" in caplog.text


def test_flat_chunks_under_metadata_that_say_nested_are_read(tmp_path):
    place, pixels = address(tmp_path), np.arange(2000, dtype="u2").reshape(1, 40, 50)
    write_image(place, "", pixels, chunks=(16, 16), ngff="0.4")
    for key in place.list("0"):
        if key[0] != ".":
            place.move(f"0/{key}", f"0/{key.replace('/', '.')}")
    for folder in place.children("0"):
        if folder.isdecimal():
            place.remove(f"0/{folder}")
    (image,) = open_collection(place).images
    np.testing.assert_array_equal(image.read((0, 0), (0,), 0, 40, 0, 50), pixels)


def test_a_fill_value_of_nan_is_empty(tmp_path):
    place = address(tmp_path)
    group = zarr.create_group(place.zarr_store(), zarr_format=2)
    axes = [{"name": axis, "type": "space"} for axis in "yx"]
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": [{"path": "0"}, {"path": "1"}]}
    ]
    for n, side in enumerate((64, 32)):
        array = group.create_array(
            str(n), shape=(side, side), dtype="f4", chunks=(32, 32), fill_value=np.nan,
            config={"write_empty_chunks": False},
        )  # fmt: skip
        array[: side // 2] = 1.0
    (image,) = open_collection(place).images
    assert len(image.absent_chunks()) == 2 and image.lost_chunks() == ()
