"""Training from ingested stores: the pipeline's images and truth go to the model wing as plain arrays.

Validation never shares a well or an image with training. The score that chooses the best model is the
pipeline's own: pooled canonical mean AP.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.jobs import TrainJob
from flows.segmenters import model_folder
from pipeline.errors import BadArgument
from pipeline.metrics.precision import mean_average_precision
from pipeline.normalise import normalised
from pipeline.store.address import address
from pipeline.store.images import channel_index, open_collection
from pipeline.store.labels import list_labels, read_stack

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.training import Trained

VALIDATION_SHARE = 10
"""One well (or image) in so many validates when the job names no validation store."""

Pair = tuple[np.ndarray, np.ndarray]
"""Normalised image ``(C, y, x)`` and label stack ``(L, y, x)``."""


@dataclass(frozen=True)
class Example:
    """One plane to learn from."""

    group: str
    """Well or image: never on both sides of the split."""
    pair: Pair


def train_model(job: TrainJob, *, on_step: Callable[[int, int], None] | None = None) -> "Trained":
    """Train a model as a job says; a training that was killed goes on where it was."""
    from model.recipe import read_recipe, recipe_from
    from model.training import About, train

    initial = _initial(job) if job.initial else None
    recipe = recipe_from(_merged(read_recipe(job.recipe).as_dict(), job.change))
    if initial is not None:
        recipe = replace(recipe, method=replace(recipe.method, shape=initial.method.shape))
    learning, validating = split(job)
    about = About(
        name=job.name,
        normalise=_normalise(job),
        licence=job.source.licence,
        fields={"data": asdict(job.source)},
    )
    return train(
        recipe, [e.pair for e in learning], [e.pair for e in validating], job.folder,
        score=score, initial=initial, device=job.device, about=about, on_step=on_step,
    )  # fmt: skip


def _normalise(job: TrainJob) -> dict[str, Any]:
    return {name: v for name, v in asdict(job.normalise.filled(None)).items() if name != "scope"}


def _initial(job: TrainJob) -> "Checkpoint":
    """The model to start from; what it learnt holds for intensities as it knows them only."""
    from model.checkpoint import load_checkpoint

    initial = load_checkpoint(model_folder(job.initial))
    known = initial.card["normalise"]
    if known is not None and known != _normalise(job):
        raise BadArgument(
            f"initial model {job.initial!r}: expected its normalisation {known}, got {_normalise(job)}; "
            "set normalise to it"
        )
    return initial


def score(predictions: Sequence[np.ndarray], truths: Sequence[np.ndarray]) -> float:
    """Pooled canonical mean AP over IoU 0.5 to 0.9: what the best model is chosen by."""
    return mean_average_precision(zip(truths, predictions, strict=True))


def split(job: TrainJob) -> tuple[list[Example], list[Example]]:
    """Training and validation examples, in memory."""
    learning = list(_examples(job, job.data))
    if job.validation:
        return learning, list(_examples(job, job.validation))
    held = {group for group in {e.group for e in learning} if _bucket(group) == 0}
    if not held:
        held = {min({e.group for e in learning}, key=_digest)}
    return [e for e in learning if e.group not in held], [e for e in learning if e.group in held]


def _digest(group: str) -> int:
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16)


def _bucket(group: str) -> int:
    return _digest(group) % VALIDATION_SHARE


def _examples(job: TrainJob, stores: Iterable[str]) -> Iterator[Example]:
    found = False
    for store in stores:
        collection = open_collection(address(store))
        for image in collection.images:
            if job.truth not in list_labels(collection.address, image.path):
                continue
            channels = tuple(channel_index(image, c) for c in job.channel) or tuple(
                range(len(image.channels))
            )
            group = f"{store}/{'/'.join(image.well) if image.well else image.path}"
            for plane in image.planes:
                pixels = image.read(plane, channels, 0, image.size[0], 0, image.size[1])
                stack = read_stack(collection.address, image.path, job.truth, plane=plane)
                found = True
                yield Example(group, (normalised(pixels, job.normalise), stack))
    if not found:
        raise BadArgument(
            f"{', '.join(stores)}: no image has labels {job.truth!r}; ingest with truth, or set truth"
        )


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``change`` replaced, tables key by key."""
    result = dict(base)
    for key, entry in change.items():
        inner = result.get(key)
        if isinstance(inner, Mapping) and isinstance(entry, Mapping):
            entry = _merged(inner, entry)
        result[key] = entry
    return result
