"""Label stacks: from layer masks (connected components) and from objects given as the pixels of each.

The invariant: an object keeps all its pixels and lies on one layer; objects are placed one after the other, each on
the first layer that is free. Layer masks are sent between processes as bits. This module knows no method.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

_EIGHT = np.ones((3, 3), bool)


def packed(masks: torch.Tensor) -> torch.Tensor:
    """Return bool masks ``(B, N, y, x)`` as bits, uint8 ``(B, ceil(N / 8), y, x)``: layer 0 is the lowest bit."""
    values = 2 ** torch.arange(8, dtype=torch.uint8, device=masks.device)[:, None, None]
    groups = [part * values[: part.shape[1]] for part in masks.split(8, dim=1)]
    return torch.stack([part.sum(1, dtype=torch.uint8) for part in groups], dim=1)


def unpacked(bits: torch.Tensor, layers: int) -> torch.Tensor:
    """Return the bool masks ``(B, layers, y, x)`` of bits on the CPU."""
    return torch.from_numpy(np.unpackbits(bits.numpy(), axis=1, count=layers, bitorder="little").view(bool))


def components(masks: np.ndarray, *, min_area: int = 0, certain: np.ndarray | None = None) -> np.ndarray:
    """Return the label stack uint32 ``(N, y, x)`` of the 8-connected components of bool masks ``(N, y, x)``.

    Components smaller than ``min_area`` pixels are dropped, and those of which no more than half of the pixels lie on
    ``certain``, bool ``(y, x)``; ids are dense, layer by layer in raster order.
    """
    stack = np.zeros(masks.shape, np.uint32)
    count = 0
    for layer, mask in enumerate(masks):
        labels, _ = ndimage.label(mask, _EIGHT)
        areas = np.bincount(labels.ravel())
        keep = areas >= min_area
        if certain is not None:
            keep &= 2 * np.bincount(labels[certain], minlength=len(areas)) > areas
        keep[0] = False
        number = np.zeros(len(areas), np.uint32)
        number[keep] = count + 1 + np.arange(keep.sum(), dtype=np.uint32)
        stack[layer] = number[labels]
        count += int(keep.sum())
    return stack


def stack_of_objects(objects: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Return the label stack uint32 ``(L, y, x)``, L of at least 1, of objects given as flat pixel indices.

    Object i gets the id i + 1 and the first layer on which it meets no object before it. An object without
    pixels leaves its id unused.
    """
    layers = [np.zeros(shape[0] * shape[1], np.uint32)]
    for label, pixels in enumerate(objects, start=1):
        free = next((layer for layer in layers if not layer[pixels].any()), None)
        if free is None:
            free = np.zeros_like(layers[0])
            layers.append(free)
        free[pixels] = label
    return np.stack(layers).reshape(-1, *shape)


def large_enough(stack: np.ndarray, *, min_area: int) -> np.ndarray:
    """Return a stack without the objects of fewer than ``min_area`` pixels, ids dense in their old order.

    Ids should be small numbers, such as those of ``stack_of_objects``: memory grows with the largest.
    """
    keep = np.bincount(stack.ravel()) >= max(min_area, 1)
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint32)
    kept = number[stack]
    first, *others = kept
    return np.stack([first, *(layer for layer in others if layer.any())])


def flattened(stack: np.ndarray) -> np.ndarray:
    """Return a stack ``(1, y, x)`` in which a pixel of several objects keeps that of the lowest id."""
    top = np.where(stack > 0, stack, np.iinfo(np.uint32).max).min(0)
    return np.where(stack.any(0), top, 0).astype(np.uint32)[None]
