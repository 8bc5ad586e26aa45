"""Label stacks of an image: the functions that other packages read, write and publish them with.

`labels/<name>` is an ordinary NGFF label image, layer 0 of a stack; deeper layers are further label images.
"""

import numpy as np

from pipeline.errors import BadArgument
from pipeline.stack import check_stack
from pipeline.store.ome.image import Image
from pipeline.store.ome.label_images.layout import BLOCK, CHUNK
from pipeline.store.ome.label_images.publishing import check_free, publish
from pipeline.store.ome.label_images.reading import (
    label_origin,
    list_labels,
    open_label,
    read_stack,
    stack_layers,
)
from pipeline.store.ome.label_images.writing import LabelWriter, create_labels
from pipeline.store.places.address import Address

__all__ = [
    "BLOCK",
    "CHUNK",
    "LabelWriter",
    "check_free",
    "create_labels",
    "label_origin",
    "list_labels",
    "open_label",
    "publish",
    "read_stack",
    "stack_layers",
    "write_stack",
]


def write_stack(
    address: Address,
    image: Image,
    stack: np.ndarray,
    *,
    name: str,
    plane: tuple[int, int] = (0, 0),
    overwrite: bool = False,
) -> None:
    """Write a whole label stack ``(L, y, x)`` for one plane of an image and publish it (truth, small results).

    Raises:
        BadArgument: the stack is not valid (`check_stack`), or its size is not the image's.
        RunConflict: there is such a label and ``overwrite`` is False.
    """
    checked = check_stack(stack, name=name)
    if checked.shape[1:] != image.size:
        raise BadArgument(f"{image.place}: expected a stack (L, {image.size}), got shape {checked.shape}")
    check_free(address, image.path, name, overwrite=overwrite)
    writer = create_labels(address, image.path, name=name, layers=len(checked), image=image)
    for layer, ids in enumerate(checked):
        for y0, y1, x0, x1 in writer.blocks():
            writer.write(plane, layer, y0, x0, ids[y0:y1, x0:x1])
    publish(writer, overwrite=overwrite)
