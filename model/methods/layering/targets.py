"""Targets of a batch: which object every pixel belongs to, which objects are neighbours, what is foreground.

Objects are numbered through the batch, 1 to C. Everything whose size depends on the data (the pixels of exactly one
object, the objects that others cover wholly, the pairs that can be compared) is listed here, on the CPU and ahead of
the step, so that the losses never have to wait for a count from the device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from model.methods.layering.adjacency import DISTANCE_PX, adjacent_pairs

MOST_COUNTED = 1 << 20
"""Labels below this are found by counting, which is faster than sorting."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """Some pixels of a batch and the object each is of; a pixel may be listed for several objects."""

    index: torch.Tensor
    """int64 ``(P,)``: position in the flattened ``(B, y, x)``."""
    owner: torch.Tensor
    """int64 ``(P,)``: object of each pixel, counted from 0."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Pixels":
        """Return the same pixels on a device."""
        index, owner = (part.to(device, non_blocking=non_blocking) for part in (self.index, self.owner))
        return Pixels(index=index, owner=owner)

    def pin_memory(self) -> "Pixels":
        """Return the same pixels in pinned memory."""
        return Pixels(index=self.index.pin_memory(), owner=self.owner.pin_memory())


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the losses need to know of a batch of B label stacks with C objects."""

    objects: torch.Tensor
    """int64 ``(B, L, y, x)``: number of the object, 1 to C through the batch; 0 for background."""
    depth: torch.Tensor
    """int64 ``(B, y, x)``: objects per pixel."""
    image_of: torch.Tensor
    """int64 ``(C,)``: index of the image each object is in."""
    pairs: torch.Tensor
    """int64 ``(P, 2)``: ordered pairs of neighbours, counted from 0."""
    exclusive: Pixels
    """The pixels of exactly one object."""
    counts: torch.Tensor
    """float32 ``(C,)``: exclusive pixels of each object."""
    compared: torch.Tensor
    """int64 ``(Q, 2)``: those pairs of which both objects have exclusive pixels."""
    covered: torch.Tensor
    """int64 ``(K,)``: objects without an exclusive pixel."""
    hidden: Pixels
    """All pixels of the covered objects."""

    def to(self, device: torch.device | str) -> "Targets":
        """Return the same targets on a device."""
        return self._with_each(lambda part: part.to(device, non_blocking=True))

    def pin_memory(self) -> "Targets":
        """Return the same targets in pinned memory, from which a GPU reads without a detour."""
        return self._with_each(lambda part: part.pin_memory())

    def _with_each(self, change: Callable[[Any], Any]) -> "Targets":
        changed: dict[str, Any] = {entry.name: change(getattr(self, entry.name)) for entry in fields(self)}
        return replace(self, **changed)


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
    return _targets(
        _same_depth(numbered),
        torch.from_numpy(np.concatenate(image_of)),
        torch.from_numpy(np.concatenate(neighbours)),
    )


def _targets(objects: torch.Tensor, image_of: torch.Tensor, pairs: torch.Tensor) -> Targets:
    """List what the losses look up."""
    depth = (objects > 0).sum(1)
    owner = torch.where(depth == 1, objects.sum(1), 0).flatten()
    index = owner.nonzero()[:, 0]
    exclusive = Pixels(index=index, owner=owner[index] - 1)
    counts = torch.bincount(exclusive.owner, minlength=len(image_of))
    covered = (counts == 0).nonzero()[:, 0]
    return Targets(
        objects=objects,
        depth=depth,
        image_of=image_of,
        pairs=pairs,
        exclusive=exclusive,
        counts=counts.float(),
        compared=pairs[(counts[pairs] > 0).all(dim=1)],
        covered=covered,
        hidden=_pixels_of(objects, covered),
    )


def _pixels_of(objects: torch.Tensor, some: torch.Tensor) -> Pixels:
    """Return all pixels of some objects."""
    if not len(some):
        return Pixels(index=some, owner=some)
    image, layer, y, x = torch.nonzero(torch.isin(objects, some + 1), as_tuple=True)
    height, width = objects.shape[2:]
    return Pixels(index=(image * height + y) * width + x, owner=objects[image, layer, y, x] - 1)


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
