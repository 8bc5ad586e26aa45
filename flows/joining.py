"""Joining: the pieces of an image become its objects, once, in one process.

Reads what describing wrote, reduces it, and keeps the stitching table (id and output layer of every piece) and
the object table in the scratch, so that painting and a restart find them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from flows.stages import pieces_keys
from flows.work import Item, Work
from pipeline import measure
from pipeline.links import touch_links
from pipeline.measure import Columns
from pipeline.spans import Spans
from pipeline.stitch import Filters, Objects, from_bytes, join, to_bytes
from pipeline.store.tables import table_bytes

READERS = 16
"""Threads that read the descriptions of units: each costs a round trip on object storage."""


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
    ambiguous = 0
    starts, ids, layers, tables = [0], [], [], []
    base = 0
    for plane in range(len(work.image.planes)):
        items = [Item(work, plane, unit) for unit in work.units()]
        parts = _read_all(items)
        objects, counts = _join_plane(work, items, parts, filters)
        names += [item.key for item in items]
        starts += [starts[-1] + int(n) for n in np.cumsum(counts)]
        own, layer = objects.painted(0, int(sum(counts)))
        ids.append(np.where(own > 0, own + np.uint32(base), np.uint32(0)))
        layers.append(layer)
        tables.append(_table(work, plane, objects, base))
        base += len(objects)
        ambiguous += sum(int(part.get("ambiguous", 0)) for part in parts)
    table = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    columns = {"names": np.array(names), "starts": np.array(starts), "ambiguous": np.array(ambiguous)}
    columns |= {"ids": np.concatenate(ids), "layers": np.concatenate(layers)}
    _write(work, columns, table)
    return base


def _read_all(items: Sequence[Item]) -> list[Columns]:
    def read(item: Item) -> Columns:
        return from_bytes(item.work.ledger.read(pieces_keys(item)[0]))

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, items))


def _join_plane(
    work: Work, items: Sequence[Item], parts: Sequence[Columns], filters: Filters
) -> tuple[Objects, list[int]]:
    counts = [len(part["layer"]) for part in parts]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    rows = measure.stacked(
        {name.removeprefix("row."): column for name, column in part.items() if name.startswith("row.")}
        for part in parts
    )
    layer = np.concatenate([part["layer"] for part in parts])
    pairs = np.concatenate([part["pairs"] + offset for part, offset in zip(parts, offsets)])
    pixels = np.concatenate([part["pair_pixels"] for part in parts])
    if work.traits.link == "touch":
        links = touch_links([_border(part) for part in parts], offsets)
    else:
        links = _match_links(items, parts, offsets)
    return join(rows, layer, links, pairs, pixels, filters), counts


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


def _table(work: Work, plane: int, objects: Objects, base: int) -> pd.DataFrame:
    image = work.image
    row, column = image.well or ("", "")
    t, z = image.planes[plane]
    count = len(objects)
    identity = {
        "label": (np.arange(count) + base + 1).astype(np.uint32),
        "layer": objects.layer,
        "image": [image.path] * count,
        "row": [row] * count,
        "column": [column] * count,
        "field": [image.field or ""] * count,
        "t": np.full(count, t, np.int32),
        "z": np.full(count, z, np.int32),
    }
    table = pd.DataFrame(identity).astype(dict.fromkeys(("image", "row", "column", "field"), "str"))
    measured = measure.object_table(objects.rows, work.channel_names, image.spacing_um)
    table = pd.concat([table, measured], axis=1)
    table["overlap_labels"] = _partners(objects, base)
    table["tiles_spanned"] = _tiles_spanned(work, objects.rows)
    return table


def _partners(objects: Objects, base: int) -> pd.Series:
    """Ids of the objects each object shares pixels with, ascending."""
    both = np.concatenate([objects.pairs, objects.pairs[:, ::-1]])
    both = both[np.lexsort((both[:, 1], both[:, 0]))]
    ends = np.searchsorted(both[:, 0], np.arange(len(objects) + 1)).astype(np.int32)
    labels = (both[:, 1] + base + 1).astype(np.uint32)
    return pd.Series(pd.arrays.ArrowExtensionArray(pa.ListArray.from_arrays(ends, labels)))


def _tiles_spanned(work: Work, rows: Columns) -> np.ndarray:
    """Tiles of the network that the bounding box meets: the one column that speaks of the tiling."""
    down = (rows["y1"] - 1) // work.core - rows["y0"] // work.core + 1
    return (down * ((rows["x1"] - 1) // work.core - rows["x0"] // work.core + 1)).astype(np.int64)


def _keys(work: Work) -> tuple[str, str]:
    return f"join/{work.key}.parquet", f"join/{work.key}.npz"


def _write(work: Work, columns: Columns, table: pd.DataFrame) -> None:
    tables, stitching = _keys(work)
    work.ledger.write(tables, table_bytes(table))
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
