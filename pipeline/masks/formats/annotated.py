"""Object tables as AnnData (scanpy, squidpy, napari-spatialdata): measures as X, positions as ``obsm["spatial"]``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.errors import BadArgument
from pipeline.masks.planes import Plane
from pipeline.store.ome.collection import Collection
from pipeline.store.ome.table_listing import list_tables
from pipeline.store.ome.tables import read_table

NOT_MEASURES = frozenset({"label", "layer", "t", "z", "first_pixel", "tiles_spanned"})
"""Numeric columns that identify an object and are no measurements."""


def write_anndata(
    path: Path, collection: Collection, planes: Sequence[Plane], name: str, *, unit: str
) -> int:
    """Write the objects of a store as one AnnData file; returns their number.

    Objects are those of the table ``name`` where an image has one with positions; else they are measured from the
    labels (area and position), and a table of classes gives their classes.

    Raises:
        BadArgument: the package anndata is not installed, or micrometres without a pixel size.
    """
    try:
        import anndata
    except ImportError:
        raise BadArgument("AnnData needs the package anndata; install platelayer[anndata]") from None
    done: set[str] = set()
    parts = []
    for plane in planes:
        listed = _listed(collection, plane, name)
        if listed is None or "centroid_x" not in listed:
            measured = _measured(plane)
            parts.append(measured if listed is None else measured.merge(listed, on="label", how="left"))
        elif plane.image.path not in done:
            done.add(plane.image.path)
            parts.append(listed.assign(image=plane.image.path or plane.title))
    table = pd.concat(parts, ignore_index=True)
    scale = _scales(planes, table, unit)
    spatial = table[["centroid_x", "centroid_y"]].to_numpy(float) * scale
    numeric = [
        column for column in table.columns
        if pd.api.types.is_numeric_dtype(table[column]) and column not in NOT_MEASURES
    ]  # fmt: skip
    # anndata writes text as Python strings, not as Arrow strings.
    described = table.drop(columns=numeric)
    for column in described.columns:
        if not pd.api.types.is_numeric_dtype(described[column]):
            described[column] = described[column].map(_text).astype(object)
    described.index = pd.Index([f"{i}:{n}" for i, n in zip(table["image"], table["label"])], dtype=object)
    variables = pd.DataFrame(index=pd.Index(numeric, dtype=object))
    data = anndata.AnnData(X=table[numeric].to_numpy(np.float32), obs=described, var=variables)
    data.obsm["spatial"] = spatial
    data.uns["platelayer"] = {"labels": name, "store": str(collection.address), "unit": unit}
    data.write_h5ad(path)
    return len(table)


def _listed(collection: Collection, plane: Plane, name: str) -> pd.DataFrame | None:
    """The table of the image, where it has one."""
    if name not in list_tables(collection.address, plane.image.path):
        return None
    return read_table(collection.address, plane.image.path, name)


def _measured(plane: Plane) -> pd.DataFrame:
    rows = []
    for item in plane.objects():
        y, x = item.centroid
        rows.append((item.label, item.area, y - 0.5, x - 0.5))
    table = pd.DataFrame(rows, columns=["label", "area_px", "centroid_y", "centroid_x"])
    return table.assign(image=plane.image.path or plane.title, t=plane.plane[0], z=plane.plane[1])


def _scales(planes: Sequence[Plane], table: pd.DataFrame, unit: str) -> np.ndarray:
    """Pixel size (x, y) of each object's image."""
    if unit == "px":
        return np.ones((len(table), 2))
    sizes = {plane.image.path or plane.title: plane.image.spacing_um for plane in planes}
    absent = next((path for path, size in sizes.items() if size is None), None)
    if absent is not None:
        raise BadArgument(f"{absent}: it has no pixel size; export in pixels (--unit px)")
    pairs = [sizes[path] or (1.0, 1.0) for path in table["image"]]
    return np.array([(x, y) for y, x in pairs]).reshape(-1, 2)


def _text(value: Any) -> str:
    """A value as text; a list of ids as ids with spaces between."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple | np.ndarray) else str(value)
