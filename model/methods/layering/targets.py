"""Targets of a batch: whose every pixel is, which objects are neighbours, what is foreground.

The invariant: objects are numbered through the batch, 1 to C, and a pixel that several objects share is
listed once per object. Pixel-exclusive parts are where exactly one object is. It knows no network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional

from model.methods.layering.adjacency import DISTANCE_PX, adjacent_pairs


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the losses need to know of a batch of B label stacks with C objects."""

    objects: torch.Tensor
    """int64 ``(B, L, y, x)``: number of the object, 1 to C through the batch; 0 where none is."""
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
    the stack are left out.
    """
    numbered, image_of, neighbours, count = [], [], [], 0
    for image, stack in enumerate(stacks):
        ids, dense = np.unique(stack, return_inverse=True)
        present = ids[ids > 0]
        number = np.zeros(len(ids), np.int64)
        number[ids > 0] = count + 1 + np.arange(len(present))
        numbered.append(torch.from_numpy(number[dense.reshape(stack.shape)]))
        known = adjacent_pairs(stack, distance_px=distance_px) if pairs is None else pairs[image]
        neighbours.append(count + _positions(known, present))
        image_of.append(np.full(len(present), image, np.int64))
        count += len(present)
    return Targets(
        objects=_same_depth(numbered),
        image_of=torch.from_numpy(np.concatenate(image_of)),
        pairs=torch.from_numpy(np.concatenate(neighbours)),
    )


def _positions(pairs: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the pairs whose ids are both present, as positions in ``present`` (sorted)."""
    kept = pairs[np.isin(pairs, present).all(axis=1)] if len(pairs) else np.zeros((0, 2), np.int64)
    return np.searchsorted(present, kept).astype(np.int64)


def _same_depth(stacks: Sequence[torch.Tensor]) -> torch.Tensor:
    depth = max(len(stack) for stack in stacks)
    return torch.stack([functional.pad(stack, (0, 0, 0, 0, 0, depth - len(stack))) for stack in stacks])
