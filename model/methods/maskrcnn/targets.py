"""Targets of Mask R-CNN: the boxes of the objects, and their masks seen through any box.

An object is its own mask on its layer of the stack, so objects that overlap keep the pixels they share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from model.networks.roi_align import sample_places

SAMPLES = 2
"""Samples per cell of a mask along each axis, of which the mean is taken."""


@dataclass(frozen=True, kw_only=True)
class Objects:
    """The n objects of one image."""

    stack: torch.Tensor
    """int64 ``(L, y, x)``: ids dense in every layer."""
    layers: torch.Tensor
    """int64 ``(n,)``: layer of each object."""
    labels: torch.Tensor
    """int64 ``(n,)``: its id in that layer."""
    boxes: torch.Tensor
    """float32 ``(n, 4)``: y0, x0, y1, x1 in pixels."""

    def to(self, device: torch.device | str) -> "Objects":
        """Return the same objects on a device."""
        return Objects(
            stack=self.stack.to(device),
            layers=self.layers.to(device),
            labels=self.labels.to(device),
            boxes=self.boxes.to(device),
        )

    def seen_through(self, boxes: torch.Tensor, objects: torch.Tensor, *, size: int) -> torch.Tensor:
        """Return float32 ``(r, size, size)``: how much of each cell of box r its object covers.

        ``objects``: int64 ``(r,)``, the object that is looked for in each of the ``boxes`` ``(r, 4)``.
        """
        y, x = (place.floor().long() for place in sample_places(boxes, size=size * SAMPLES))
        height, width = self.stack.shape[1:]
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        ids = self.stack[
            self.layers[objects][:, None, None],
            y.clamp(0, height - 1)[:, :, None],
            x.clamp(0, width - 1)[:, None, :],
        ]
        visible = ((ids == self.labels[objects][:, None, None]) & inside).float()
        return visible.reshape(-1, size, SAMPLES, size, SAMPLES).mean((2, 4))


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The objects of every image of a batch."""

    images: tuple[Objects, ...]

    def to(self, device: torch.device | str) -> "Targets":
        """Return the same targets on a device."""
        return Targets(images=tuple(objects.to(device) for objects in self.images))


def encode(stacks: Sequence[np.ndarray]) -> Targets:
    """Return the objects of label stacks ``(L, y, x)``."""
    return Targets(images=tuple(objects_of(stack) for stack in stacks))


def objects_of(stack: np.ndarray) -> Objects:
    """Return the objects of one label stack ``(L, y, x)``, layer by layer in ascending order of id."""
    dense = np.stack(
        [np.unique(np.append(0, layer), return_inverse=True)[1][1:].reshape(layer.shape) for layer in stack]
    )
    rows = [
        (layer, label, *(float(s.start) for s in box), *(float(s.stop) for s in box))
        for layer, labels in enumerate(dense)
        for label, box in enumerate(ndimage.find_objects(labels), start=1)
    ]
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Objects(
        stack=torch.from_numpy(dense.astype(np.int64)),
        layers=torch.from_numpy(table[:, 0].astype(np.int64)),
        labels=torch.from_numpy(table[:, 1].astype(np.int64)),
        boxes=torch.from_numpy(table[:, 2:].copy()),
    )
