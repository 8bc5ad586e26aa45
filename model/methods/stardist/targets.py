"""Targets of StarDist: how central a pixel is in its object, and how far the outline is along each ray.

Rays are followed in the mask of the whole object, on its own layer of the stack, so an object that lies under
another keeps its outline there. A pixel of several objects describes the one in which it is most central.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Probabilities and distances of a batch of B label stacks, on the grid of the network."""

    probability: torch.Tensor
    """float32 ``(B, 1, rows, columns)``: distance to the outline over its maximum in the object; 0 outside."""
    distances: torch.Tensor
    """float32 ``(B, rays, rows, columns)`` in pixels; 0 outside of objects."""

    def to(self, device: torch.device | str) -> "Targets":
        """Return the same targets on a device."""
        return Targets(probability=self.probability.to(device), distances=self.distances.to(device))


def encode(stacks: Sequence[np.ndarray], *, rays: int, grid: int) -> Targets:
    """Return the targets of label stacks ``(L, y, x)`` of one size, at every ``grid``-th pixel along y and x."""
    probabilities, distances = [], []
    for stack in stacks:
        central = centrality(stack)
        layer = central.argmax(0)
        probabilities.append(torch.from_numpy(central.max(0)[None, ::grid, ::grid].copy()))
        distances.append(torch.from_numpy(ray_distances(stack, layer, rays=rays, grid=grid)))
    return Targets(probability=torch.stack(probabilities), distances=torch.stack(distances))


def centrality(stack: np.ndarray) -> np.ndarray:
    """Return float32 ``(L, y, x)``: distance to the outside of the object over the object's largest; 0 outside.

    What lies beyond the edge of the image counts as the object, so objects cut by the edge stay central there.
    """
    central = np.zeros(stack.shape, np.float32)
    for layer, out in zip(stack, central, strict=True):
        labels = np.unique(np.append(0, layer), return_inverse=True)[1][1:].reshape(layer.shape)
        for index, box in enumerate(ndimage.find_objects(labels), start=1):
            wider = tuple(
                slice(max(s.start - 1, 0), min(s.stop + 1, size))
                for s, size in zip(box, labels.shape, strict=True)
            )
            mask = labels[wider] == index
            distance = ndimage.distance_transform_edt(mask) if not mask.all() else mask.astype(float)
            out[wider][mask] = (distance / max(distance.max(), 1e-10))[mask]
    return central


def ray_distances(stack: np.ndarray, layer: np.ndarray, *, rays: int, grid: int) -> np.ndarray:
    """Return float32 ``(rays, rows, columns)``: pixels from every ``grid``-th pixel to the outline of its object.

    ``layer``: the layer of the object that each pixel describes. Ray k leaves at the angle 2 pi k / rays (cosine
    along x, sine along y) and is followed in steps of one pixel until it leaves the object or the image; the last
    step is shortened by half a pixel, as in the authors' code.
    """
    labels = np.take_along_axis(stack, layer[None], 0)[0][::grid, ::grid]
    out = np.zeros((rays, *labels.shape), np.float32)
    for k, angle in enumerate(2 * np.pi / rays * np.arange(rays)):
        dy, dx = np.sin(angle), np.cos(angle)
        steps = _steps_inside(stack, layer[::grid, ::grid], labels, dy=dy, dx=dx, grid=grid)
        out[k] = np.where(labels > 0, steps + 0.5 / max(abs(dy), abs(dx)), 0)
    return out


def _steps_inside(
    stack: np.ndarray, layer: np.ndarray, own_labels: np.ndarray, *, dy: float, dx: float, grid: int
) -> np.ndarray:
    """Return how many whole steps along (dy, dx) end in the object that the pixel itself is in."""
    # A frame of background ends the rays at the edge of the image; every step is one number to add to a flat index.
    framed = np.pad(stack, ((0, 0), (1, 1), (1, 1)))
    height, width = framed.shape[1:]
    pixel = np.flatnonzero(own_labels)
    y, x = np.divmod(pixel, own_labels.shape[1])
    labels, start = own_labels.flat[pixel], (layer.flat[pixel] * height + y * grid + 1) * width + x * grid + 1
    steps, step, flat = np.zeros(own_labels.size, np.int64), 0, framed.reshape(-1)
    while len(pixel):
        step += 1
        inside = flat[start + (round(step * dy) * width + round(step * dx))] == labels
        pixel, start, labels = pixel[inside], start[inside], labels[inside]
        steps[pixel] = step
    return steps.reshape(own_labels.shape)
