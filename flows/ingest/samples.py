"""Ingest of images with truth: samples of a dataset or synthetic scenes become an OME-Zarr store.

The images of a store are listed last, when all of them are in it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flows.ingest.new_store import new_store
from pipeline.datasets.sample import Sample
from pipeline.datasets.synthetic.scenes import Scene, scene
from pipeline.errors import BadArgument
from pipeline.store.ome.collection import Image, open_collection
from pipeline.store.ome.image_writing import create_image, create_plate, create_series, write_image
from pipeline.store.ome.labels import create_labels, publish, write_stack
from pipeline.store.ome.tables import write_table
from pipeline.store.places.address import Address
from pipeline.tiling import windows

TRUTH = "truth"
"""Name of the label stack that holds the truth."""

BLOCK = 2048
"""Blocks in which synthetic scenes are drawn and written; a multiple of the chunk."""


@dataclass(frozen=True)
class Ingested:
    """The result of an ingest."""

    images: int
    """Images in the store."""
    objects: int
    """Number of true objects."""


def ingest_samples(samples: Iterable[Sample], output: str, *, ngff: str = "0.5") -> Ingested:
    """Write samples as a plate if they have wells, else as a series of named images."""
    paths: list[str] = []
    fields: Counter[tuple[str, str]] = Counter()
    objects = 0
    with new_store(output) as target:
        for sample in samples:
            path = sample.name
            if sample.well:
                path = f"{sample.well[0]}/{sample.well[1]}/{fields[sample.well]}"
                fields[sample.well] += 1
            objects += _write_sample(target, path, sample, ngff)
            paths.append(path)
        if not paths:
            raise BadArgument(
                f"{output}: expected at least one image to write, got none; check the source and --split"
            )
        _write_listing(target, paths, fields, ngff)
    return Ingested(len(paths), objects)


def _write_sample(target: Address, path: str, sample: Sample, ngff: str) -> int:
    spacing = (sample.pixel_size_um,) * 2 if sample.pixel_size_um else None
    write_image(target, path, sample.image, channels=sample.channels, spacing_um=spacing, ngff=ngff)
    if sample.truth is None:
        return 0
    write_stack(target, _written(target, path), sample.truth, name=TRUTH)
    if sample.classes:
        write_table(target, path, TRUTH, _class_table(sample.classes))
    return len({*sample.truth[sample.truth > 0].tolist()})


def _class_table(classes: Mapping[int, str]) -> pd.DataFrame:
    """Return the table of the true objects: id and name of the class."""
    return pd.DataFrame({"label": np.array(list(classes), np.uint32), "class": list(classes.values())})


def _written(target: Address, path: str) -> Image:
    """Return an image of the collection that is not listed in it yet."""
    image = open_collection(target.child(path) if path else target).images[0]
    return replace(image, address=target, path=path)


def _write_listing(
    target: Address, paths: Sequence[str], fields: Counter[tuple[str, str]], ngff: str
) -> None:
    """List the images last, so that an unfinished store cannot be opened."""
    if fields:
        wells = [(row, column, count) for (row, column), count in sorted(fields.items(), key=_well_order)]
        create_plate(target, name=target.name.removesuffix(".zarr"), wells=wells, ngff=ngff)
    else:
        create_series(target, paths, ngff=ngff)


def _well_order(entry: tuple[tuple[str, str], int]) -> tuple[str, int, str]:
    (row, column), _ = entry
    return row, int(column) if column.isdecimal() else 0, column


def ingest_synthetic(
    output: str,
    *,
    kind: str,
    size: tuple[int, int],
    wells: Sequence[tuple[str, str]] = (),
    fields: int = 1,
    seed: int = 0,
    density: float = 1.0,
    ngff: str = "0.5",
    shards: int | None = None,
    on_block: Callable[[], None] = lambda: None,
) -> Ingested:
    """Draw synthetic scenes block by block, in memory that does not depend on their size.

    Args:
        output: store to make: a single image without ``wells``, else a plate.
        kind: worms, cells or filaments.
        size: height and width in px of each image.
        wells: (row, column) of each well.
        fields: images per well.
        seed: of the first image; the others count on.
        density: relative crowding.
        ngff: 0.4 or 0.5.
        shards: side of a shard in px (0.5 only).
        on_block: called after each block.
    """  # fmt: skip
    objects = 0
    places = [f"{row}/{column}/{field}" for row, column in wells for field in range(fields)] or [""]
    with new_store(output) as target:
        for number, path in enumerate(places):
            drawn = scene(kind, size, seed=seed + number, density=density)
            objects += _write_scene(target, path, drawn, ngff=ngff, shards=shards, on_block=on_block)
        if wells:
            counts = Counter(dict.fromkeys(wells, fields))
            _write_listing(target, places, counts, ngff)
    return Ingested(len(places), objects)


def _write_scene(
    target: Address, path: str, drawn: Scene, *, ngff: str, shards: int | None, on_block: Callable[[], None]
) -> int:
    writer = create_image(
        target, path, axes=("c", "y", "x"), shape=(1, *drawn.shape), dtype="uint16", channels=drawn.channels,
        shards=(shards, shards) if shards else None, ngff=ngff,
    )  # fmt: skip
    for y0, y1, x0, x1 in windows(drawn.shape, BLOCK):
        pixels, _ = drawn.render(y0, y1, x0, x1)
        writer.write((slice(0, 1), slice(y0, y1), slice(x0, x1)), pixels)
        on_block()
    writer.finish()
    labels = create_labels(target, path, name=TRUTH, layers=drawn.layers, image=_written(target, path))
    seen: set[int] = set()
    for y0, y1, x0, x1 in windows(drawn.shape, BLOCK):
        _, truth = drawn.render(y0, y1, x0, x1)
        for layer, ids in enumerate(truth):
            labels.write((0, 0), layer, y0, x0, ids)
        seen.update(int(label) for label in set(truth[truth > 0].tolist()))
        on_block()
    publish(labels)
    return len(seen)
