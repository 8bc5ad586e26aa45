"""The training loop: phases, resuming, best models, curves, recipes, and the picture it can learn."""

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.card import read_card
from model.checkpoint import load_checkpoint
from model.devices import choose_device
from model.errors import BadSample, Diverged, NoDevice
from model.method import Phase
from model.methods.layering import Layering
from model.networks.unet import UNetShape
from model.prediction.inference import predict, validation_loss
from model.recipe import FOLDER, Optimiser, Recipe, read_recipe, recipe_from
from model.samples.augment import Augment, sampling_grid
from model.samples.patches import Patches, Sample
from model.training.average import MovingAverage
from model.training.loop import About, curves, train
from model.training.schedule import learning_rate

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


def test_a_pixel_that_is_not_a_number_is_named_before_the_first_step(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path
) -> None:
    image, stack = crossing
    broken = image.copy()
    broken[0, 3, 5] = np.nan
    with pytest.raises(BadSample, match=r"training sample 1: .* got nan in channel 0 at y=3, x=5"):
        train(small_recipe, [crossing, (broken, stack)], [], tmp_path, device="cpu")
    with pytest.raises(BadSample, match="validation sample 1"):
        train(small_recipe, [crossing], [(broken, stack)], tmp_path, device="cpu")


def test_a_loss_that_is_not_a_number_stops_the_training_and_keeps_the_last_good_state(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = Layering.losses
    monkeypatch.setattr(
        Layering,
        "losses",
        lambda self, network, images, targets, phase, generator: (
            losses(self, network, images, targets, phase, generator)
            | ({"repulsion": images.sum() * np.nan} if steps and steps[-1] == 4 else {})
        ),
    )
    steps: list[int] = []
    with pytest.raises(Diverged, match=r"'phase1', step 5: .*'repulsion' is nan; .* samples \[0\]"):
        train(
            small_recipe, [crossing], [crossing], tmp_path,
            device="cpu", on_step=lambda done, whole: steps.append(done),
        )  # fmt: skip
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["step"] == 3 and read_card(tmp_path / "phase1")["training"]["steps"] == 3
    assert all(value.isfinite().all() for value in load_file(tmp_path / state["tensors"]).values())
    monkeypatch.setattr(Layering, "losses", losses)
    assert train(small_recipe, [crossing], [crossing], tmp_path, device="cpu").steps == 12


def scores_in_turn(*scores: float) -> Callable[..., float]:
    """A score that gives these numbers one after the other."""
    left = list(scores)
    return lambda predicted, true: left.pop(0)


def test_models_before_the_step_of_validate_from_are_not_kept(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path
) -> None:
    phase = replace(small_recipe.phases[0], steps=30)
    recipe = replace(small_recipe, phases=(phase,), validate_every=10, validate_from=20)
    done = train(recipe, [crossing], [crossing], tmp_path, device="cpu", score=scores_in_turn(0.9, 0.5, 0.6))
    assert done.score == 0.6 and read_card(done.folder)["training"]["steps"] == 30


def test_the_best_of_all_phases_is_the_result(crossing: Scene, small_recipe: Recipe, tmp_path: Path) -> None:
    scores = scores_in_turn(0.4, 0.7, 0.5, 0.6)
    done = train(small_recipe, [crossing], [crossing], tmp_path, device="cpu", score=scores)
    assert (done.folder, done.score) == (tmp_path / "phase1", 0.7)
    again = train(small_recipe, [crossing], [crossing], tmp_path, device="cpu", score=scores)
    assert (again.folder, again.score, again.steps) == (done.folder, done.score, 12)


def test_the_starting_model_is_scored_first_and_lines_say_what_their_numbers_are(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path
) -> None:
    short = replace(small_recipe, phases=small_recipe.phases[:1])
    first = train(short, [crossing], [], tmp_path / "first", device="cpu")
    lines: list[str] = []
    second = train(
        short, [crossing], [crossing], tmp_path / "second", device="cpu", say=lines.append,
        initial=load_checkpoint(first.folder), score=scores_in_turn(0.8, 0.3, 0.5),
    )  # fmt: skip
    assert (second.initial_score, second.score) == (0.8, 0.5)
    assert lines[0].startswith("starting model: validation loss ") and lines[0].endswith(", score 0.8000")
    assert lines[1].startswith("phase1 step 3: validation loss ") and lines[1].endswith(", score 0.3000")
    row = curves.read_table(tmp_path / "second")[0]
    assert (row["phase"], row["total_step"], row["score"]) == ("initial", "0", "0.8")
    assert read_card(second.folder)["training"]["initial_score"] == 0.8


def test_other_data_is_not_gone_on_with(crossing: Scene, small_recipe: Recipe, tmp_path: Path) -> None:
    image, stack = crossing
    short = replace(small_recipe, phases=small_recipe.phases[:1])
    train(short, [crossing], [], tmp_path, device="cpu")
    for sample in ((image + 1, stack), (image, stack[::-1])):
        with pytest.raises(ValueError, match="training on other data"):
            train(short, [sample], [], tmp_path, device="cpu")
    assert train(short, [crossing], [], tmp_path, device="cpu").steps == 6


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
    found = predict(checkpoint.method, checkpoint.network, [image])[0]
    masks = [(found == label).any(0) for label in range(1, int(found.max()) + 1)]
    bars = [(truth == label).any(0) for label in (1, 2)]
    assert len(masks) == 2
    # As many masks as bars, and of each bar another one is above the threshold: AP is 1.
    best = [max((bar & mask).sum() / (bar | mask).sum() for mask in masks) for bar in bars]
    assert min(best) > 0.9
    assert (masks[0] & masks[1])[bars[0] & bars[1]].mean() >= 0.95
    apart = predict(checkpoint.method.without_overlaps(), checkpoint.network, [image])[0]
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
    assert ("overlap" in recipe.phases[0].weights) == (name in ("house-knots", "house-long"))


def test_the_papers_recipe_has_the_papers_numbers() -> None:
    recipe = read_recipe("paper")
    assert recipe.method.shape == UNetShape()
    assert (recipe.optimiser.kind, recipe.optimiser.rho, recipe.optimiser.epsilon) == ("rmsprop", 0.9, 1e-7)
    assert (recipe.batch, recipe.phases[0].lr, recipe.phases[0].best) == (8, 1e-4, "loss")
    augment = recipe.augment
    assert augment.elastic_px is None and augment.elastic_grid == "blurred" and augment.standardise
    assert (augment.shift_px, augment.shift, augment.shift_both, augment.gamma_most) == (63, 0.5, False, 2.0)


def test_the_papers_deformations_hardly_ever_fold_the_image() -> None:
    """By the authors' rule 0.14 % of the pixels have a non-positive Jacobian determinant."""
    augment = replace(read_recipe("paper").augment, elastic=1.0, rotate=0.0)
    folded = []
    for seed in range(60):
        geometry = sampling_grid(np.random.default_rng(seed), augment, centre=(127.5, 127.5), size=256)
        grid = geometry.grid.numpy().astype(np.float64)
        dy, dx = np.diff(grid, axis=0)[:, :-1], np.diff(grid, axis=1)[:-1]
        determinant = dy[..., 0] * dx[..., 1] - dy[..., 1] * dx[..., 0]
        folded.append((determinant * np.linalg.det(geometry.matrix) <= 0).mean())
    assert np.mean(folded) < 0.005


def test_shifts_go_one_way_half_of_the_time(crossing: Scene) -> None:
    augment = replace(read_recipe("paper").augment, elastic=0.0, rotate=0.0, gamma=0.0, shift_px=20)
    patches = Patches([crossing], crop_px=64, augment=augment, prepare=Layering().prepare, seed=0)
    batch = patches.batch(0, 40)
    whole = np.array([stack.any(0).sum() == crossing[1].any(0).sum() for stack in batch.stacks])
    assert 0.25 < whole.mean() < 0.75
    assert float(batch.images.mean().abs()) < 1e-5
    torch.testing.assert_close(batch.images.std((1, 2, 3)), torch.ones(40), atol=1e-3, rtol=0)


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


def test_images_of_one_shape_go_through_the_network_together_with_the_same_result(crossing: Scene) -> None:
    torch.manual_seed(0)
    method = Layering(shape=UNetShape(width=2, poolings=1, order="norm-relu"), min_area=1)
    network = method.network(1).eval()
    image, stack = crossing
    images = [image, image[:, :40], image[:, ::-1].copy(), image[:, :40, ::-1].copy()]
    alone, together = (predict(method, network, images, together=size) for size in (1, 3))
    assert [one.shape[1:] for one in alone] == [one.shape[1:] for one in images]
    assert all(np.array_equal(*pair) for pair in zip(alone, together, strict=True))
    samples: list[Sample] = [(one, stack[:, : one.shape[1]]) for one in images]
    phase = Phase(name="a", steps=1, weights={"foreground": 1.0})
    losses = [validation_loss(method, network, samples, phase, together=size) for size in (1, 3)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_state_that_cannot_be_written_ends_the_training(
    crossing: Scene, small_recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "state.json.partial").mkdir()
    with pytest.raises(OSError):
        train(small_recipe, [crossing], [], tmp_path, device="cpu")
