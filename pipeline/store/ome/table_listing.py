"""Which tables an image or a collection has, by the attributes through which ngio and other readers find them.

Nothing here reads a table, so that listing a store imports no Parquet library.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.store.ome.groups import Group, ensure_group, find_group, forget_consolidated, join, write_group
from pipeline.store.ome.label_images.reading import layer_names
from pipeline.store.places.address import Address

FILE = "table.parquet"
"""Name of the Parquet file (of the folder of parts, for a dataset), as ngio expects it."""


def list_tables(address: Address, path: str, *, zarr_format: int | None = None) -> list[str]:
    """Names of the tables at a path, in the listed order; those that were deleted since are left out."""
    group = find_group(address, join(path, "tables"), zarr_format=zarr_format)
    listed = group.attributes.get("tables") if group else None
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return [name for name in names if address.exists(join(path, "tables", name))]


def table_path(path: str, name: str) -> str:
    """Path of the table of that name of the image at a path."""
    return join(path, "tables", layer_names(name, 1)[0])


def add_to_list(
    address: Address, path: str, name: str, region: str | None, further: Mapping[str, Any] | None = None
) -> None:
    """Write the attributes by which ngio finds and types the table, and further ones; other tables stay listed."""
    image = find_group(address, path)
    zarr_format = image.zarr_format if image else 3
    if image is None:
        ensure_group(address, path, zarr_format=zarr_format)
    write_group(
        address, table_path(path, name), _attributes(region) | dict(further or {}), zarr_format=zarr_format
    )
    place = join(path, "tables")
    group = find_group(address, place, zarr_format=zarr_format) or Group(
        zarr_format=zarr_format, attributes={}
    )
    listed = group.attributes.get("tables") or []
    if name not in listed:
        attributes = {**group.attributes, "tables": [*listed, name]}
        write_group(address, place, attributes, zarr_format=zarr_format)
        forget_consolidated(address, path, zarr_format=zarr_format)


def _attributes(region: str | None) -> dict[str, Any]:
    if region is None:
        return {"type": "generic_table", "table_version": "1", "backend": "parquet"}
    return {
        "type": "feature_table",
        "table_version": "1",
        "region": {"path": f"../labels/{region}"},
        "instance_key": "label",
        "backend": "parquet",
        "index_key": "label",
        "index_type": "int",
    }
