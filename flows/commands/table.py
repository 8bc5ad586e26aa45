"""`platelayer table`: all objects of a store as one CSV on standard output, or as one partitioned Parquet dataset."""

import os
import sys
from collections.abc import Iterable
from typing import Annotated

import pandas as pd
import pyarrow as pa
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
            help="Write tables/<name>/table.parquet in the store anew, one part per well, instead of CSV. "
            "Every run writes it as well.",
            negative="",
        ),
    ] = False,
) -> int:
    """Write all objects of a store as one table, with plate, well, field and acquisition."""
    output = address(store)
    collection = open_collection(address(source or store))
    chosen = name or only_table(output, collection)
    tables = object_tables(output, collection, chosen)
    if dataset:
        parts = write_dataset(output, chosen, dict.fromkeys(tables.parts, ""), tables.of)
        sys.stdout.write(f"{len(parts)} part(s) -> {output.child(f'tables/{chosen}/table.parquet')}\n")
        return 0
    return _print(part for name in tables.parts for part in tables.of(name))


def _print(parts: Iterable[pa.Table]) -> int:
    """Write tables as one CSV on standard output, until they end or the reader closes the pipe."""
    try:
        for number, part in enumerate(parts):
            sys.stdout.write(_csv(part.to_pandas(), heading=number == 0))
        sys.stdout.flush()
    except BrokenPipeError:
        # What reads the table (head, less) has enough. Python flushes once more at its end: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _csv(part: pd.DataFrame, *, heading: bool) -> str:
    """Rows as CSV; lists of ids are joined by blanks."""
    lists = [column for column in part.columns if column.endswith("_labels")]
    plain = part.assign(**{column: [" ".join(map(str, ids)) for ids in part[column]] for column in lists})
    return str(plain.to_csv(index=False, header=heading, lineterminator="\n"))
