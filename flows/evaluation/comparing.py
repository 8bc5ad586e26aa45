"""Comparison of predicted and true label stacks of a dataset, image by image, with a block of pixels in memory.

Both sides are stores, plates or folders of stores, and may be the same. The objects of a truth without a prediction
count as missed; a prediction without a truth is listed and left out.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from flows.evaluation.sides import Key, Labelled, Place, labelled_planes, semantic_hint
from flows.execution.orchestrate import Step, direct
from pipeline.errors import BadArgument, BadStore
from pipeline.metrics.evaluation import Evaluation, Measured, assemble, measure
from pipeline.metrics.overlap import Overlap, overlap_streamed
from pipeline.report.layout import Layout, Spot, assign
from pipeline.report.wells import well_name
from pipeline.store.ome.collection import Collection, open_collection
from pipeline.store.ome.labels import list_labels
from pipeline.store.places.address import Address, address

TRUTH = "truth"
"""Default name of the true labels."""

MOST_HINTS = 2
"""Images with a single object whose parts are counted."""

MOST_GROUPS = 64
"""Groups of images an evaluation is cut into; each is one task where tasks are counted."""


Pair = tuple[Labelled, Labelled | None]
"""Truth and prediction of an image plane."""


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """Images and conditions that one side has and the other lacks."""

    without_prediction: list[str]
    """Images whose objects all count as missed."""
    without_truth: list[str]
    """Images that were left out."""
    without_condition: list[str] = field(default_factory=list)
    """Images that the layout does not name and that have no condition."""
    unknown_places: list[str] = field(default_factory=list)
    """Places of the layout without an image."""

    def named(self) -> dict[str, list[str]]:
        """The lists that are not empty, by a name for people."""
        return {name.replace("_", " "): names for name, names in vars(self).items() if names}

    def refuse(self) -> None:
        """Raise `BadArgument` if anything is missing on either side."""
        if problems := "; ".join(f"{what}: {', '.join(names)}" for what, names in self.named().items()):
            raise BadArgument(f"--strict: {problems}")


@dataclass(frozen=True)
class Compared:
    """An evaluation, its input, and the images that could not be compared."""

    evaluation: Evaluation
    prediction_name: str
    truth_name: str
    pairs: dict[str, Pair]
    """Truth and prediction of each image, by the name it has in the tables."""
    gaps: Gaps
    hints: tuple[str, ...] = ()
    """Signs that a side is not what it is taken for, one sentence each."""

    def facts(self) -> dict[str, Any]:
        """Remarks on both sides for readers of the numbers."""
        return {"prediction_name": self.prediction_name, "truth_name": self.truth_name, **vars(self.gaps)}


def compare(
    prediction: str,
    truth: str,
    *,
    prediction_name: str | None = None,
    truth_name: str = TRUTH,
    layout: Layout | None = None,
    strict: bool = False,
    split_components: bool = False,
    project: bool = False,
    step: Step = direct,
) -> Compared:
    """Evaluate every image of two sides; ``step`` calls the measuring of a group of images.

    Raises:
        BadArgument: no image has a truth, shapes differ, a stack is not valid, no place of the layout exists, or
            (strict) a side lacks images, or images their condition.
        BadStore: a side cannot be read.
    """
    images = list(_images(truth, None))
    true = labelled_planes(images, truth_name, components=split_components, project=project)
    if not true:
        names = dict.fromkeys(name for _, store, image in images for name in list_labels(store, image.path))
        raise BadArgument(
            f"{truth}: there is no truth to compare with: no image has labels {truth_name!r} (labels there: "
            f"{', '.join(names) or 'none'}); name the true labels with --truth-name, or their store with --truth"
        )
    chosen = prediction_name or _only_name(prediction, truth, truth_name)
    predicted = labelled_planes(
        _images(prediction, truth), chosen, components=split_components, project=project
    )
    _check_planes(true, predicted)
    gaps = Gaps(
        without_prediction=[_name(key) for key in true if key not in predicted],
        without_truth=[_name(key) for key in predicted if key not in true],
    )
    if len(gaps.without_prediction) == len(true):
        raise BadArgument(
            f"{prediction}: no image has labels {chosen!r} that the truth knows; see platelayer inspect"
        )
    pairs = {_name(key): (labelled, predicted.get(key)) for key, labelled in true.items()}
    extras, gaps = _described(pairs, images, layout, gaps)
    if strict:
        gaps.refuse()
    evaluation = assemble(_measured(pairs, extras, step))
    return Compared(evaluation, chosen, truth_name, pairs, gaps, tuple(_hints(evaluation, pairs)))


def _check_planes(true: Mapping[Key, Labelled], predicted: Mapping[Key, Labelled]) -> None:
    """Refuse to compare a flat label with the planes of a stack, because it is not known to which it belongs."""
    counts = [Counter(path for path, _ in side) for side in (true, predicted)]
    for path in counts[0].keys() & counts[1].keys():
        both = counts[0][path], counts[1][path]
        if 1 in both and both[0] != both[1]:
            raise BadArgument(
                f"{path}: expected both sides on the same planes, got truth on {both[0]} and prediction on {both[1]}; "
                "segment with --project max, or evaluate with --project max to compare the projections of both"
            )


def _hints(evaluation: Evaluation, pairs: Mapping[str, Pair]) -> Iterator[str]:
    """Yield remarks on images whose only object has many parts; a few images are enough."""
    images = evaluation.images
    for column, side in (("n_truth", 0), ("n_prediction", 1)):
        names = [name for name in images.loc[images[column] == 1, "image"] if name in pairs][:MOST_HINTS]
        for name in names:
            labelled = pairs[name][side]
            if labelled is not None and (hint := semantic_hint(labelled)):
                yield f"{name}: {hint}"


def _name(key: Key) -> str:
    path, (t, z) = key
    return path if (t, z) == (0, 0) else f"{path} t{t} z{z}"


def _described(
    pairs: Mapping[str, Pair], images: Sequence[Place], layout: Layout | None, gaps: Gaps
) -> tuple[dict[str, dict[str, Any]], Gaps]:
    """Plate, well and condition of every compared image; those without a condition are added to the gaps."""
    several = len({store.url for _, store, _ in images}) > 1
    spots = {name: _spot(name, true) for name, (true, _) in pairs.items()}
    extras: dict[str, dict[str, Any]] = {}
    for name, spot in spots.items():
        plate = {"plate": spot.plate} if several else {}
        well = f"{spot.plate} {spot.well}" if several else spot.well
        extras[name] = plate | ({"well": well} if spot.well else {})
    if layout is None:
        return extras, gaps
    unseen = [_spot(name, Labelled(store, image, "", (0, 0))) for name, store, image in images]
    everywhere = assign(layout, [*spots.values(), *unseen], name="--layout")
    for name in pairs:
        extras[name] |= {"condition": everywhere.conditions[name]}
    lacking = [name for name in everywhere.without_condition if name in pairs]
    return extras, replace(
        gaps, without_condition=list(dict.fromkeys(lacking)), unknown_places=everywhere.unknown_places
    )


def _spot(name: str, labelled: Labelled) -> Spot:
    well = labelled.image.well
    plate = labelled.address.name.removesuffix(".zarr")
    return Spot(image=name, plate=plate, well=well_name(*well) if well else "")


def _measured(
    pairs: Mapping[str, Pair], extras: Mapping[str, Mapping[str, Any]], step: Step
) -> list[Measured]:
    jobs = [(name, *pair, extras[name]) for name, pair in pairs.items()]
    size = -(-len(jobs) // MOST_GROUPS)
    results: list[Measured] = []
    for number, start in enumerate(range(0, len(jobs), size)):
        results += step(measure_group, jobs[start : start + size], name=f"compare group {number}")
    return results


def measure_group(jobs: Sequence[tuple[str, Labelled, Labelled | None, Mapping[str, Any]]]) -> list[Measured]:
    """Read and measure some images: name, truth, prediction, extra columns of each."""
    return [measure(name, _overlap(name, true, predicted), extra) for name, true, predicted, extra in jobs]


def _overlap(name: str, true: Labelled, predicted: Labelled | None) -> Overlap:
    size = true.size
    if predicted is not None and predicted.size != size:
        raise BadArgument(
            f"{name}: expected labels of one shape, got truth {size} and prediction {predicted.size}"
        )
    try:
        return overlap_streamed(true.read, predicted.read if predicted is not None else _nothing, size)
    except BadArgument as error:
        raise BadArgument(f"{name}: {error}") from None


def _nothing(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    return np.zeros((1, y1 - y0, x1 - x0), np.uint32)


def _images(place: str, like: str | None) -> Iterator[Place]:
    """Images of a store, or of every store in a folder, with a name that is the same on both sides."""
    for prefix, store, collection in _collections(address(place), address(like) if like else None):
        for image in collection.images:
            name = "/".join(part for part in (prefix, image.path) if part)
            yield name or "image", store, image


def _opened(store: Address, like: Address | None) -> Collection:
    """Images of a store; a store of results has those of the store ``like``."""
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
    """The only label beside the truth; an error where there are several."""
    names: dict[str, None] = {}
    for _, store, image in _images(place, like):
        names |= dict.fromkeys(name for name in list_labels(store, image.path) if name != truth_name)
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise BadArgument(
            f"{place}: expected one label beside {truth_name!r}, got {known}; choose with --prediction-name"
        )
    return next(iter(names))
