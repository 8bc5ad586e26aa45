"""The training loop: phases one after the other, the best model of each by its validation score.

A training that was killed and resumed ends with the weights of an uninterrupted one (on a CPU, same seed and threads),
because a step depends only on the saved state and on its number. Samples and the score come in as arguments; no store
is read and no metric is computed here.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from model.devices import autocast, choose_device
from model.errors import Diverged
from model.method import Targets
from model.networks.network import Network
from model.prediction.inference import predict, seeded, validation_loss
from model.recipe import Recipe
from model.samples.patches import Batch, Patches, Sample, check_depth, check_samples, digest_of_samples
from model.training import curves
from model.training.budget import Clock
from model.training.feed import Batches, feed, processes_for
from model.training.parallel import is_first, join, own_device, rank, share_of, spread, wait, world
from model.training.run import Run
from model.training.schedule import learning_rate
from model.training.state import StateWriter, load_state

Score = Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], float]
"""Predicted and true label stacks of all validation images to one number, larger is better."""

LOG_EVERY = 25
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class About:
    """Facts for the card of the trained model."""

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
    """The result of a training."""

    folder: Path
    """Folder of the best model of the run."""
    score: float
    """Its validation score, or its negated validation loss where that is the criterion."""
    steps: int
    """Steps of all phases so far."""
    initial_score: float | None = None
    """Score of the model the training started from, where there is one."""
    finished: bool = True
    """Whether all phases are done; otherwise another call resumes the training."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Input of the loop besides the state of the run."""

    patches: Patches
    validation: Sequence[Sample]
    folder: Path
    score: Score | None
    about: About
    states: StateWriter
    """Writes the state to resume from."""
    clock: Clock | None
    on_step: Callable[[int, int], None] | None
    say: Callable[[str], None]


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
    clock: Clock | None = None,
    on_step: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = logger.info,
) -> Trained:
    """Train all phases of a recipe and leave checkpoints, curves and the state to resume from in ``folder``.

    Every phase leaves its best model in ``<folder>/<phase>``; without ``score`` that is the one with the
    lowest validation loss. ``initial`` is the model whose weights to begin with, of the recipe's network (default:
    random weights); its score is computed first. ``clock`` sets the lengths of the phases by the time there is and
    ends the call when it is over. ``on_step`` is called with the steps done and the steps in all, ``say`` with a line
    per validation.

    Raises:
        BadSample: samples that do not fit each other, or overlap deeper than the network has layers.
        Diverged: a loss is not a number; the state and models written before are kept.
        NoDevice: a GPU was requested and is not available.
        ValueError: ``folder`` holds another training, or ``initial`` has another network.
    """
    stride = recipe.method.stride
    channels = check_samples(samples, least_px=stride)
    if validation:
        check_samples([*samples[:1], *validation], name="validation", least_px=stride)
    check_depth([*samples, *validation], layers=recipe.method.max_depth)
    join()
    if clock is not None and world() > 1:
        raise ValueError("minutes: expected one process, which has one clock; set steps instead")
    share_of(recipe.batch)  # raises for a batch that the processes cannot share, before anything is written
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    run = Run(recipe, channels=channels, device=choose_device(own_device(device)), initial=initial)
    digest = digest_of_samples([*samples, *validation])
    load_state(target, run, digest=digest, resume=resume)
    patches = Patches(
        samples,
        crop_px=recipe.crop_px,
        augment=recipe.augment,
        prepare=recipe.method.prepare,
        seed=recipe.seed,
    )
    job = Job(
        patches=patches, validation=validation, folder=target, score=score,
        about=about or About(), states=StateWriter(target, digest=digest), clock=clock, on_step=on_step, say=say,
    )  # fmt: skip
    if clock is not None and clock.is_over:
        raise ValueError(f"minutes: no time for one step in {clock.minutes!r}; give more")
    if is_first():
        curves.start_table(target, terms=recipe.method.terms, last_step=run.total or -1)
    if run.initial and not run.total:
        _score_initial(run, job)
    try:
        return _train_phases(run, job)
    finally:
        job.states.close()


def _train_phases(run: Run, job: Job) -> Trained:
    """Train the remaining phases within the time."""
    while _train_phase(run, job) and run.phase_index + 1 < len(run.recipe.phases):
        following = run.recipe.phases[run.phase_index + 1]
        best = load_checkpoint(job.folder / run.phase.name).network if following.start == "best" else None
        run.next_phase(best)
        _save(run, job)
    finished = run.phase_index + 1 == len(run.recipe.phases) and run.step == run.phase.steps
    _save(run, job)
    best_of_all = run.best_of_all
    return Trained(
        folder=job.folder / best_of_all.phase,
        score=best_of_all.score,
        steps=run.total,
        initial_score=run.initial_score if np.isfinite(run.initial_score) else None,
        finished=finished,
    )


def _train_phase(run: Run, job: Job) -> bool:
    """Train to the end of the current phase, batches prepared ahead; return whether the end was reached in time."""
    share = share_of(run.recipe.batch)
    wrapped = spread(run.network, run.device)
    started = time.monotonic() - run.seconds
    batches = Batches(job.patches, run.recipe.method, share, rank() * share)
    with closing(feed(batches, run.total, processes=processes_for(run.device))) as fed:
        in_time = True
        while run.step < run.phase.steps and in_time:
            batch, targets = next(fed)
            terms = _learn(run, wrapped, batch.images, targets)
            _check_finite(run, terms, batch)
            run.step, run.total, run.seconds = run.step + 1, run.total + 1, time.monotonic() - started
            in_time = _kept_to_the_clock(run, job)
            _after_step(run, job, terms, last=not in_time)
    if is_first():
        curves.draw(job.folder)
    return run.step == run.phase.steps


def _kept_to_the_clock(run: Run, job: Job) -> bool:
    """Set the lengths of the phases once the speed is known; return whether there is time for another step."""
    if job.clock is None:
        return True
    if job.clock.tick() and not run.timed:
        run.set_lengths(job.clock.lengths(run.recipe))
    return not job.clock.is_over


def _after_step(run: Run, job: Job, terms: Mapping[str, torch.Tensor], *, last: bool) -> None:
    """Report, log, validate and save at their intervals."""
    if job.on_step:
        job.on_step(run.total, sum(phase.steps for phase in run.recipe.phases))
    if run.step % LOG_EVERY == 0 and is_first():
        curves.add_row(job.folder, run.place | {name: float(value) for name, value in terms.items()})
    due = run.step % run.recipe.validate_every == 0 and (job.clock is None or job.clock.may_validate)
    if due or run.step == run.phase.steps or last:
        began = time.monotonic()
        _validate(run, job, last=last)
        if job.clock is not None:
            job.clock.validated(time.monotonic() - began)
        _save(run, job)
        wait()


def _learn(run: Run, network: nn.Module, crops: torch.Tensor, encoded: Targets) -> dict[str, torch.Tensor]:
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


def _check_finite(run: Run, terms: Mapping[str, torch.Tensor], batch: Batch) -> None:
    """Raise for a loss that is not a number: on a CPU after each step, on a GPU only when the losses are logged."""
    due = run.device.type == "cpu" or (run.step + 1) % LOG_EVERY == 0 or run.step + 1 == run.phase.steps
    if not due or bool(torch.stack([value.float() for value in terms.values()]).isfinite().all()):
        return
    name = next(name for name, value in terms.items() if not bool(value.isfinite()))
    raise Diverged(
        f"phase {run.phase.name!r}, step {run.step + 1}: expected a finite loss, but {name!r} is {float(terms[name])}; "
        f"the crops were of samples {sorted(set(batch.samples))}. The last good state is kept: "
        "lower lr or set optimiser.clip_norm, and start again"
    )


def _scored(run: Run, job: Job) -> tuple[float, str, dict[str, str | float]]:
    """Return the criterion of the averaged network, its name, and the columns for the curves.

    Raises:
        Diverged: the validation loss is not a number.
    """
    network, method = run.average.network.eval(), run.recipe.method
    together = run.recipe.batch if run.device.type == "cuda" else 1
    loss = validation_loss(method, network, job.validation, run.phase, device=run.device, together=together)
    if not np.isfinite(loss):
        raise Diverged(
            f"phase {run.phase.name!r}, step {run.step}: expected a finite validation loss, got {loss}; "
            "the last good state is kept: lower lr or set optimiser.clip_norm, and start again"
        )
    if job.score is None or not job.validation:
        return -loss, "loss", {"validation_loss": loss}
    images = [image for image, _ in job.validation]
    predicted = predict(method, network, images, device=run.device, together=together)
    score = float(job.score(predicted, [truth for _, truth in job.validation]))
    columns: dict[str, str | float] = {"validation_loss": loss, "score": score}
    return (score, "score", columns) if run.phase.best == "score" else (-loss, "loss", columns)


def _validate(run: Run, job: Job, *, last: bool) -> None:
    """Score the averaged network and keep it if it is the best of its phase so far."""
    if not is_first():
        return
    value, chosen_by, columns = _scored(run, job)
    curves.add_row(job.folder, run.place | columns)
    job.say(f"{run.phase.name} step {run.step}: {_words(columns)}")
    early = run.step < min(run.recipe.validate_from, run.phase.steps) and not last
    if value > run.best and not early:
        run.keep_best(value, chosen_by=chosen_by)
        _keep(run, job, value, chosen_by)


def _score_initial(run: Run, job: Job) -> None:
    """Score the model the training starts from, as the first row of the curves."""
    if not is_first() or not job.validation:
        return
    value, _, columns = _scored(run, job)
    run.initial_score = value
    curves.add_row(job.folder, run.place | {"phase": "initial"} | columns)
    job.say(f"starting model: {_words(columns)}")


def _words(columns: Mapping[str, str | float]) -> str:
    """Return scores with their names, for a line of progress."""
    return ", ".join(f"{name.replace('_', ' ')} {number:.4f}" for name, number in columns.items())


def _keep(run: Run, job: Job, score: float, chosen_by: str) -> None:
    """Write the checkpoint of the averaged network with what is known about its training."""
    training = {
        "recipe": run.recipe.as_dict(),
        "phase": run.phase.name,
        "steps": run.total,
        "minutes": round(run.seconds / 60, 1),
        "validation_score": score,
        "chosen_by": chosen_by,
    }
    if run.initial:
        training |= {"initial": run.initial, "initial_score": run.initial_score}
    about = job.about
    save_checkpoint(
        job.folder / run.phase.name,
        network=cast(Network, run.average.network),
        method=run.recipe.method,
        name=about.name,
        normalise=about.normalise,
        pixel_size_um=about.pixel_size_um,
        licence=about.licence,
        about={"training": training} | dict(about.fields),
    )


def _save(run: Run, job: Job) -> None:
    if is_first():
        job.states.save(run)
