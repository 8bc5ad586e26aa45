"""The planes of a store that have labels of a name, as values whose objects can be read one by one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import BadArgument
from pipeline.masks.classes import classes_of
from pipeline.masks.objects import MaskObject
from pipeline.masks.sweep import objects_of
from pipeline.store.ome.collection import Collection, Image
from pipeline.store.ome.labels import list_labels, open_label, read_stack
from pipeline.store.places.address import Address


@dataclass(frozen=True)
class Plane:
    """One (t, z) plane of a label stack."""

    address: Address
    image: Image
    name: str
    plane: tuple[int, int]
    title: str
    """Name in file names and tables."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return open_label(self.address, self.image.path, self.name).size

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Label stack ``(L, y, x)`` of a window."""
        return read_stack(self.address, self.image.path, self.name, region=(y0, y1, x0, x1), plane=self.plane)

    def objects(self) -> Iterator[MaskObject]:
        """Objects one by one, with the classes that the table of the labels gives them."""
        classes = classes_of(self.address, self.image.path, self.name)
        for item in objects_of(self.read, self.size):
            yield replace(item, category=classes.get(item.label, ""))


def only_name(collection: Collection) -> str:
    """Return the name of the only labels in a store; `BadArgument` where there are none or several."""
    names = {
        name: None for image in collection.images for name in list_labels(collection.address, image.path)
    }
    if len(names) != 1:
        raise BadArgument(
            f"{collection.address}: expected one kind of labels, got {', '.join(names) or 'none'}; choose with --name"
        )
    return next(iter(names))


def planes_of(collection: Collection, name: str) -> Iterator[Plane]:
    """Yield the planes of all images that have labels of this name."""
    for image in collection.images:
        if name not in list_labels(collection.address, image.path):
            continue
        planes = open_label(collection.address, image.path, name).planes
        for t, z in planes:
            parts = [image.path.replace("/", "_") or collection.address.name.removesuffix(".zarr")]
            parts += [f"t{t}z{z}"] if len(planes) > 1 else []
            yield Plane(collection.address, image, name, (t, z), "_".join(parts))
