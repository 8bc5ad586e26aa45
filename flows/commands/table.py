"""`platelayer table`: all objects of a store as one CSV on standard output, or as one partitioned Parquet dataset."""

import sys
from typing import Annotated

import pandas as pd
from cyclopts import Parameter

from flows.evaluation.objects import object_tables, only_table
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.tables import write_dataset
from pipeline.store.places.address import address


def table(
    store: Annotated[str, Parameter(help="The store with the object tables, path or URL.")],
    *,
    name: Annotated[str | None, Parameter(help="Name of the tables; default: the only one.")] = None,
    source: Annotated[str | None, Parameter(help="Where the images are, if not in the same store.")] = None,
    dataset: Annotated[
        bool,
        Parameter(
            help="Write tables/<name>/table.parquet in the store, one part per image, instead of CSV.",
            negative="",
        ),
    ] = False,
) -> int:
    """Write all objects of a store as one table, with plate, well, field and acquisition."""
    output = address(store)
    collection = open_collection(address(source or store))
    chosen = name or only_table(output, collection)
    parts = object_tables(output, collection, chosen)
    if dataset:
        rows = write_dataset(output, chosen, parts)
        sys.stdout.write(f"{rows} objects -> {output.child(f'tables/{chosen}/table.parquet')}\n")
        return 0
    for number, (_, part) in enumerate(parts):
        sys.stdout.write(_csv(part, heading=number == 0))
    return 0


def _csv(part: pd.DataFrame, *, heading: bool) -> str:
    """Rows as CSV; lists of ids are joined by blanks."""
    lists = [column for column in part.columns if column.endswith("_labels")]
    plain = part.assign(**{column: [" ".join(map(str, ids)) for ids in part[column]] for column in lists})
    return str(plain.to_csv(index=False, header=heading, lineterminator="\n"))
