"""Algorithm 1: thresholds, the largest-layer rule, components, and decoding of perfect outputs."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.methods.layering import Layering
from model.methods.layering.decode import layer_masks
from model.networks.unet import UNetShape
from model.stacking import components, packed, unpacked


def masks_of(stack: np.ndarray) -> set[bytes]:
    return {(stack == i).any(0).tobytes() for i in np.unique(stack) if i}


def perfect(stack: np.ndarray, layers: int = 8) -> dict[str, np.ndarray]:
    values = np.zeros((layers, *stack.shape[1:]), np.float32)
    values[: len(stack)] = stack > 0
    return {"foreground": stack.any(0, keepdims=True).astype(np.float32), "layers": values}


def test_perfect_outputs_give_the_objects_back(crossing: tuple[np.ndarray, np.ndarray]) -> None:
    _, stack = crossing
    decoded = Layering(min_area=0).decode(perfect(stack), stack.shape[1:])
    assert decoded.shape == (8, 64, 64) and decoded.dtype == np.uint32
    assert masks_of(decoded) == masks_of(stack)


@given(
    boxes=st.lists(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 12)] * 2), min_size=0, max_size=6)
)
def test_perfect_outputs_of_one_object_per_layer_are_decoded_exactly(boxes: list[tuple[int, ...]]) -> None:
    stack = np.zeros((8, 32, 32), np.uint32)
    for layer, (y, x, height, width) in enumerate(boxes):
        stack[layer, y : y + height, x : x + width] = 100 - layer
    assert masks_of(Layering(min_area=0).decode(perfect(stack), stack.shape[1:])) == masks_of(stack)


def test_largest_layer_is_on_below_the_threshold_and_others_above_it() -> None:
    foreground = torch.tensor([0.9, 0.9, 0.9, 0.1]).view(1, 1, 1, 4)
    layers = torch.tensor([[0.2, 0.6, 0.4, 0.9], [0.1, 0.7, 0.4, 0.9]]).view(1, 2, 1, 4)
    both = layer_masks(foreground, layers)[0, :, 0].int().tolist()
    assert both == [[1, 1, 1, 0], [0, 1, 0, 0]]
    largest = layer_masks(foreground, layers, layer_threshold=None)[0, :, 0].int().tolist()
    assert largest == [[1, 0, 1, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("layers", [1, 3, 8, 9, 16])
def test_masks_survive_as_bits(layers: int) -> None:
    masks = torch.rand(2, layers, 5, 7, generator=torch.Generator().manual_seed(layers)) > 0.5
    bits = packed(masks)
    assert bits.dtype == torch.uint8 and bits.shape == (2, -(-layers // 8), 5, 7)
    assert torch.equal(unpacked(bits, layers), masks)


def test_components_are_8_connected_filtered_by_area_and_numbered_through_the_layers() -> None:
    masks = np.zeros((2, 6, 6), bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 5, 5] = True
    masks[1, 2:4, 2:4] = True
    assert components(masks).max() == 3
    kept = components(masks, min_area=2)
    assert (kept[0, 0, 0], kept[0, 1, 1], kept[0, 5, 5], kept[1, 2, 2]) == (1, 1, 0, 2)
    assert components(masks, min_area=5).max() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"variant": "other"},
        {"foreground": "dice"},
        {"completion": "l2"},
        {"assignment": "random"},
        {"shape": UNetShape(heads={"layers": 8})},
    ],
)
def test_methods_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Layering(**wrong)
