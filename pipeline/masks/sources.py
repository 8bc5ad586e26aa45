"""The masks in a file or folder of another program, and the image of a store that each belongs to."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from pipeline.errors import BadArgument, BadStore
from pipeline.masks.formats.coco import read_coco
from pipeline.masks.formats.geojson import read_geojson
from pipeline.masks.formats.imagej import read_rois
from pipeline.masks.formats.pixel_files import (
    SUFFIXES,
    is_binary,
    object_of_file,
    objects_of_pixels,
    read_pixels,
)
from pipeline.masks.formats.polygon_table import read_polygon_table
from pipeline.masks.objects import MaskObject
from pipeline.store.ome.image import Image

Format = Literal["auto", "labels", "masks", "coco", "geojson", "roi", "csv"]
"""labels: label images; masks: a folder of binary masks, one per object; roi: ImageJ regions; csv: vertices."""

ENDINGS: dict[str, tuple[str, ...]] = {
    "geojson": (".geojson", ".geojson.gz"),
    "coco": (".json",),
    "roi": (".zip", ".roi"),
    "csv": (".csv", ".txt"),
    "labels": SUFFIXES,
}
"""Endings by which a format is recognised."""

MASK_NAMES = (
    r"(^|[_ .-]+)(cp[_-]?masks?|cp[_-]?outlines|masks?|labels?|seg|segmentation|predictions?|rois?|truth|gt)$"
)
"""What programs add to the name of an image; taken off when names are compared."""

MOST_PROBED = 8
"""Pictures that are read to see whether they are binary."""

Layers = list[tuple[int, list[MaskObject]]]
"""Objects by page of a file; -1 where the file has no pages."""


@dataclass(frozen=True, kw_only=True)
class MaskSource:
    """The masks of one image in a file or folder."""

    name: str
    """Name of the file (or of the image inside of it), without ending."""
    where: str
    """File or folder, for messages."""
    read: Callable[[], tuple[tuple[int, int] | None, Layers]]
    """Reads size (height, width; None where the format does not say) and objects."""


def find_sources(
    place: Path, kind: Format, *, scale: tuple[float, float] | None, several: bool = False
) -> list[MaskSource]:
    """List the masks in a file or folder.

    Args:
        place: file or folder.
        kind: their format; ``auto`` goes by the endings of files.
        scale: size of a pixel (y, x) in micrometres, where coordinates are in micrometres; None for pixels.
        several: whether the masks may be those of several images.

    Raises:
        BadArgument: there is no such file or folder, or its format is not recognised.
        BadStore: a file that is not what its ending says.
    """
    if not place.exists():
        raise BadArgument(f"{place}: there is no such file or folder")
    if place.is_file():
        return _in_file(place, kind if kind != "auto" else _kind_of(place), scale)
    if kind == "masks" or (kind == "auto" and _holds_binary_masks(place, several)):
        return list(_binary_masks(place))
    files = sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith("."))
    kinds = {path: _kind_of(path, doubt="") if kind == "auto" else kind for path in files}
    if kind == "auto":
        kinds = _masks_among(kinds)
    wanted = [(path, known) for path, known in kinds.items() if known and _fits(path, known)]
    if not wanted:
        raise BadArgument(f"{place}: found no masks; expected files that end in {_endings()}")
    return [source for path, known in wanted for source in _in_file(path, known, scale)]


def _masks_among(kinds: dict[Path, str]) -> dict[Path, str]:
    """Leave out files beside masks: pictures named as masks (``x_cp_masks.png``) are preferred to all others.

    Without such pictures, files of polygons are preferred to pictures, which are the images then.
    """
    pictures = {
        path for path, kind in kinds.items() if kind == "labels" and not path.name.endswith("_seg.npy")
    }
    named = {path for path in pictures if re.search(MASK_NAMES, _stem(path), flags=re.IGNORECASE)}
    vectors = {path for path, kind in kinds.items() if kind in ("geojson", "coco", "roi")}
    wanted = named or vectors
    return {path: kind for path, kind in kinds.items() if path in wanted} if wanted else kinds


def _endings() -> str:
    return ", ".join(sorted({ending for endings in ENDINGS.values() for ending in endings}))


def _fits(path: Path, kind: str) -> bool:
    return path.name.lower().endswith(ENDINGS[kind] + ((".json",) if kind == "geojson" else ()))


def _kind_of(path: Path, *, doubt: str | None = None) -> str:
    name = path.name.lower()
    known = next((kind for kind, endings in ENDINGS.items() if name.endswith(endings)), None)
    if known == "coco" and not _looks_like_coco(path):
        known = "geojson"
    if known is None and doubt is None:
        raise BadArgument(
            f"{path}: cannot tell its format; expected an ending of {_endings()}, or give --format"
        )
    return known or doubt or ""


def _looks_like_coco(path: Path) -> bool:
    with path.open(errors="replace") as file:
        head = file.read(4096)
    return "FeatureCollection" not in head and '"Feature"' not in head


def _in_file(path: Path, kind: str, scale: tuple[float, float] | None) -> list[MaskSource]:
    pixel = scale or (1.0, 1.0)
    if kind == "coco":
        return [
            MaskSource(
                name=Path(image.name).stem, where=f"{path}: {image.name}",
                read=partial(_listed, image.objects, image.size),
            )
            for image in read_coco(path)
        ]  # fmt: skip
    if kind == "csv":
        return list(_in_table(path, pixel))
    readers: dict[str, Callable[[], tuple[tuple[int, int] | None, Layers]]] = {
        "labels": partial(_pages, path),
        "geojson": partial(_listed, partial(read_geojson, path, scale=pixel), None),
        "roi": partial(_listed, partial(read_rois, path), None),
    }
    return [MaskSource(name=_stem(path), where=str(path), read=readers[kind])]


def _in_table(path: Path, pixel: tuple[float, float]) -> Iterator[MaskSource]:
    """The objects of a table by image; the image's name is the file's where there is no such column."""
    by_image: dict[str, list[MaskObject]] = {}
    for image, item in read_polygon_table(path, scale=pixel):
        by_image.setdefault(image, []).append(item)
    for image, objects in by_image.items():
        name = Path(image).stem if "." in Path(image).name else image
        yield MaskSource(
            name=name or _stem(path),
            where=f"{path}: {image}" if image else str(path),
            read=partial(_listed, partial(iter, objects), None),
        )


def _listed(
    read: Callable[[], Iterable[MaskObject]], size: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, Layers]:
    return size, [(-1, list(read()))]


def _pages(path: Path) -> tuple[tuple[int, int], Layers]:
    pixels = read_pixels(path)
    if pixels.ndim < 2:
        raise BadStore(f"{path}: expected a label image (y, x), got shape {pixels.shape}")
    pages = pixels.reshape(-1, *pixels.shape[-2:])
    objects = [(number, list(objects_of_pixels(page, str(path)))) for number, page in enumerate(pages)]
    return (pixels.shape[-2], pixels.shape[-1]), objects if len(pages) > 1 else [(-1, objects[0][1])]


def _stem(path: Path) -> str:
    """Name of a file without its ending, both parts of ``.ome.tif`` and ``.geojson.gz``."""
    name = re.sub(r"\.(tiff?|png|bmp|npy|geojson|gz|json|zip|roi|csv|txt)$", "", path.name, flags=re.I)
    return re.sub(r"\.(ome|geojson)$", "", name, flags=re.I)


def _holds_binary_masks(folder: Path, several: bool) -> bool:
    """Whether a folder holds a mask per object: binary pictures of one image, or folders of them by image.

    Pictures directly in it are not taken for objects where the store has several images, which they may belong to.
    """
    files = _pictures(_mask_folder(folder))
    if files:
        return (
            not several
            and len(files) > 1
            and all(is_binary(read_pixels(path)) for path in files[:MOST_PROBED])
        )
    inner = [_pictures(_mask_folder(child)) for child in folder.iterdir() if child.is_dir()]
    return any(inner) and all(
        is_binary(read_pixels(pictures[0])) for pictures in inner[:MOST_PROBED] if pictures
    )


def _mask_folder(folder: Path) -> Path:
    return folder / "masks" if (folder / "masks").is_dir() else folder


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _binary_masks(folder: Path) -> Iterator[MaskSource]:
    groups = [child for child in sorted(folder.iterdir()) if child.is_dir() and child.name != "masks"]
    direct = _pictures(_mask_folder(folder))
    places = [(folder, direct)] if direct else [(child, _pictures(_mask_folder(child))) for child in groups]
    folders = [(place, files) for place, files in places if files]
    if not folders:
        raise BadArgument(
            f"{folder}: expected binary masks (one file per object), or a folder of them per image"
        )
    for place, files in folders:
        name = place.parent.name if place.name.lower() in ("masks", "mask") else place.name
        yield MaskSource(name=name, where=str(place), read=partial(_one_per_file, files))


def _one_per_file(files: Sequence[Path]) -> tuple[tuple[int, int], Layers]:
    objects, size = [], None
    for number, path in enumerate(files, start=1):
        item, shape = object_of_file(path, number)
        if size not in (None, shape):
            raise BadStore(f"{path}: expected a mask of {size}, as the others, got {shape}")
        size = shape
        if len(item.y):
            objects.append(item)
    if size is None:
        raise BadStore("expected at least one mask")
    return size, [(-1, objects)]


def match_sources(
    sources: Sequence[MaskSource], images: Sequence[Image], *, store: str, table: Path | None = None
) -> tuple[dict[str, MaskSource], list[str]]:
    """Say which masks belong to which image: by a table, by name, or because there is one of each.

    Args:
        sources: masks.
        images: images of the store.
        store: name of the store.
        table: CSV with the columns file and image (the path in the store, such as A/1/0).

    Returns:
        Masks by path of the image, and the masks that belong to none.

    Raises:
        BadArgument: no name fits, two fit the same image, or the table names what is not there.
    """
    if table is not None:
        return _by_table(sources, images, table)
    if len(sources) == len(images) == 1:
        return {images[0].path: sources[0]}, []
    names = _image_names(images, store)
    matched: dict[str, MaskSource] = {}
    without: list[str] = []
    for source in sources:
        path = next((names[key] for key in _keys(source.name) if key in names), None)
        if path is None:
            without.append(source.where)
        elif path in matched:
            raise BadArgument(
                f"{source.where} and {matched[path].where} both fit image {path!r}; give --format or --table"
            )
        else:
            matched[path] = source
    if not matched:
        raise BadArgument(
            f"no name fits: masks {_some(s.name for s in sources)}; images {_some(i.path or store for i in images)}; "
            "rename the files after the images (A_1_0 or A01 for A/1/0), or give a --table with columns file, image"
        )
    return matched, without


def _by_table(
    sources: Sequence[MaskSource], images: Sequence[Image], table: Path
) -> tuple[dict[str, MaskSource], list[str]]:
    try:
        rows = pd.read_csv(table, dtype=str).fillna("")
        pairs = list(zip(rows["file"], rows["image"]))
    except (OSError, ValueError, KeyError) as error:
        raise BadArgument(
            f"--table {table}: expected a CSV with the columns file and image ({error!s:.80})"
        ) from None
    by_name = {key: source for source in sources for key in (source.name, Path(source.where).name)}
    paths = {image.path for image in images}
    matched: dict[str, MaskSource] = {}
    for file, image in pairs:
        source = by_name.get(file) or by_name.get(_stem(Path(file)))
        if source is None or image.strip("/") not in paths:
            what = f"file {file!r}" if source is None else f"image {image!r}"
            raise BadArgument(f"--table {table}: there is no {what}")
        matched[image.strip("/")] = source
    used = {source.where for source in matched.values()}
    return matched, [source.where for source in sources if source.where not in used]


def _image_names(images: Sequence[Image], store: str) -> dict[str, str]:
    """The names by which an image may be called; a name of two images is none."""
    names: dict[str, str | None] = {}
    for image in images:
        for name in dict.fromkeys(_names_of(image, images, store)):
            names[name] = image.path if names.get(name, image.path) == image.path else None
    return {name: path for name, path in names.items() if path is not None}


def _names_of(image: Image, images: Sequence[Image], store: str) -> Iterator[str]:
    if image.path:
        yield from (
            image.path.lower(),
            image.path.replace("/", "_").lower(),
            image.path.replace("/", "-").lower(),
        )
        yield image.path.rpartition("/")[2].lower()
    else:
        yield store.removesuffix(".zarr").removesuffix(".ome").lower()
    if image.name:
        yield image.name.lower()
    if image.well:
        row, column = image.well
        wells = [f"{row}{column}", f"{row}{column.zfill(2)}"]
        if sum(other.well == image.well for other in images) == 1:
            yield from (well.lower() for well in wells)
        yield from (f"{well}_{image.field}".lower() for well in wells)
        yield from (f"{well}_f{image.field}".lower() for well in wells)


def _keys(name: str) -> Iterator[str]:
    """A name, and the same without what programs add to it."""
    plain = name.lower()
    yield plain
    shorter = re.sub(MASK_NAMES, "", plain)
    if shorter and shorter != plain:
        yield shorter


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" ... ({len(listed)})" if len(listed) > 4 else "")
