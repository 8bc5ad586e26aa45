"""Runs painted back into images."""

import hypothesis.extra.numpy as arrays
import numpy as np
from hypothesis import given, settings
from scipy.sparse.csgraph import connected_components

from pipeline.spans import Runs, components, paint, runs_of, spans_of_stack, touching


def test_nothing_to_paint_is_an_empty_image():
    none = np.zeros(0, np.int32)
    assert paint(Runs(none, none, none, none), (3, 4)).tolist() == [[0] * 4] * 3


stacks = arrays.arrays(
    np.uint32, arrays.array_shapes(min_dims=3, max_dims=3, max_side=9), elements={"max_value": 3}
)


@given(stacks)
@settings(deadline=None)
def test_halved_runs_are_every_second_pixel(stack):
    spans, _, ids = spans_of_stack(stack[:1])
    runs = runs_of(spans, ids)
    halved = paint(runs.halved(), ((stack.shape[1] + 1) // 2, (stack.shape[2] + 1) // 2))
    assert np.array_equal(halved, paint(runs, stack.shape[1:])[::2, ::2])


@given(stacks)
@settings(deadline=None)
def test_components_of_runs_are_those_of_the_spans_they_are_cut_into(stack):
    spans, _, _ = spans_of_stack(stack)
    found, count = components(spans)
    number, expected = connected_components(touching(spans), directed=False)
    assert count == number and found.tolist() == expected.tolist()
