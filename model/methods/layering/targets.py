"""Targets of a batch: the object of every pixel on every layer, and which objects are neighbours.

Objects are numbered through the batch, 1 to C. A pixel that several objects share is listed once per object; the
exclusive part of an object is where no other object is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from model.methods.layering.adjacency import DISTANCE_PX, adjacent_pairs

MOST_COUNTED = 1 << 20
"""Labels below this are found by counting, which is faster than sorting."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the losses need to know of a batch of B label stacks with C objects."""

    objects: torch.Tensor
    """int64 ``(B, L, y, x)``: number of the object, 1 to C through the batch; 0 for background."""
    image_of: torch.Tensor
    """int64 ``(C,)``: index of the image each object is in."""
    pairs: torch.Tensor
    """int64 ``(P, 2)``: ordered pairs of neighbours, counted from 0."""

    @property
    def depth(self) -> torch.Tensor:
        """Objects per pixel, int64 ``(B, y, x)``."""
        return (self.objects > 0).sum(1)

    def to(self, device: torch.device | str) -> "Targets":
        """Return the same targets on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("objects", "image_of", "pairs")}
        return replace(self, **moved)


def encode(
    stacks: Sequence[np.ndarray],
    *,
    pairs: Sequence[np.ndarray] | None = None,
    distance_px: float = DISTANCE_PX,
) -> Targets:
    """Return the targets of label stacks ``(L, y, x)`` of one size, whose depths may differ.

    ``pairs``: the ordered neighbours of each stack by id, where they are known already; ids that are not in
    the stack are ignored.
    """
    numbered, image_of, neighbours, count = [], [], [], 0
    for image, stack in enumerate(stacks):
        present, numbers = _renumbered(stack, count)
        numbered.append(torch.from_numpy(numbers))
        known = adjacent_pairs(stack, distance_px=distance_px) if pairs is None else pairs[image]
        neighbours.append(count + _positions(known, present))
        image_of.append(np.full(len(present), image, np.int64))
        count += len(present)
    return Targets(
        objects=_same_depth(numbered),
        image_of=torch.from_numpy(np.concatenate(image_of)),
        pairs=torch.from_numpy(np.concatenate(neighbours)),
    )


def _renumbered(stack: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of a stack, sorted, and the stack with them numbered from ``first + 1``, int64."""
    if int(stack.max(initial=0)) < MOST_COUNTED:
        present = np.flatnonzero(np.bincount(stack.ravel()))
        present = present[present > 0]
        number = np.zeros(int(stack.max(initial=0)) + 1, np.int64)
        number[present] = first + 1 + np.arange(len(present))
        return present, number[stack]
    labels = np.unique(stack)
    present = labels[labels > 0]
    return present, np.where(stack > 0, first + 1 + np.searchsorted(present, stack), 0)


def _positions(pairs: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the pairs whose ids are both present, as positions in ``present`` (sorted)."""
    kept = pairs[np.isin(pairs, present).all(axis=1)] if len(pairs) else np.zeros((0, 2), np.int64)
    return np.searchsorted(present, kept).astype(np.int64)


def _same_depth(stacks: Sequence[torch.Tensor]) -> torch.Tensor:
    depth = max(len(stack) for stack in stacks)
    return torch.stack([functional.pad(stack, (0, 0, 0, 0, 0, depth - len(stack))) for stack in stacks])
