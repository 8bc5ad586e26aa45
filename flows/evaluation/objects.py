"""All objects of a store as one table: the object tables of its images, with plate, well and acquisition."""

from flows.segmentation.plate_table import PlateTables, parts_of
from pipeline.errors import BadArgument
from pipeline.store.ome.collection import Collection
from pipeline.store.ome.table_listing import list_tables
from pipeline.store.ome.tables import find_parquet
from pipeline.store.places.address import Address

AREA = "area_px"
"""A column of every table of measured objects; tables of the classes of true objects lack it."""


def only_table(output: Address, collection: Collection) -> str:
    """Name of the object table of a store that has tables of one name; tables of classes do not count beside it.

    Raises:
        BadArgument: there is none, or there are several to choose from.
    """
    holders = {n: image.path for image in collection.images for n in list_tables(output, image.path)}
    names = list(holders)
    if len(names) > 1:
        names = [name for name in names if is_measured(output, holders[name], name)]
    if len(names) != 1:
        raise BadArgument(
            f"{output}: expected one object table, got {', '.join(names) or 'none'}; choose with --name"
        )
    return names[0]


def is_measured(output: Address, path: str, name: str) -> bool:
    """Whether the table of an image holds measures of objects."""
    file = find_parquet(output, path, name)
    return file is not None and AREA in file.schema_arrow.names


def object_tables(output: Address, collection: Collection, name: str) -> PlateTables:
    """Object tables of the images of a collection, with plate, well, field and acquisition.

    Args:
        output: the store with the tables.
        collection: the images; the same store, or the source of the run.
        name: name of the tables.

    Raises:
        BadArgument: no image has a table of that name.
    """
    images = [image for image in collection.images if name in list_tables(output, image.path)]
    if not images:
        raise BadArgument(f"{output}: no image has a table {name!r}; see platelayer inspect")
    return PlateTables(collection, output, name, parts_of(images))
