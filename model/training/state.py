"""The saved state of an unfinished training, in safetensors and JSON, from which it resumes.

A state is written completely or not at all: tensors first, then the JSON file that names them. It belongs to one
recipe, one starting model and one set of samples; only the lengths of phases may change when resuming.
"""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.errors import BadCheckpoint
from model.recipe import Recipe, recipe_from
from model.training.run import Best, Run

STATE = "state.json"
INTEGERS = ("phase_index", "step", "total")
NUMBERS = ("best", "seconds", "initial_score")


class StateWriter:
    """Writes the states of a training in the background, one after the other."""

    def __init__(self, folder: Path, *, digest: str) -> None:
        """``digest``: that of the samples."""
        self._folder, self._digest = folder, digest
        self._pool = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def save(self, run: Run) -> None:
        """Copy network, average, optimiser and position, and begin to write them.

        Raises:
            OSError: the state before could not be written.
        """
        self._check()
        record, tensors = _record(run, self._digest), _tensors(run)
        self._writing = self._pool.submit(_write, self._folder, record, tensors)

    def close(self) -> None:
        """Return when everything is written; nothing can be saved after it.

        Raises:
            OSError: the last state could not be written.
        """
        self._pool.shutdown()
        self._check()

    def _check(self) -> None:
        """Wait for the state that is being written, and raise what went wrong."""
        if self._writing is not None:
            self._writing.result()


def _record(run: Run, digest: str) -> dict[str, Any]:
    """Return what a state holds besides tensors."""
    numbers = {key: getattr(run, key) for key in (*INTEGERS, *NUMBERS)}
    finite = {key: float(value) if np.isfinite(value) else None for key, value in numbers.items()}
    return finite | {
        "tensors": f"state-{run.total}-{run.phase_index}.safetensors",
        "recipe": run.recipe.as_dict(),
        "updates": run.average.updates,
        "initial": run.initial,
        "bests": [asdict(best) for best in run.bests],
        "data": digest,
        "timed": run.timed,
    }


def _write(folder: Path, record: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors, then the file that names them; the previous state is removed afterwards."""
    name = record["tensors"]
    save_file(tensors, folder / f"{name}.partial")
    (folder / f"{name}.partial").replace(folder / name)
    partial = folder / f"{STATE}.partial"
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(folder / STATE)
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def _tensors(run: Run) -> dict[str, torch.Tensor]:
    """Return all tensors of a run on the CPU, by name."""
    tensors = {f"network.{name}": value for name, value in run.network.state_dict().items()}
    if run.average.decay:
        tensors |= {f"average.{name}": value for name, value in run.average.network.state_dict().items()}
    for index, values in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    tensors |= {f"scaler.{name}": torch.tensor(value) for name, value in run.scaler.state_dict().items()}
    return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}


def load_state(folder: Path, run: Run, *, digest: str, resume: bool) -> None:
    """Bring ``run`` to the state in ``folder``; without one it stays at the start.

    Raises:
        ValueError: there is a state and ``resume`` is off, or it belongs to another recipe, other samples or another
            initial model.
        BadCheckpoint: the state cannot be read.
    """
    if not (folder / STATE).is_file():
        return
    if not resume:
        raise ValueError(
            f"{str(folder)!r}: expected an empty folder, but it holds a training; resume or name another"
        )
    try:
        record = json.loads((folder / STATE).read_text(encoding="utf-8"))
        tensors = load_file(folder / record["tensors"])
        saved = recipe_from(record["recipe"])
        _check_same(folder, record, saved, run, digest)
        _restore(run, record, saved, tensors)
    except (OSError, json.JSONDecodeError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise BadCheckpoint(
            f"{str(folder)!r}: expected a state to resume from, but {error}; name another folder"
        ) from error


def _check_same(folder: Path, record: dict[str, Any], saved: Recipe, run: Run, digest: str) -> None:
    """Refuse a state of another training."""
    if _fixed(saved) != _fixed(run.recipe):
        raise ValueError(f"{str(folder)!r}: holds a training of another recipe; name another folder")
    if record.get("initial", "") != run.initial:
        raise ValueError(f"{str(folder)!r}: holds a training of another initial model; name another folder")
    if record.get("data", digest) != digest:
        raise ValueError(
            f"{str(folder)!r}: holds a training on other data; name another folder, or restore the data "
            "(images, labels, split and normalisation) it began with"
        )


def _restore(run: Run, record: dict[str, Any], saved: Recipe, tensors: dict[str, torch.Tensor]) -> None:
    """Put a saved state into a run. Lengths that were set by the clock are those of the state."""
    if record.get("timed", False):
        run.timed = True
        run.set_lengths([phase.steps for phase in saved.phases])
    for _ in range(int(record["phase_index"])):
        run.next_phase(None)
    run.network.load_state_dict(_part(tensors, "network."))
    if run.average.decay:
        run.average.network.load_state_dict(_part(tensors, "average."))
        run.average.updates = int(record["updates"])
    _restore_optimiser(run.optimiser, _part(tensors, "optimiser."))
    scaler = {name: value.item() for name, value in _part(tensors, "scaler.").items()}
    run.scaler.load_state_dict(scaler) if scaler else None
    run.step, run.total = int(record["step"]), int(record["total"])
    known = {name: -np.inf if record.get(name) is None else float(record[name]) for name in NUMBERS}
    run.best, run.seconds, run.initial_score = (known[name] for name in NUMBERS)
    run.bests = [Best(**best) for best in record.get("bests", [])]


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _fixed(recipe: Recipe) -> Recipe:
    """Return a recipe without what may change when a training is resumed."""
    phases = tuple(replace(phase, steps=1) for phase in recipe.phases)
    return replace(recipe, phases=phases, validate_every=1)
