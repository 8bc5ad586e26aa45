"""Copy-paste of objects onto objects: what makes rare overlaps common.

The invariant: contrast adds. A pasted object brings its difference from its own background, as absorbing or
emitting specimens do, so both objects stay visible; it gets an id and a place in the stack of its own.
"""

import numpy as np
import torch
from scipy import ndimage

from model.errors import BadSample

RIM_PX = 4
"""Width of the ring around an object whose median is its background."""


def cut_out(image: np.ndarray, stack: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(contrast float32 (C, h, w), mask bool (h, w))`` of one object, in a box with a rim.

    The contrast fades out over the two pixels outside the mask and is 0 beyond.
    """
    layer, ys, xs = np.nonzero(stack == label)
    if not len(ys):
        raise BadSample(f"copy-paste: expected an id of the stack, got {label!r}")
    rim = RIM_PX + 2
    y0, x0 = max(ys.min() - rim, 0), max(xs.min() - rim, 0)
    box = (slice(None), slice(y0, ys.max() + rim + 1), slice(x0, xs.max() + rim + 1))
    part = stack[box]
    mask = part[layer[0]] == label
    distance = ndimage.distance_transform_edt(~mask)
    ring = (distance > 2) & (distance <= rim) & ~(part > 0).any(0)
    pixels = image[box]
    background = np.median(pixels[:, ring], axis=1) if ring.any() else pixels.min(axis=(1, 2))
    fade = np.clip(1 - distance / 3, 0, 1).astype(np.float32)
    return (pixels - background[:, None, None]) * fade, mask


def paste(
    image: torch.Tensor,
    stack: torch.Tensor,
    *,
    contrast: np.ndarray,
    mask: np.ndarray,
    centre: tuple[int, int],
    label: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay an object over an image ``(C, y, x)`` and its stack ``(L, y, x)``; what sticks out is cut off.

    The object takes the first layer on which it meets nobody, or a new one. The arguments stay as they were.
    """
    height, width = image.shape[-2:]
    top, left = (int(c) - s // 2 for c, s in zip(centre, mask.shape, strict=True))
    y0, y1 = max(top, 0), min(top + mask.shape[0], height)
    x0, x1 = max(left, 0), min(left + mask.shape[1], width)
    if y0 >= y1 or x0 >= x1:
        return image, stack
    source = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    target = (slice(y0, y1), slice(x0, x1))
    image, stack = image.clone(), stack.clone()
    image[(slice(None), *target)] += torch.from_numpy(contrast[(slice(None), *source)].copy()).to(
        image.device
    )
    shape = torch.from_numpy(mask[source].copy()).to(stack.device)
    free = next((k for k, part in enumerate(stack) if not part[target][shape].any()), None)
    if free is None:
        free = len(stack)
        stack = torch.cat([stack, torch.zeros_like(stack[:1])])
    stack[free][target][shape] = label
    return image, stack
