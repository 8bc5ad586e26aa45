"""Small local arrays read in the calling thread: the pixels that zarr gives, and zarr where it has to."""

import numpy as np
import pytest
import zarr

from pipeline.store.ome import arrays
from pipeline.store.ome.arrays import find_array, open_array, read_region
from pipeline.store.ome.chunks.direct_reading import read_few_chunks
from pipeline.store.places.address import address

COMPRESSORS = {
    2: {
        "none": None,
        "zstd": {"id": "zstd", "level": 0},
        "blosc": {"id": "blosc"},
        "zlib": {"id": "zlib"},
        "lz4": {"id": "lz4"},
    },
    3: {
        "none": None,
        "zstd": {"name": "zstd", "configuration": {"level": 0}},
        "blosc": {"name": "blosc", "configuration": {"shuffle": "bitshuffle", "typesize": 2}},
        "gzip": {"name": "gzip", "configuration": {"level": 1}},
    },
}
CASES = [(version, name) for version, names in COMPRESSORS.items() for name in names]
WHOLE = (slice(0, 2), slice(0, 30), slice(0, 45))
PARTS = (slice(1, 2), slice(3, 21), slice(7, 45))


def make_array(folder, version, compressor, dtype="uint16", **options):
    """An array of two planes in chunks of one plane; the second chunk is not there."""
    array = zarr.create_array(
        folder, shape=(2, 30, 45), chunks=(1, 30, 32), dtype=dtype, compressors=compressor,
        zarr_format=version, fill_value=7, **options,
    )  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 200, array.shape).astype(dtype)
    array[:] = pixels
    gone = "0/0/1" if version == 2 else "c/0/0/1"
    (folder / (gone if (folder / gone).exists() else gone.replace("/", "."))).unlink()
    pixels[0, :, 32:] = 7
    return pixels


def read_both(folder, version, selection, monkeypatch):
    """A region as it is read, and as zarr reads it."""
    place = address(folder)
    document, _ = find_array(place, "", zarr_format=version)
    found = read_region(place, "", document, selection)
    with monkeypatch.context() as patch:
        patch.setattr(arrays, "read_few_chunks", lambda *_: None)
        return found, read_region(place, "", document, selection)


def direct(folder, version, selection):
    """A region read without zarr; None where zarr has to read it."""
    place = address(folder)
    document, _ = find_array(place, "", zarr_format=version)
    return read_few_chunks(place, "", document, open_array(place, "", document), selection)


@pytest.mark.parametrize(("version", "name"), CASES)
@pytest.mark.parametrize("selection", [WHOLE, PARTS])
def test_the_pixels_that_zarr_reads(version, name, selection, tmp_path, monkeypatch):
    pixels = make_array(tmp_path / "a", version, COMPRESSORS[version][name])
    found, expected = read_both(tmp_path / "a", version, selection, monkeypatch)
    assert np.array_equal(found, expected) and np.array_equal(found, pixels[selection])
    assert found.dtype == expected.dtype and found.flags.writeable
    assert (direct(tmp_path / "a", version, selection) is None) == (name == "lz4")


@pytest.mark.parametrize("dtype", ["bool", "int8", ">u2", ">f4", "float64"])
@pytest.mark.parametrize("version", [2, 3])
def test_every_kind_of_pixel_in_native_byte_order(dtype, version, tmp_path, monkeypatch):
    compressor = COMPRESSORS[version]["zstd"]
    options = {"serializer": {"name": "bytes", "configuration": {"endian": "big"}}} if version == 3 else {}
    kind = np.dtype(dtype).newbyteorder("=") if version == 3 else dtype
    make_array(tmp_path / "a", version, compressor, kind, **(options if np.dtype(kind).itemsize > 1 else {}))
    found, expected = read_both(tmp_path / "a", version, PARTS, monkeypatch)
    assert np.array_equal(found, expected) and found.dtype == expected.dtype
    assert found.dtype.isnative and direct(tmp_path / "a", version, PARTS) is not None


def test_shards_and_many_chunks_are_left_to_zarr(tmp_path):
    zarr.create_array(tmp_path / "s", shape=(8, 8), chunks=(4, 4), shards=(8, 8), dtype="uint8")[:] = 1
    assert direct(tmp_path / "s", 3, (slice(0, 8), slice(0, 8))) is None
    zarr.create_array(tmp_path / "m", shape=(8, 8), chunks=(2, 2), dtype="uint8")[:] = 1
    assert direct(tmp_path / "m", 3, (slice(0, 8), slice(0, 8))) is None
    assert direct(tmp_path / "m", 3, (slice(0, 4), slice(0, 4))) is not None


@pytest.mark.parametrize("name", ["none", "zstd", "blosc", "gzip"])
def test_a_damaged_chunk_is_left_to_zarr_which_names_it(name, tmp_path):
    make_array(tmp_path / "a", 3, COMPRESSORS[3][name])
    chunk = tmp_path / "a/c/1/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-100])
    assert direct(tmp_path / "a", 3, WHOLE) is None
    chunk.write_bytes(b"")
    assert direct(tmp_path / "a", 3, WHOLE) is None
