"""More objects than 24 bits count: the join alone, without an image."""

import numpy as np

from pipeline.stitch import Filters, join


def test_more_than_two_to_the_24_objects_keep_their_ids():
    count = 2**24 + 5
    first = np.arange(count, dtype=np.int64)[::-1] * 3
    rows = {"area": np.full(count, 2, np.int64), "first": first, "edge": np.zeros(count, np.uint8)}
    none, pixels = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    links = np.array([[0, 1]], np.int64)
    objects = join(rows, np.zeros(count, np.uint8), links, none, pixels, Filters(min_area=1))
    ids, layers = objects.ids_and_layers(0, count)
    assert len(objects) == count - 1
    assert ids.dtype == np.uint32 and ids[0] == ids[1] == count - 1 and ids[-1] == 1
    assert np.array_equal(ids[1:], np.arange(count - 1, 0, -1)) and not layers.any()
