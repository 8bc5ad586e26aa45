"""Label groups of an image: which there are, how they make up stacks, and their pixels.

A stack of layers is several ordinary NGFF label images; the attribute ``platelayer`` of each lists them in
order. A label image by somebody else is a stack of one layer (of several, if it has a channel axis).
"""

import re

import numpy as np

from pipeline.errors import BadArgument, BadStore
from pipeline.stack import MAX_ID
from pipeline.store.ome.groups import Group, find_group, join
from pipeline.store.ome.image import Image, image_at
from pipeline.store.places.address import Address

ATTRIBUTE = "platelayer"
"""Key of our own attributes on a label group: ``{"stack": [names], "layer": index, "origin": fingerprint}``."""


def layer_names(name: str, layers: int) -> tuple[str, ...]:
    """Names of the label groups of a stack: ``nuclei``, ``nuclei_layer1``, ..."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise BadArgument(f"expected a label name of letters, digits, '_', '-' and '.', got {name!r}")
    if layers < 1:
        raise BadArgument(f"a label stack has at least one layer, got {layers}")
    return (name, *(f"{name}_layer{index}" for index in range(1, layers)))


def labels_path(path: str, *parts: str) -> str:
    """Path of the labels of the image at ``path``, or of something in them."""
    return join(path, "labels", *parts)


def listed_labels(address: Address, path: str, *, zarr_format: int | None = None) -> list[str]:
    """Names of all label groups that the image lists, in its order, deeper layers of stacks too."""
    group = find_group(address, labels_path(path), zarr_format=zarr_format)
    listed = group.ome.get("labels") if group else None
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def list_labels(address: Address, path: str) -> list[str]:
    """Names of the label stacks of the image at ``path``, in the listed order; deeper layers are not repeated."""
    listed = listed_labels(address, path)
    owners = {name: re.sub(r"_layer\d+$", "", name) for name in listed}
    doubtful = {owner for name, owner in owners.items() if owner != name and owner in listed}
    deeper = {layer for owner in sorted(doubtful) for layer in stack_layers(address, path, owner)[1:]}
    return [name for name in listed if name not in deeper]


def stack_layers(address: Address, path: str, name: str, *, zarr_format: int | None = None) -> list[str]:
    """Names of the label groups that make up a stack, layer 0 first; a foreign label is its own only layer."""
    group = _label_group(address, path, name, zarr_format)
    own = group.attributes.get(ATTRIBUTE)
    stack = own.get("stack") if isinstance(own, dict) else None
    if isinstance(stack, list) and stack and all(isinstance(layer, str) for layer in stack):
        return list(stack)
    return [name]


def label_origin(address: Address, path: str, name: str, *, zarr_format: int | None = None) -> str | None:
    """Fingerprint of the work a label comes from; empty for somebody else's, None where there is no such label."""
    group = find_group(address, labels_path(path, name), zarr_format=zarr_format)
    if group is None:
        return None
    own = group.attributes.get(ATTRIBUTE)
    return str(own.get("origin", "")) if isinstance(own, dict) else ""


def open_label(address: Address, path: str, name: str) -> Image:
    """Describe one label group as an image."""
    image = image_at(address, labels_path(path, name), _label_group(address, path, name))
    if image.dtype.kind not in "ui":
        raise BadStore(f"{image.place}: expected integer labels, got dtype {image.dtype}")
    return image


def read_stack(
    address: Address,
    path: str,
    name: str,
    *,
    region: tuple[int, int, int, int] | None = None,
    plane: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Read a label stack ``(L, y, x)`` as uint32.

    Args:
        address: the collection.
        path: the image in it.
        name: the stack (its layer 0).
        region: window (y0, y1, x0, x1); the whole image when None.
        plane: (t, z) indices, 0 where the axis is absent.

    Raises:
        BadStore: no such label, or ids that do not fit uint32.
    """
    return np.concatenate(
        [
            _read_label(open_label(address, path, layer), region, plane)
            for layer in stack_layers(address, path, name)
        ]
    )


def _read_label(label: Image, region: tuple[int, int, int, int] | None, plane: tuple[int, int]) -> np.ndarray:
    y0, y1, x0, x1 = region or (0, label.size[0], 0, label.size[1])
    block = label.read(plane, range(len(label.channels)), y0, y1, x0, x1)
    if block.dtype != np.uint32 and block.size and (int(block.min()) < 0 or int(block.max()) > MAX_ID):
        raise BadStore(f"{label.place}: expected ids from 0 to {MAX_ID}; renumber the objects")
    return block.astype(np.uint32, copy=False)


def _label_group(address: Address, path: str, name: str, zarr_format: int | None = None) -> Group:
    group = find_group(address, labels_path(path, name), zarr_format=zarr_format)
    if group is None:
        there = ", ".join(listed_labels(address, path)) or "none"
        raise BadStore(f"{address.child(path)}: there is no label {name!r}; there are: {there}")
    return group
