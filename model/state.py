"""The state of an unfinished training, in safetensors and JSON, from which it resumes.

The invariant: a state is written whole or not at all (tensors first, then the JSON that names them), and
belongs to one recipe; only the lengths of phases may be changed when resuming.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

from model.errors import BadCheckpoint
from model.recipe import Recipe, recipe_from

if TYPE_CHECKING:
    from model.training import Training

STATE = "state.json"
NUMBERS = ("phase_index", "step", "total", "best", "seconds")


def save_state(folder: Path, run: "Training") -> None:
    """Write network, average, optimiser and place; the state before is removed afterwards."""
    tensors = {f"network.{name}": value for name, value in run.network.state_dict().items()}
    if run.average.decay:
        tensors |= {f"average.{name}": value for name, value in run.average.network.state_dict().items()}
    for index, values in run.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    tensors |= {f"scaler.{name}": torch.tensor(value) for name, value in run.scaler.state_dict().items()}
    name = f"state-{run.total}-{run.phase_index}.safetensors"
    whole = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    save_file(whole, folder / f"{name}.partial")
    (folder / f"{name}.partial").replace(folder / name)
    numbers = {key: float(getattr(run, key)) for key in NUMBERS}
    numbers["best"] = max(numbers["best"], -1e30)
    record = {"tensors": name, "recipe": run.recipe.as_dict(), "updates": run.average.updates, **numbers}
    record |= {"initial": run.initial} if run.initial else {}
    partial = folder / f"{STATE}.partial"
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(folder / STATE)
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_state(folder: Path, run: "Training", *, resume: bool) -> None:
    """Bring ``run`` to the state in ``folder``; without one it stays at the start.

    Raises:
        ValueError: there is a state and ``resume`` is off, or it belongs to another recipe or initial model.
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
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise BadCheckpoint(f"{str(folder)!r}: expected a state to resume from, but {error}") from error
    if _fixed(recipe_from(record["recipe"])) != _fixed(run.recipe):
        raise ValueError(f"{str(folder)!r}: holds a training of another recipe; name another folder")
    if record.get("initial", "") != run.initial:
        raise ValueError(f"{str(folder)!r}: holds a training of another initial model; name another folder")
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
    run.best, run.seconds = record["best"], record["seconds"]


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _fixed(recipe: Recipe) -> Recipe:
    """The recipe without what may change when a training is resumed."""
    return replace(recipe, phases=tuple(replace(phase, steps=1) for phase in recipe.phases))
