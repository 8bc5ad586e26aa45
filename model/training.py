"""The training loop: phases one after the other, the best model of each by its validation score.

The invariant: a training that was killed and resumed ends with the weights of an uninterrupted one (on a CPU,
same seed and threads), because a step depends on the state on disk and on its number only. It reads no store
and computes no metric: samples and score come in.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model import curves
from model.average import MovingAverage
from model.card import CARD
from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.devices import autocast, choose_device, placed
from model.inference import predict, seeded, validation_loss
from model.method import Method, Phase, Targets
from model.parallel import is_first, join, own_device, rank, share_of, spread, wait
from model.patches import Patches, Sample, check_depth, check_samples
from model.recipe import Recipe
from model.schedule import learning_rate, make_optimiser
from model.state import load_state, save_state

Score = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], float]
"""Predicted and true label stacks of all validation images to one number, larger is better."""

LOG_EVERY = 25
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class About:
    """What the card of the trained model says besides its numbers."""

    name: str = "model"
    """Name of the model."""
    normalise: Mapping[str, Any] | None = None
    """How the samples were normalised."""
    pixel_size_um: float | None = None
    """Pixel size of the samples."""
    licence: str = ""
    """Licence of the weights."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Anything else: data, citation, split."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training leaves: the folder of the best model of the last phase and its score."""

    folder: Path
    score: float
    steps: int


class Training:
    """The state of a run: network, its average, optimiser, place in the phases, best score."""

    def __init__(
        self, recipe: Recipe, *, channels: int, device: torch.device, initial: Checkpoint | None = None
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, device
        self.network = placed(recipe.method.network(channels), device)
        self.initial = ""
        if initial is not None:
            _check_initial(initial, self.network)
            self.network.load_state_dict(initial.network.state_dict())
            self.initial = initial.card["digest"]
        self.average = MovingAverage(self.network, decay=recipe.ema)
        self.phase_index, self.step, self.total, self.best, self.seconds = 0, 0, 0, -np.inf, 0.0
        self.optimiser = make_optimiser(recipe.optimiser, self.network)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "float16")

    @property
    def phase(self) -> Phase:
        """The phase that is being trained."""
        return self.recipe.phases[self.phase_index]

    def next_phase(self, start: nn.Module | None) -> None:
        """Go to the next phase, from the weights of ``start`` if given, with a fresh optimiser."""
        self.phase_index, self.step, self.best = self.phase_index + 1, 0, -np.inf
        if start is not None:
            self.network.load_state_dict(start.state_dict())
            self.average.restart(self.network)
        self.optimiser = make_optimiser(self.recipe.optimiser, self.network)


def train(
    recipe: Recipe,
    samples: Sequence[Sample],
    validation: Sequence[Sample],
    folder: str | Path,
    *,
    score: Score | None = None,
    initial: Checkpoint | None = None,
    device: str = "auto",
    resume: bool = True,
    about: About | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Trained:
    """Train all phases of a recipe and leave checkpoints, curves and the state to resume from in ``folder``.

    Every phase leaves its best model in ``<folder>/<phase>``; without ``score`` that is the one with the
    lowest validation loss. ``initial`` is the model whose weights to begin with, of the recipe's network (default:
    random weights). ``on_step`` is called with the steps done and the steps in all.

    Raises:
        BadSample: samples that do not fit each other, or overlap deeper than the network has layers.
        NoDevice: a GPU was asked for and is not there.
        ValueError: ``folder`` holds another training, or ``initial`` has another network.
    """
    stride = recipe.method.stride
    channels = check_samples(samples, least_px=stride)
    if validation:
        check_samples([*samples[:1], *validation], name="validation", least_px=stride)
    check_depth([*samples, *validation], layers=recipe.method.max_depth)
    join()
    share_of(recipe.batch)  # refuses a batch that cannot be dealt out, before anything is written
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    run = Training(recipe, channels=channels, device=choose_device(own_device(device)), initial=initial)
    load_state(target, run, resume=resume)
    patches = Patches(
        samples,
        crop_px=recipe.crop_px,
        augment=recipe.augment,
        prepare=recipe.method.prepare,
        seed=recipe.seed,
        device=run.device,
    )
    if is_first():
        curves.start_table(target, terms=recipe.method.terms, last_step=run.total)
    about = about or About()
    for _ in range(run.phase_index, len(recipe.phases)):
        _train_phase(run, patches, validation, target, score, about, on_step)
        if is_first():
            curves.draw(target)
        if run.phase_index + 1 < len(recipe.phases):
            following = recipe.phases[run.phase_index + 1]
            best = load_checkpoint(target / run.phase.name).network if following.start == "best" else None
            run.next_phase(best)
            _save(target, run)
    _save(target, run)
    return Trained(folder=target / run.phase.name, score=float(run.best), steps=run.total)


def _check_initial(initial: Checkpoint, network: Any) -> None:
    if initial.network.shape != network.shape:
        raise ValueError(
            f"initial model {initial.card['name']!r}: expected the network of the recipe and the samples, "
            f"{network.shape.as_dict()}, got {initial.network.shape.as_dict()}"
        )


def _train_phase(
    run: Training,
    patches: Patches,
    validation: Sequence[Sample],
    folder: Path,
    score: Score | None,
    about: About,
    on_step: Callable[[int, int], None] | None,
) -> None:
    """Train to the end of the current phase; the next batch is made while the current one is learnt."""
    recipe, share = run.recipe, share_of(run.recipe.batch)
    wrapped = spread(run.network, run.device)
    whole = sum(phase.steps for phase in recipe.phases)
    started = time.monotonic() - run.seconds

    def drawn(step: int) -> tuple[torch.Tensor, Targets]:
        batch = patches.batch(step, share, first=rank() * share)
        return batch.images, recipe.method.encode(batch.stacks, batch.prepared)

    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(drawn, run.total)
        while run.step < run.phase.steps:
            batch = waiting.result()
            waiting = ahead.submit(drawn, run.total + 1)
            terms = _learn(run, wrapped, *batch)
            run.step, run.total, run.seconds = run.step + 1, run.total + 1, time.monotonic() - started
            if on_step:
                on_step(run.total, whole)
            if run.step % LOG_EVERY == 0 and is_first():
                curves.add_row(folder, _row(run) | {name: float(value) for name, value in terms.items()})
            if run.step % recipe.validate_every == 0 or run.step == run.phase.steps:
                _validate(run, validation, folder, score, about)
                _save(folder, run)
                wait()


def _learn(
    run: Training, network: nn.Module, crops: torch.Tensor, encoded: Targets
) -> dict[str, torch.Tensor]:
    """Take one step; return the loss terms and their weighted sum as ``loss``."""
    method, phase, settings = run.recipe.method, run.phase, run.recipe.optimiser
    images = crops.to(run.device, memory_format=torch.channels_last, non_blocking=True)
    targets = encoded.to(run.device)
    generator = seeded(run.recipe.seed, run.total, rank())
    network.train()
    for group in run.optimiser.param_groups:
        group["lr"] = learning_rate(phase, run.step)
    with autocast(run.device, run.recipe.precision):
        terms = method.losses(network, images, targets, phase, generator)
    loss = torch.stack([phase.weights[name] * value for name, value in terms.items()]).sum()
    run.optimiser.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    if settings.clip_norm:
        run.scaler.unscale_(run.optimiser)
        nn.utils.clip_grad_norm_(run.network.parameters(), settings.clip_norm)
    run.scaler.step(run.optimiser)
    run.scaler.update()
    run.average.update(run.network)
    return {name: value.detach() for name, value in terms.items()} | {"loss": loss.detach()}


def _validate(
    run: Training, validation: Sequence[Sample], folder: Path, score: Score | None, about: About
) -> None:
    """Score the averaged network and keep it if it is the best of its phase so far."""
    if not is_first():
        return
    network, method = run.average.network.eval(), run.recipe.method
    truths = [truth for _, truth in validation]
    loss = validation_loss(method, network, validation, run.phase, device=run.device)
    value, row = -loss, _row(run) | {"validation_loss": float(loss)}
    if score is not None and validation:
        scored = score(
            [predict(method, network, image, device=run.device) for image, _ in validation], truths
        )
        value, row = (scored if run.phase.best == "score" else value), row | {"score": float(scored)}
    curves.add_row(folder, row)
    logger.info("%s step %d: %.4f, validation loss %.4f", run.phase.name, run.step, value, loss)
    early = run.step < run.recipe.validate_from and run.step < run.phase.steps
    if (value > run.best and not early) or not (folder / run.phase.name / CARD).is_file():
        run.best = max(value, run.best)
        keep(folder / run.phase.name, network, method, about, run=run, score=value)


def keep(folder: Path, network: Any, method: Method, about: About, *, run: Training, score: float) -> None:
    """Write the checkpoint of a run's averaged network with what is known about its training."""
    training = {
        "recipe": run.recipe.as_dict(),
        "phase": run.phase.name,
        "steps": run.total,
        "minutes": round(run.seconds / 60, 1),
        "validation_score": float(score),
    } | ({"initial": run.initial} if run.initial else {})
    save_checkpoint(
        folder,
        network=network,
        method=method,
        name=about.name,
        normalise=about.normalise,
        pixel_size_um=about.pixel_size_um,
        licence=about.licence,
        about={"training": training} | dict(about.fields),
    )


def _row(run: Training) -> dict[str, str | float]:
    return {
        "phase": run.phase.name,
        "step": run.step,
        "total_step": run.total,
        "seconds": round(run.seconds, 1),
        "lr": learning_rate(run.phase, run.step - 1),
    }


def _save(folder: Path, run: Training) -> None:
    if is_first():
        save_state(folder, run)
