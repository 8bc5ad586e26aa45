"""Pictures for reports, read from the stores: a field at the size of a page, a window at full resolution."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flows.evaluation.sides import Labelled
from pipeline.store.ome.collection import Image
from pipeline.store.ome.labels import list_labels, open_label, read_stack, stack_layers
from pipeline.store.places.address import Address

LONGEST_PX = 1400
"""Fields longer than this are shown from a coarser level of their pyramid."""

Shown = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
"""Grey picture, truth stack, predicted stack, all of one size."""


def grey(image: Image, *, channel: int = 0, plane: tuple[int, int] = (0, 0)) -> np.ndarray:
    """One channel of an image ``(y, x)`` at a level fit for a page."""
    level = image.coarse(LONGEST_PX)
    return level.read(plane, (channel,), 0, level.size[0], 0, level.size[1])[0]


def stack_like(
    shape: tuple[int, ...], place: Address, path: str, name: str, plane: tuple[int, int] = (0, 0)
) -> np.ndarray | None:
    """A label stack at the pyramid level whose size is ``shape``; None without such labels or such a level."""
    if name not in list_labels(place, path):
        return None
    layers = []
    for layer in stack_layers(place, path, name):
        level = open_label(place, path, layer).coarse(max(shape))
        layers.append(level.read(plane, (0,), 0, level.size[0], 0, level.size[1])[0])
    stack = np.stack(layers)
    return stack if stack.shape[1:] == shape else None


@dataclass(frozen=True)
class Views:
    """Pictures of the images of a run; both methods are what the pages of `pipeline.report` call."""

    images: Mapping[str, Image]
    output: Address
    name: str
    """Labels to draw."""
    channel: int

    def picture(self, key: str) -> Shown | None:
        """The image and its predicted labels."""
        shown = grey(self.images[key], channel=self.channel)
        return shown, None, stack_like(shown.shape, self.output, self.images[key].path, self.name)

    def window(self, key: str, y0: int, y1: int, x0: int, x1: int) -> tuple[np.ndarray, np.ndarray | None]:
        """A window at full resolution."""
        image = self.images[key]
        pixels = image.read(image.planes[0], (self.channel,), y0, y1, x0, x1)[0]
        region = (y0, y1, x0, x1)
        return pixels, read_stack(self.output, image.path, self.name, region=region, plane=image.planes[0])


@dataclass(frozen=True)
class Comparisons:
    """Pictures of an evaluation, by the names its tables use."""

    pairs: Mapping[str, tuple[Labelled, Labelled | None]]

    def picture(self, name: str) -> Shown | None:
        """The grey field, the true and the predicted stack; None where neither side has pixels."""
        true, labelled = self.pairs[name]
        for side in (true, labelled):
            if (
                side is None
                or side.image.is_stand_in
                or side.image.dtype.kind not in "uif"
                or not side.image.channels
            ):
                continue
            shown = grey(side.image, plane=true.plane)
            if shown.size:
                predicted = _at(labelled, shown.shape) if labelled is not None else None
                return shown, _at(true, shown.shape), predicted
        return None


def _at(side: Labelled, shape: tuple[int, ...]) -> np.ndarray | None:
    if side.size == shape:
        return side.read(0, shape[0], 0, shape[1])
    if side.components or side.project:
        return None
    return stack_like(shape, side.address, side.image.path, side.name, side.plane)
