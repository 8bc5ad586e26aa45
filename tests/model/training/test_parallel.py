"""Training in two processes on the CPU: what they learn, who writes, and what happens when one is gone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from train_in_processes import forget_forkserver, in_processes, train_here

from model.methods.layering import Layering
from model.recipe import Recipe
from model.training import curves, parallel

Scene = tuple[np.ndarray, np.ndarray]
DONE = {0: "done", 1: "done"}
WHOLE: dict[str, Path] = {}

ROUNDING = 1e-5
"""What the order of sums may change in a weight after twelve steps, each of which moves it by up to 0.01: gradients
summed in two parts differ in their seventh digit. Measured here: 1e-7; other crops or another rate: 0.1."""


@pytest.fixture(scope="module", autouse=True)
def forkserver() -> Iterator[None]:
    forget_forkserver()
    yield
    forget_forkserver()


@pytest.fixture
def recipe(small_recipe: Recipe) -> Recipe:
    """Adam divides a gradient by its own size, so rounding noise would move weights as far as a true one does.

    The bias in front of a batch norm has no other gradient; with this epsilon it stays where it is.
    """
    return replace(small_recipe, optimiser=replace(small_recipe.optimiser, epsilon=1e-3))


@pytest.fixture
def whole(recipe: Recipe, crossing: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training in two processes that nothing interrupted; the same one for all tests."""
    if "folder" not in WHOLE:
        folder = tmp_path_factory.mktemp("whole")
        assert in_processes(2, train_here, lambda rank: (recipe, [crossing], folder)) == DONE
        WHOLE["folder"] = folder
    return WHOLE["folder"]


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Network and average at the end of a training, batch norm statistics with them."""
    (state,) = folder.glob("state-*.safetensors")
    kinds = ("network.", "average.")
    return {k: v for k, v in load_file(state).items() if k.startswith(kinds) and v.is_floating_point()}


def largest_difference(one: Path, other: Path) -> float:
    a, b = last_weights(one), last_weights(other)
    assert a.keys() == b.keys() and len(a) > 20
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def places(folder: Path) -> list[tuple[str, str]]:
    return [(row["phase"], row["step"]) for row in curves.read_table(folder)]


def test_two_processes_learn_what_one_does_where_no_layer_looks_at_the_batch(
    recipe: Recipe, crossing: Scene, tmp_path: Path
) -> None:
    """Batch norm set aside: the crops are dealt out once each, and gradients are averaged before they are clipped."""
    # Validated at the end of a phase only: whoever does not wait for the first process finds no model to go on from.
    recipe = replace(recipe, validate_every=100)
    for count in (1, 2):
        ends = in_processes(count, train_here, lambda _: (recipe, [crossing], tmp_path / f"{count}", "known"))  # noqa: B023
        assert set(ends.values()) == {"done"}
    assert largest_difference(tmp_path / "1", tmp_path / "2") < ROUNDING
    assert places(tmp_path / "1") == places(tmp_path / "2")
    files = [sorted(str(p.relative_to(tmp_path / n)) for p in (tmp_path / n).rglob("*")) for n in "12"]
    assert files[0] == files[1]


def test_on_a_cpu_batch_norm_sees_the_crops_of_its_process(
    recipe: Recipe, crossing: Scene, whole: Path, tmp_path: Path
) -> None:
    """All that differs from one process: a batch is normalised in parts, and the first part's statistics are kept.

    A process that looks at its batch in halves learns the same; one that looks at it whole does not.
    """
    for norm in ("halves", "own"):
        ends = in_processes(1, train_here, lambda _: (recipe, [crossing], tmp_path / norm, norm))  # noqa: B023
        assert ends == {0: "done"}
    assert largest_difference(whole, tmp_path / "halves") < ROUNDING
    assert largest_difference(whole, tmp_path / "own") > 1000 * ROUNDING


def test_only_the_first_process_writes(recipe: Recipe, crossing: Scene, tmp_path: Path) -> None:
    # One phase: the second process reads nothing that the first one wrote, so each may have a folder of its own.
    short = replace(recipe, phases=recipe.phases[:1])
    ends = in_processes(2, train_here, lambda rank: (short, [crossing], tmp_path / str(rank)))
    assert ends == DONE
    assert places(tmp_path / "0") == [("phase1", "3"), ("phase1", "6")]
    assert not list((tmp_path / "1").iterdir())


def test_two_processes_go_on_after_one_was_killed_and_then_have_nothing_to_do(
    recipe: Recipe, crossing: Scene, whole: Path, tmp_path: Path
) -> None:
    """Step 8 is in the second phase, two steps after a state was written and one before the next."""
    ends = in_processes(
        2, train_here, lambda rank: (recipe, [crossing], tmp_path, "own", 8 if rank == 1 else None)
    )
    assert list(ends) == [0] and "Error" in ends[0]
    assert [p.name for p in tmp_path.glob("state-*")] == ["state-6-1.safetensors"]
    assert in_processes(2, train_here, lambda rank: (recipe, [crossing], tmp_path)) == DONE
    assert largest_difference(tmp_path, whole) == 0
    assert places(tmp_path) == places(whole)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    # Who took a step now would be killed.
    assert in_processes(2, train_here, lambda rank: (recipe, [crossing], tmp_path, "own", 12)) == DONE
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")} == before


def test_a_batch_that_cannot_be_dealt_out_is_an_error_in_every_process(
    recipe: Recipe, crossing: Scene, tmp_path: Path
) -> None:
    odd = replace(recipe, batch=3)
    ends = in_processes(2, train_here, lambda rank: (odd, [crossing], tmp_path))
    assert sorted(ends) == [0, 1]
    for words in ends.values():
        assert "ValueError: recipe batch: expected a multiple of the 2 processes, got 3" in words
    assert not list(tmp_path.rglob("*.safetensors"))


def test_on_gpus_batch_norm_sees_the_whole_batch(tiny: Layering, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed to see that an optimiser and a state made before still fit."""
    monkeypatch.setattr(parallel, "world", lambda: 2)
    monkeypatch.setattr(parallel, "DistributedDataParallel", lambda network, device_ids: network)
    network = tiny.network(1)
    known, names = list(network.parameters()), list(network.state_dict())
    for _ in range(2):  # Once per phase.
        spread = parallel.spread(network, torch.device("cuda", 0))
        assert spread is network and not any(type(part) is nn.BatchNorm2d for part in spread.modules())
        assert sum(isinstance(part, nn.SyncBatchNorm) for part in spread.modules()) > 5
        assert all(a is b for a, b in zip(known, spread.parameters(), strict=True))
        assert list(spread.state_dict()) == names
    on_cpu = parallel.spread(tiny.network(1), torch.device("cpu"))
    assert not any(isinstance(part, nn.SyncBatchNorm) for part in on_cpu.modules())


@pytest.mark.parametrize(
    ("name", "own"), [("auto", "cuda:1"), ("cuda", "cuda:1"), ("cpu", "cpu"), ("cuda:3", "cuda:3")]
)
def test_a_process_has_a_gpu_of_its_own_unless_one_was_named(
    name: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "world", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert parallel.own_device(name) == own
    monkeypatch.setattr(parallel, "world", lambda: 1)
    assert parallel.own_device(name) == name
