"""The labels of one side of an evaluation, plane by plane."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pipeline.masks.components import split, split_stack
from pipeline.masks.packing import Packed
from pipeline.masks.sweep import objects_of
from pipeline.store.ome.collection import Image
from pipeline.store.ome.labels import list_labels, open_label, read_stack
from pipeline.store.places.address import Address

Key = tuple[str, tuple[int, int]]
"""An image plane: name of the image and its (t, z)."""

Place = tuple[str, Address, Image]
"""Name of an image on both sides, its store, and the image."""


@dataclass(frozen=True)
class Labelled:
    """Labels of one plane of an image."""

    address: Address
    image: Image
    name: str
    plane: tuple[int, int]
    components: bool = False
    """Every connected part of a label is an object of its own."""
    project: bool = False
    """The largest id over all z planes is compared."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return open_label(self.address, self.image.path, self.name).size

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Label stack ``(L, y, x)`` of a window."""
        if not self.components:
            return self._read(y0, y1, x0, x1)
        packed = _split(self, open_label(self.address, self.image.path, self.name).digest())
        blocks = [packed.block(layer, y0, y1, x0, x1) for layer in range(packed.layers)]
        return np.stack([np.zeros((y1 - y0, x1 - x0), np.uint32) if b is None else b for b in blocks])

    def _read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return read_stack(
            self.address, self.image.path, self.name,
            region=(y0, y1, x0, x1), plane=self.plane, project=self.project,
        )  # fmt: skip


@lru_cache(maxsize=2)
def _split(labelled: Labelled, digest: str) -> Packed:
    """The connected parts of a plane; the digest distinguishes a label from one that replaced it."""
    return split_stack(replace(labelled, components=False).read, labelled.size)


def labelled_planes(
    places: Iterable[Place], name: str, *, components: bool = False, project: bool = False
) -> dict[Key, Labelled]:
    """Planes that have labels of this name, in the order of the store; labels without z have one plane."""
    planes: dict[Key, Labelled] = {}
    for key, store, image in places:
        if name in list_labels(store, image.path):
            label = open_label(store, image.path, name).projected("max" if project else "")
            for plane in label.planes:
                planes[key, plane] = Labelled(store, image, name, plane, components, project)
    return planes


def semantic_hint(labelled: Labelled) -> str:
    """Remark on a plane whose only object has separate parts; empty if it is connected."""
    parts = len(list(split(objects_of(labelled.read, labelled.size))))
    if parts < 2:
        return ""
    return (
        f"the only object of {labelled.name!r} has {parts} separate parts and counts as one; if this is a semantic "
        "mask, --split-components makes each part an object"
    )
