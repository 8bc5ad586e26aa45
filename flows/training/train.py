"""Training from ingested stores: images and truth are read by `pipeline` and passed to `model` as plain arrays.

Validation never shares a well or an image with training. The score that chooses the best model is the
pipeline's own: pooled canonical mean AP.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import TypeAdapter, ValidationError

from flows.execution.segmenters import model_folder
from flows.jobs import TrainJob, read_toml
from flows.training.changes import merged
from flows.training.classes import coded, read_classes
from flows.training.page import write_training_page
from flows.training.precision import decide_precision
from model.card import read_card
from model.precision import in_words
from pipeline.errors import BadArgument
from pipeline.metrics.precision import mean_average_precision
from pipeline.normalise import normalised
from pipeline.store.ome.collection import Image, channel_index, open_collection
from pipeline.store.ome.labels import list_labels, open_label, read_stack, stack_layers
from pipeline.store.places.address import Address, address

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.recipe import Recipe
    from model.training.loop import Trained

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 10
"""One of so many wells (or images) is used for validation when the job names no validation store."""

Pair = tuple[np.ndarray, np.ndarray]
"""Normalised image ``(C, y, x)`` and label stack ``(L, y, x)``."""


@dataclass(frozen=True)
class Example:
    """One plane to learn from."""

    store: str
    """Absolute address of its store."""
    place: str
    """Its well, or the path of its image where there are no wells."""
    pair: Pair

    @property
    def group(self) -> str:
        """Well or image: never on both sides of the split."""
        return f"{self.store}/{self.place}".rstrip("/")

    @property
    def name(self) -> str:
        """The group without the place of its store."""
        return f"{address(self.store).name}/{self.place}"


def train_model(
    job: TrainJob,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    on_step: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = logger.info,
) -> "Trained":
    """Train a model as a job says, in phases shortened to ``steps`` or ``minutes``; a killed training is resumed."""
    from model.training.budget import Clock
    from model.training.curves import read_table
    from model.training.loop import About, train
    from model.training.parallel import is_first

    initial, recipe = prepared_recipe(job, steps=steps)
    clock = Clock(minutes=minutes) if minutes is not None else None
    learning, validating = split(job, classes=recipe.method.classes)
    curves_before = read_table(Path(job.folder))
    trained = train(
        recipe, [e.pair for e in learning], [e.pair for e in validating], job.folder,
        score=score, initial=initial, device=job.device, about=About(**_about(job)), clock=clock,
        on_step=on_step, say=say,
    )  # fmt: skip
    if is_first():
        write_training_page(job, Path(job.folder), curves_before)
        if trained.finished and "precision" not in read_card(trained.folder):
            pairs = [e.pair for e in validating]
            say(in_words(decide_precision(trained.folder, pairs, device=job.device)))
    return trained


def pack(job: TrainJob, path: str) -> int:
    """Write the samples of a job into one file for `model.fit`; return its size in bytes."""
    from model.samples.packing import write_packed

    learning, validating = split(job, classes=prepared_recipe(job)[1].method.classes)
    return write_packed(path, [e.pair for e in learning], [e.pair for e in validating], _about(job))


def _about(job: TrainJob) -> dict[str, Any]:
    """Return what the card of the model says of its data, as plain values."""
    return {
        "name": job.name,
        "normalise": _normalise(job),
        "licence": job.source.licence,
        "fields": {"data": asdict(job.source)},
    }


def prepared_recipe(job: TrainJob, *, steps: int | None = None) -> tuple["Checkpoint | None", "Recipe"]:
    """Return the model to start from, where the job names one, and the recipe with all changes."""
    from model.training.budget import with_steps

    initial = _initial(job) if job.initial else None
    recipe = _recipe(job)
    if initial is not None:
        recipe = _going_on_from(initial, recipe, job)
    return initial, with_steps(recipe, steps) if steps is not None else recipe


def _recipe(job: TrainJob) -> "Recipe":
    """The recipe with the changes of the job, every value of the type its field has."""
    from model.recipe import read_recipe, recipe_from

    with _mistakes_in(f"recipe {job.recipe!r}"):
        recipe = _typed(read_recipe(job.recipe))
    with _mistakes_in("change"):
        return _typed(recipe_from(merged(recipe.as_dict(), job.change)))


def _typed(recipe: "Recipe") -> "Recipe":
    """The same recipe, after the types of all its values were checked."""
    values = recipe.as_dict()
    settings = {name: value for name, value in values["method"].items() if name != "kind"}
    method = TypeAdapter(type(recipe.method)).validate_python(settings)
    return TypeAdapter(type(recipe)).validate_python(values | {"method": method})


def _going_on_from(initial: "Checkpoint", recipe: "Recipe", job: TrainJob) -> "Recipe":
    """Return the recipe with the network of a model of the same method, and what was chosen for it.

    Thresholds and the least area are those of the model, unless the job or its own recipe file sets them.
    """
    if initial.method.kind != recipe.method.kind:
        raise BadArgument(
            f"initial model {job.initial!r}: expected one of the method {recipe.method.kind!r} like the recipe, "
            f"got {initial.method.kind!r}; name another model or recipe"
        )
    chosen = {*recipe.method.tunable, "min_area", "object_threshold"} - _set_by(job)
    kept = {name: getattr(initial.method, name) for name in sorted(chosen & set(initial.method.as_dict()))}
    return replace(recipe, method=replace(cast(Any, recipe.method), shape=initial.method.shape, **kept))


def _set_by(job: TrainJob) -> set[str]:
    """Return the settings of the method that the job, or a recipe file that is not a shipped one, names."""
    named = dict(job.change.get("method", {}))
    if job.recipe.endswith(".toml"):
        named |= read_toml(job.recipe).get("method", {})
    return set(named)


@contextmanager
def _mistakes_in(what: str) -> Iterator[None]:
    """Prefix errors of the recipe with the place of the mistake."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadArgument(f"{what}: {place}: {first['msg']}, got {first['input']!r}") from None
    except (AttributeError, TypeError) as error:
        # A recipe compares its numbers on construction, before their types are checked.
        raise BadArgument(
            f"{what}: expected values of the types they have in the shipped recipes, but {error}"
        ) from None
    except ValueError as error:
        raise BadArgument(f"{what}: {error}") from None


def _normalise(job: TrainJob) -> dict[str, Any]:
    return {name: v for name, v in asdict(job.normalise.filled(None)).items() if name != "scope"}


def _initial(job: TrainJob) -> "Checkpoint":
    """The model to start from; its weights are valid for intensities normalised as in its training only."""
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
    """Pooled canonical mean AP over IoU 0.5 to 0.9, whatever the classes, by which the best model is chosen."""
    from model.classes import without_classes

    return mean_average_precision(zip(map(without_classes, truths), predictions, strict=True))


def split(job: TrainJob, *, classes: Sequence[str] = ()) -> tuple[list[Example], list[Example]]:
    """Training and validation examples, in memory; no well or image is on both sides.

    With names of ``classes`` the ids of the label stacks hold the classes of the objects (`model.classes`).

    Raises:
        BadArgument: a validation store shares one with the data, or there is only one to choose from.
    """
    learning = list(_examples(job, job.data, classes))
    if job.validation:
        validating = list(_examples(job, job.validation, classes))
        _check_apart({e.group for e in learning}, {e.group for e in validating})
        _check_channels([*learning, *validating])
        return learning, validating
    _check_channels(learning)
    numbers = _numbers(learning)
    if len(numbers) == 1:
        raise BadArgument(
            f"data: expected at least two wells or images, one of them to validate, got {learning[0].group} alone; "
            "name other stores as validation"
        )
    held = {group for group, number in numbers.items() if number % VALIDATION_SHARE == 0}
    if not held or len(held) == len(numbers):
        held = {min(numbers, key=lambda group: (numbers[group], group))}
    return [e for e in learning if e.group not in held], [e for e in learning if e.group in held]


def examples_of(job: TrainJob) -> list[Example]:
    """Return all examples of the data of a job, of equal channels."""
    examples = list(_examples(job, job.data))
    _check_channels(examples)
    return examples


def shuffled_groups(examples: Iterable[Example]) -> list[str]:
    """Return the wells or images of examples, in an order that does not depend on the paths of their stores."""
    numbers = _numbers(examples)
    return sorted(numbers, key=lambda group: (numbers[group], group))


def _numbers(examples: Iterable[Example]) -> dict[str, int]:
    """Key that decides the side of a group; independent of the path of its store and of its spelling in the job."""
    numbers: dict[str, int] = {}
    seen: Counter[str] = Counter()
    for group, name in sorted({(e.group, e.name) for e in examples}):
        # Stores in several folders may have the same name, and yet different images.
        numbers[group] = _digest(f"{name}#{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return numbers


def _digest(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def _check_apart(learning: set[str], validating: set[str]) -> None:
    """Refuse groups on both sides; one side may name a plate and the other a well or an image of it."""
    shared = [v for v in sorted(validating) if any(_within(v, g) or _within(g, v) for g in learning)]
    if shared:
        raise BadArgument(
            f"validation: expected wells or images that are not in data, got {shared[0]} and {len(shared) - 1} more "
            "that are in both; take them out of one"
        )


def _within(inner: str, outer: str) -> bool:
    return f"{inner}/".startswith(f"{outer}/")


def _check_channels(examples: Sequence[Example]) -> None:
    first = examples[0]
    for other in examples:
        if len(other.pair[0]) != len(first.pair[0]):
            raise BadArgument(
                f"{other.group}: expected {len(first.pair[0])} channel(s) like {first.group}, "
                f"got {len(other.pair[0])}; name the channels to learn from, which every image must have"
            )


def _examples(job: TrainJob, stores: Iterable[str], classes: Sequence[str] = ()) -> Iterator[Example]:
    if job.normalise.scope != "image":
        raise BadArgument(
            f"normalise.scope: expected 'image', the only one that training knows, got {job.normalise.scope!r}"
        )
    for store in stores:
        collection = open_collection(address(store))
        for message in collection.missing:
            logger.warning("left out: %s", message)
        known = [i for i in collection.images if job.truth in list_labels(collection.address, i.path)]
        if not known:
            raise BadArgument(f"{store}: no image has labels {job.truth!r}; ingest with truth, or set truth")
        for image in known:
            yield from _planes(job, collection.address, image, classes)


def _planes(job: TrainJob, store: Address, image: Image, classes: Sequence[str]) -> Iterator[Example]:
    """All planes of an image share their limits, as they do when it is segmented."""
    image = image.projected("max" if job.project == "max" else "")
    _check_planes(job, store, image)
    channels = tuple(channel_index(image, c) for c in job.channel) or tuple(range(len(image.channels)))
    planes = [image.read(plane, channels, 0, image.size[0], 0, image.size[1]) for plane in image.planes]
    pixels = normalised(np.stack(planes, axis=1), job.normalise)
    place = "/".join(image.well) if image.well else image.path
    class_of_id = read_classes(store, image.path, job.truth, classes) if classes else {}
    for plane, one in zip(image.planes, np.moveaxis(pixels, 1, 0)):
        stack = read_stack(store, image.path, job.truth, plane=plane, project=job.project == "max")
        stack = coded(stack, class_of_id, where=f"{store}/{image.path}") if classes else stack
        yield Example(str(store), place, (one, stack))


def _check_planes(job: TrainJob, store: Address, image: Image) -> None:
    """Refuse flat truth beside a z stack: nothing says which plane it belongs to."""
    true = open_label(store, image.path, stack_layers(store, image.path, job.truth)[0])
    if "z" not in true.axes and len({z for _, z in image.planes}) > 1:
        raise BadArgument(
            f"{image.place}: the labels {job.truth!r} are flat and the image has {len(image.planes)} planes; if they "
            "belong to the maximum over z, set project to max (--set project=max)"
        )
