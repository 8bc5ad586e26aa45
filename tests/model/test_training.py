"""The training loop: phases, resuming, best models, curves, recipes, and the picture it can learn."""

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import curves
from model.augment import Augment
from model.average import MovingAverage
from model.card import read_card
from model.checkpoint import load_checkpoint
from model.devices import choose_device
from model.errors import BadSample, NoDevice
from model.inference import predict
from model.method import Phase
from model.methods.layering import Layering
from model.networks.unet import UNetShape
from model.patches import Sample
from model.recipe import FOLDER, Optimiser, Recipe, read_recipe, recipe_from
from model.schedule import learning_rate
from model.training import About, train

Scene = tuple[np.ndarray, np.ndarray]


class Killed(Exception):
    """Stands for the process being killed."""


def kill_after(step: int) -> Callable[[int, int], None]:
    def on_step(done: int, whole: int) -> None:
        if done == step:
            raise Killed

    return on_step


def foreground_score(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    hits = [((p > 0).any(0) == (t > 0).any(0)).mean() for p, t in zip(predicted, true, strict=True)]
    return float(np.mean(hits))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder).network.state_dict()


@pytest.mark.parametrize("killed_at", [4, 6, 11])
def test_a_killed_training_resumes_to_the_same_weights(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path, killed_at: int
) -> None:
    samples: list[Sample] = [crossing]
    torch.set_num_threads(1)
    whole = train(small_recipe, samples, samples, tmp_path / "whole", score=foreground_score, device="cpu")
    with pytest.raises(Killed):
        train(
            small_recipe, samples, samples, tmp_path / "cut",
            score=foreground_score, device="cpu", on_step=kill_after(killed_at),
        )  # fmt: skip
    cut = train(small_recipe, samples, samples, tmp_path / "cut", score=foreground_score, device="cpu")
    assert (cut.steps, cut.score) == (whole.steps, whole.score)
    for name, value in weights(whole.folder).items():
        assert torch.equal(value, weights(cut.folder)[name]), name
    steps = [(row["phase"], row["step"]) for row in curves.read_table(tmp_path / "cut")]
    assert steps == [(row["phase"], row["step"]) for row in curves.read_table(tmp_path / "whole")]


def test_a_training_leaves_the_best_of_each_phase_curves_and_a_full_card(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path
) -> None:
    about = About(name="bars", normalise={"kind": "meanstd"}, licence="CC0", fields={"data": "generated"})
    done = train(small_recipe, [crossing], [crossing], tmp_path, device="cpu", about=about)
    assert done.folder == tmp_path / "phase2" and done.steps == 12
    card = read_card(tmp_path / "phase1")
    assert (card["name"], card["licence"], card["data"]) == ("bars", "CC0", "generated")
    assert card["training"]["phase"] == "phase1"
    assert recipe_from(card["training"]["recipe"]) == small_recipe
    rows = curves.read_table(tmp_path)
    assert [row["total_step"] for row in rows if row["validation_loss"]] == ["3", "6", "9", "12"]
    assert (tmp_path / curves.PICTURE).stat().st_size > 1000


def test_without_resume_a_folder_in_use_is_left_alone(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path
) -> None:
    short = replace(small_recipe, phases=small_recipe.phases[:1])
    train(short, [crossing], [], tmp_path, device="cpu")
    before = (tmp_path / "state.json").read_bytes()
    with pytest.raises(ValueError, match="holds a training"):
        train(short, [crossing], [], tmp_path, device="cpu", resume=False)
    with pytest.raises(ValueError, match="another recipe"):
        train(replace(short, seed=9), [crossing], [], tmp_path, device="cpu")
    assert (tmp_path / "state.json").read_bytes() == before


def test_a_state_from_before_a_setting_was_there_is_resumed(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path
) -> None:
    short = replace(small_recipe, phases=small_recipe.phases[:1])
    train(short, [crossing], [], tmp_path, device="cpu")
    state = json.loads((tmp_path / "state.json").read_text())
    del state["recipe"]["method"]["completion"]
    (tmp_path / "state.json").write_text(json.dumps(state))
    longer = replace(short, phases=(replace(short.phases[0], steps=8),))
    assert train(longer, [crossing], [], tmp_path, device="cpu").steps == 8


def test_a_training_starts_from_a_model_and_says_so(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path
) -> None:
    short = replace(small_recipe, phases=small_recipe.phases[:1])
    first = train(short, [crossing], [], tmp_path / "first", device="cpu")
    initial = load_checkpoint(first.folder)
    still = replace(short, phases=(replace(short.phases[0], steps=1, lr=1e-12, warmup=0),))
    second = train(still, [crossing], [], tmp_path / "second", device="cpu", initial=initial)
    for name, value in weights(first.folder).items():
        if "running" not in name and "batches" not in name:
            torch.testing.assert_close(value, weights(second.folder)[name], rtol=0, atol=1e-6)
    assert read_card(second.folder)["training"]["initial"] == initial.card["digest"]
    with pytest.raises(ValueError, match="another initial model"):
        train(still, [crossing], [], tmp_path / "second", device="cpu")
    other = replace(short, method=replace(short.method, shape=replace(short.method.shape, width=12)))
    with pytest.raises(ValueError, match="expected the network of the recipe"):
        train(other, [crossing], [], tmp_path / "third", device="cpu", initial=initial)


def test_bad_samples_are_refused_before_anything_is_written(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path
) -> None:
    image, stack = crossing
    deep = np.stack([np.where(stack[0] > 0, label, 0) for label in (1, 2, 3, 4)]).astype(np.uint32)
    with pytest.raises(BadSample, match="at most 3 objects"):
        train(small_recipe, [(image, deep)], [], tmp_path / "deep", device="cpu")
    with pytest.raises(BadSample, match="validation sample 1: expected 1 channels"):
        train(small_recipe, [crossing], [(np.repeat(image, 2, 0), stack)], tmp_path / "two", device="cpu")
    assert not list(tmp_path.iterdir())


def test_crossing_bars_are_learnt_with_the_crossing_in_both_masks(crossing: Scene, tmp_path: Path) -> None:
    """Few steps to AP 1.0 at every threshold up to 0.9, and 95 % of the crossing in both masks."""
    torch.set_num_threads(1)
    shape = UNetShape(
        heads={"layers": 4, "foreground": 1}, width=8, poolings=2, head_width=8, head_convs=1, fold=2,
        order="norm-relu",
    )  # fmt: skip
    terms = {"foreground": 1.0, "attraction": 1.0, "repulsion": 1.0, "sparsity": 0.1}
    still = Augment(
        exact=1, rotate=0, quarter_turns=False, elastic=0, gamma=0, contrast=0, brightness=0, noise=0,
        blur=0, paste=0,
    )  # fmt: skip
    phases = (
        Phase(name="phase1", steps=80, weights=terms, lr=1e-2),
        Phase(name="phase2", steps=120, weights=terms | {"overlap": 1.0}, lr=1e-2, start="last"),
    )
    recipe = Recipe(
        method=Layering(shape=shape, variant="code", min_area=20),
        phases=phases, augment=still, optimiser=Optimiser(clip_norm=1.0),
        batch=2, crop_px=64, validate_every=200, seed=1,
    )  # fmt: skip
    done = train(recipe, [crossing], [crossing], tmp_path, device="cpu")
    checkpoint = load_checkpoint(done.folder)
    image, truth = crossing
    found = predict(checkpoint.method, checkpoint.network, image)
    masks = [(found == label).any(0) for label in range(1, int(found.max()) + 1)]
    bars = [(truth == label).any(0) for label in (1, 2)]
    assert len(masks) == 2
    # As many masks as bars, and of each bar another one is above the threshold: AP is 1.
    best = [max((bar & mask).sum() / (bar | mask).sum() for mask in masks) for bar in bars]
    assert min(best) > 0.9
    assert (masks[0] & masks[1])[bars[0] & bars[1]].mean() >= 0.95
    apart = predict(checkpoint.method.without_overlaps(), checkpoint.network, image)
    assert (apart > 0).sum(0).max() == 1


def test_rates_of_the_schedules() -> None:
    stairs = Phase(name="a", steps=30_000, lr=1e-4, schedule="staircase")
    assert [learning_rate(stairs, step) for step in (0, 9_999, 10_000, 20_000)] == pytest.approx(
        [1e-4, 1e-4, 0.9e-4, 0.81e-4]
    )
    cosine = Phase(name="b", steps=110, lr=1.0, warmup=10, lr_end=0.1)
    rates = [learning_rate(cosine, step) for step in range(110)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == 1.0
    assert rates[60] == pytest.approx(0.55) and rates[109] == pytest.approx(0.1, abs=1e-3)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:]))


def test_the_average_follows_and_forgets_its_start() -> None:
    network = torch.nn.Linear(1, 1)
    average = MovingAverage(network, decay=0.9)
    with torch.no_grad():
        network.weight.fill_(5.0)
    for _ in range(100):
        average.update(network)
    assert float(average.network.weight) == pytest.approx(5.0, abs=1e-3)
    assert not average.network.weight.requires_grad
    assert MovingAverage(network, decay=0.0).network is network


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.toml")))
def test_shipped_recipes_are_read_and_come_back_from_json(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe_from(json.loads(json.dumps(recipe.as_dict()))) == recipe
    assert [phase.weights.keys() - {"overlap"} for phase in recipe.phases]
    if recipe.method.kind != "layering":
        return
    assert "overlap" in recipe.phases[-1].weights
    # What goes on from a trained model has its first phase behind it.
    assert ("overlap" in recipe.phases[0].weights) == (name == "house-knots")


def test_the_papers_recipe_has_the_papers_numbers() -> None:
    recipe = read_recipe("paper")
    assert recipe.method.shape == UNetShape()
    assert (recipe.optimiser.kind, recipe.optimiser.rho, recipe.optimiser.epsilon) == ("rmsprop", 0.9, 1e-7)
    assert (recipe.batch, recipe.phases[0].lr, recipe.phases[0].best) == (8, 1e-4, "loss")
    assert recipe.augment.elastic_px is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batches = 3", "recipe: expected names among"),
        ("[method]\nvariants = 'code'", "method: expected names"),
        ("crop_px = 100", "multiple of 32"),
        ("ema = 1.5", "ema"),
        ("[optimiser]\nkind = 'lion'", "lion"),
        ("[method]\nkind = 'layers'", r"method.kind: expected one of .*'layering'.*got 'layers'"),
        (
            "[[phases]]\nname = 'a'\nsteps = 1\nweights = {overlaps = 1.0}",
            r"loss terms among .*got \['overlaps'\]",
        ),
        ("phases = []", "at least one phase"),
    ],
)
def test_recipes_with_mistakes_are_refused(text: str, message: str) -> None:
    values = {"phases": [{"name": "a", "steps": 1}]} | tomllib.loads(text)
    with pytest.raises(ValueError, match=message):
        recipe_from(values)


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"house.*paper"):
        read_recipe("papers")


def test_devices_that_are_not_there_are_errors() -> None:
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="tpu"):
        choose_device("tpu")
    with pytest.raises(NoDevice, match="found"):
        choose_device(f"cuda:{torch.cuda.device_count()}")
