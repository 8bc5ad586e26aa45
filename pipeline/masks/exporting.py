"""Export: label stacks in the formats of other programs, object by object, so that memory stays flat.

A file is visible only when it is whole. Formats with polygons or run lengths keep overlaps; label pictures keep
them as pages, one per layer of the stack.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pipeline.errors import BadArgument, RunConflict
from pipeline.masks.formats.annotated import write_anndata
from pipeline.masks.formats.coco import CocoWriter
from pipeline.masks.formats.geojson import GeoJsonWriter
from pipeline.masks.formats.imagej import RoiWriter
from pipeline.masks.formats.label_pages import write_label_pages
from pipeline.masks.formats.polygon_table import PolygonTableWriter
from pipeline.masks.objects import MaskObject
from pipeline.masks.planes import Plane, only_name, planes_of
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import open_label, stack_layers
from pipeline.store.places.address import address

Format = Literal["geojson", "coco", "labels-tiff", "roi-zip", "ome-tiff", "csv", "anndata"]
"""What can be written."""

ENDINGS: dict[str, str] = {
    "geojson": ".geojson",
    "coco": ".json",
    "labels-tiff": ".tif",
    "roi-zip": ".zip",
    "ome-tiff": ".ome.tif",
    "csv": ".csv",
    "anndata": ".h5ad",
}
"""Endings of the files."""

PER_STORE = frozenset({"coco", "csv", "anndata"})
"""Formats in which one file holds all images."""


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """What to export, and where to."""

    store: str
    """OME-Zarr image or plate with labels, path or URL."""
    format: Format
    """geojson, coco, labels-tiff, roi-zip, ome-tiff, csv or anndata."""
    output: str | None = None
    """File, or folder for formats with a file per image; default: named after the labels, in this folder."""
    name: str | None = None
    """Labels to export; default: the only ones."""
    unit: Literal["px", "um"] = "px"
    """Unit of coordinates of geojson, csv and anndata; the others are always in pixels."""
    overwrite: bool = False
    """Replace existing files."""


@dataclass
class Exported:
    """The result of an export."""

    files: list[str] = field(default_factory=list)
    """Files that were written."""
    objects: int = 0
    """Objects in them."""
    remarks: list[str] = field(default_factory=list)
    """What the format cannot hold."""


class Writer(Protocol):
    """Writes objects to an open file."""

    def add(self, item: MaskObject) -> None:
        """Write one object."""

    def close(self) -> None:
        """Write what ends the file."""


def export(job: ExportJob, *, on_plane: Callable[[str], None] = lambda title: None) -> Exported:
    """Write the labels of a store in a format of other programs.

    Raises:
        BadArgument: no such labels, several and no choice, no pixel size for micrometres, or a missing package.
        RunConflict: a file exists and ``overwrite`` is False.
        BadStore: labels that cannot be read.
    """
    collection = open_collection(address(job.store))
    name = job.name or only_name(collection)
    planes = list(planes_of(collection, name))
    if not planes:
        raise BadArgument(
            f"{job.store}: no image has labels {name!r}; platelayer inspect shows which there are"
        )
    result = Exported(remarks=_remarks(job, planes))
    output = job.output or f"{name}{'' if _is_folder(job, planes) else ENDINGS[job.format]}"
    if job.format == "anndata":
        with _whole_file(output, overwrite=job.overwrite) as path:
            result.objects = write_anndata(path, collection, planes, name, unit=job.unit)
        result.files.append(output)
    elif job.format in PER_STORE:
        _write_one(job, planes, output, result, on_plane)
    else:
        _write_each(job, planes, output, result, on_plane)
    return result


def _is_folder(job: ExportJob, planes: list[Plane]) -> bool:
    return job.format not in PER_STORE and len(planes) > 1


def _remarks(job: ExportJob, planes: list[Plane]) -> list[str]:
    layers = max(len(stack_layers(plane.address, plane.image.path, plane.name)) for plane in planes)
    if job.format in ("labels-tiff", "ome-tiff") and layers > 1:
        return [
            f"objects overlap: the {layers} layers are {'channels' if job.format == 'ome-tiff' else 'pages'} of the "
            "TIFF; a program that reads the first one only does not see the deeper objects (geojson and coco hold all)"
        ]
    return []


def _scale(job: ExportJob, plane: Plane) -> tuple[float, float]:
    if job.unit == "px":
        return 1.0, 1.0
    if plane.image.spacing_um is None:
        raise BadArgument(f"{plane.image.place}: it has no pixel size; export in pixels (--unit px)")
    return plane.image.spacing_um


def _write_one(
    job: ExportJob, planes: list[Plane], output: str, result: Exported, on_plane: Callable[[str], None]
) -> None:
    """Write all images to one file of a format that has a column or an entry for the image."""
    scale = _scale(job, planes[0])
    if any(_scale(job, plane) != scale for plane in planes):
        raise BadArgument(f"{job.store}: the images differ in pixel size; export in pixels (--unit px)")
    with _whole_file(output, overwrite=job.overwrite) as path, path.open("w", newline="") as file:
        writer: CocoWriter | PolygonTableWriter
        if job.format == "coco":
            writer = CocoWriter(file, category=planes[0].name)
        else:
            writer = PolygonTableWriter(file, scale=scale)
        for plane in planes:
            on_plane(plane.title)
            writer.begin(plane.title, plane.size)
            result.objects += _write_objects(writer, plane)
        writer.close()
    result.files.append(output)


def _write_each(
    job: ExportJob, planes: list[Plane], output: str, result: Exported, on_plane: Callable[[str], None]
) -> None:
    """Write a file per image plane."""
    for plane in planes:
        on_plane(plane.title)
        target = (
            f"{output.rstrip('/')}/{plane.title}{ENDINGS[job.format]}" if _is_folder(job, planes) else output
        )
        with _whole_file(target, overwrite=job.overwrite) as path:
            result.objects += _write_plane(job, plane, path)
        result.files.append(target)


def _write_plane(job: ExportJob, plane: Plane, path: Path) -> int:
    if job.format in ("labels-tiff", "ome-tiff"):
        label = open_label(plane.address, plane.image.path, plane.name)
        return write_label_pages(
            path,
            plane.read,
            plane.size,
            spacing_um=label.spacing_um,
            ome=job.format == "ome-tiff",
            name=plane.name,
        )
    if job.format == "roi-zip":
        writer = RoiWriter(path)
        count = _write_objects(writer, plane)
        writer.close()
        return count
    with path.open("w") as file:
        features = GeoJsonWriter(file, name=plane.name, scale=_scale(job, plane))
        count = _write_objects(features, plane)
        features.close()
    return count


def _write_objects(writer: Writer, plane: Plane) -> int:
    count = 0
    for item in plane.objects():
        writer.add(item)
        count += 1
    return count


@contextmanager
def _whole_file(target: str, *, overwrite: bool) -> Iterator[Path]:
    """Yield a temporary path whose content becomes the file when all went well; a URL is sent at the end."""
    place = address(target)
    if place.exists() and not overwrite:
        raise RunConflict(f"{place}: there is such a file already; choose another --output, or --overwrite")
    folder = Path(place.url).parent if place.is_local else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".export-", suffix=place.name, dir=folder)
    os.close(handle)
    path = Path(name)
    try:
        yield path
        if place.is_local:
            path.chmod(0o666 & ~_umask())
            path.replace(place.url)
        else:
            place.write_bytes("", path.read_bytes())
    finally:
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
