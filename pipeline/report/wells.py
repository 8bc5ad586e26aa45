"""Names and places of images on a plate: the image of an object, wells in plate order, numbers per well.

Works on columns of strings; a collection that is no plate has empty row and column names.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import BadArgument

if TYPE_CHECKING:  # a run names wells, and needs no table of pandas for that
    import pandas as pd

PLACE = ("row", "column", "field")


def with_image(objects: "pd.DataFrame") -> "pd.DataFrame":
    """The object table with a column ``image``: as it is, or row, column and field joined by ``/``."""
    if "image" in objects.columns:
        return objects
    if lacking := [name for name in PLACE if name not in objects.columns]:
        raise BadArgument(f"object table has no column 'image' and lacks {lacking}; one of both is needed")
    joined = [
        "/".join(part for part in place if part) for place in objects[list(PLACE)].astype(str).to_numpy()
    ]
    return objects.assign(image=joined)


def well_name(row: str, column: str) -> str:
    """Name of a well as printed on plates, ``B03``; empty outside of a plate."""
    if not row or not column:
        return ""
    return f"{row}{int(column):02d}" if column.isdecimal() else f"{row}{column}"


def natural(name: str) -> tuple:
    """Sort key in which 2 comes before 10 and row Z before row AA."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, len(part), part) for part in _parts(name))


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"(\d+)", name) if part]


def axis_names(names: Iterable[str]) -> tuple[str, ...]:
    """Rows or columns of a plate from the first to the last that occur, gaps filled where names are A-Z or numbers."""
    present = sorted(set(names), key=natural)
    if not present:
        return ()
    if all(name.isdecimal() for name in present):
        width = max(len(name) for name in present) if any(name.startswith("0") for name in present) else 0
        return tuple(str(at).zfill(width) for at in range(int(present[0]), int(present[-1]) + 1))
    if all(len(name) == 1 and "A" <= name <= "Z" for name in present):
        return tuple(chr(at) for at in range(ord(present[0]), ord(present[-1]) + 1))
    return tuple(present)


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places of the images of a collection."""

    images: tuple[str, ...]
    """Image names in plate order."""
    wells: tuple[str, ...]
    """Well of each image, empty when there is none."""
    rows: tuple[str, ...]
    """Row of each image."""
    columns: tuple[str, ...]
    """Column of each image."""

    @property
    def plate_rows(self) -> tuple[str, ...]:
        """Rows of the plate map."""
        return axis_names(name for name in self.rows if name)

    @property
    def plate_columns(self) -> tuple[str, ...]:
        """Columns of the plate map."""
        return axis_names(name for name in self.columns if name)

    @property
    def is_plate(self) -> bool:
        """Whether there is more than one well to lay out."""
        return all(self.wells) and len(set(self.wells)) > 1

    def grid(self, values: np.ndarray, how: str) -> np.ndarray:
        """Lay one number per image out as ``(rows, columns)``: ``sum`` or ``median`` of a well's images, else NaN."""
        import pandas as pd

        table = pd.DataFrame({"row": self.rows, "column": self.columns, "value": np.asarray(values, float)})
        wells = table.groupby(["row", "column"])["value"]
        laid = wells.sum(min_count=1) if how == "sum" else wells.median()
        return (
            laid.unstack("column").reindex(index=self.plate_rows, columns=self.plate_columns).to_numpy(float)
        )


def places(images: "pd.DataFrame") -> Places:
    """Sort the images of a listing with columns ``image`` and, for a plate, ``row`` and ``column``."""
    if "image" not in images.columns:
        raise BadArgument(f"expected a column 'image' in the listing of images, got {list(images.columns)}")
    names = images["image"].astype(str)
    if names.duplicated().any():
        raise BadArgument(
            f"image {names[names.duplicated()].iloc[0]!r} is listed twice; names must be unique"
        )
    import pandas as pd

    blank = pd.Series("", index=images.index)
    rows = images.get("row", blank).fillna("").astype(str)
    columns = images.get("column", blank).fillna("").astype(str)
    order = sorted(
        zip(rows, columns, names), key=lambda place: (natural(place[0]), natural(place[1]), natural(place[2]))
    )
    return Places(
        images=tuple(name for _, _, name in order),
        wells=tuple(well_name(row, column) for row, column, _ in order),
        rows=tuple(row for row, _, _ in order),
        columns=tuple(column for _, column, _ in order),
    )
