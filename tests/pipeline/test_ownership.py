"""The centre rule: the tile that holds the centre of an object decides what of it there is in other tiles."""

import numpy as np
import pytest

from pipeline.ownership import Sight, ruled
from pipeline.tiling import tiles

EXTENT = (40, 80)
LEFT, RIGHT = tiles(EXTENT, core=40, halo=20)


def sight(tile, *boxes):
    """What a tile found: rectangles (y0, y1, x0, x1) of the image, each on a layer of its own."""
    whole = np.zeros((max(len(boxes), 1), *EXTENT), np.uint32)
    for number, (y0, y1, x0, x1) in enumerate(boxes, start=1):
        whole[number - 1, y0:y1, x0:x1] = number
    return Sight(tile, whole[:, tile.read.y0 : tile.read.y1, tile.read.x0 : tile.read.x1], EXTENT)


def shown(ruling):
    """Objects of a core as (number, first row, row after the last, first column, column after the last)."""
    found = set()
    for layer in ruling.stack:
        for number in np.unique(layer[layer > 0]).tolist():
            y, x = np.nonzero(layer == number)
            assert len(y) == (np.ptp(y) + 1) * (np.ptp(x) + 1)
            found.add((number, int(y.min()), int(y.max()) + 1, int(x.min()), int(x.max()) + 1))
    return found


def sources(ruling):
    return {number: (part.source.key, part.label) for number, part in ruling.adopted.items()}


def test_an_object_that_only_its_tile_found_is_whole_in_both():
    left, right = sight(LEFT, (5, 15, 30, 48)), sight(RIGHT)
    assert shown(ruled(left, [right])) == {(1, 5, 15, 30, 40)} and not ruled(left, [right]).adopted
    ruling = ruled(right, [left])
    assert shown(ruling) == {(1, 5, 15, 0, 8)} and sources(ruling) == {1: ("0_0", 1)}


def test_an_object_that_the_tile_with_its_centre_missed_is_dropped():
    left, right = sight(LEFT, (5, 15, 34, 54)), sight(RIGHT)
    assert not shown(ruled(left, [right])) and not shown(ruled(right, [left]))


def test_of_two_views_of_an_object_that_of_the_tile_with_its_centre_is_shown():
    left, right = sight(LEFT, (5, 15, 30, 48)), sight(RIGHT, (25, 35, 60, 70), (4, 15, 30, 47))
    assert shown(ruled(left, [right])) == {(1, 5, 15, 30, 40)}
    ruling = ruled(right, [left])
    assert shown(ruling) == {(1, 25, 35, 20, 30), (3, 5, 15, 0, 8)} and sources(ruling) == {3: ("0_0", 1)}


def test_of_two_tiles_that_both_claim_an_object_the_first_has_it():
    left, right = sight(LEFT, (5, 15, 30, 49)), sight(RIGHT, (5, 15, 30, 52))
    assert left.claimed.all() and right.claimed.all()
    assert shown(ruled(left, [right])) == {(1, 5, 15, 30, 40)} and not ruled(left, [right]).adopted
    assert sources(ruled(right, [left])) == {2: ("0_0", 1)}


@pytest.mark.parametrize("last", [60, 79])
def test_objects_that_no_tile_saw_whole_are_left_to_matching(last):
    left, right = sight(LEFT, (5, 15, 15, 60)), sight(RIGHT, (5, 15, 20, last))
    assert shown(ruled(left, [right])) == {(1, 5, 15, 15, 40)}
    assert shown(ruled(right, [left])) == {(1, 5, 15, 0, last - 40)} and not ruled(right, [left]).adopted


def test_an_adopted_object_that_meets_others_takes_another_layer():
    left, right = sight(LEFT, (5, 15, 30, 48)), sight(RIGHT, (0, 20, 41, 75))
    ruling = ruled(right, [left])
    assert len(ruling.stack) == 2 and shown(ruling) == {(1, 0, 20, 1, 35), (2, 5, 15, 0, 8)}
