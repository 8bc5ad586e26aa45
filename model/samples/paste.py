"""Copy-paste of objects over objects, which makes rare overlaps common.

Contrast adds: a pasted object brings its difference from its own background, as absorbing or emitting specimens do,
so both objects stay visible. It gets a label and a place in the stack of its own. Cut-outs are made once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from model.errors import BadSample

RIM_PX = 6
"""Width of the rim of a cut-out, in which the background of the object is measured."""
MOST_CUT_OUTS = 1000
"""Objects in a bank; of more, a random choice is cut out."""

LEAST_HEIGHT = 0.25
"""Least contrast of a cut-out, in the median of all."""


@dataclass(frozen=True, kw_only=True)
class CutOut:
    """One object in its bounding box with a rim."""

    contrast: torch.Tensor
    """float32 ``(C, h, w)``: difference from the background; fades out over two pixels outside the mask."""
    mask: torch.Tensor
    """bool ``(h, w)``."""

    height: torch.Tensor
    """float32 ``(C, 1, 1)``: mean contrast inside the mask."""
    kind: int = 0
    """Class of the object, from 1; 0 where objects have no classes."""

    def scaled_to(self, height: torch.Tensor) -> "CutOut":
        """Return the object with another mean contrast ``(C, 1, 1)``."""
        factor = height / torch.where(self.height.abs() < 1e-3, 1.0, self.height)
        return replace(self, contrast=self.contrast * factor, height=self.height * factor)

    def turned(self, quarters: int, *, flipped: bool) -> "CutOut":
        """Return the object turned by quarter turns and, if asked, flipped upside down."""
        parts = [torch.rot90(part, quarters, (-2, -1)) for part in (self.contrast, self.mask)]
        contrast, mask = (part.flip(-2) if flipped else part for part in parts)
        return replace(self, contrast=contrast, mask=mask)


def cut_out(
    image: np.ndarray,
    stack: np.ndarray,
    label: int,
    *,
    box: tuple[slice, slice] | None = None,
    kind: int = 0,
) -> CutOut:
    """Cut one object out of an image ``(C, y, x)`` with its stack ``(L, y, x)``.

    ``box`` is its bounding box where it is known, ``kind`` its class.

    Raises:
        BadSample: the stack has no such label.
    """
    box = box or _box_of(stack, label)
    window = (slice(None), *(slice(max(part.start - RIM_PX, 0), part.stop + RIM_PX) for part in box))
    part, pixels = stack[window], image[window]
    mask = (part == label).any(0)
    distance = ndimage.distance_transform_edt(~mask)
    ring = (distance > 2) & (distance <= RIM_PX) & ~(part > 0).any(0)
    background = np.median(pixels[:, ring], axis=1) if ring.any() else pixels.min(axis=(1, 2))
    fade = np.clip(1 - distance / 3, 0, 1).astype(np.float32)
    contrast = ((pixels - background[:, None, None]) * fade).astype(np.float32)
    height = contrast[:, mask].mean(1)[:, None, None]
    parts = {"contrast": contrast, "mask": mask, "height": height}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}
    return CutOut(**tensors, kind=kind)


def _box_of(stack: np.ndarray, label: int) -> tuple[slice, slice]:
    _, ys, xs = np.nonzero(stack == label)
    if not len(ys):
        raise BadSample(f"copy-paste: expected a label of the stack, got {label!r}")
    return slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)


def bank_of(
    samples: Sequence[tuple[np.ndarray, np.ndarray]],
    boxes: Sequence[Sequence[tuple[slice, slice]]],
    *,
    seed: int,
    kinds: Sequence[np.ndarray] = (),
) -> list[CutOut]:
    """Cut out up to `MOST_CUT_OUTS` objects of the samples, as many of a sample with few as of one with many.

    ``boxes``: bounding boxes of the objects 1, 2, ... of each sample, whose stacks have dense labels; ``kinds``: their
    classes, where they have any. Objects that hardly differ from their surroundings, or in the other direction than
    most, are left out.
    """
    rng = np.random.default_rng([seed, 0xB0CE5])
    places = [
        (sample, label)
        for sample, sample_boxes in enumerate(boxes)
        for label in range(1, len(sample_boxes) + 1)
    ]
    if not places:
        return []
    weights = np.array([1 / len(boxes[sample]) for sample, _ in places])
    count = min(MOST_CUT_OUTS, len(places))
    chosen = rng.choice(len(places), size=count, replace=False, p=weights / weights.sum())
    bank = [
        cut_out(
            samples[sample][0],
            samples[sample][1],
            label,
            box=boxes[sample][label - 1],
            kind=int(kinds[sample][label - 1]) if len(kinds) else 0,
        )
        for sample, label in (places[index] for index in chosen)
    ]
    heights = torch.stack([cut.height.flatten() for cut in bank])
    usual = heights.median(0).values
    channel = usual.abs().argmax()
    clear = heights[:, channel] / usual[channel] >= LEAST_HEIGHT
    return [cut for cut, kept in zip(bank, clear.tolist(), strict=True) if kept]


def paste(
    image: torch.Tensor, stack: torch.Tensor, cut: CutOut, *, centre: tuple[int, int], label: int
) -> None:
    """Lay an object over an image ``(C, y, x)`` and its stack ``(L, y, x)``, in place; what sticks out is cut off.

    The object takes the first layer on which it meets no other; without such a layer nothing changes.
    """
    windows = _windows(centre, cut.mask.shape, stack.shape[1:])
    if windows is None:
        return
    target, source = ((slice(None), *window) for window in windows)
    mask, part = cut.mask[source[1:]], stack[target]
    free = ~((part > 0) & mask).flatten(1).any(1)
    first = free & (free.cumsum(0) == 1)
    image[target] += cut.contrast[source] * free.any()
    stack[target] = torch.where(first[:, None, None] & mask, label, part)


Windows = tuple[slice, slice]


def _windows(
    centre: tuple[int, int], shape: Sequence[int], size: Sequence[int]
) -> tuple[Windows, Windows] | None:
    """Return the part of a crop that a cut-out of ``shape`` covers, and the part of the cut-out that covers it."""
    first = [int(c) - s // 2 for c, s in zip(centre, shape, strict=True)]
    low = [max(f, 0) for f in first]
    high = [min(f + s, most) for f, s, most in zip(first, shape, size, strict=True)]
    if any(a >= b for a, b in zip(low, high, strict=True)):
        return None
    target = slice(low[0], high[0]), slice(low[1], high[1])
    source = slice(low[0] - first[0], high[0] - first[0]), slice(low[1] - first[1], high[1] - first[1])
    return target, source
