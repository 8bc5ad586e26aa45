"""Opening a store: a single image, a plate, a well or a series, with whatever its metadata promise but lack.

A well or field that is listed and cannot be read does not stop the others: it is named in `Collection.missing`.
A path that leads out of the store does stop everything.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline.errors import BadStore
from pipeline.store.ome.groups import Group, find_group, join
from pipeline.store.ome.image import Image, channel_index, image_at
from pipeline.store.places.address import Address
from pipeline.store.places.faults import LeavesStore, StoreLost

__all__ = ["Collection", "Image", "channel_index", "open_collection"]

READERS = 16
"""Metadata of wells and fields are read by so many threads, because each costs a round trip."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, kw_only=True)
class Collection:
    """All images behind one address."""

    address: Address
    """Where it is."""
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
    if "plate" in group.ome:
        return _open_plate(address, group)
    if "well" in group.ome:
        paths = _paths(group.ome["well"], "images", str(address))
        images, missing = _open_images(address, [(path, None) for path in paths], group.zarr_format)
        return _collection(address, group, "image", images, missing)
    if "multiscales" not in group.ome and "bioformats2raw.layout" in {**group.attributes, **group.ome}:
        series = [(name, None) for name in _series(address, group)]
        return _collection(address, group, "image", *_open_images(address, series, group.zarr_format))
    if "labels" in group.ome and "multiscales" not in group.ome:
        raise BadStore(f"{address}: a list of labels; give the image or one of them: {group.ome['labels']}")
    return _collection(address, group, "image", [image_at(address, "", group)], [])


def _series(address: Address, group: Group) -> list[str]:
    """Paths of a series: as the OME group lists them, else every numbered group."""
    listing = find_group(address, "OME", zarr_format=group.zarr_format)
    listed = {**listing.attributes, **listing.ome}.get("series") if listing else None
    if isinstance(listed, list) and all(isinstance(path, str) for path in listed):
        return listed
    return sorted((name for name in address.children() if name.isdecimal()), key=int)


def _open_plate(address: Address, group: Group) -> Collection:
    plate = group.ome["plate"]
    wells = _paths(plate, "wells", str(address))
    for well in wells:
        address.child(well)
    fields: list[tuple[str, tuple[str, str] | None]] = []
    missing: list[str] = []
    found = _each(address, lambda well: find_group(address, well, zarr_format=group.zarr_format), wells)
    for path, well_group in zip(wells, found, strict=True):
        if well_group is None or "well" not in well_group.ome:
            missing.append(f"{address}/{path}: the plate lists this well, but it is not there")
            continue
        row, _, column = path.partition("/")
        listed = _paths(well_group.ome["well"], "images", f"{address}/{path}")
        fields += [(join(path, field), (row, column)) for field in listed if address.child(path).child(field)]
    images, absent = _open_images(address, fields, group.zarr_format)
    return _collection(address, group, "plate", images, missing + absent)


def _open_images(
    address: Address, places: Sequence[tuple[str, tuple[str, str] | None]], zarr_format: int
) -> tuple[list[Image], list[str]]:
    def read(place: tuple[str, tuple[str, str] | None]) -> Image | str:
        path, well = place
        try:
            group = find_group(address, path, zarr_format=zarr_format)
            if group is None:
                return f"{address}/{path}: this image is listed, but it is not there"
            return image_at(address, path, group, well=well)
        except (LeavesStore, StoreLost):
            raise
        except BadStore as error:
            return str(error)

    found = _each(address, read, places)
    return [x for x in found if isinstance(x, Image)], [x for x in found if isinstance(x, str)]


def _collection(
    address: Address, group: Group, kind: str, images: Sequence[Image], missing: Sequence[str]
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
    """Find which of the wanted folders a key lies in."""
    parts = key.split("/")
    folders = ("/".join(parts[:depth]) for depth in range(len(parts) - 1, 0, -1))
    return next((folder for folder in folders if folder in wanted), None)


def _each(address: Address, function: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """Call for each, at once where each costs a round trip; files at hand are read sooner by one thread."""
    if address.is_local:
        return [function(item) for item in items]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, items))
