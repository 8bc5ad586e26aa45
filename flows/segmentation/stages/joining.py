"""Joining: the pieces of an image become its objects, once, in one process.

It reads what the stage `describe` wrote, decides which pieces belong to one object, and writes the stitching table
to the scratch, where painting, measuring and a restart find it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flows.execution.parallel import parallel_map
from flows.segmentation.image_job import ImageJob, TileJob
from flows.segmentation.stages.tiles import BORDER, OVERLAP, QUALITY, ROW, pieces_keys
from pipeline.focus import focus_of, saturation_of
from pipeline.links import compatible, touch_links
from pipeline.measure import Columns, shared_pixels
from pipeline.spans import Spans
from pipeline.stitch import CERTAIN, DECIDING, Filters, Objects, join

SHARING = ("set", "piece", "area")
"""Columns of shared pixels that say which pieces overlap."""

JOINED = {*(f"{ROW}{name}" for name in (*DECIDING, CERTAIN)), *(f"{OVERLAP}{name}" for name in SHARING)}
"""The measurements that joining reads; measuring reads the others."""


@dataclass(frozen=True)
class Stitching:
    """The object of every piece of an image: ``ids`` (0: dropped) and output ``layers``, unit after unit."""

    units: dict[str, slice]
    """Rows of each unit, by its key."""
    ids: np.ndarray
    layers: np.ndarray
    pairs: np.ndarray
    """``(n, 2)`` ids of objects that share pixels, the smaller first."""
    depth: int
    """Number of output layers, at least 1."""
    focus: np.ndarray
    """Focus of each measured channel (`pipeline.focus`), NaN where it is unknown."""
    saturated: np.ndarray
    """Share of clipped pixels of each measured channel, likewise."""
    diameter_px: float
    """Median diameter (of disks of the same area) of the objects, NaN where it is unknown or there are none."""
    ambiguous: int = 0
    """Number of matches of objects of two tiles that were not joined: an object matches several objects of the other
    tile equally well, or joining would have made two objects of one tile one."""

    def of(self, unit: TileJob) -> tuple[np.ndarray, np.ndarray]:
        """Ids and layers of the pieces of a unit."""
        rows = self.units[unit.key]
        return self.ids[rows], self.layers[rows]

    def of_all(self, units: Sequence[TileJob]) -> tuple[np.ndarray, np.ndarray]:
        """Ids and layers of the pieces of all units of a plane, in their order."""
        rows = slice(self.units[units[0].key].start, self.units[units[-1].key].stop)
        return self.ids[rows], self.layers[rows]

    @property
    def objects(self) -> int:
        """Number of objects: their ids are 1 ... n."""
        return int(self.ids.max(initial=0))


def join_image(work: ImageJob, filters: Filters) -> int:
    """Join the pieces of an image, all planes, and write its stitching table; return the number of objects."""
    names: list[str] = []
    starts, ids, layers, pairs, areas = [0], [], [], [], []
    qualities: list[Columns] = []
    base = ambiguous = 0
    for plane in range(len(work.image.planes)):
        items = [TileJob(work, plane, unit) for unit in work.units()]
        parts = _read_parts(items)
        objects, counts, doubtful = _join_plane(work, items, parts, filters)
        qualities += [_quality(part) for part in parts]
        names += [item.key for item in items]
        starts += [starts[-1] + int(n) for n in np.cumsum(counts)]
        numbers, layer = objects.ids_and_layers(0, int(sum(counts)))
        ids.append(np.where(numbers > 0, numbers + np.uint32(base), np.uint32(0)))
        layers.append(layer)
        areas.append(objects.area)
        pairs.append((objects.pairs + base + 1).astype(np.uint32))
        base += len(objects)
        ambiguous += doubtful
    focus, saturated = _quality_of(work, qualities)
    columns = {
        "names": np.frombuffer("\n".join(names).encode(), np.uint8), "starts": np.array(starts),
        "ids": np.concatenate(ids), "layers": np.concatenate(layers), "pairs": np.concatenate(pairs),
        "ambiguous": np.array(ambiguous), "diameter": np.array(_median_diameter_px(np.concatenate(areas))),
        "focus": focus, "saturated": saturated,
    }  # fmt: skip
    work.ledger.write_columns(stitching_key(work), columns)
    return base


def read_pieces(items: Sequence[TileJob], *, wanted: Callable[[str], bool]) -> list[Columns]:
    """Read some columns of the pieces of units, in order; all columns of a large image would not fit into memory."""

    def read(item: TileJob) -> Columns:
        columns = item.work.ledger.read_columns(pieces_keys(item)[0])
        return {name: column for name, column in columns.items() if wanted(name)}

    return parallel_map(read, items, waits=not items[0].work.ledger.output.is_local)


def _read_parts(items: Sequence[TileJob]) -> list[Columns]:
    """Read the columns of the pieces of units that joining needs."""
    return read_pieces(items, wanted=lambda name: not name.startswith((ROW, OVERLAP)) or name in JOINED)


def _quality(part: Columns) -> Columns:
    """The sums of a unit for focus and saturation."""
    return {name.removeprefix(QUALITY): column for name, column in part.items() if name.startswith(QUALITY)}


def _quality_of(work: ImageJob, qualities: Sequence[Columns]) -> tuple[np.ndarray, np.ndarray]:
    """Return focus and share of clipped pixels of each measured channel, float64; NaN where they are unknown.

    They are unknown where a run that was begun by an older version described some units without their sums.
    """
    channels = range(len(work.measured))
    if not all(qualities):
        return _unknown(work), _unknown(work)
    focus = np.array([focus_of(qualities, channel) for channel in channels], np.float64)
    if work.image.dtype == bool:  # a binary image has no level that light could exceed
        return focus, _unknown(work)
    return focus, np.array([saturation_of(qualities, channel) for channel in channels], np.float64)


def _median_diameter_px(areas: np.ndarray) -> float:
    return 2 * math.sqrt(np.median(areas) / math.pi) if len(areas) else math.nan


def _unknown(work: ImageJob) -> np.ndarray:
    return np.full(len(work.measured), np.nan)


def _join_plane(
    work: ImageJob, items: Sequence[TileJob], parts: Sequence[Columns], filters: Filters
) -> tuple[Objects, list[int], int]:
    """Return the objects of a plane, the number of pieces of each unit, and the number of ambiguous matches."""
    counts = [len(part["layer"]) for part in parts]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    deciding = (*DECIDING, CERTAIN) if work.traits.judged else DECIDING
    rows = {name: np.concatenate([part.pop(f"{ROW}{name}") for part in parts]) for name in deciding}
    layer = np.concatenate([part["layer"] for part in parts])
    shared = [shared_pixels({name: part.pop(f"{OVERLAP}{name}") for name in SHARING}) for part in parts]
    pairs = np.concatenate([pairs + offset for (pairs, _), offset in zip(shared, offsets)])
    pixels = np.concatenate([pixels for _, pixels in shared])
    ambiguous = sum(int(part.get("ambiguous", 0)) for part in parts)
    if work.traits.link == "touch":
        links = touch_links([_border(part) for part in parts], offsets)
    else:
        matches, scores = _match_links(items, parts, offsets)
        links = matches[compatible(matches, scores, np.repeat(np.arange(len(parts)), counts))]
        ambiguous += len(matches) - len(links)
    return join(rows, layer, links, pairs, pixels, filters), counts, ambiguous


def _border(part: Columns) -> tuple[Spans, np.ndarray]:
    layer, y, x0, x1, piece = (part[f"{BORDER}{name}"] for name in ("layer", "y", "x0", "x1", "piece"))
    none = np.zeros(len(y), bool)
    return Spans(layer=layer, y=y, x0=x0, x1=x1, stretch=none, shared=none), piece


def _match_links(
    items: Sequence[TileJob], parts: Sequence[Columns], offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Translate matches of local ids into pairs of pieces, with their scores.

    An object without a pixel in the core has no piece.
    """
    place = {(item.tile.row, item.tile.column): number for number, item in enumerate(items)}
    links, scores = [], []
    for number, part in enumerate(parts):
        for (label, theirs, row, column), score in zip(part["links"].tolist(), part["scores"].tolist()):
            other = place[row, column]
            a, b = _piece_of(part["ids"], label), _piece_of(parts[other]["ids"], theirs)
            if a is not None and b is not None:
                links.append((offsets[number] + a, offsets[other] + b))
                scores.append(score)
    return np.array(links, np.int64).reshape(-1, 2), np.array(scores, np.float64)


def _piece_of(ids: np.ndarray, label: int) -> int | None:
    at = int(np.searchsorted(ids, label))
    return at if at < len(ids) and ids[at] == label else None


def stitching_key(work: ImageJob) -> str:
    """Key of the stitching table in the scratch."""
    return f"join/{work.key}.safetensors"


def is_joined(work: ImageJob) -> bool:
    """Whether the stitching table of an image has been written."""
    return work.ledger.find(stitching_key(work)) is not None


def read_stitching(work: ImageJob) -> Stitching:
    """Read the stitching table of an image."""
    columns = work.ledger.read_columns(stitching_key(work))
    starts = columns["starts"].tolist()
    names = columns["names"].tobytes().decode().split("\n")
    units = {name: slice(a, b) for name, a, b in zip(names, starts, starts[1:])}
    depth = int(columns["layers"].max(initial=0)) + 1
    return Stitching(
        units, columns["ids"], columns["layers"], columns["pairs"], depth,
        columns.get("focus", _unknown(work)), columns.get("saturated", _unknown(work)),
        float(columns.get("diameter", math.nan)), int(columns["ambiguous"]),
    )  # fmt: skip
