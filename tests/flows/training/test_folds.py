"""Folds by group: no model sees the groups it is judged by, and a finished or killed fold is not trained again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.training import folds
from flows.training.folds import Member, divide, segmented, train_folds
from model.networks.unet import UNetShape
from model.recipe import Recipe, read_recipe
from model.training.budget import with_steps
from pipeline.errors import BadArgument


def test_groups_stay_whole_and_fill_the_folds_evenly() -> None:
    groups = ["a"] * 6 + ["b"] * 3 + ["c"] * 2 + ["d"]

    assert divide(groups, 2) == {"a": 0, "b": 1, "c": 1, "d": 1}
    assert divide(list(reversed(groups)), 2) == divide(groups, 2)


@pytest.mark.parametrize("count", [1, 4])
def test_a_number_of_folds_that_the_groups_cannot_fill_is_refused(count: int) -> None:
    with pytest.raises(BadArgument, match="from 2 to that of the groups, 3"):
        divide(["a", "b", "c"], count)


@pytest.fixture
def recipe() -> Recipe:
    known = read_recipe("unet3")
    heads = {"foreground": 1, "contour": 1}
    shape = UNetShape(heads=heads, width=2, poolings=1, head_width=2, head_convs=0, fold=1)
    return with_steps(replace(known, method=replace(known.method, shape=shape), batch=1, crop_px=32), 4)


def _members(groups: str) -> list[Member]:
    truth = np.zeros((1, 40, 40), np.uint32)
    truth[0, 5:20, 5:20], truth[0, 22:35, 20:38] = 1, 2
    return [
        Member(name=f"{group}{number}", group=group, pair=((truth > 0).astype(np.float32), truth))
        for number, group in enumerate(groups)
    ]


def test_no_model_sees_its_own_groups_and_folds_that_are_done_are_read(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = _members("aaabbc")
    learned: list[set[str]] = []
    real = folds._train

    def train(recipe: Recipe, learning: list[Member], folder: Path, **more: Any) -> None:
        learned.append({member.group for member in learning})
        real(recipe, learning, folder, **more)

    monkeypatch.setattr(folds, "_train", train)
    lines: list[str] = []
    trained = train_folds(recipe, members, 2, tmp_path, device="cpu", say=lines.append)

    assert learned == [{"b", "c"}, {"a"}]
    assert [fold.names for fold in trained] == [("a0", "a1", "a2"), ("b3", "b4", "c5")]
    assert [fold.facts["groups"] for fold in trained] == [{"a": 3}, {"b": 2, "c": 1}]
    assert all(fold.facts["watched"][-1][0] == 4 for fold in trained)
    stacks = segmented(trained, {m.name: m.pair[0] for m in members}, tmp_path / "found")
    assert {name: stack.shape[1:] for name, stack in stacks.items()} == {m.name: (40, 40) for m in members}

    again = train_folds(recipe, members, 2, tmp_path, device="cpu", say=lines.append)
    assert len(learned) == 2
    assert [fold.facts for fold in again] == [fold.facts for fold in trained]


def test_a_folder_of_other_folds_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    train_folds(recipe, _members("ab" * 2), 2, tmp_path, device="cpu", say=lambda line: None)

    with pytest.raises(BadArgument, match="another recipe, other steps or other images"):
        train_folds(with_steps(recipe, 5), _members("ab" * 2), 2, tmp_path, device="cpu")
