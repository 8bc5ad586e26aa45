"""`platelayer view`: images and labels of a store in napari, where it is installed."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Annotated, Any

from cyclopts import Parameter

from pipeline.errors import BadArgument
from pipeline.store.ome.arrays import open_array
from pipeline.store.ome.collection import Collection, Image, open_collection
from pipeline.store.ome.groups import join
from pipeline.store.ome.labels import list_labels, open_label, stack_layers
from pipeline.store.places.address import Address, address

INSTALL = (
    "platelayer view needs napari, which is not installed here: pip install 'platelayer[view]' on a machine with a "
    "screen. The store is OME-Zarr: napari with the plugin napari-ome-zarr, Fiji, QuPath and vizarr open it too"
)


def view(
    store: Annotated[str, Parameter(help="Store with images, path or URL.")],
    *,
    image: Annotated[
        str | None, Parameter(help="Path of the image, such as A/1/0; default: the first.")
    ] = None,
    labels: Annotated[
        str | None, Parameter(help="Another store whose labels are shown; default: this one.")
    ] = None,
) -> int:
    """Open an image and its labels in napari: a layer per channel, and one per label layer, at their scale."""
    napari = _napari()
    place = address(store)
    collection = open_collection(place)
    chosen = _image(collection, image)
    beside = address(labels) if labels else place
    viewer = napari.Viewer(title=f"{chosen.place}")
    for data, options in _image_layers(chosen):
        viewer.add_image(data, **options)
    for data, options in _label_layers(beside, chosen):
        viewer.add_labels(data, **options)
    sys.stdout.write(f"{chosen.place}: {len(viewer.layers)} layer(s) in napari; close the window to go on\n")
    napari.run()
    return 0


def _napari() -> ModuleType:
    try:
        return importlib.import_module("napari")
    except ImportError as error:
        raise BadArgument(f"{INSTALL} ({error})") from None


def _image(collection: Collection, path: str | None) -> Image:
    if path is None:
        return collection.images[0]
    for image in collection.images:
        if image.path == path.strip("/"):
            return image
    names = [image.path for image in collection.images]
    more = f", ... ({len(names)})" if len(names) > 8 else ""
    raise BadArgument(f"--image {path}: there is no such image; there are: {', '.join(names[:8])}{more}")


def _image_layers(image: Image) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Yield the pyramid of each channel, read on demand, with its name, scale and translation."""
    levels = _levels(image)
    before = (slice(None),) * (image.axes.index("c") if "c" in image.axes else 0)
    for number, name in enumerate(image.channels):
        channel = number if "c" in image.axes else slice(None)
        data = [level[(*before, channel)] for level in levels]
        yield data, {"name": name, "multiscale": True, "blending": "additive", **_place(image)}


def _label_layers(store: Address, image: Image) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Yield the pyramid of every layer of every label stack of an image."""
    for name in list_labels(store, image.path):
        for layer in stack_layers(store, image.path, name):
            label = open_label(store, image.path, layer)
            yield _levels(label), {"name": layer, "multiscale": True, **_place(label)}


def _levels(image: Image) -> list[Any]:
    """Return the levels of a pyramid as arrays that are read piece by piece."""
    import dask.array

    levels = [image.at_level(number) for number in range(len(image.levels))]
    stored = [
        open_array(level.address, join(level.path, level.levels[0]), level.document) for level in levels
    ]
    return [dask.array.from_array(array, chunks=array.chunks) for array in stored]


def _place(image: Image) -> dict[str, Any]:
    """Return scale and translation of the axes that are no channels."""
    kept = [index for index, axis in enumerate(image.axes) if axis != "c"]
    options: dict[str, Any] = {"scale": [image.scale[index] for index in kept]}
    if image.translation:
        options["translate"] = [image.translation[index] for index in kept]
    return options
