"""Evaluation of a dataset: predicted against true label stacks, image by image, never more than a block in memory.

Both sides are stores, plates or folders of stores, and may be the same. A truth without a prediction counts as
all missed; a prediction without a truth is listed and left out, for nothing is known of it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pipeline.errors import BadArgument, BadStore
from pipeline.metrics.evaluation import Evaluation, evaluate_dataset
from pipeline.metrics.overlap import Overlap, overlap_streamed
from pipeline.report.wells import well_name
from pipeline.store.address import Address, address
from pipeline.store.images import Collection, Image, open_collection
from pipeline.store.labels import list_labels, open_label, read_stack
from pipeline.store.tables import table_bytes

TRUTH = "truth"
"""Default name of the true labels."""

Key = tuple[str, tuple[int, int]]
"""An image plane: name of the image and its (t, z)."""


@dataclass(frozen=True)
class Labelled:
    """Labels of one plane of an image."""

    address: Address
    image: Image
    name: str
    plane: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in px."""
        return open_label(self.address, self.image.path, self.name).size

    def read(self, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        """Label stack ``(L, y, x)`` of a window."""
        return read_stack(self.address, self.image.path, self.name, region=(y0, y1, x0, x1), plane=self.plane)


@dataclass(frozen=True)
class Compared:
    """An evaluation, what it was made from, and what could not be compared."""

    evaluation: Evaluation
    prediction_name: str
    truth_name: str
    pairs: dict[str, tuple[Labelled, Labelled | None]]
    """Truth and prediction of each image, by the name it has in the tables."""
    without_prediction: list[str] = field(default_factory=list)
    without_truth: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """What a reader of the numbers has to know about the two sides."""
        return {
            "prediction_name": self.prediction_name, "truth_name": self.truth_name,
            "without_prediction": self.without_prediction, "without_truth": self.without_truth,
        }  # fmt: skip


def compare(
    prediction: str,
    truth: str,
    *,
    prediction_name: str | None = None,
    truth_name: str = TRUTH,
    strict: bool = False,
    on_image: Callable[[str], None] = lambda name: None,
) -> Compared:
    """Evaluate every image of two sides.

    Raises:
        BadArgument: no image has a truth, shapes differ, a stack breaks the law, or (strict) a side lacks images.
        BadStore: a side cannot be read.
    """  # fmt: skip
    chosen = prediction_name or _only_name(prediction, truth, truth_name)
    true, predicted = _labelled(truth, truth_name), _labelled(prediction, chosen, like=truth)
    if not true:
        raise BadArgument(f"{truth}: no image has labels {truth_name!r}; name them with --truth-name")
    missing = [_name(key) for key in true if key not in predicted]
    unknown = [_name(key) for key in predicted if key not in true]
    if len(missing) == len(true):
        raise BadArgument(
            f"{prediction}: no image has labels {chosen!r} that the truth knows; see platelayer inspect"
        )
    if strict and (missing or unknown):
        raise BadArgument(
            f"--strict: without prediction: {missing or 'none'}; without truth: {unknown or 'none'}"
        )
    pairs = {_name(key): (labelled, predicted.get(key)) for key, labelled in true.items()}
    return Compared(evaluate_dataset(_overlaps(pairs, on_image)), chosen, truth_name, pairs, missing, unknown)


def _name(key: Key) -> str:
    path, (t, z) = key
    return path if (t, z) == (0, 0) else f"{path} t{t} z{z}"


def _overlaps(
    pairs: Mapping[str, tuple[Labelled, Labelled | None]], on_image: Callable[[str], None]
) -> Iterator[tuple[str, Overlap, dict[str, Any]]]:
    for name, (true, found) in pairs.items():
        size = true.size
        if found is not None and found.size != size:
            raise BadArgument(
                f"{name}: expected labels of one shape, got truth {size} and prediction {found.size}"
            )
        read = found.read if found is not None else partial(_nothing)
        overlap = overlap_streamed(true.read, read, size)
        well = true.image.well
        yield name, overlap, {"well": well_name(*well)} if well else {}
        on_image(name)


def _nothing(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    return np.zeros((1, y1 - y0, x1 - x0), np.uint32)


def _labelled(place: str, name: str, *, like: str | None = None) -> dict[Key, Labelled]:
    """Planes that have labels of this name, in the order of the store."""
    return {
        (key, plane): Labelled(store, image, name, plane)
        for key, store, image in _images(place, like)
        if name in list_labels(store, image.path)
        for plane in image.planes
    }


def _images(place: str, like: str | None) -> Iterator[tuple[str, Address, Image]]:
    """Images of a store, or of every store in a folder, with a name that is the same on both sides."""
    for prefix, store, collection in _collections(address(place), address(like) if like else None):
        for image in collection.images:
            name = "/".join(part for part in (prefix, image.path) if part)
            yield name or "image", store, image


def _opened(store: Address, like: Address | None) -> Collection:
    """Images of a store; one that holds only results has those of the store ``like`` it."""
    try:
        return open_collection(store)
    except BadStore:
        if like is None or not store.exists():
            raise
        return open_collection(like)


def _collections(place: Address, like: Address | None) -> Iterator[tuple[str, Address, Collection]]:
    try:
        yield "", place, _opened(place, like)
        return
    except BadStore:
        stores = [name for name in place.children() if name.endswith(".zarr")] if place.exists() else []
        if not stores:
            raise
    for name in stores:
        store = place.child(name)
        yield name.removesuffix(".zarr"), store, _opened(store, like.child(name) if like else None)


def _only_name(place: str, like: str, truth_name: str) -> str:
    """The one label beside the truth, where there is just one."""
    names: dict[str, None] = {}
    for _, store, image in _images(place, like):
        names |= dict.fromkeys(name for name in list_labels(store, image.path) if name != truth_name)
    if len(names) != 1:
        there = ", ".join(names) or "none"
        raise BadArgument(
            f"{place}: expected one label beside {truth_name!r}, got {there}; choose with --prediction-name"
        )
    return next(iter(names))


def write_numbers(compared: Compared, folder: Address) -> None:
    """Write summary.json, metrics.parquet and matches.parquet."""
    evaluation = compared.evaluation
    summary = evaluation.summary | {"images": len(evaluation.images), "compared": compared.facts()}
    folder.write_bytes("metrics.parquet", table_bytes(evaluation.images))
    folder.write_bytes("matches.parquet", table_bytes(evaluation.matches))
    for name, table in evaluation.groups.items():
        folder.write_bytes(f"metrics_by_{name}.parquet", table_bytes(table))
    folder.write_bytes("summary.json", json.dumps(summary, indent=1).encode())
