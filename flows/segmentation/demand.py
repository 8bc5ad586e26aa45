"""The requests and bytes that a run will cost on object storage, by stage, computed before the run.

The counts follow from the plan and from what each stage does; bytes come from one listing of the source and from
the probed tiles. They hold for a first, undisturbed run: retries and the heartbeat of the lock are not included.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from flows.execution.executors import usable_cores
from flows.segmentation.existing import MANY
from flows.segmentation.image_job import ImageJob
from flows.segmentation.plan import Plan
from flows.segmentation.plate_table import parts_of
from pipeline.store.ome.collection import Image
from pipeline.store.ome.groups import join
from pipeline.store.ome.label_images.layout import BLOCK, LabelLayout, layout_for
from pipeline.store.places.address import Address
from pipeline.store.places.chunk_cache import KEPT_BYTES
from pipeline.store.places.traffic import Traffic
from pipeline.tiling import Tile, tiles_at_edges

PAGE = 1000
"""Keys in one answer of a LIST."""

LABEL_SHARE = 0.55
"""Bytes of labels and tables over those of the pieces they are made of: 0.42 to 0.65 on generated scenes of 1,024 px.

On a scene of 3,000 px, whose table is kept in the scratch as well, it was 0.92: for large images the estimate is low.
"""


JOB_BYTES = 1_000
"""Bytes of the job and the lock of a run."""

RECORD_BYTES = 2_000
"""Bytes of the record of a short run."""

TABLE_BYTES = 6_500
"""Bytes of a table without a row."""

FIELD_BYTES = 2_900
"""Bytes of the metadata, the mark and the table of a small image without an object."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The bytes that the probed tiles wrote."""

    predicted: float = 0.0
    """Bytes of a tile's layers."""
    rows: float = 0.0
    """Bytes of the pieces' rows, per pixel."""
    runs: float = 0.0
    """Bytes of their runs, per pixel."""
    border: float = 0.0
    """Bytes of the rows at the border of a unit, per pixel of it."""
    empty_rows: float = 0.0
    """Bytes of the rows of a unit without any object."""
    empty_runs: float = 0.0
    """Bytes of the runs of a unit without any object."""
    overlaps: bool = False
    """Whether objects share pixels, so that there is a second output layer."""


def demand(plan: Plan, sizes: Sizes) -> Traffic:
    """Requests and bytes of a whole run; zero where source and output are local."""
    total = Traffic()
    if not plan.source.address.is_local:
        total += _source(plan)
    if not plan.output.is_local:
        total += _output(plan, sizes)
    return total


def _source(plan: Plan) -> Traffic:
    """Requests to the source: it is opened and listed twice, checked for lost chunks, and its chunks are read."""
    images = plan.source.images
    files = _files_of(plan.source.address, images)
    wells = len({image.well for image in images if image.well})
    opening = (1 if plan.source.zarr_format == 3 else 2) + wells + 2 * len(images)
    mirrored = 0 if plan.in_place else wells + 1
    listed = 2 * _pages(sum(len(sizes) for sizes in files.values()))
    listed += sum(_pages(len(files[work.image.path])) for work in plan.works)
    traffic = Traffic(requests={"GET": 2 * opening + mirrored, "LIST": listed})
    for work in plan.works:
        number = round(_fetches(plan, work, sum(map(sum, files.values()))))
        mean = sum(files[work.image.path]) / max(len(files[work.image.path]), 1)
        traffic += Traffic(requests={"GET": number}, bytes_in=round(number * mean))
    return traffic


def _files_of(place: Address, images: Iterable[Image]) -> dict[str, list[int]]:
    """Bytes of the files of each image's finest level, by one listing."""
    sizes: dict[str, list[int]] = {join(image.path, image.levels[0]): [] for image in images}
    for key, size, _ in place.entries():
        parts = key.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in sizes and parts[-1] not in ("zarr.json", ".zarray"):
                sizes[folder].append(size)
    return {image.path: sizes[join(image.path, image.levels[0])] for image in images}


def _fetches(plan: Plan, work: ImageJob, all_bytes: int) -> float:
    """How many times the chunks of an image are fetched, summed over processes and stages."""
    height, width = work.image.shards or work.image.chunks
    files = -(-work.extent[0] // height) * -(-work.extent[1] // width)
    seen, measured = set(work.channels), set(work.measured)
    if work.is_field:
        return len(work.image.planes) * files * len(seen | measured)
    blocks = tiles_at_edges(work.extent, core=BLOCK)
    by_network = [] if plan.normalise.kind == "none" else [_meets(blocks, height, width)]
    by_network.append(_meets(work.tiles_at_edges(), height, width))
    by_measuring = [_meets(_units_at_edges(work), height, width)]
    execution = plan.job.execution
    local = execution.executor in ("serial", "threads")
    processes = 1 if local else execution.workers or usable_cores()
    fetches = 0.0
    for channel in seen | measured:
        passes = (by_network if channel in seen else []) + (by_measuring if channel in measured else [])
        # A process caches the chunks it fetched: all of a small source, those of the next tiles of a large one.
        once = [sum(passes)] if all_bytes <= KEPT_BYTES else passes
        fetches += files * sum(processes * (1 - (1 - 1 / processes) ** (meets / files)) for meets in once)
    return len(work.image.planes) * fetches


Edges = tuple[list[Tile], list[Tile]]
"""Tiles of the first column and of the first row, which determine all others."""


def _units_at_edges(work: ImageJob) -> Edges:
    """Edges of the units of the stage `describe` (`ImageJob.units`)."""
    return tiles_at_edges(work.extent, core=BLOCK) if work.traits.link == "touch" else work.tiles_at_edges()


def _number(edges: Edges) -> int:
    down, along = edges
    return len(down) * len(along)


def _meets(edges: Edges, height: int, width: int, *, read: bool = True) -> int:
    """How many files of some height and width the reads or the cores of all tiles intersect, with repetition."""
    down, along = ([tile.read if read else tile.core for tile in side] for side in edges)
    rows = sum(-(-box.y1 // height) - box.y0 // height for box in down)
    return rows * sum(-(-box.x1 // width) - box.x0 // width for box in along)


def _perimeters(edges: Edges) -> int:
    """Length of the borders of all cores in pixels."""
    down, along = edges
    heights, widths = sum(t.core.shape[0] for t in down), sum(t.core.shape[1] for t in along)
    return 2 * (heights * len(along) + widths * len(down))


def _output(plan: Plan, sizes: Sizes) -> Traffic:
    groups = len(list(plan.groups()))
    # Record, lock and job at the start; the record after every group and at the end; removal of the lock.
    total = Traffic(
        requests={"GET": 7, "PUT": 4 + groups, "LIST": 2 + groups, "DELETE": 1},
        bytes_out=JOB_BYTES + RECORD_BYTES * (2 + groups),
    )
    listed = len(plan.works) >= MANY  # existing results are found by one listing and not image by image
    total += _mirror(plan, listed=listed)
    depth = 1 + int(sizes.overlaps)
    if any(work.is_field for work in plan.works):
        total += Traffic(requests={"GET": 1, "PUT": 1})  # The list of fields that are being written.
    for work in plan.works:
        stages = (_tiles(work, sizes), _blocks(work, sizes, depth), _finish(work, depth))
        total += _field(work, sizes, depth, listed=listed) if work.is_field else sum(stages, Traffic())
    return total + _plate_table(plan, sizes)


def _plate_table(plan: Plan, sizes: Sizes) -> Traffic:
    """The table over all images: each image's table is read, and a part written for each well."""
    images = [work.image for work in plan.works]
    if not all(image.path for image in images):
        return Traffic()
    documents = 1 if plan.source.zarr_format == 3 else 2
    rows = sum(_piece_bytes(work, sizes)[0] for work in plan.works)
    return Traffic(
        requests={
            "GET": len(images) + 2 + 3 * documents,
            "PUT": len(parts_of(images)) + 2 * documents,
            "LIST": 1,
        },
        bytes_in=round(rows * LABEL_SHARE) + TABLE_BYTES * len(images),
    )


def _field(work: ImageJob, sizes: Sizes, depth: int, *, listed: bool) -> Traffic:
    """Requests of a small image, which one worker finishes in one call: labels, table, their listings and the mark."""
    layout = layout_for(work.image)
    documents = 1 if work.image.zarr_format == 3 else 2
    put = depth * (len(layout.shapes) + _chunks(layout) + documents) + 2 + 3 * documents
    return Traffic(
        requests={"GET": documents * (8 - 2 * listed + depth), "PUT": put, "LIST": depth},
        bytes_out=round(sum(_piece_bytes(work, sizes)) * LABEL_SHARE) + FIELD_BYTES,
    )


def _piece_bytes(work: ImageJob, sizes: Sizes) -> tuple[float, float]:
    """Bytes of the rows and of the runs of all pieces of an image."""
    units, planes = _units_at_edges(work), len(work.image.planes)
    pixels, number = planes * work.extent[0] * work.extent[1], planes * _number(units)
    rows = sizes.rows * pixels + sizes.empty_rows * number + sizes.border * planes * _perimeters(units)
    return rows, sizes.runs * pixels + sizes.empty_runs * number


def _mirror(plan: Plan, *, listed: bool) -> Traffic:
    if plan.in_place:
        return Traffic()
    images = plan.source.images
    rows, wells = ({image.well[:n] for image in images if image.well} for n in (1, 2))
    documents = 1 if plan.source.zarr_format == 3 else 2
    made = len(rows) + 2 * len(
        images
    )  # An empty group, and a group that shows the labels in place of pixels.
    return Traffic(
        requests={
            "GET": 3 + documents * (made - len(images) * listed),
            "PUT": made + documents * (len(wells) + 1),
        }
    )


def _tiles(work: ImageJob, sizes: Sizes) -> Traffic:
    """Limits and predict: the layers and the mark of each tile."""
    number = work.tile_count
    documents = 2 if work.image.zarr_format == 3 else 4  # Are there labels or a table of that name already?
    return Traffic(
        requests={"GET": documents + 1, "PUT": 2 + 2 * number, "LIST": 1},
        bytes_out=round(number * sizes.predicted),
    )


def _blocks(work: ImageJob, sizes: Sizes, depth: int) -> Traffic:
    """Describe, join, measure and paint: pieces of each unit, labels of each block."""
    at_edges, block_edges = _units_at_edges(work), tiles_at_edges(work.extent, core=BLOCK)
    planes, side = len(work.image.planes), work.core
    units, blocks = planes * _number(at_edges), planes * _number(block_edges)
    if work.traits.link == "touch":
        read, over = planes * _meets(at_edges, side, side, read=False), blocks
    else:
        read, over = 5 * units, planes * _meets(block_edges, side, side, read=False)
    layout = layout_for(work.image)
    rows, runs = _piece_bytes(work, sizes)
    put = 2 * units + 1 + depth * (len(layout.shapes) + _chunks(layout)) + blocks
    return Traffic(
        requests={"GET": read + 1 + 2 * units + 6 + over, "PUT": put, "LIST": 2},
        # Joining and measuring both read the rows.
        bytes_in=round(work.tile_count * sizes.predicted + 2 * rows + runs),
        bytes_out=round((rows + runs) * (1 + LABEL_SHARE)),
    )


def _finish(work: ImageJob, depth: int) -> Traffic:
    layout = layout_for(work.image)
    copies = depth * (len(layout.shapes) + _chunks(layout) + 1)
    return Traffic(
        requests={
            "GET": 15 + depth,
            "PUT": 7 + 2 * depth,
            "LIST": 1 + 3 * depth,
            "DELETE": depth,
            "COPY": copies,
        }
    )


def _chunks(layout: LabelLayout) -> int:
    """Chunks of all levels of one label image."""
    total = 0
    for level, shape in enumerate(layout.shapes):
        number = 1
        for extent, step in zip(shape, layout.chunks(level), strict=True):
            number *= -(-extent // step)
        total += number
    return total


def _pages(keys: int) -> int:
    return max(-(-keys // PAGE), 1)
