"""Components of layer masks: which stay, and how they are numbered."""

import numpy as np

from model.stacking import components


def test_a_component_stays_if_more_than_half_of_it_is_certain() -> None:
    mask = np.zeros((2, 6, 12), bool)
    mask[0, 0:2, 0:4] = mask[0, 0:2, 6:10] = mask[1, 4, 0:4] = True
    certain = np.zeros((6, 12), bool)
    certain[0, 0:4] = certain[0:2, 6:8] = certain[0, 9] = certain[4, 0:3] = True

    stack = components(mask, certain=certain)

    assert np.unique(stack[0, 0:2, 0:4]).tolist() == [0]  # 4 of 8 pixels are no more than half
    assert np.unique(stack[0, 0:2, 6:10]).tolist() == [1]  # 5 of 8
    assert np.unique(stack[1, 4, 0:4]).tolist() == [2]  # 3 of 4
    assert components(mask).max() == 3
