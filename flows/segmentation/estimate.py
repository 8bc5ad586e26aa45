"""The dry run: what a job would do and what it would cost, measured on a few probed tiles."""

import resource
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from flows.execution.executors import usable_cores
from flows.jobs import SegmentJob
from flows.segmentation.demand import Sizes, demand
from flows.segmentation.existing import find_existing
from flows.segmentation.image_job import ImageJob
from flows.segmentation.plan import Plan, make_plan
from flows.segmentation.stages.layer_mask import write_mask
from flows.segmentation.stages.tiles import (
    BORDER,
    OVERLAP,
    TileJob,
    describe_unit,
    pieces_keys,
    predict,
    ready,
)
from pipeline.errors import BadStore
from pipeline.normalise import limits_of
from pipeline.store.ledger import Ledger, check_free
from pipeline.store.places.address import address
from pipeline.store.places.faults import StoreLost
from pipeline.store.places.traffic import Traffic
from pipeline.tiling import Tile

PROBED = 3
"""Tiles that are read and predicted to estimate the time."""

AFTER_NETWORK_MPX_S = 15.2
"""Mpx/s and core of everything after the network, as measured (benchmarks/results/stitch.json)."""


def estimate(job: SegmentJob) -> str:
    """Describe a job without running it.

    Raises:
        BadArgument, BadStore: the job or the source cannot be used.
        RunConflict: the run would be refused: another run holds the output, or labels or a table of that name come
            from other work.
    """
    plan = make_plan(job)
    to_do = _to_do(plan)
    tiles = sum(work.tile_count for work in plan.works)
    pixels = sum(len(w.image.planes) * int(np.prod(w.extent)) for w in plan.works)
    read = sum(_read_pixels(plan))
    itemsize = max((w.image.dtype.itemsize * len(w.channels) for w in plan.works), default=1)
    probe = _probe(plan, pixels)
    seconds, rate, sizes = probe.seconds, probe.rate, probe.sizes
    memory = max(_peak_bytes(), probe.before_bytes + _memory(plan))
    workers = 1 if job.execution.executor == "serial" else job.execution.workers or usable_cores()
    traits = plan.traits
    lines = [
        f"source      {plan.source.address}, {len(plan.works)} image(s), {pixels / 1e6:.1f} Mpx",
        f"output      {plan.output}, labels and tables {plan.name!r}, run {plan.ledger.run}",
        f"to do       {to_do}",
        *(f"scale       {note}" for note in plan.notes),
        *_trained_on(plan),
        f"channel     {_channels(plan)}",
        *_planes(plan),
        f"segmenter   {traits.name} ({traits.link}, halo {traits.halo_px} px, stride {traits.stride})",
        f"tiles       {tiles} of core {plan.works[0].core} px and halo {plan.works[0].halo} px",
        f"to read     {read * itemsize / 2**20:.0f} MiB uncompressed for the network, once more to measure",
        f"halo waste  {100 * (1 - pixels / read):.0f} % of the pixels the network sees",
        f"memory      about {memory / 2**20:.0f} MiB per worker, program included, whatever the size of the image",
        f"time        about {seconds / workers:.0f} s with {workers} worker(s), "
        f"network {rate:.2f} Mpx/s per worker (probed on {min(PROBED, tiles)} tiles)",
        *_object_storage(demand(plan, sizes)),
        *(f"unreadable  {message}; the run would set this image aside" for message in probe.unreadable),
        *(f"refused     {path or 'image'}: {reason}" for path, reason in plan.refused.items()),
        *(f"missing     {message}" for message in plan.source.missing),
    ]
    return "\n".join(lines) + "\n"


def _trained_on(plan: Plan) -> list[str]:
    """The sizes of the objects a model was trained on, in micrometers where the images say how large a pixel is."""
    if not plan.traits.diameters_px or not plan.works:
        return []
    least, _, most = plan.traits.diameters_px
    line = f"objects     {plan.traits.name} was trained on objects {least:.0f} to {most:.0f} px across"
    image, factor = plan.works[0].image, plan.works[0].factor
    if image.spacing_um:
        um = float(np.sqrt(image.spacing_um[0] * image.spacing_um[1])) / factor
        line += f", which is {least * um:.3g} to {most * um:.3g} um here"
    return [f"{line}; --scale FACTOR for others"]


def _to_do(plan: Plan) -> str:
    """How many images are left; refuses what the run would refuse: a held output, labels and tables of other work."""
    existing = find_existing(plan)
    if existing.todo:
        existing.check_names(existing.todo)
        check_free(plan.output)
    return f"{len(existing.todo)} of {len(plan.works)} image(s), {len(existing.done)} finished before"


def _channels(plan: Plan) -> str:
    """The channels that are segmented, how they were chosen, and those that are measured."""
    segmented, measured = ", ".join(plan.channels), ", ".join(plan.measured)
    several = any(len(work.image.channels) > 1 for work in plan.works)
    why = " (chosen by the model's card)" if several and not plan.job.channel else ""
    return f"{segmented}{why}; intensities of {measured} are measured"


def _planes(plan: Plan) -> list[str]:
    planes = max(len({z for _, z in work.image.planes}) for work in plan.works)
    return (
        [f"z planes    {planes}, segmented one by one; objects are not joined along z"] if planes > 1 else []
    )


def _object_storage(traffic: Traffic) -> list[str]:
    if not traffic:
        return []
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in traffic.requests.items())
    sizes = f"{traffic.bytes_in / 2**20:.2f} MiB in, {traffic.bytes_out / 2**20:.2f} MiB out"
    return [f"requests    about {traffic.total:,} to object storage ({kinds}), {sizes}"]


def _read_pixels(plan: Plan) -> list[int]:
    """Pixels that the network reads, halos included, per image."""
    return [_read_rows_by_columns(work) * len(work.image.planes) for work in plan.works]


def _read_rows_by_columns(work: ImageJob) -> int:
    down, along = work.tiles_at_edges()
    return sum(tile.read.shape[0] for tile in down) * sum(tile.read.shape[1] for tile in along)


def _memory(plan: Plan) -> float:
    """Bytes of the arrays of a worker at their peak: block as float32, its layers, blocks of the later stages."""
    work = plan.works[0]
    side = min(work.core + 2 * work.halo, max(work.extent))
    block = min(2048, max(work.extent)) ** 2
    return side**2 * (4 * len(work.channels) + 2 * plan.traits.layers) + block * (
        8 + 16 * len(work.channels) + 16
    )


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What was measured on a few tiles of a job."""

    seconds: float = 0.0
    """Estimated seconds for all pixels of the job on one worker."""
    rate: float = 0.0
    """Mpx/s of the network, reading included."""
    sizes: Sizes = Sizes()
    """The bytes that the tiles wrote."""
    before_bytes: int = 0
    """Memory of this process with the segmenter loaded, before the first tile."""
    unreadable: tuple[str, ...] = ()
    """Why tiles could not be read."""


def _peak_bytes() -> int:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _probe(plan: Plan, pixels: int) -> Probe:
    """Predict and describe a few tiles as the run would, without writing; unreadable tiles are named."""
    chosen = _spread(plan.works)
    ready(plan.segmenter)
    before = _peak_bytes()
    readable, unreadable = _readable(chosen)
    if not readable:
        return Probe(before_bytes=before, unreadable=unreadable)
    scratch = Ledger(address(f"memory://{uuid.uuid4().hex}"), plan.ledger.run)
    try:
        _predict(plan, readable[0], scratch)
        started = time.perf_counter()
        mine = [_predict(plan, item, scratch) for item in readable]
        spent = time.perf_counter() - started
        done = sum(int(np.prod(item.tile.core.shape)) for item in readable)
        sizes = _sizes(mine, scratch, done)
    finally:
        scratch.output.remove()
    return Probe(
        seconds=pixels * spent / done + pixels / 1e6 / AFTER_NETWORK_MPX_S, rate=done / 1e6 / spent, sizes=sizes,
        before_bytes=before, unreadable=unreadable,
    )  # fmt: skip


def _spread(works: Sequence[ImageJob]) -> list[TileJob]:
    """The first, the middle and the last tile of all images, without making those between."""
    before = np.cumsum([0, *(work.tile_count for work in works)])
    total = int(before[-1])
    chosen = []
    for number in [round(share * (total - 1)) for share in np.linspace(0, 1, min(PROBED, total))]:
        owner = int(np.searchsorted(before, number, side="right")) - 1
        chosen.append(_tile_number(works[owner], number - int(before[owner])))
    return chosen


def _tile_number(work: ImageJob, number: int) -> TileJob:
    """A tile of an image by its place in the order of `ImageJob.items`."""
    side = work.core
    rows, columns = (-(-extent // side) for extent in work.extent)
    plane, inside = divmod(number, rows * columns)
    return TileJob(work, plane, cast(Tile, work.tile(*divmod(inside, columns))))


def _readable(items: Sequence[TileJob]) -> tuple[list[TileJob], tuple[str, ...]]:
    """The readable tiles, and why the others cannot be read."""
    readable, reasons = [], []
    for item in items:
        try:
            item.work.read(item.plane, item.tile.read)
            readable.append(item)
        except StoreLost:
            raise
        except BadStore as error:
            reasons.append(str(error))
    return readable, tuple(dict.fromkeys(reasons))


def _predict(plan: Plan, item: TileJob, scratch: Ledger) -> TileJob:
    """Run the network on a tile as the run would, with the scratch in memory."""
    mine = TileJob(replace(item.work, ledger=scratch), item.plane, item.tile)
    predict((mine, limits_of(item.work.read(item.plane, item.tile.read), plan.normalise)))
    return mine


def _sizes(items: Sequence[TileJob], scratch: Ledger, done_px: int) -> Sizes:
    """What the probed tiles wrote; tiles that number their objects need their neighbours to be described."""
    written = {key: size for key, size, _ in scratch.output.entries(scratch.folder)}
    tiles = sum(size for key, size in written.items() if key.startswith(("mask/", "stacks/")))
    if items[0].work.traits.link != "touch":
        return Sizes(predicted=tiles / len(items), rows=tiles / done_px)
    # The bytes that are written of a tile without objects.
    empty = TileJob(replace(items[0].work, key="empty"), items[0].plane, items[0].tile)
    write_mask(empty, np.zeros(empty.tile.core.shape, np.uint8))
    for item in (*items, empty):
        describe_unit(item)
    units = list({item.work.key + item.key: item for item in items}.values())
    files = [[len(scratch.read(key)) for key in pieces_keys(item)] for item in (*units, empty)]
    # Per kind of file: the bytes of the interior, without those of the border and of an empty file.
    (rows, empty_rows), (runs, empty_runs) = ((sum(kind[:-1]), kind[-1]) for kind in zip(*files, strict=True))
    tables = [scratch.read_columns(pieces_keys(item)[0]) for item in units]
    at_border = sum(
        column.nbytes for table in tables for name, column in table.items() if name.startswith(BORDER)
    )
    return Sizes(
        predicted=tiles / len(items),
        rows=(rows - at_border - len(units) * empty_rows) / done_px,
        runs=(runs - len(units) * empty_runs) / done_px,
        border=at_border / sum(item.tile.core.perimeter for item in units),
        empty_rows=empty_rows, empty_runs=empty_runs,
        overlaps=any(len(table[f"{OVERLAP}set"]) for table in tables),
    )  # fmt: skip
