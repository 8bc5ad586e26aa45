"""Objects as tables of vertices: our CSV, the shapes of napari, and the outlines that Cellpose writes.

Our columns are ``image, label, part, ring, x, y``: ring 0 of a part is its outline, the others are holes; pixels
span integers (the first one 0 to 1). napari's vertices are centres of pixels, which is half a pixel less.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from pipeline.errors import BadStore
from pipeline.masks.objects import MaskObject, union
from pipeline.masks.outlines import object_of_rings, polygons_of

COLUMNS = ("image", "label", "part", "ring", "x", "y")
"""Columns that are written."""

IDS = ("label", "id", "object", "object_id", "label_id", "roi", "index", "cell_id")
"""Columns whose values tell objects apart, in the order of preference."""

NAPARI = {"index", "shape-type", "vertex-index"}
"""Columns of the CSV of napari's shapes."""


def read_polygon_table(
    path: Path, *, scale: tuple[float, float] = (1.0, 1.0)
) -> Iterator[tuple[str, MaskObject]]:
    """Yield (image, object) of a CSV of vertices; the image is '' where there is no such column.

    Args:
        path: the file.
        scale: size of a pixel (y, x) in the unit of the coordinates; 1 for pixels.

    Raises:
        BadStore: no table of vertices.
    """
    if path.suffix.lower() == ".txt":
        yield from (("", item) for item in _cellpose_outlines(path))
        return
    table = _table(path, scale)
    for (image, label), vertices in table.groupby(["image", "label"], sort=False):
        parts = [
            object_of_rings(
                0, [ring[["x", "y"]].to_numpy(float) for _, ring in part.groupby("ring", sort=False)]
            )
            for _, part in vertices.groupby("part", sort=False)
        ]
        yield str(image), union(_number(label), parts)


def _table(path: Path, scale: tuple[float, float]) -> pd.DataFrame:
    """Read a table with our columns, whatever the names of the file's are."""
    try:
        vertices = pd.read_csv(path, sep=None, engine="python")
    except (OSError, ValueError, csv.Error) as error:
        raise BadStore(f"{path}: expected a CSV table ({error!s:.80})") from None
    vertices.columns = [str(name).strip().lower() for name in vertices.columns]
    shift = 0.0
    if set(vertices.columns) >= NAPARI:
        axes = sorted(name for name in vertices.columns if name.startswith("axis-"))
        vertices = vertices.rename(columns={"index": "label", axes[-2]: "y", axes[-1]: "x"})
        shift = 0.5
    ids = next((name for name in IDS if name in vertices.columns), None)
    if ids is None or not {"x", "y"} <= set(vertices.columns):
        raise BadStore(
            f"{path}: expected columns x, y and one of {', '.join(IDS[:4])} (a row per vertex), "
            f"got {', '.join(vertices.columns)}"
        )
    table = pd.DataFrame({"label": vertices[ids], "x": vertices["x"], "y": vertices["y"]})
    if not all(pd.api.types.is_numeric_dtype(table[axis]) for axis in "xy") or table[["x", "y"]].isna().any(
        axis=None
    ):
        raise BadStore(f"{path}: expected numbers in the columns x and y")
    table["x"], table["y"] = table["x"] / scale[1] + shift, table["y"] / scale[0] + shift
    for name, default in (("image", ""), ("part", 0), ("ring", 0)):
        table[name] = vertices[name].fillna(default) if name in vertices.columns else default
    return table


def _number(label: object) -> int:
    text = str(label)
    text = text.removesuffix(".0")
    return int(text) if text.isdecimal() else 0


def _cellpose_outlines(path: Path) -> Iterator[MaskObject]:
    """Objects of Cellpose's ``*_cp_outlines.txt``: per line x, y, x, y, ... of the pixels along the inner border."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            points = np.array([float(value) for value in line.replace(",", " ").split()]).reshape(-1, 2)
        except ValueError:
            raise BadStore(f"{path}: line {number}: expected x, y, x, y, ... got {line!r:.60}") from None
        # The pixels of the outline belong to the object, beside those inside of it.
        inside = object_of_rings(number, [points + 0.5])
        pixels = np.unique(points.astype(np.int64), axis=0)
        border = MaskObject(number, pixels[:, 1], pixels[:, 0], pixels[:, 0] + 1)
        yield union(number, [inside, border])


class PolygonTableWriter:
    """Writes the vertices of objects as CSV, object by object."""

    def __init__(self, file: TextIO, *, scale: tuple[float, float] = (1.0, 1.0)) -> None:
        self._rows = csv.writer(file, lineterminator="\n")
        self._scale = scale
        self._image = ""
        self._rows.writerow(COLUMNS)

    def begin(self, name: str, size: tuple[int, int]) -> None:
        """Begin an image; what is added belongs to it."""
        self._image = name

    def add(self, item: MaskObject) -> None:
        """Write one object, a row per vertex."""
        for part, polygon in enumerate(polygons_of(item)):
            for number, ring in enumerate(polygon):
                for x, y in ring.tolist():
                    self._rows.writerow(
                        [self._image, item.label, part, number, x * self._scale[1], y * self._scale[0]]
                    )

    def close(self) -> None:
        """Nothing is left to write."""
