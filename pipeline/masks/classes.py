"""Classes of objects beside their labels: a table that imports write, and that exports and trainings read.

It has the name of the labels and the columns ``label`` (id) and ``class`` (name). Objects without a class have no row.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pipeline.errors import RunConflict
from pipeline.store.ome.table_listing import table_path
from pipeline.store.ome.tables import find_parquet, write_table
from pipeline.store.places.address import Address


def check_free_table(address: Address, path: str, name: str, *, overwrite: bool) -> None:
    """Refuse a name whose table exists, unless it may be replaced: its rows would be taken for the new labels.

    Raises:
        RunConflict: there is such a table.
    """
    place = table_path(path, name)
    if not overwrite and address.exists(place):
        raise RunConflict(
            f"{address.child(place)}: there is a table {name!r} already, of other labels; choose another --name, or "
            "--overwrite to replace both"
        )


def remove_table(address: Address, path: str, name: str) -> None:
    """Remove the table of labels that are about to be replaced."""
    address.remove(table_path(path, name))


def write_classes(address: Address, path: str, name: str, classes: Mapping[int, str]) -> None:
    """Write the table of the objects that have a class, in the order of their ids; none where no object has one."""
    if classes:
        ids = sorted(classes)
        columns = {"label": np.array(ids, np.uint32), "class": [classes[label] for label in ids]}
        write_table(address, path, name, pd.DataFrame(columns))


def classes_of(address: Address, path: str, name: str) -> dict[int, str]:
    """Return the class of each object by id, from the table of that name; empty where none tells classes.

    Object tables of models that know classes have these columns too.
    """
    file = find_parquet(address, path, name)
    if file is None or not {"label", "class"} <= set(file.schema_arrow.names):
        return {}
    columns = file.read(["label", "class"])
    pairs = zip(columns["label"].to_pylist(), columns["class"].to_pylist(), strict=True)
    return {int(label): str(kind) for label, kind in pairs if kind}
