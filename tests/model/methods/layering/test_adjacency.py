"""Neighbours by distance."""

import numpy as np
import pytest

from model.methods.layering.adjacency import adjacent_pairs


def two_pixels(dy: int, dx: int) -> np.ndarray:
    stack = np.zeros((1, 40, 40), np.uint32)
    stack[0, 10, 10], stack[0, 10 + dy, 10 + dx] = 3, 8
    return stack


@pytest.mark.parametrize(
    ("dy", "dx", "near"), [(0, 14, True), (0, 15, False), (9, 12, False), (10, 11, True)]
)
def test_distance_is_euclidean_and_strict(dy: int, dx: int, near: bool) -> None:
    pairs = adjacent_pairs(two_pixels(dy, dx))
    assert pairs.tolist() == ([[3, 8], [8, 3]] if near else [])


def test_objects_that_overlap_are_neighbours_and_ids_need_not_be_dense() -> None:
    stack = np.zeros((2, 20, 20), np.uint32)
    stack[0, 5:10, 5:10], stack[1, 7:12, 7:12] = 4_000_000_000, 17
    assert adjacent_pairs(stack, distance_px=1).tolist() == [[17, 4_000_000_000], [4_000_000_000, 17]]


def test_of_restricts_to_pairs_with_those_ids() -> None:
    stack = np.zeros((1, 10, 30), np.uint32)
    stack[0, 5, 2], stack[0, 5, 10], stack[0, 5, 18] = 1, 2, 3
    assert len(adjacent_pairs(stack)) == 4
    assert adjacent_pairs(stack, of={3}).tolist() == [[2, 3], [3, 2]]


def test_a_stack_full_of_one_object_and_an_empty_one_have_no_pairs() -> None:
    assert adjacent_pairs(np.ones((1, 8, 8), np.uint32)).shape == (0, 2)
    assert adjacent_pairs(np.zeros((2, 8, 8), np.uint32)).shape == (0, 2)
