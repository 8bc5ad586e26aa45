"""Targets of DCME: a vector from every pixel to the centre of its object, and a class for every block of a grid.

Vectors are in pixels, channel 0 along x and channel 1 along y; background pixels hold (0, 0). Where objects
overlap, a pixel points to the nearest of their centres, because it has room for one vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

BLOCK_SHARE = 0.25
"""Share of a block that a class has to cover to name it, unless the centre of an object lies in the block."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Vectors and grid classes of a batch of B label stacks."""

    vectors: torch.Tensor
    """float32 ``(B, 2, y, x)`` in pixels: x component, y component."""
    grid: torch.Tensor
    """int64 ``(B, y / block, x / block)``: class of each block, 0 for background."""

    def to(self, device: torch.device | str) -> "Targets":
        """Return the same targets on a device."""
        return Targets(vectors=self.vectors.to(device), grid=self.grid.to(device))


@dataclass(frozen=True, kw_only=True)
class Centres:
    """The objects of a stack: ids in ascending order, centres of mass in whole pixels, areas in pixels."""

    ids: np.ndarray
    y: np.ndarray
    x: np.ndarray
    areas: np.ndarray


def encode(
    stacks: Sequence[np.ndarray],
    *,
    block: int,
    classes: int = 1,
    class_of: Sequence[Mapping[int, int]] | None = None,
) -> Targets:
    """Return the targets of label stacks ``(L, y, x)`` of one size, in multiples of ``block`` pixels.

    ``class_of``: the class of each id, 1 to ``classes``, one mapping per stack. Default: every object is of class 1.

    Raises:
        ValueError: a size that is no multiple of the block, or a class that is not 1 to ``classes``.
    """
    vectors, grids = [], []
    for number, stack in enumerate(stacks):
        centres = centres_of(stack)
        kinds = _classes(centres.ids, class_of[number] if class_of is not None else None, classes)
        vectors.append(torch.from_numpy(vectors_of(stack, centres)))
        grids.append(torch.from_numpy(grid_of(stack, centres, kinds, block=block, classes=classes)))
    return Targets(vectors=torch.stack(vectors), grid=torch.stack(grids))


def centres_of(stack: np.ndarray) -> Centres:
    """Return the centre of mass of every object of a stack ``(L, y, x)``, rounded down to whole pixels."""
    ids, dense = np.unique(stack, return_inverse=True)
    dense = dense.reshape(stack.shape)
    areas = np.bincount(dense.ravel(), minlength=len(ids))
    y, x = np.arange(stack.shape[1]), np.arange(stack.shape[2])
    sums_y = np.bincount(dense.ravel(), np.broadcast_to(y[:, None], stack.shape).ravel(), len(ids))
    sums_x = np.bincount(dense.ravel(), np.broadcast_to(x, stack.shape).ravel(), len(ids))
    real = ids > 0
    return Centres(
        ids=ids[real],
        y=(sums_y[real] / areas[real]).astype(np.int64),
        x=(sums_x[real] / areas[real]).astype(np.int64),
        areas=areas[real],
    )


def vectors_of(stack: np.ndarray, centres: Centres) -> np.ndarray:
    """Return float32 ``(2, y, x)``: for every pixel, x and y of the way to the centre of its object."""
    height, width = stack.shape[1:]
    vectors = np.zeros((2, height, width), np.float32)
    if not len(centres.ids):
        return vectors
    at = np.searchsorted(centres.ids, stack).clip(max=len(centres.ids) - 1)
    dx = centres.x[at] - np.arange(width)
    dy = centres.y[at] - np.arange(height)[:, None]
    distance = np.where(stack > 0, dx**2 + dy**2, np.iinfo(np.int64).max)
    nearest = distance.argmin(0)[None]
    inside = stack.any(0)
    for channel, part in enumerate((dx, dy)):
        vectors[channel] = np.take_along_axis(part, nearest, 0)[0] * inside
    return vectors


def grid_of(
    stack: np.ndarray, centres: Centres, kinds: np.ndarray, *, block: int, classes: int
) -> np.ndarray:
    """Return int64 ``(y / block, x / block)``: the class of every block.

    A block takes the class that covers most of it, where that is at least ``BLOCK_SHARE``; a block that holds a
    centre takes the class of that object (the largest, of several).
    """
    rows, columns = _blocks(stack.shape[1:], block)
    of_id = np.concatenate([[0], kinds])
    at = np.searchsorted(centres.ids, stack) + 1
    kind = np.where(stack > 0, of_id[at.clip(max=len(kinds))], 0)
    covered = np.stack(
        [(kind == k).any(0).reshape(rows, block, columns, block).sum((1, 3)) for k in range(1, classes + 1)]
    )
    grid = np.where(covered.max(0) >= BLOCK_SHARE * block**2, covered.argmax(0) + 1, 0)
    largest_last = np.argsort(centres.areas, kind="stable")
    grid[centres.y[largest_last] // block, centres.x[largest_last] // block] = kinds[largest_last]
    return grid.astype(np.int64)


def _blocks(shape: tuple[int, ...], block: int) -> tuple[int, int]:
    height, width = shape
    if height % block or width % block:
        raise ValueError(f"DCME targets: expected a size in multiples of {block} px, got {shape}")
    return height // block, width // block


def _classes(ids: np.ndarray, class_of: Mapping[int, int] | None, classes: int) -> np.ndarray:
    kinds = np.array([1 if class_of is None else class_of.get(int(label), 0) for label in ids], np.int64)
    if len(kinds) and (kinds.min() < 1 or kinds.max() > classes):
        raise ValueError(f"DCME targets: expected a class of 1 to {classes} for every object, got {kinds}")
    return kinds
