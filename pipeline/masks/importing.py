"""Import: masks of other programs beside the images of a store, as label stacks in which overlaps are kept."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.errors import BadArgument, BadStore
from pipeline.masks.classes import check_free_table, remove_table, write_classes
from pipeline.masks.components import split
from pipeline.masks.objects import MaskObject, clipped
from pipeline.masks.packing import write_objects
from pipeline.masks.sources import Format, MaskSource, find_sources, match_sources
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.image import Image
from pipeline.store.ome.labels import check_free
from pipeline.store.places.address import address

Planes = list[tuple[tuple[int, int], list[MaskObject]]]
"""Objects by (t, z) plane."""


@dataclass(frozen=True, kw_only=True)
class ImportJob:
    """The masks to import, and how to read them."""

    source: Path
    """File or folder with masks."""
    store: str
    """OME-Zarr image or plate, path or URL."""
    name: str
    """Name of the labels."""
    format: Format = "auto"
    """labels, masks (a binary file per object), coco, geojson, roi or csv; auto goes by the files' endings."""
    table: Path | None = None
    """CSV with columns file and image, where names do not tell which masks belong to which image."""
    unit: str = "px"
    """Unit of the coordinates of polygons: px or um."""
    plane: tuple[int, int] | None = None
    """(t, z) of the masks, for images of several planes."""
    project: bool = False
    """The masks belong to the projection over z: the labels have no z axis."""
    split_components: bool = False
    """Every connected part of a mask is an object of its own (for semantic masks)."""
    overwrite: bool = False
    """Replace labels of that name, and their table."""


@dataclass
class Imported:
    """The result of an import."""

    objects: dict[str, int] = field(default_factory=dict)
    """Number of objects by path of the image."""
    layers: int = 1
    """Largest number of layers of an image."""
    classes: Counter[str] = field(default_factory=Counter)
    """Number of objects by class; those without a class are not counted."""
    remarks: list[str] = field(default_factory=list)
    """Remarks on masks that were left out, clipped, or look wrong."""
    without_image: list[str] = field(default_factory=list)
    """Masks that belong to no image."""
    without_masks: list[str] = field(default_factory=list)
    """Images without masks."""


def import_labels(job: ImportJob, *, on_image: Callable[[str], None] = lambda path: None) -> Imported:
    """Write the masks of a file or folder beside the images they belong to, and a table of the classes they have.

    All names are checked before anything is written; each image is written whole or not at all.

    Raises:
        BadArgument: nothing fits, or an option is missing for images of several planes.
        BadStore: a file or the store cannot be read, or sizes differ.
        RunConflict: there are labels or a table of that name and ``overwrite`` is False.
    """
    collection = open_collection(address(job.store))
    images = {image.path: image.projected("max" if job.project else "") for image in collection.images}
    scale = _scale(job, list(images.values()))
    sources = find_sources(job.source, job.format, scale=scale, several=len(images) > 1)
    matched, without_image = match_sources(
        sources, collection.images, store=collection.address.name, table=job.table
    )
    for path in matched:
        check_free(collection.address, path, job.name, overwrite=job.overwrite)
        check_free_table(collection.address, path, job.name, overwrite=job.overwrite)
    result = Imported(without_image=without_image, without_masks=[p for p in images if p not in matched])
    for path, source in matched.items():
        on_image(path)
        planes = _planes(job, source, images[path], result)
        remove_table(collection.address, path, job.name)
        written = write_objects(
            collection.address, images[path], planes, name=job.name, overwrite=job.overwrite
        )
        write_classes(collection.address, path, job.name, written.classes)
        result.classes.update(written.classes.values())
        result.objects[path] = sum(len(objects) for _, objects in planes)
        result.layers = max(result.layers, written.layers)
    return result


def _scale(job: ImportJob, images: Sequence[Image]) -> tuple[float, float] | None:
    """Pixel size for coordinates in micrometres; all images must have the same."""
    if job.unit == "px":
        return None
    if job.unit != "um":
        raise BadArgument(f"expected the unit px or um, got {job.unit!r}")
    sizes = {image.spacing_um for image in images}
    size = next(iter(sizes)) if len(sizes) == 1 else None
    if size is None:
        raise BadArgument(
            f"{job.store}: the images have no pixel size, or not all the same; give coordinates in px"
        )
    return size


def _planes(job: ImportJob, source: MaskSource, image: Image, result: Imported) -> Planes:
    size, pages = source.read()
    if size is not None and size != image.size:
        raise BadStore(
            f"{source.where}: expected masks of {image.size[0]} x {image.size[1]} px, the size of {image.place}, "
            f"got {size[0]} x {size[1]}"
        )
    placed = _placed(job, source, image, pages)
    return [(plane, _prepared(job, source, image, objects, result)) for plane, objects in placed]


def _placed(
    job: ImportJob, source: MaskSource, image: Image, pages: list[tuple[int, list[MaskObject]]]
) -> Planes:
    """Give pages to planes: as many pages as planes are the planes, any other pages are layers of one plane."""
    if len(pages) > 1 and len(pages) == len(image.planes) and job.plane is None:
        return [(plane, objects) for plane, (_, objects) in zip(image.planes, pages, strict=True)]
    plane = job.plane
    if plane is None:
        if len(image.planes) > 1:
            raise BadArgument(
                f"{source.where}: {image.place} has {len(image.planes)} planes; say with --plane T,Z to which one the "
                "masks belong, or --project max if they belong to the projection over z"
            )
        plane = (0, 0)
    return [(plane, _distinct([item for _, objects in pages for item in objects]))]


def _distinct(objects: list[MaskObject]) -> list[MaskObject]:
    """Objects of several pages whose ids begin again on each of them are numbered anew."""
    labels = {item.label for item in objects}
    return objects if len(labels) == len(objects) else [replace(item, label=0) for item in objects]


def _prepared(
    job: ImportJob, source: MaskSource, image: Image, objects: list[MaskObject], result: Imported
) -> list[MaskObject]:
    inside = [clipped(item, image.size) for item in objects]
    kept = [item for item in inside if len(item.y)]
    outside = sum(
        not len(part.y) or part.area < item.area for item, part in zip(objects, inside) if len(item.y)
    )
    if objects and not kept:
        raise BadStore(
            f"{source.where}: all {len(objects)} object(s) lie outside of the image ({image.size[0]} x "
            f"{image.size[1]} px); are the coordinates in micrometres (--unit um), or of another image?"
        )
    if not objects:
        result.remarks.append(f"{source.where}: it holds no object with an area; the labels are empty")
    if outside:
        result.remarks.append(f"{source.where}: {outside} object(s) reach beyond the image and were clipped")
    if empty := sum(not len(item.y) for item in objects):
        result.remarks.append(f"{source.where}: {empty} object(s) cover no pixel and were left out")
    if job.split_components:
        return list(split(kept))
    if len(kept) == 1 and (parts := len(list(split(kept)))) > 1:
        result.remarks.append(
            f"{source.where}: one object of {parts} separate parts; if it is a semantic mask, --split-components makes "
            "each part an object"
        )
    return kept
