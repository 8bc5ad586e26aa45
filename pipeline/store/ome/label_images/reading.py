"""Label groups of an image: listing them, grouping them into stacks, and reading their pixels.

A stack of layers is several ordinary NGFF label images; the attribute ``platelayer`` of each lists them in order.
Stacks by other writers are recognised by their names (``truth``, ``truth_layer1``, ...), and a label image with a
channel axis has a layer per channel. Their ids are changed while reading so that an id occurs in one layer only.
"""

import logging
import re
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.errors import BadArgument, BadStore
from pipeline.stack import MAX_ID
from pipeline.store.ome.groups import Group, find_group, join
from pipeline.store.ome.image import Image, image_at
from pipeline.store.places.address import Address
from pipeline.store.places.faults import StoreLost

ATTRIBUTE = "platelayer"
"""Key of our own attributes on a label group: ``{"stack": [names], "layer": index, "origin": fingerprint}``."""

STRIP_PX = 2**24
"""Pixels of a label that are held in memory at a time while its ids are collected."""


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
    """Names of all label groups that the image's metadata list, in their order, existing or not."""
    group = find_group(address, labels_path(path), zarr_format=zarr_format)
    listed = group.ome.get("labels") if group else None
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def present_labels(address: Address, path: str) -> list[str]:
    """Names of all existing label groups: the listed ones in their order, then those that no list names.

    Where a server does not list folders (https), only the metadata are used.
    """
    listed = listed_labels(address, path)
    try:
        names = address.children(labels_path(path))
    except StoreLost:
        raise
    except BadStore:
        return listed
    if not names:
        return listed if listed and not address.is_local and address.url.startswith("http") else []
    present = [name for name in listed if name in names]
    return present + [name for name in names if name not in listed and _is_label_group(address, path, name)]


def list_labels(address: Address, path: str) -> list[str]:
    """Names of the label stacks of the image at ``path``; deeper layers are not repeated."""
    names = present_labels(address, path)
    owners = {name: re.sub(r"_layer\d+$", "", name) for name in names}
    doubtful = {owner for name, owner in owners.items() if owner != name and owner in names}
    deeper: set[str] = set()
    for owner in sorted(doubtful):
        try:
            deeper.update(stack_layers(address, path, owner)[1:])
        except StoreLost:
            raise
        except BadStore:
            continue  # Reading this label reports what is wrong with it.
    return [name for name in names if name not in deeper]


def stack_layers(address: Address, path: str, name: str, *, zarr_format: int | None = None) -> list[str]:
    """Names of the label groups that make up a stack, layer 0 first.

    A label without our attribute is a stack with those named ``<name>_layer1``, ``<name>_layer2``, ... that have
    none either.
    """
    group = _label_group(address, path, name, zarr_format)
    declared = declared_layers(group)
    if declared:
        return declared
    layers = [name]
    while name == layers[0]:
        following = f"{name}_layer{len(layers)}"
        other = find_group(address, labels_path(path, following), zarr_format=group.zarr_format)
        if other is None or declared_layers(other):
            break
        layers.append(following)
    return layers


def declared_layers(group: Group) -> list[str]:
    """Names of the layers of a stack as our attribute lists them; none for labels by other writers."""
    attribute = group.attributes.get(ATTRIBUTE)
    stack = attribute.get("stack") if isinstance(attribute, dict) else None
    if isinstance(stack, list) and all(isinstance(layer, str) for layer in stack):
        return list(stack)
    return []


def label_origin(address: Address, path: str, name: str, *, zarr_format: int | None = None) -> str | None:
    """Fingerprint of the work a label comes from; empty for other writers' labels, None where there is none."""
    group = find_group(address, labels_path(path, name), zarr_format=zarr_format)
    if group is None:
        return None
    attribute = group.attributes.get(ATTRIBUTE)
    return str(attribute.get("origin", "")) if isinstance(attribute, dict) else ""


def open_label(address: Address, path: str, name: str) -> Image:
    """Describe one label group as an image.

    Raises:
        BadStore: no such label, or pixels that are neither integers nor floats (which may hold integers).
    """
    image = image_at(address, labels_path(path, name), _label_group(address, path, name))
    if image.dtype.kind not in "uif":
        raise BadStore(f"{image.place}: expected integer labels, got dtype {image.dtype}")
    return image


def read_stack(
    address: Address,
    path: str,
    name: str,
    *,
    region: tuple[int, int, int, int] | None = None,
    plane: tuple[int, int] = (0, 0),
    project: bool = False,
) -> np.ndarray:
    """Read a label stack ``(L, y, x)`` as uint32.

    Ids of labels by other writers are renumbered where they do not fit uint32 or begin again on each layer; the
    numbering is that of the whole plane, so regions agree with each other.

    Args:
        address: the collection.
        path: the image in it.
        name: the stack (its layer 0).
        region: window (y0, y1, x0, x1); the whole image when None.
        plane: (t, z) indices, 0 where the axis is absent.
        project: read the largest id over all z planes.

    Raises:
        BadStore: no such label, negative ids, or floats that are no integers.
    """
    group = _label_group(address, path, name)
    labels = [open_label(address, path, layer) for layer in stack_layers(address, path, name)]
    if project:
        labels = [label.projected("max") for label in labels]
    if declared_layers(group) and all(label.dtype == np.uint32 for label in labels):
        return np.concatenate([_read_label(label, region, plane) for label in labels])
    parts = [_checked(label, _read_label(label, region, plane)) for label in labels]
    stack = np.concatenate([part.astype(np.uint64) for part in parts])
    if len(stack) == 1 and parts[0].dtype.kind in "ui" and parts[0].dtype.itemsize <= 4:
        return stack.astype(np.uint32)
    # The digest covers the label's files, so it differs for a label that replaced this one.
    digests = tuple(label.digest() for label in labels)
    return _numbering(tuple(labels), plane, digests).apply(stack)


@dataclass(frozen=True, eq=False)
class Numbering:
    """Renumbering of the ids of another writer's stack, so that an id occurs in one layer; the same for all regions."""

    renumbered: tuple[np.ndarray | None, ...]
    """Per layer: the ids in ascending order, which become 1, 2, ...; None where they are kept."""
    offset: tuple[int, ...]
    """Per layer: the number that is added to each id."""

    def apply(self, stack: np.ndarray) -> np.ndarray:
        """Return a uint64 stack ``(L, y, x)`` with these ids, as uint32."""
        out = np.zeros(stack.shape, np.uint32)
        for layer, (ids, known, offset) in enumerate(zip(stack, self.renumbered, self.offset, strict=True)):
            numbers = ids if known is None else np.searchsorted(known, ids).astype(np.uint64) + np.uint64(1)
            out[layer][ids > 0] = (numbers + np.uint64(offset))[ids > 0]
        return out


@lru_cache(maxsize=32)
def _numbering(labels: tuple[Image, ...], plane: tuple[int, int], digests: tuple[str, ...]) -> Numbering:
    """Determine the renumbering by reading the plane once, in strips."""
    ids = [layer for label in labels for layer in _ids_of(label, plane)]
    too_large = any(len(layer) and int(layer[-1]) > MAX_ID for layer in ids)
    repeated = len(np.unique(np.concatenate(ids))) < sum(map(len, ids))
    if not too_large and not repeated:
        return Numbering((None,) * len(ids), (0,) * len(ids))
    why = "do not fit 32 bits" if too_large else "begin again on each layer"
    logging.getLogger(__name__).warning("%s: its ids %s; they are renumbered", labels[0].place, why)
    largest = [len(layer) if too_large else int(layer[-1]) if len(layer) else 0 for layer in ids]
    offsets = [sum(largest[:index]) for index in range(len(ids))]
    return Numbering(tuple(ids) if too_large else (None,) * len(ids), tuple(offsets))


def _ids_of(label: Image, plane: tuple[int, int]) -> list[np.ndarray]:
    """Ascending ids of each channel of a label, without 0, as uint64."""
    height, width = label.size
    rows = max(STRIP_PX // (width * len(label.channels)), 1)
    ids_by_layer: list[list[np.ndarray]] = [[] for _ in label.channels]
    for y in range(0, height, rows):
        block = _checked(label, _read_label(label, (y, min(y + rows, height), 0, width), plane))
        for ids, channel in zip(ids_by_layer, block, strict=True):
            ids.append(np.unique(channel).astype(np.uint64))
    merged = [np.unique(np.concatenate(ids)) for ids in ids_by_layer]
    return [ids[ids > 0] for ids in merged]


def _read_label(label: Image, region: tuple[int, int, int, int] | None, plane: tuple[int, int]) -> np.ndarray:
    y0, y1, x0, x1 = region or (0, label.size[0], 0, label.size[1])
    return label.read(_plane_of(label, plane), range(len(label.channels)), y0, y1, x0, x1)


def _plane_of(label: Image, plane: tuple[int, int]) -> tuple[int, int]:
    """The plane of a label for a plane of its image; a projected label has only the first."""
    return plane if not label.depth else (plane[0], 0)


def _checked(label: Image, block: np.ndarray) -> np.ndarray:
    """Refuse ids that cannot be renumbered."""
    if not block.size or block.dtype.kind == "u":
        return block
    if float(block.min()) < 0:
        raise BadStore(
            f"{label.place}: expected ids from 0, got {block.min()}; write the background as 0 and objects as 1, 2, ..."
        )
    if block.dtype.kind == "f" and not (np.isfinite(block).all() and (block == np.rint(block)).all()):
        raise BadStore(
            f"{label.place}: expected integer ids, got fractions in pixels of dtype {block.dtype}; "
            "these are no labels (probabilities, distances?)"
        )
    return block


def _is_label_group(address: Address, path: str, name: str) -> bool:
    group = find_group(address, labels_path(path, name))
    return group is not None and "multiscales" in group.ome


def _label_group(address: Address, path: str, name: str, zarr_format: int | None = None) -> Group:
    group = find_group(address, labels_path(path, name), zarr_format=zarr_format)
    if group is not None:
        return group
    place = f"{address.child(path)}"
    known = [other for other in present_labels(address, path) if other != name]
    names = ", ".join(known) or "none"
    if name in listed_labels(address, path):
        raise BadStore(
            f"{place}: label {name!r} is listed, but there is no group with its metadata; other labels: {names}"
        )
    raise BadStore(f"{place}: there is no label {name!r}; there are: {names}")
