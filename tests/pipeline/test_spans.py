"""Runs painted back into images."""

import numpy as np

from pipeline.spans import Runs, paint


def test_overlapping_pieces_of_one_object_are_painted_once():
    y = np.array([0, 0, 0, 1, 1], np.int32)
    x0, x1 = np.array([1, 2, 3, 0, 4], np.int32), np.array([6, 4, 8, 3, 5], np.int32)
    image = paint(Runs(y, x0, x1, np.array([7, 7, 7, 7, 9], np.uint32)), (2, 9))
    assert image.tolist() == [[0, 7, 7, 7, 7, 7, 7, 7, 0], [7, 7, 7, 0, 9, 0, 0, 0, 0]]


def test_nothing_to_paint_is_an_empty_image():
    none = np.zeros(0, np.int32)
    assert paint(Runs(none, none, none, none), (3, 4)).tolist() == [[0] * 4] * 3
