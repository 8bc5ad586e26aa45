"""Boolean layer masks: as bits for transport, and as label stacks of their connected components."""

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


def components(masks: np.ndarray, *, min_area: int = 0) -> np.ndarray:
    """Return the label stack uint32 ``(N, y, x)`` of the 8-connected components of bool masks ``(N, y, x)``.

    Components smaller than ``min_area`` pixels are dropped; ids are dense, layer by layer in raster order.
    """
    stack = np.zeros(masks.shape, np.uint32)
    count = 0
    for layer, mask in enumerate(masks):
        labels, _ = ndimage.label(mask, _EIGHT)
        areas = np.bincount(labels.ravel())
        keep = areas >= min_area
        keep[0] = False
        number = np.zeros(len(areas), np.uint32)
        number[keep] = count + 1 + np.arange(keep.sum(), dtype=np.uint32)
        stack[layer] = number[labels]
        count += int(keep.sum())
    return stack
