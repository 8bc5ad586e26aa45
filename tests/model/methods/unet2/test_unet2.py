"""UNet-2: what it gives back, and what it cannot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.methods.unet2 import UNet2
from model.networks.unet import UNetShape


def round_trip(stack: np.ndarray) -> np.ndarray:
    method = UNet2(min_area=0)
    outputs = {"foreground": method.encode([stack])["foreground"][0].float().numpy()}
    return method.decode(outputs, stack.shape[1:])


@settings(deadline=None, max_examples=30)
@given(cells=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 3))), size=st.integers(1, 7))
def test_perfect_outputs_give_objects_back_that_stand_apart(cells: set[tuple[int, int]], size: int) -> None:
    stack = np.zeros((1, 32, 32), np.uint32)
    for label, (row, column) in enumerate(sorted(cells), 1):
        stack[0, 8 * row : 8 * row + size, 8 * column : 8 * column + size] = label
    assert np.array_equal(round_trip(stack), stack)


def test_objects_that_overlap_become_one(crossing: tuple[np.ndarray, np.ndarray]) -> None:
    found = round_trip(crossing[1])
    assert found.max() == 1 and np.array_equal(found[0] > 0, crossing[1].any(0))


def test_another_networks_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="head foreground = 1"):
        UNet2(shape=UNetShape())
