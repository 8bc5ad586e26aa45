"""Classes of true objects: the column ``class`` of the table that belongs to the labels of an image.

The table has the name of the labels and the columns ``label`` (id) and ``class`` (name), as the object table of a run
of a model that knows classes has them.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.errors import BadArgument, BadStore
from pipeline.store.ome.tables import read_table
from pipeline.store.places.address import Address


def read_classes(store: Address, path: str, name: str, classes: Sequence[str]) -> dict[int, int]:
    """Return the class, from 1 in the order of ``classes``, of each object of the labels ``name`` of an image.

    Rows without a class are left out.

    Raises:
        BadArgument: no such table, no such columns, or a name that is not among the classes.
    """
    where = store.child(path) if path else store
    try:
        table = read_table(store, path, name)
    except BadStore as error:
        raise BadArgument(
            f"{where}: expected the table {name!r} with the columns label and class, because the method has "
            f"class_names, but {error}; platelayer import-labels writes it from categories of COCO and from "
            "classifications of QuPath"
        ) from error
    if lacking := {"label", "class"} - set(table.columns):
        raise BadArgument(
            f"{where}: table {name!r}: expected the columns label and class, got no {sorted(lacking)}"
        )
    table = table[table["class"].notna() & (table["class"].astype(str) != "")]
    numbers = {known: number for number, known in enumerate(classes, start=1)}
    if strangers := sorted(set(table["class"].astype(str)) - set(numbers)):
        raise BadArgument(
            f"{where}: table {name!r}: expected classes among {list(classes)}, got {strangers}; add them to "
            "class_names, with a map more for each in the head grid, or rename them in the table"
        )
    return dict(zip(table["label"].astype(int), table["class"].astype(str).map(numbers), strict=True))


def coded(stack: np.ndarray, class_of_id: Mapping[int, int], *, where: str) -> np.ndarray:
    """Return a label stack with objects numbered 1, 2, ... and their classes in the ids (`model.classes`).

    Raises:
        BadArgument: an object without a class.
    """
    from model.classes import with_classes

    ids = np.unique(stack[stack > 0])
    if lacking := [int(label) for label in ids if int(label) not in class_of_id]:
        raise BadArgument(
            f"{where}: expected a class for every object, got none for {len(lacking)}, first {lacking[0]}; give each "
            "object one in the program that the masks come from and import them again with --overwrite, or add rows to "
            "the table"
        )
    dense = np.where(stack > 0, np.searchsorted(ids, stack) + 1, 0)
    return with_classes(dense, np.array([class_of_id[int(label)] for label in ids], np.int64))
