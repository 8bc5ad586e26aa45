"""Cross-validation by groups: every image is segmented by a model that was trained on no image of its group.

A group is what images share that makes them easier for one another: slide, experiment, row of a plate. Each fold trains
a recipe from random weights on the images of the other folds. A part of those chooses the best model and the settings
of decoding, so that nothing of the fold itself decides anything.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flows.training.train import Example, Pair, score
from flows.training.tune import Trial, best_settings
from pipeline.errors import BadArgument

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.recipe import Recipe

WATCHED = 10
"""One training image in so many chooses the model and its settings instead."""
MOST_WATCHED = 24
"""Most images that are kept for it."""
VALIDATIONS = 4
"""Validations of a training, after each of which a killed one can be resumed."""
PLAN = "plan.json"
DONE = "done.json"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Member:
    """An image with truth and the group it belongs to."""

    name: str
    """Unique among the images."""
    group: str
    """Slide, experiment, row: images of one group are in one fold."""
    pair: Pair
    """Normalised image ``(C, y, x)`` and label stack ``(L, y, x)``."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A trained fold."""

    names: tuple[str, ...]
    """Its images, which the model did not see."""
    model: "Checkpoint"
    """The model trained on the other folds, with the settings chosen there."""
    facts: Mapping[str, Any]
    """Groups of the fold, settings of decoding, minutes, and scores on the watched images by step."""


def divide(groups: Sequence[str], folds: int) -> dict[str, int]:
    """Return the fold of each group: the largest group first, each to the fold with the fewest images so far.

    Args:
        groups: the group of every image.
        folds: number of folds.

    Raises:
        BadArgument: fewer than two folds, or fewer groups than folds.
    """
    sizes = Counter(groups)
    if not 2 <= folds <= len(sizes):
        raise BadArgument(f"folds: expected a number from 2 to that of the groups, {len(sizes)}, got {folds}")
    filled, chosen = [0] * folds, {}
    for group, size in sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0])):
        chosen[group] = filled.index(min(filled))
        filled[chosen[group]] += size
    return chosen


def train_folds(
    recipe: "Recipe",
    members: Sequence[Member],
    folds: int,
    folder: Path,
    *,
    device: str = "auto",
    say: Say = print,
) -> list[Fold]:
    """Train one model per fold in ``folder``; folds that are done are read, one that was killed is resumed.

    Raises:
        BadArgument: too few groups, or the folder holds folds of another recipe or other images.
    """
    chosen = divide([member.group for member in members], folds)
    _check_plan(folder, recipe, members, chosen)
    return [
        _fold(recipe, members, chosen, number, folder / f"fold{number}", device=device, say=say)
        for number in range(folds)
    ]


def _check_plan(folder: Path, recipe: "Recipe", members: Sequence[Member], chosen: Mapping[str, int]) -> None:
    """Note what is trained in a folder, or refuse it if it holds something else."""
    plan = {"recipe": recipe.as_dict(), "fold of each image": {m.name: chosen[m.group] for m in members}}
    text = json.dumps(plan, sort_keys=True, indent=1) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / PLAN).exists():
        _write_text(folder / PLAN, text)
    elif (folder / PLAN).read_text() != text:
        raise BadArgument(
            f"{str(folder)!r}: holds folds of another recipe, other steps or other images; name another folder"
        )


def _fold(
    recipe: "Recipe",
    members: Sequence[Member],
    chosen: Mapping[str, int],
    number: int,
    folder: Path,
    *,
    device: str,
    say: Say,
) -> Fold:
    from model.checkpoint import load_checkpoint
    from model.training.curves import read_table

    inside = [member for member in members if chosen[member.group] == number]
    learning = sorted(
        (m for m in members if chosen[m.group] != number), key=lambda member: (member.group, member.name)
    )
    if not (folder / DONE).exists():
        say(f"fold {number}: {len(inside)} images of {sorted({m.group for m in inside})} are not trained on")
        _train(recipe, learning, folder, device=device, say=say)
    done = json.loads((folder / DONE).read_text())
    model = load_checkpoint(folder / done["phase"])
    method = replace(cast(Any, model.method), **done["settings"])
    rows = [row for row in read_table(folder) if row["score"]]
    facts = {
        "groups": dict(Counter(member.group for member in inside)),
        "settings": done["settings"],
        "minutes": model.card["training"]["minutes"],
        "watched": [[int(row["total_step"]), round(float(row["score"]), 4)] for row in rows],
    }
    return Fold(names=tuple(m.name for m in inside), model=replace(model, method=method), facts=facts)


def _train(recipe: "Recipe", learning: Sequence[Member], folder: Path, *, device: str, say: Say) -> None:
    """Train the model of a fold, choose its settings on the watched images, and note both."""
    from model.checkpoint import load_checkpoint
    from model.training.loop import train

    every = max(WATCHED, -(-len(learning) // MOST_WATCHED))
    watched = learning[::every]
    seen = [member for number, member in enumerate(learning) if number % every]
    steps = max(phase.steps for phase in recipe.phases)
    trained = train(
        replace(recipe, validate_every=max(steps // VALIDATIONS, 1), validate_from=0),
        [member.pair for member in seen], [member.pair for member in watched], folder,
        score=score, device=device, say=say,
    )  # fmt: skip
    examples = [Example("watched", member.name, member.pair) for member in watched]
    trial = Trial(load_checkpoint(trained.folder), examples, device=device)
    settings = dict(best_settings(trial, trial.groups))
    _write_text(folder / DONE, json.dumps({"phase": trained.folder.name, "settings": settings}) + "\n")
    say(f"{folder.name}: {trained.steps} steps, settings {settings}")


def segmented(folds: Sequence[Fold], images: Mapping[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Return the label stack of each normalised image ``(C, y, x)``, by the model that did not see it.

    Stacks are kept in ``folder`` and read from it the next time.
    """
    from model.prediction.inference import predict

    stacks: dict[str, np.ndarray] = {}
    for number, fold in enumerate(folds):
        kept = folder / f"found{number}.npz"
        if not kept.exists():
            found = predict(fold.model.method, fold.model.network, [images[name] for name in fold.names])
            partial = kept.with_suffix(".partial.npz")
            folder.mkdir(parents=True, exist_ok=True)
            arrays_by_name: dict[str, Any] = dict(zip(fold.names, found, strict=True))
            np.savez_compressed(partial, **arrays_by_name)
            partial.replace(kept)
        with np.load(kept) as arrays:
            stacks |= {name: arrays[name] for name in fold.names}
    return stacks


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
