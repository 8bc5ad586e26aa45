"""Joining: the pieces of an image become its objects, once, in one process.

Reads what describing wrote, reduces it, and keeps the stitching table (id and output layer of every piece) and
the object table in the scratch, so that painting and a restart find them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.running import looked
from flows.stages import pieces_keys
from flows.work import Item, Work
from pipeline import measure
from pipeline.links import touch_links
from pipeline.measure import Columns
from pipeline.spans import Spans
from pipeline.stitch import Filters, Objects, from_bytes, join, to_bytes
from pipeline.store.tables import ROW_GROUP, TableEncoder

@dataclass(frozen=True)
class Stitching:
    """Where every piece of an image ended: ``ids`` (0: dropped) and output ``layers``, unit after unit."""

    units: dict[str, slice]
    """Rows of each unit, by its key."""
    ids: np.ndarray
    layers: np.ndarray
    depth: int
    """Number of output layers, at least 1."""
    ambiguous: int = 0
    """Objects that could have been matched with more than one of another tile, and so were not."""

    def of(self, unit: Item) -> tuple[np.ndarray, np.ndarray]:
        """Ids and layers of the pieces of a unit."""
        rows = self.units[unit.key]
        return self.ids[rows], self.layers[rows]

    @property
    def objects(self) -> int:
        """Number of objects: their ids are 1 ... n."""
        return int(self.ids.max(initial=0))


def join_image(work: Work, filters: Filters) -> int:
    """Reduce an image, all planes, and write its stitching and object tables; the number of objects."""
    names: list[str] = []
    starts, ids, layers = [0], [], []
    base = ambiguous = 0
    table = TableEncoder()
    for plane in range(len(work.image.planes)):
        items = [Item(work, plane, unit) for unit in work.units()]
        objects, counts, doubtful = _join_plane(work, items, filters)
        names += [item.key for item in items]
        starts += [starts[-1] + int(n) for n in np.cumsum(counts)]
        own, layer = objects.painted(0, int(sum(counts)))
        ids.append(np.where(own > 0, own + np.uint32(base), np.uint32(0)))
        layers.append(layer)
        for part in _table(work, plane, objects, base):
            table.add(part)
        base += len(objects)
        ambiguous += doubtful
    columns = {"names": np.array(names), "starts": np.array(starts), "ambiguous": np.array(ambiguous)}
    columns |= {"ids": np.concatenate(ids), "layers": np.concatenate(layers)}
    _write(work, columns, table.encoded())
    return base


def _read_all(items: Sequence[Item]) -> list[Columns]:
    def read(item: Item) -> Columns:
        return from_bytes(item.work.ledger.read(pieces_keys(item)[0]))

    return looked(read, items, waits=not items[0].work.ledger.output.is_local)


def _join_plane(work: Work, items: Sequence[Item], filters: Filters) -> tuple[Objects, list[int], int]:
    """Objects of a plane, the number of pieces of each unit, and the number of ambiguous matches."""
    parts = _read_all(items)
    counts = [len(part["layer"]) for part in parts]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = measure.stacked([_rows(part) for part in parts])
    layer = np.concatenate([part["layer"] for part in parts])
    pairs = np.concatenate([part["pairs"] + offset for part, offset in zip(parts, offsets)])
    pixels = np.concatenate([part["pair_pixels"] for part in parts])
    if work.traits.link == "touch":
        links = touch_links([_border(part) for part in parts], offsets)
    else:
        links = _match_links(items, parts, offsets)
    ambiguous = sum(int(part.get("ambiguous", 0)) for part in parts)
    return join(rows, layer, links, pairs, pixels, filters), counts, ambiguous


def _rows(part: Columns) -> Columns:
    """Take the additive columns out of a description."""
    names = [name for name in part if name.startswith("row.")]
    return {name.removeprefix("row."): part.pop(name) for name in names}


def _border(part: Columns) -> tuple[Spans, np.ndarray]:
    y = part["border.y"]
    none = np.zeros(len(y), bool)
    spans = Spans(
        layer=part["border.layer"], y=y, x0=part["border.x0"], x1=part["border.x1"], stretch=none, shared=none
    )
    return spans, part["border.piece"]


def _match_links(items: Sequence[Item], parts: Sequence[Columns], offsets: np.ndarray) -> np.ndarray:
    """Local ids of both tiles become numbers of pieces; an object without a pixel in the core has none."""
    place = {(item.tile.row, item.tile.column): number for number, item in enumerate(items)}
    links = []
    for number, part in enumerate(parts):
        for own, theirs, row, column in part["links"].tolist():
            other = place[row, column]
            a, b = _piece_of(part["ids"], own), _piece_of(parts[other]["ids"], theirs)
            if a is not None and b is not None:
                links.append((offsets[number] + a, offsets[other] + b))
    return np.array(links, np.int64).reshape(-1, 2)


def _piece_of(ids: np.ndarray, label: int) -> int | None:
    at = int(np.searchsorted(ids, label))
    return at if at < len(ids) and ids[at] == label else None


def _table(work: Work, plane: int, objects: Objects, base: int) -> Iterator[pd.DataFrame]:
    """Rows of the object table, in parts; one without rows when there are no objects."""
    partners = _partners(objects, base)
    for start in range(0, max(len(objects), 1), ROW_GROUP):
        part = slice(start, start + ROW_GROUP)
        rows = {name: column[part] for name, column in objects.rows.items()}
        table = _identity(work, plane, base + start, objects.layer[part])
        measured = measure.object_table(rows, work.channel_names, work.image.spacing_um)
        table = pd.concat([table, measured], axis=1)
        table["overlap_labels"] = pd.Series(pd.arrays.ArrowExtensionArray(partners[part]))
        table["tiles_spanned"] = _tiles_spanned(work, rows)
        yield table


def _identity(work: Work, plane: int, before: int, layers: np.ndarray) -> pd.DataFrame:
    """Which objects these are: ids after ``before``, and where."""
    image, count = work.image, len(layers)
    row, column = image.well or ("", "")
    t, z = image.planes[plane]
    table = {
        "label": (np.arange(count) + before + 1).astype(np.uint32),
        "layer": layers,
        "image": _repeated(image.path, count),
        "row": _repeated(row, count),
        "column": _repeated(column, count),
        "field": _repeated(image.field or "", count),
        "t": np.full(count, t, np.int32),
        "z": np.full(count, z, np.int32),
    }
    return pd.DataFrame(table)


def _repeated(text: str, count: int) -> pd.api.extensions.ExtensionArray:
    """A column that says the same in every row, made without a Python string for each."""
    return pd.arrays.ArrowExtensionArray(pa.repeat(pa.scalar(text, pa.string()), count))


def _partners(objects: Objects, base: int) -> pa.ListArray:
    """Ids of the objects each object shares pixels with, ascending."""
    both = np.concatenate([objects.pairs, objects.pairs[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    ends = np.searchsorted(both[:, 0], np.arange(len(objects) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(ends, (both[:, 1] + base + 1).astype(np.uint32))


def _tiles_spanned(work: Work, rows: Columns) -> np.ndarray:
    """Tiles of the network that the bounding box meets: the one column that speaks of the tiling."""
    down = (rows["y1"] - 1) // work.core - rows["y0"] // work.core + 1
    return (down * ((rows["x1"] - 1) // work.core - rows["x0"] // work.core + 1)).astype(np.int64)


def _keys(work: Work) -> tuple[str, str]:
    return f"join/{work.key}.parquet", f"join/{work.key}.npz"


def _write(work: Work, columns: Columns, table: bytes) -> None:
    tables, stitching = _keys(work)
    work.ledger.write(tables, table)
    work.ledger.write(stitching, to_bytes(columns))


def is_joined(work: Work) -> bool:
    """Whether the stitching table is there; it is written last."""
    return work.ledger.find(_keys(work)[1]) is not None


def read_stitching(work: Work) -> Stitching:
    """The stitching table of an image."""
    columns = from_bytes(work.ledger.read(_keys(work)[1]))
    starts = columns["starts"].tolist()
    units = {str(name): slice(a, b) for name, a, b in zip(columns["names"], starts, starts[1:])}
    depth = int(columns["layers"].max(initial=0)) + 1
    return Stitching(units, columns["ids"], columns["layers"], depth, int(columns["ambiguous"]))


def read_objects(work: Work) -> bytes:
    """The object table of an image, encoded as it will be published."""
    return work.ledger.read(_keys(work)[0])
