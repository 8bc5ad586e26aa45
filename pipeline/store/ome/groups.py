"""Zarr group documents as plain JSON: few requests, the same bytes for the same content, both zarr formats.

This module knows where zarr v2 and v3 keep attributes and where NGFF 0.4 and 0.5 keep theirs.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.errors import BadArgument, BadStore
from pipeline.store.places.address import Address
from pipeline.store.places.faults import AccessDenied

ZARR_FORMAT = {"0.4": 2, "0.5": 3}
"""Which zarr format an OME-Zarr version is stored in."""

NGFF_KEYS = frozenset(
    {"multiscales", "plate", "well", "labels", "omero", "series", "image-label", "bioformats2raw.layout"}
)
"""Keys of OME-NGFF metadata."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A zarr group as found in a store."""

    zarr_format: int
    """2 or 3."""
    attributes: dict[str, Any]
    """All attributes of the group."""

    @property
    def ome(self) -> dict[str, Any]:
        """The NGFF metadata: by the specification all attributes in zarr v2, those under ``ome`` in v3.

        Some writers mix the two layouts. Where the place of the specification holds no NGFF key, the other
        place is read.
        """
        nested = self.attributes.get("ome")
        nested = nested if isinstance(nested, dict) else {}
        places = (self.attributes, nested) if self.zarr_format == 2 else (nested, self.attributes)
        return next((place for place in places if NGFF_KEYS & place.keys()), places[0])

    @property
    def has_misplaced_ome(self) -> bool:
        """Whether the NGFF metadata lie where the other OME-Zarr version keeps them."""
        return bool(NGFF_KEYS & self.ome.keys()) and (self.ome is self.attributes) == (self.zarr_format == 3)


def zarr_format_of(ngff: str) -> int:
    """Return the zarr format (2 or 3) of an OME-Zarr version."""
    if ngff not in ZARR_FORMAT:
        raise BadArgument(f"expected OME-Zarr version {' or '.join(ZARR_FORMAT)}, got {ngff!r}")
    return ZARR_FORMAT[ngff]


def read_json(address: Address, rel: str) -> dict[str, Any] | None:
    """Read a JSON object; None when the file is not there, `BadStore` when it is no JSON object."""
    data = address.read_bytes_or_none(rel)
    if data is None:
        return None
    try:
        value = json.loads(data)
    except ValueError:
        raise BadStore(
            f"{address.child(rel)}: expected JSON, got {data[:20]!r}...; the file is damaged"
        ) from None
    if not isinstance(value, dict):
        raise BadStore(f"{address.child(rel)}: expected a JSON object, got {type(value).__name__}")
    return value


def json_bytes(value: Any) -> bytes:
    """Encode JSON the same way every time (keys in the given order)."""
    return _indented(json.dumps(value, ensure_ascii=False, allow_nan=False))


@lru_cache(maxsize=256)
def _indented(text: str) -> bytes:
    """Indent JSON; cached because the fields of a plate have equal documents, and indenting is slow."""
    return (json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n").encode()


def find_group(
    address: Address, path: str = "", *, zarr_format: int | None = None, strict: bool = True
) -> Group | None:
    """Read the group at a path; None when there is no group.

    ``zarr_format`` saves requests where it is known; the other format is then tried only without ``strict``.
    """
    first = zarr_format or 3
    formats = (first,) if zarr_format and strict else (first, 5 - first)
    denied: AccessDenied | None = None
    for candidate in formats:
        try:
            attributes = _group_attributes(address, path, candidate)
        except AccessDenied as error:
            # A public bucket that may not be listed answers 403, not 404, for an absent object.
            denied = denied or error
            continue
        if attributes is not None:
            return Group(zarr_format=candidate, attributes=attributes)
    if denied is not None:
        raise denied
    return None


def _group_attributes(address: Address, path: str, zarr_format: int) -> dict[str, Any] | None:
    if zarr_format == 3:
        document = read_json(address, join(path, "zarr.json"))
        if document is None or document.get("node_type") != "group":
            return None
        return document.get("attributes") or {}
    attributes = read_json(address, join(path, ".zattrs"))
    if attributes is not None and attributes.keys() & (NGFF_KEYS | {"ome"}):
        return attributes
    # Attributes without NGFF metadata may belong to an array.
    return None if read_json(address, join(path, ".zgroup")) is None else attributes or {}


def write_group(address: Address, path: str, attributes: dict[str, Any], *, zarr_format: int) -> None:
    """Write a group's documents, replacing its attributes; the caller puts NGFF metadata into them (`with_ome`)."""
    if zarr_format == 3:
        document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        address.write_bytes(join(path, "zarr.json"), json_bytes(document))
        return
    address.write_bytes(join(path, ".zgroup"), json_bytes({"zarr_format": 2}))
    if attributes:
        address.write_bytes(join(path, ".zattrs"), json_bytes(attributes))


def ensure_group(address: Address, path: str, *, zarr_format: int) -> None:
    """Create an empty group unless the group exists."""
    if find_group(address, path, zarr_format=zarr_format) is None:
        write_group(address, path, {}, zarr_format=zarr_format)


def forget_consolidated(address: Address, path: str, *, zarr_format: int) -> None:
    """Remove the consolidated metadata of a group and of the store's root.

    They do not list new members, so readers that rely on them would not find these.
    """
    for place in dict.fromkeys(("", path)):
        if zarr_format == 2:
            if address.read_bytes_or_none(join(place, ".zmetadata")) is not None:
                address.remove(join(place, ".zmetadata"))
            continue
        # The root of a plate lists all wells: its document is parsed only where it holds such metadata.
        if b"consolidated_metadata" not in (address.read_bytes_or_none(join(place, "zarr.json")) or b""):
            continue
        document = read_json(address, join(place, "zarr.json"))
        if document is not None and document.pop("consolidated_metadata", None) is not None:
            address.write_bytes(join(place, "zarr.json"), json_bytes(document))


def with_ome(attributes: dict[str, Any], ome: dict[str, Any], *, ngff: str) -> dict[str, Any]:
    """Put NGFF metadata into attributes where its version keeps them; other attributes stay."""
    if zarr_format_of(ngff) == 2:
        return {**attributes, **ome}
    return {**attributes, "ome": {"version": ngff, **{k: v for k, v in ome.items() if k != "version"}}}


def join(*parts: str) -> str:
    """Join path parts, leaving out empty ones."""
    return "/".join(part for part in parts if part)
