"""Measuring: the object table of an image, from the rows of its pieces and the stitching table."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from flows.segmentation.image_job import ImageJob, TileJob
from flows.segmentation.stages.joining import Stitching, read_pieces, read_stitching
from flows.segmentation.stages.tiles import OVERLAP, ROW
from pipeline import measure
from pipeline.measure import Columns
from pipeline.stitch import whole
from pipeline.store.ome.tables import ROW_GROUP, TableEncoder, numbers, repeated


def measure_objects(work: ImageJob) -> bytes:
    """The object table of an image, all planes, encoded as it will be published."""
    stitching, table = read_stitching(work), TableEncoder()
    partners = _partners(stitching)
    base = 0
    for plane in range(len(work.image.planes)):
        items = [TileJob(work, plane, unit) for unit in work.units()]
        ids, layers = stitching.of_all(items)
        count = max(int(ids.max(initial=0)) - base, 0)
        of_piece = np.where(ids > 0, ids.astype(np.int64) - 1 - base, -1)
        pieces = read_pieces(items, wanted=lambda name: name.startswith((ROW, OVERLAP)))
        owners = np.split(of_piece, np.cumsum([len(part[f"{ROW}area"]) for part in pieces])[:-1])
        parts = [_rows(part, owner) for part, owner in zip(pieces, owners, strict=True)]
        rows = whole(measure.stacked(parts), of_piece, count)
        layer = np.zeros(count, np.uint8)
        layer[of_piece[of_piece >= 0]] = layers[of_piece >= 0]
        for part in _table(work, plane, rows, layer, partners.slice(base, count), base):
            table.add(part)
        base += count
    return table.encoded()


def keep_objects(work: ImageJob) -> None:
    """Measure the objects of an image and write their table to the scratch."""
    work.ledger.write(table_key(work), measure_objects(work))


def find_objects(work: ImageJob) -> bytes | None:
    """Read the object table of an image from the scratch; None where there is none."""
    return work.ledger.find(table_key(work))


def table_key(work: ImageJob) -> str:
    """Key of the object table in the scratch."""
    return f"join/{work.key}.parquet"


def _rows(part: Columns, owner: np.ndarray) -> Columns:
    """Additive rows of the pieces of a unit, with the pixels that each shares with no other remaining object."""
    rows, overlapping = (
        {name.removeprefix(prefix): column for name, column in part.items() if name.startswith(prefix)}
        for prefix in (ROW, OVERLAP)
    )
    return rows | measure.without_shared(rows, overlapping, owner)


def _table(
    work: ImageJob, plane: int, rows: Columns, layer: np.ndarray, partners: pa.ListArray, base: int
) -> Iterator[pa.Table]:
    """Rows of the object table, in parts; one without rows when there are no objects."""
    for start in range(0, max(len(layer), 1), ROW_GROUP):
        part = slice(start, start + ROW_GROUP)
        selected = {name: column[part] for name, column in rows.items()}
        columns = {
            **_identity(work, plane, base + start, layer[part]),
            **measure.object_columns(selected, work.measured_names, work.image.spacing_um),
            **_classes(work, selected),
            "overlap_labels": partners[part],
            "tiles_spanned": _tiles_spanned(work, selected),
        }
        arrays = [numbers(c) if isinstance(c, np.ndarray) else c for c in columns.values()]
        yield pa.Table.from_arrays(arrays, names=list(columns))


def _identity(
    work: ImageJob, plane: int, before: int, layers: np.ndarray
) -> dict[str, np.ndarray | pa.StringArray]:
    """The identifying columns of objects: ids counted on from ``before``, well, field and plane."""
    image, count = work.image, len(layers)
    row, column = image.well or ("", "")
    t, z = image.planes[plane]
    return {
        "label": (np.arange(count) + before + 1).astype(np.uint32),
        "layer": layers,
        "image": repeated(image.path, count),
        "row": repeated(row, count),
        "column": repeated(column, count),
        "field": repeated(image.field or "", count),
        "acquisition": repeated("" if image.acquisition is None else str(image.acquisition), count),
        "t": np.full(count, t, np.int32),
        "z": np.full(count, z, np.int32),
    }


def _classes(work: ImageJob, rows: Columns) -> dict[str, pa.StringArray]:
    """The column ``class``, of a segmenter that knows classes."""
    names = work.traits.classes
    return {"class": pa.array(measure.class_names(rows, names), pa.string())} if names else {}


def _partners(stitching: Stitching) -> pa.ListArray:
    """Ids of the objects each object of an image shares pixels with, ascending."""
    both = np.concatenate([stitching.pairs, stitching.pairs[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    ends = np.searchsorted(both[:, 0], np.arange(1, stitching.objects + 2)).astype(np.int32)
    return pa.ListArray.from_arrays(numbers(ends), numbers(both[:, 1]))


def _tiles_spanned(work: ImageJob, rows: Columns) -> np.ndarray:
    """Number of network tiles that a bounding box intersects: the only column that depends on the tiling."""
    down = (rows["y1"] - 1) // work.core - rows["y0"] // work.core + 1
    return (down * ((rows["x1"] - 1) // work.core - rows["x0"] // work.core + 1)).astype(np.int64)
