"""All objects of a store as one table: the object tables of its images, with plate, well and acquisition."""

from collections.abc import Iterator

import pandas as pd

from pipeline.errors import BadArgument
from pipeline.report.wells import well_name
from pipeline.store.ome.collection import Collection, Image
from pipeline.store.ome.table_listing import list_tables
from pipeline.store.ome.tables import read_table
from pipeline.store.places.address import Address


def only_table(output: Address, collection: Collection) -> str:
    """Name of the object table of a store that has tables of one name.

    Raises:
        BadArgument: there is none, or there are several to choose from.
    """
    names = list(dict.fromkeys(n for image in collection.images for n in list_tables(output, image.path)))
    if len(names) != 1:
        raise BadArgument(
            f"{output}: expected one object table, got {', '.join(names) or 'none'}; choose with --name"
        )
    return names[0]


def object_tables(output: Address, collection: Collection, name: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Object table of each image that has one, with the columns plate, well, field and acquisition in front.

    Args:
        output: the store with the tables.
        collection: the images; the same store, or the source of the run.
        name: name of the tables.

    Raises:
        BadArgument: no image has a table of that name.
    """
    plate = collection.address.name.removesuffix(".zarr")
    any_table = False
    for image in collection.images:
        if name in list_tables(output, image.path):
            any_table = True
            table = read_table(output, image.path, name)
            yield image.path, _placed(table, plate, image)
    if not any_table:
        raise BadArgument(f"{output}: no image has a table {name!r}; see platelayer inspect")


def _placed(table: pd.DataFrame, plate: str, image: Image) -> pd.DataFrame:
    """The table of an image with columns for its plate, well, field and acquisition."""
    well = well_name(*image.well) if image.well else ""
    first = {"plate": plate, "well": well, "field": image.field or "", "acquisition": image.acquisition}
    front = pd.DataFrame(first, index=table.index).astype({"acquisition": "Int64"})
    return pd.concat([front, table.drop(columns=["field", "acquisition"], errors="ignore")], axis=1)
