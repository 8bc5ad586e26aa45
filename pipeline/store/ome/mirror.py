"""The layout of a source in another store, so that results lie at the same relative paths there.

Without pixels the images of the mirror are empty groups at first. Publishing labels makes each of them an image
that shows its label (`label_images.publishing`), so the mirror opens in every reader. With pixels the mirror is a full
copy of the images.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from pipeline.errors import BadArgument, BadStore
from pipeline.store.ome.collection import Collection
from pipeline.store.ome.groups import ensure_group, find_group, join, with_ome, write_group
from pipeline.store.ome.image import Image
from pipeline.store.places.address import Address

COPIERS = 16
"""Threads that copy files."""


def mirror(
    source: Collection,
    target: Address,
    *,
    copy_images: bool = False,
    present: frozenset[str] | None = None,
) -> None:
    """Write plate, well and image groups of a collection to ``target``; may be repeated.

    Wells and fields that cannot be read in the source are not listed in the mirror.

    Args:
        source: the opened source.
        target: where to; another place than the source.
        copy_images: copy the pixels (all levels, byte by byte) too.
        present: all files of the target, if they were listed already; groups are then not requested one by one.

    Raises:
        BadArgument: the target is the source, or lies inside it.
        BadStore: the target holds something else, or cannot be written.
    """
    _check_target(source, target)
    if copy_images:
        for image in source.images:
            _copy_image(image, target)
    else:
        _make_groups(source, target, present)
    _write_listing(source, target)


def _make_groups(source: Collection, target: Address, present: frozenset[str] | None) -> None:
    """Make an empty group for each image that has none."""

    def make(image: Image) -> None:
        documents = (join(image.path, name) for name in ("zarr.json", ".zgroup", ".zattrs"))
        if present is None or not present.isdisjoint(documents):
            ensure_group(target, image.path, zarr_format=source.zarr_format)
        else:
            write_group(target, image.path, {}, zarr_format=source.zarr_format)

    if target.is_local:
        for image in source.images:
            make(image)
        return
    with ThreadPoolExecutor(COPIERS) as pool:
        list(pool.map(make, source.images))


def list_published(source: Collection, target: Address) -> None:
    """List in a mirror only the existing images, because readers do not expect listed images to be absent.

    Called at the end of a run in which images were set aside; the next `mirror` lists all of them again.
    """

    def is_there(image: Image) -> bool:
        group = find_group(target, image.path, zarr_format=source.zarr_format)
        return group is not None and "multiscales" in group.ome

    images = tuple(image for image in source.images if is_there(image))
    if images and len(images) < len(source.images):
        _write_listing(replace(source, images=images), target)


def _write_listing(source: Collection, target: Address) -> None:
    """Write the metadata that list the images: plate and wells, one well, or a series; none for a single image."""
    if source.kind == "plate":
        _mirror_plate(source, target)
        return
    root = find_group(source.address, "", zarr_format=source.zarr_format)
    ome = root.ome if root else {}
    paths = [image.path for image in source.images]
    if paths == [""]:
        ensure_group(target, "", zarr_format=source.zarr_format)
    elif "well" in ome:
        _write_well(source, target, "", paths)
    else:
        _write(target, "", {"bioformats2raw.layout": 3}, source)
        described = find_group(source.address, "OME", zarr_format=source.zarr_format)
        attributes = described.attributes if described else {}
        attributes = with_ome(
            attributes, {**(described.ome if described else {}), "series": paths}, ngff=source.ngff
        )
        write_group(target, "OME", attributes, zarr_format=source.zarr_format)


def _check_target(source: Collection, target: Address) -> None:
    if f"{target.url}/".startswith(f"{source.address.url}/"):
        raise BadArgument(f"--output {target}: expected another place than the source {source.address}")
    other = find_group(target)
    if other is not None and other.zarr_format != source.zarr_format:
        raise BadStore(
            f"{target}: expected an empty place or a store in zarr format {source.zarr_format} like the source, "
            f"got zarr format {other.zarr_format}; choose another --output"
        )


def _mirror_plate(source: Collection, target: Address) -> None:
    fields: dict[str, list[str]] = {}
    for image in source.images:
        well, _, name = image.path.rpartition("/")
        fields.setdefault(well, []).append(name)
    for row in dict.fromkeys(well.partition("/")[0] for well in fields):
        ensure_group(target, row, zarr_format=source.zarr_format)
    for well, names in fields.items():
        _write_well(source, target, well, names)
    plate = dict(source.plate or {})
    plate["wells"] = [entry for entry in plate.get("wells", []) if entry["path"].strip("/") in fields]
    _write(target, "", {"plate": plate}, source)


def _write_well(source: Collection, target: Address, well: str, names: Sequence[str]) -> None:
    group = find_group(source.address, well, zarr_format=source.zarr_format)
    described: dict[str, Any] = dict(group.ome.get("well", {})) if group else {}
    listed = described.get("images") or [{"path": name} for name in names]
    described["images"] = [entry for entry in listed if entry["path"].strip("/") in names]
    _write(target, well, {"well": described}, source)


def _write(target: Address, path: str, ome: dict[str, Any], source: Collection) -> None:
    write_group(target, path, with_ome({}, ome, ngff=source.ngff), zarr_format=source.zarr_format)


def _copy_image(image: Image, target: Address) -> None:
    """Copy the arrays of all levels, then the group's metadata; files that exist already are kept."""
    group = find_group(image.address, image.path, zarr_format=image.zarr_format)
    if group is None:
        raise BadStore(
            f"{image.place}: the image disappeared while it was copied; give the same command again"
        )
    for level in image.levels:
        _copy_files(image.address, target, join(image.path, level))
    write_group(target, image.path, group.attributes, zarr_format=image.zarr_format)


def _copy_files(source: Address, target: Address, path: str) -> None:
    sizes = {key: size for key, size, _ in target.entries(path)}
    todo = [join(path, key) for key, size, _ in source.entries(path) if sizes.get(key) != size]

    def copy(key: str) -> None:
        target.write_bytes(key, source.read_bytes(key))

    with ThreadPoolExecutor(COPIERS) as pool:
        for _ in pool.map(copy, todo):
            pass
