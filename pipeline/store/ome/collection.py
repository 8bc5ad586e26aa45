"""Opening a store: a single image, a plate, a well or a series of images.

A well or field that is listed but cannot be read is named in `Collection.missing`; the others are opened. A path that
leads out of the store is an error. Metadata that deviate from the specification are read where their meaning is
clear, and reported in `Collection.remarks`.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from pipeline.errors import BadStore
from pipeline.store.ome.groups import Group, find_group, join
from pipeline.store.ome.image import Image, channel_index, image_at
from pipeline.store.ome.metadata import acquisition_names
from pipeline.store.places.address import Address
from pipeline.store.places.faults import LeavesStore, StoreLost

__all__ = ["Collection", "Image", "channel_index", "open_collection"]

READERS = 16
"""Threads that read the metadata of wells and fields, because each costs a round trip."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """All images behind one address."""

    address: Address
    """Path or URL of the store."""
    kind: str
    """``image`` or ``plate``."""
    images: tuple[Image, ...]
    """All images that can be read, in the order of the metadata."""
    missing: tuple[str, ...] = ()
    """One message per well or field that is listed but cannot be read."""
    plate: dict[str, Any] | None = None
    """NGFF plate metadata."""
    zarr_format: int = 3
    """2 or 3."""
    is_series: bool = False
    """Whether the images are the series of a converted file (a slide and its label picture, several positions)."""

    @property
    def remarks(self) -> list[str]:
        """Deviations from the specification that were read anyway, one line per kind."""
        kinds: dict[str, list[str]] = {}
        for image in self.images:
            for remark in image.remarks:
                kinds.setdefault(remark, []).append(image.place)
        return [
            f"{places[0]}{f' and {len(places) - 1} more image(s)' if len(places) > 1 else ''}: {remark}"
            for remark, places in kinds.items()
        ]

    @property
    def acquisitions(self) -> dict[int, str]:
        """Id and name of the acquisitions that the images belong to; a name may be empty."""
        names = acquisition_names(self.plate or {})
        ids = sorted({image.acquisition for image in self.images if image.acquisition is not None})
        return {number: names.get(number, "") for number in ids}

    @property
    def ngff(self) -> str:
        """OME-Zarr version."""
        return "0.4" if self.zarr_format == 2 else "0.5"

    def digests(self) -> dict[str, str]:
        """Digest of each image by path, the same as `Image.digest`; on a server by one listing of the store."""
        if len(self.images) == 1 or self.address.is_local:
            return {image.path: image.digest() for image in self.images}
        try:
            entries = self.address.entries()
        except StoreLost:
            raise
        except BadStore:
            entries = []
        wanted: dict[str, list] = {join(image.path, image.levels[0]): [] for image in self.images}
        for key, size, token in entries:
            owner = _owner(key, wanted)
            if owner is not None:
                wanted[owner].append((key[len(owner) + 1 :], size, token))
        return {
            image.path: image.digest_of(wanted[join(image.path, image.levels[0])]) for image in self.images
        }


def open_collection(address: Address) -> Collection:
    """Open whatever OME-Zarr there is at an address.

    An image, a label image, a plate, a well, or a series (``bioformats2raw.layout``) of images.

    Raises:
        BadStore: no such store, no Zarr, no OME-Zarr, no readable image, or a path that leaves the store.
    """
    group = find_group(address)
    if group is None:
        raise BadStore(_what_is_there(address))
    collection = _open(address, group)
    for remark in collection.remarks:
        _say_once(remark)
    return collection


@lru_cache(maxsize=1024)
def _say_once(remark: str) -> None:
    """Log a remark once, although a store is opened several times in a run."""
    logging.getLogger(__name__).warning(remark)


def _open(address: Address, group: Group) -> Collection:
    if "plate" in group.ome:
        return _open_plate(address, group)
    if "well" in group.ome:
        fields = [Place(path=path, acquisition=number) for path, number in _fields(address, "", group)]
        return _collection(address, group, "image", *_open_images(address, fields, group.zarr_format))
    if "multiscales" in group.ome:
        return _collection(address, group, "image", [image_at(address, "", group)], [])
    if "labels" in group.ome:
        raise BadStore(f"{address}: a list of labels; give the image or one of them: {group.ome['labels']}")
    series = _series(address, group)
    if series:
        places = [Place(path=path) for path in series]
        return _collection(
            address, group, "image", *_open_images(address, places, group.zarr_format), series=True
        )
    return _collection(address, group, "image", [image_at(address, "", group)], [])


def _series(address: Address, group: Group) -> list[str]:
    """Paths of a series: as the OME group lists them, else every numbered group."""
    listing = find_group(address, "OME", zarr_format=group.zarr_format)
    listed = {**listing.attributes, **listing.ome}.get("series") if listing else None
    if isinstance(listed, list) and all(isinstance(path, str) for path in listed):
        return listed
    return sorted((name for name in address.children() if name.isdecimal()), key=int)


@dataclass(frozen=True, kw_only=True)
class Place:
    """The path of a listed image, and what the metadata above it say about it."""

    path: str
    """Path in the collection."""
    well: tuple[str, str] | None = None
    """Row and column."""
    acquisition: int | None = None
    """Id of its acquisition."""


def _open_plate(address: Address, group: Group) -> Collection:
    wells = _paths(group.ome["plate"], "wells", str(address))
    for well in wells:
        address.child(well)

    def read(well: str) -> list[Place] | str:
        row, _, column = well.partition("/")
        try:
            fields = _fields(
                address, well, find_group(address, well, zarr_format=group.zarr_format, strict=False)
            )
        except (LeavesStore, StoreLost):
            raise
        except BadStore as error:
            return str(error)
        return [
            Place(path=join(well, field), well=(row, column), acquisition=number) for field, number in fields
        ]

    results = _each(address, read, wells)
    places = [place for part in results if not isinstance(part, str) for place in part]
    missing = [part for part in results if isinstance(part, str)]
    images, absent = _open_images(address, places, group.zarr_format)
    return _collection(address, group, "plate", images, missing + absent)


def _fields(address: Address, well: str, group: Group | None) -> list[tuple[str, int | None]]:
    """Path (below the well) and acquisition of the fields of a well."""
    where = str(address.child(well))
    if group is None:
        raise BadStore(f"{where}: the plate lists this well, but it is not there")
    if "well" not in group.ome:
        numbered = sorted((name for name in address.children(well) if name.isdecimal()), key=int)
        if not numbered:
            raise BadStore(f"{where}: expected 'well' metadata that list the fields, got none; add them")
        return [(name, None) for name in numbered]
    fields = _paths(group.ome["well"], "images", where)
    numbers = [item.get("acquisition") for item in group.ome["well"]["images"]]
    for field in fields:
        address.child(well).child(field)
    return [(field, n if isinstance(n, int) else None) for field, n in zip(fields, numbers, strict=True)]


def _open_images(
    address: Address, places: Sequence[Place], zarr_format: int
) -> tuple[list[Image], list[str]]:
    def read(place: Place) -> Image | str:
        try:
            group = find_group(address, place.path, zarr_format=zarr_format, strict=False)
            if group is None:
                return f"{address}/{place.path}: this image is listed, but it is not there"
            return image_at(address, place.path, group, well=place.well, acquisition=place.acquisition)
        except (LeavesStore, StoreLost):
            raise
        except BadStore as error:
            return str(error)

    results = _each(address, read, places)
    return [x for x in results if isinstance(x, Image)], [x for x in results if isinstance(x, str)]


def _collection(
    address: Address,
    group: Group,
    kind: str,
    images: Sequence[Image],
    missing: Sequence[str],
    *,
    series: bool = False,
) -> Collection:
    if not images:
        reason = missing[0] if missing else "its metadata list none"
        raise BadStore(f"{address}: there is no readable image ({reason})")
    return Collection(
        address=address,
        kind=kind,
        images=tuple(images),
        missing=tuple(missing),
        plate=group.ome.get("plate"),
        zarr_format=group.zarr_format,
        is_series=series,
    )


def _paths(holder: Any, key: str, where: str) -> list[str]:
    listed = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(listed, list) or not all(
        isinstance(item, dict) and isinstance(item.get("path"), str) for item in listed
    ):
        raise BadStore(f"{where}: expected a list of {key} with paths in the metadata, got {listed!r:.100}")
    return [item["path"].strip("/") if not item["path"].startswith("/") else item["path"] for item in listed]


def _what_is_there(address: Address) -> str:
    for name in ("zarr.json", ".zarray"):
        if address.read_bytes_or_none(name) is not None:
            return f"{address}: a Zarr array, but no OME-Zarr image around it; give the folder of the image"
    if address.exists():
        hint = "; use 'platelayer ingest tiff' for TIFF files" if "tif" in address.name.lower() else ""
        return f"{address}: not a Zarr: expected zarr.json or .zgroup in this place{hint}"
    return f"{address}: no such store; check the spelling"


def _owner(key: str, wanted: Iterable[str]) -> str | None:
    """Return the wanted folder that contains a key, None where there is none."""
    parts = key.split("/")
    folders = ("/".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))
    return next((folder for folder in folders if folder in wanted), None)


def _each(address: Address, function: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """Call a function for each item: in threads where each call costs a round trip, else one after the other."""
    if address.is_local:
        return [function(item) for item in items]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, items))
