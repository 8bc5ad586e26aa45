"""Tuning of decoding after training: thresholds and the least area, by cross-validation over wells or images.

The weights are unchanged; the new model folder holds them with a new card that records how the settings were chosen,
and the arithmetic that was chosen with them.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flows.execution.segmenters import model_folder
from flows.jobs import TrainJob
from flows.training.precision import measured_precision
from flows.training.train import Example, examples_of, shuffled_groups
from model.card import CARD, WEIGHTS, digest_of, write_card
from pipeline.errors import BadArgument
from pipeline.metrics.overlap import overlap
from pipeline.metrics.precision import THRESHOLDS, average_precision, matched_counts
from pipeline.normalise import Normalise

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint

Settings = tuple[tuple[str, Any], ...]
"""Names and values of settings, hashable."""
AREA_SHARES = (0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0)
"""Least areas to try, in the area that 95 % of the true objects exceed."""

JUDGING = "object_threshold"
"""Setting of the methods that judge whole objects by their foreground probability."""
CERTAINTIES = (0.0, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
"""Its values to try."""


@dataclass(frozen=True)
class Tuned:
    """The chosen settings and their score."""

    folder: Path
    """Folder of the new model."""
    settings: dict[str, Any]
    """The chosen settings."""
    before: float
    """meanAP of the model before tuning, over all groups."""
    after: float
    """Cross-validated meanAP: every group is scored with settings chosen without it."""
    groups: int
    """Wells or images."""
    precision: dict[str, Any]
    """The arithmetic that was chosen, and the scores of all (`model.precision`)."""


def tune(
    model: str,
    data: Sequence[str],
    folder: str,
    *,
    truth: str = "truth",
    channel: tuple[str | int, ...] = (),
    folds: int = 5,
    device: str = "auto",
) -> Tuned:
    """Choose thresholds and the least area of a model on images with truth, and write it to a new folder.

    Raises:
        BadArgument: fewer than two groups, other channels than the model has, or a folder that holds a model.
    """
    from model.checkpoint import load_checkpoint

    target = Path(folder)
    if (target / CARD).exists():
        raise BadArgument(f"folder: expected a new one, but {folder!r} holds a model; name another")
    checkpoint = load_checkpoint(model_folder(model))
    trial = Trial(checkpoint, _examples(checkpoint, data, truth=truth, channel=channel), device=device)
    parts = _parts(trial.groups, folds)
    chosen, after = _cross_validated(trial, parts)
    before = trial.score(trial.present, trial.groups)
    method = replace(cast(Any, checkpoint.method), **dict(chosen))
    pairs = [example.pair for example in trial.examples]
    precision = measured_precision(replace(checkpoint, method=method), pairs, device=device)
    tuning = {
        "data": [Path(place).name for place in data],
        "meanAP_before": before,
        "meanAP_cross_validated": after,
        "from": checkpoint.card["digest"],
    }
    facts = {"tuning": tuning, "precision": precision}
    _write(model_folder(model), target, _card(checkpoint.card, dict(chosen)) | facts)
    return Tuned(target, dict(chosen), before, after, len(trial.groups), precision)


def _examples(
    checkpoint: "Checkpoint", data: Sequence[str], *, truth: str, channel: tuple[str | int, ...]
) -> list[Example]:
    """Read the images, normalised as the model expects them."""
    known = checkpoint.card["normalise"] or {"kind": "none"}
    job = TrainJob(
        data=tuple(data), folder="unused", truth=truth, channel=channel, normalise=Normalise(**known)
    )
    examples = examples_of(job)
    wanted, got = checkpoint.card["channels"], len(examples[0].pair[0])
    if got != wanted:
        raise BadArgument(f"channel: expected {wanted} channel(s) for this model, got {got}; name them")
    return examples


class Trial:
    """Decodes the outputs of a network under any settings and counts what is matched, group by group."""

    def __init__(self, checkpoint: "Checkpoint", examples: Sequence[Example], *, device: str) -> None:
        from model.devices import choose_device, placed
        from model.prediction.inference import outputs_of

        self.method = cast(Any, checkpoint.method)
        self.examples = examples
        self.groups = shuffled_groups(examples)
        where = choose_device(device)
        network = placed(checkpoint.network, where)
        self._outputs = [
            {
                name: value.cpu().numpy().astype(np.float16)
                for name, value in outputs_of(self.method, network, e.pair[0], device=where).items()
            }
            for e in examples
        ]
        self._known: dict[Settings, dict[str, np.ndarray]] = {}

    @property
    def present(self) -> Settings:
        """The settings of the model as it is."""
        names = (*self.method.tunable, *tuned_apart(self.method))
        return tuple((name, getattr(self.method, name)) for name in names)

    def thresholds(self) -> Iterator[Settings]:
        """Yield the present settings, then every combination of the values to try."""
        yield self.present
        names = list(self.method.tunable)
        for values in product(*self.method.tunable.values()):
            apart = [(name, getattr(self.method, name)) for name in tuned_apart(self.method)]
            yield (*zip(names, values, strict=True), *apart)

    def certainties(self, settings: Settings) -> Iterator[Settings]:
        """Yield settings with every threshold of whole objects to try, the present one first."""
        yield settings
        if JUDGING in dict(settings):
            for value in CERTAINTIES:
                yield tuple((k, value if k == JUDGING else v) for k, v in settings)

    def areas(self, settings: Settings) -> Iterator[Settings]:
        """Yield settings with every least area to try, the present one first."""
        yield settings
        areas = [np.bincount(stack.ravel())[1:] for stack in (e.pair[1] for e in self.examples)]
        usual = float(np.percentile(np.concatenate([part[part > 0] for part in areas]), 5))
        for share in AREA_SHARES:
            yield tuple((k, round(share * usual) if k == "min_area" else v) for k, v in settings)

    def score(self, settings: Settings, groups: Sequence[str]) -> float:
        """Return the pooled meanAP of some groups."""
        return mean_ap(sum(self.counts(settings)[group] for group in groups))

    def counts(self, settings: Settings) -> dict[str, np.ndarray]:
        """Return per group the matched objects at each IoU threshold, then the true and the predicted objects."""
        if settings not in self._known:
            method = replace(self.method, **dict(settings))
            counts = {group: np.zeros(len(THRESHOLDS) + 2, np.int64) for group in self.groups}
            for example, outputs in zip(self.examples, self._outputs, strict=True):
                image, truth = example.pair
                stack = method.decode({k: v.astype(np.float32) for k, v in outputs.items()}, image.shape[1:])
                both = overlap(truth, stack)
                matched = [matched_counts(both, threshold)[0] for threshold in THRESHOLDS]
                counts[example.group] += np.array([*matched, both.n_truth, both.n_prediction])
            self._known[settings] = counts
        return self._known[settings]


def mean_ap(counts: Any) -> float:
    """Return meanAP from matched objects per threshold, true and predicted objects."""
    matched, truths, predictions = counts[:-2], counts[-2], counts[-1]
    return float(np.mean(average_precision(matched, matched, truths, predictions)))


def _parts(groups: Sequence[str], folds: int) -> list[list[str]]:
    if len(groups) < 2 or folds < 2:
        raise BadArgument(
            f"data: expected at least two wells or images and two folds, got {len(groups)} and {folds}"
        )
    count = min(folds, len(groups))
    return [list(groups[number::count]) for number in range(count)]


def _cross_validated(trial: Trial, parts: Sequence[Sequence[str]]) -> tuple[Settings, float]:
    """Return the settings chosen on all groups, and the meanAP of each group with settings chosen without its part."""
    held = []
    for part in parts:
        others = [group for group in trial.groups if group not in part]
        counts = trial.counts(best_settings(trial, others))
        held += [counts[group] for group in part]
    return best_settings(trial, trial.groups), mean_ap(sum(held))


def best_settings(trial: Trial, groups: Sequence[str]) -> Settings:
    """Return the best thresholds for some groups, then the best threshold of whole objects with them, then the best
    least area; of equal ones the first."""

    def best(settings: Iterable[Settings]) -> Settings:
        return max(settings, key=lambda each: trial.score(each, groups))

    return best(trial.areas(best(trial.certainties(best(trial.thresholds())))))


def tuned_apart(method: Any) -> tuple[str, ...]:
    """Return the settings of a method that are tuned after its thresholds."""
    judges = any(entry.name == JUDGING for entry in fields(method))
    return (JUDGING, "min_area") if judges else ("min_area",)


def _card(card: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card with other settings; scores, which belong to the former ones, are left out."""
    kept = {name: value for name, value in card.items() if name != "scores"}
    changed = {"method": card["method"] | dict(settings), "min_area": settings["min_area"]}
    return kept | changed


def _write(source: Path, target: Path, card: dict[str, Any]) -> None:
    """Copy the weights to a new folder and write the card beside them."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / WEIGHTS, target / WEIGHTS)
    write_card(target, card | {"digest": digest_of(card)})
