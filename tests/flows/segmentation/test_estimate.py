"""The dry run of images of any size: counted by rows and columns of tiles, never tile by tile."""

import time

import numpy as np
import pytest
import zarr

from flows.cli import run as command
from flows.segmentation.demand import _meets, _number, _perimeters
from pipeline.tiling import tiles, tiles_at_edges


@pytest.mark.parametrize(
    ("shape", "core", "halo", "stride"), [((100, 333), 40, 7, 1), ((65, 64), 32, 16, 8), ((5, 5), 64, 0, 1)]
)
def test_sums_over_rows_and_columns_are_sums_over_tiles(shape, core, halo, stride):
    every = list(tiles(shape, core=core, halo=halo, stride=stride))
    edges = tiles_at_edges(shape, core=core, halo=halo, stride=stride)
    assert _number(edges) == len(every)
    assert _perimeters(edges) == sum(tile.core.perimeter for tile in every)

    def cells(box):
        return (-(-box.y1 // 24) - box.y0 // 24) * (-(-box.x1 // 17) - box.x0 // 17)

    assert _meets(edges, 24, 17) == sum(cells(tile.read) for tile in every)
    assert _meets(edges, 24, 17, read=False) == sum(cells(tile.core) for tile in every)


@pytest.fixture
def declared(tmp_path):
    """An image that is declared with 10^14 pixels and of which one chunk is there."""
    place = str(tmp_path / "huge.zarr")
    group = zarr.open_group(place, mode="w", zarr_format=3)
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    pixels = group.create_array("0", shape=(1, 10**7, 10**7), chunks=(1, 1024, 1024), dtype="uint16")
    pixels[0, :1024, :1024] = np.random.default_rng(0).integers(0, 3000, (1024, 1024))
    return place


def test_a_dry_run_of_an_image_of_any_size_answers_soon(declared, capsys):
    started = time.process_time()
    assert command(["segment", declared, "--segmenter", "threshold", "--dry-run"]) == 0
    assert command(["inspect", declared]) == 0
    assert time.process_time() - started < 10
    said = capsys.readouterr().out
    assert "100000000.0 Mpx" in said and "95374756 of core 1024 px" in said and "1x10000000x10000000" in said
