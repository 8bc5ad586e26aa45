"""Runs painted back into images."""

import numpy as np

from pipeline.spans import Runs, paint


def test_nothing_to_paint_is_an_empty_image():
    none = np.zeros(0, np.int32)
    assert paint(Runs(none, none, none, none), (3, 4)).tolist() == [[0] * 4] * 3
