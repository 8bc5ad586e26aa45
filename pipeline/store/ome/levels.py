"""Pyramid levels of images: how many, how large, and how pixels are halved. Pure arithmetic."""

import numpy as np

SMALLEST_PX = 256
"""The pyramid ends with the first level whose longer side is no longer than this."""


def level_count(size: tuple[int, int]) -> int:
    """Number of pyramid levels for an image of this height and width."""
    count, longest = 1, max(size)
    while longest > SMALLEST_PX:
        count, longest = count + 1, -(-longest // 2)
    return count


def level_shapes(shape: tuple[int, ...], levels: int) -> tuple[tuple[int, ...], ...]:
    """Shape of each level: y and x halved, rounded up; other axes stay."""
    return tuple((*shape[:-2], *(-(-n // 2**level) for n in shape[-2:])) for level in range(levels))


def mean_of_2x2(block: np.ndarray) -> np.ndarray:
    """Halve the last two axes by the mean of 2x2 pixels, rounded for integers; an odd last line stands for two."""
    pad = [(0, 0)] * (block.ndim - 2) + [(0, block.shape[-2] % 2), (0, block.shape[-1] % 2)]
    even = np.pad(block, pad, mode="edge") if any(after for _, after in pad) else block
    wide = np.dtype(np.float32 if block.dtype == np.float32 else np.float64)
    total = np.zeros((*even.shape[:-2], even.shape[-2] // 2, even.shape[-1] // 2), wide)
    for top in (0, 1):
        for left in (0, 1):
            total += even[..., top::2, left::2]
    mean = total / 4
    return (np.rint(mean) if block.dtype.kind in "iub" else mean).astype(block.dtype)
