"""Pixel-embedded affinity: losses, the second view, the network, and objects from perfect affinities."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.method import Phase
from model.methods.affinity import Affinity, flattened
from model.methods.affinity.losses import affinity_loss, balance, foreground_loss
from model.methods.affinity.offsets import affinities, offsets
from model.methods.affinity.second_view import second_view
from model.networks.resunet import ResUNet, ResUNetShape
from model.prediction.inference import seeded
from model.recipe import Optimiser, Recipe
from model.samples.augment import Augment
from model.training.curves import read_table
from model.training.loop import train

TINY = Affinity(
    shape=ResUNetShape(width=6, levels=2, embedding=8),
    ranges=(1, 3, 5),
    merge=((6, 5),),
    min_area=12,
    object_px=32,
)
PHASE = Phase(name="all", steps=1, weights={"self": 1.0, "cross": 1.0, "pyramid": 1.0, "foreground": 50.0})


def one_hot(ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(ids, int(ids.max()) + 1).permute(0, 3, 1, 2).float()


def test_the_network_has_the_papers_number_of_parameters() -> None:
    with torch.device("meta"):
        network = ResUNet(ResUNetShape(channels=3))
        small = ResUNet(ResUNetShape(width=8, levels=3))
    assert sum(p.numel() for p in network.parameters()) == 4_715_938
    assert sum(p.numel() for p in small.parameters()) < 300_000


def test_embeddings_come_at_every_resolution_and_look_as_far_as_they_say() -> None:
    network = ResUNet(ResUNetShape(width=2, levels=2, embedding=3)).eval()
    image = torch.zeros(1, 1, 128, 128, requires_grad=True)
    answer = network(image)
    assert {name: value.shape[1:] for name, value in answer.items()} == {
        "embedding1": (3, 128, 128), "embedding2": (3, 64, 64), "embedding4": (3, 32, 32), "foreground": (2, 128, 128)
    }  # fmt: skip
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    farthest = 0
    for phase in range(4):
        (gradient,) = torch.autograd.grad(network(image)["embedding1"][0, 0, 64 + phase, 64].sum(), image)
        rows = torch.nonzero(gradient[0, 0].abs().sum(1))
        farthest = max(farthest, int((rows - 64 - phase).abs().max()))
    assert farthest == network.halo_px


def test_embeddings_that_are_one_hot_by_object_cost_nothing() -> None:
    ids = torch.zeros(2, 20, 24, dtype=torch.long)
    ids[0, 3:9, 4:12], ids[0, 9:15, 4:12], ids[1, 2:6] = 1, 2, 1
    pairs = offsets((1, 3, 5), 8)
    assert float(affinity_loss(one_hot(ids), one_hot(ids), ids, pairs, scale="author")) == 0
    alike = torch.ones(2, 1, 20, 24)
    author, mean = (float(affinity_loss(alike, alike, ids, pairs, scale=s)) for s in ("author", "mean"))
    assert author == pytest.approx(20 * mean, rel=1e-5) and mean > 0


def test_the_rarer_kind_of_pair_is_weighted_up() -> None:
    same = torch.ones(3, 10, 10, dtype=torch.bool)
    same[0, :2] = False  # 80 % positive
    same[1, :8] = False  # 20 % positive
    weights = balance(same)
    assert weights[0, 0, 0] == pytest.approx(4) and weights[0, 5, 0] == 1
    assert weights[1, 9, 0] == pytest.approx(4) and weights[1, 0, 0] == 1
    assert (weights[2] == 1).all()


def test_the_foreground_loss_is_finite_without_foreground_and_counts_both_sides_the_same() -> None:
    logits = torch.zeros(1, 2, 8, 8)
    for share in (0, 1, 5, 8):
        truth = torch.zeros(1, 8, 8, dtype=torch.bool)
        truth[:, :share] = True
        assert float(foreground_loss(logits, truth)) == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_a_second_view_turned_back_lies_on_the_first(seed: int) -> None:
    places = torch.arange(2 * 16 * 16, dtype=torch.float32).view(2, 1, 16, 16)
    view = second_view(places, torch.zeros(2, 16, 16, dtype=torch.bool), seeded(seed))
    back = view.undone(view.images)
    span = places.amax((1, 2, 3), keepdim=True) - places.amin((1, 2, 3), keepdim=True)
    assert ((back - places).abs() <= 0.05 * places + 0.05 * span + 1e-3).all()
    again = second_view(places, torch.zeros(2, 16, 16, dtype=torch.bool), seeded(seed))
    assert torch.equal(view.images, again.images) and view.flips == again.flips


def test_squares_are_cut_from_the_objects_only() -> None:
    image = torch.rand(1, 1, 64, 64, generator=seeded(0))
    inside = torch.zeros(1, 64, 64, dtype=torch.bool)
    inside[:, 20:44, 20:44] = True
    cut = 0
    for seed in range(12):
        view = second_view(image, inside, seeded(seed))
        ratio = view.undone(view.images)[0, 0]
        filled = (ratio[20:44, 20:44] == ratio[20:44, 20:44].flatten().mode().values).sum()
        cut += int(filled > 4)
        # Outside of the box of the objects only contrast and brightness changed: a straight line of the first view.
        x, y = image[0, 0, :16].flatten(), ratio[:16].flatten()
        assert torch.corrcoef(torch.stack([x, y]))[0, 1] > 0.9999
    assert cut > 4


def test_no_gradient_flows_through_the_second_view() -> None:
    network, images = TINY.network(1).train(), torch.rand(1, 1, 32, 32, generator=seeded(1))
    seen: list[bool] = []
    network.entry.register_forward_hook(lambda module, given, answer: seen.append(answer.requires_grad))
    stack = np.zeros((1, 32, 32), np.uint32)
    stack[0, 4:20, 4:20] = 1
    TINY.losses(network, images, TINY.encode([stack]), replace(PHASE, weights={"cross": 1.0}), seeded(0))
    assert seen == [True, False]


def test_the_smallest_object_is_on_top() -> None:
    stack = np.zeros((2, 8, 8), np.uint32)
    stack[0, :, :6], stack[1, 2:4, 4:8] = 5, 9
    flat = flattened(stack)
    assert (flat == 9).sum() == 8 and (flat == 5).sum() == 44 and (flat == 0).sum() == 12


def perfect(stack: np.ndarray, method: Affinity) -> dict[str, np.ndarray]:
    ids = torch.from_numpy(flattened(stack))[None]
    hot = one_hot(ids)
    return {
        "affinity": affinities(hot, hot, method.pairs)[0].numpy(),
        "foreground": (ids > 0).float().numpy(),
    }


@settings(deadline=None, max_examples=20)
@given(
    widths=st.lists(st.integers(3, 20), min_size=1, max_size=5),
    rows=st.integers(16, 48),
    neighbours=st.sampled_from([4, 8]),
)
def test_perfect_affinities_give_a_partition_back_whose_objects_are_3_px_wide(
    widths: list[int], rows: int, neighbours: int
) -> None:
    """As wide as the second range: pairs of range 1 only join, and an affinity of 0 joins what nothing keeps apart."""
    method = Affinity(min_area=1, merge=(), mutex_stride=1, decoding_neighbours=neighbours)
    stack = np.zeros((1, 48, 48), np.uint32)
    stack[0, :rows, 2:] = 1 + np.searchsorted(np.cumsum(widths) + 2, np.arange(2, 48), side="right")
    found = method.decode(perfect(stack, method), (48, 48))
    assert np.array_equal(found > 0, stack > 0)
    pairs = np.unique(np.stack([found[found > 0], stack[stack > 0]]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@pytest.mark.parametrize(("joining", "parts"), [(1, 2), (5, 1)])
def test_a_bar_under_another_is_one_object_where_longer_pairs_join(joining: int, parts: int) -> None:
    """The bar on top is 8 px wide; pairs of 9 and 11 px reach across it."""
    stack = np.zeros((2, 48, 48), np.uint32)
    stack[0, 18:28, 2:46], stack[1, 2:46, 20:28] = 1, 2
    method = Affinity(min_area=1, merge=(), mutex_stride=1, joining_ranges=joining)
    found = method.decode(perfect(stack, method), (48, 48))[0]
    on_top = stack[1] == 2
    below = (stack[0] == 1) & ~on_top
    assert len(np.unique(found[below])) == parts and len(np.unique(found[on_top])) == 1
    assert found.max() == parts + 1


def test_settings_that_do_not_fit_are_refused() -> None:
    for settings_, message in (
        ({"ranges": (3, 1)}, "ascend from 1"),
        ({"neighbours": 6}, "4 or 8 neighbours"),
        ({"mutex_stride": 5}, "divides the stride 16, got 5"),
        ({"loss_scale": "sum"}, "'author' or 'mean'"),
        ({"joining_ranges": 6}, "joining_ranges of 1 to the number of ranges, got 6"),
    ):
        with pytest.raises(ValueError, match=message):
            Affinity(**settings_)


def test_other_ranges_in_decoding_need_no_other_network() -> None:
    network, image = TINY.network(1).eval(), torch.rand(1, 1, 16, 16, generator=seeded(0))
    assert TINY.outputs(network, image)["affinity"].shape[1] == 6
    more = replace(TINY, decoding_ranges=(1, 2, 4, 7), decoding_neighbours=8)
    assert more.outputs(network, image)["affinity"].shape[1] == 16


class Killed(Exception):
    """Stands for the process being killed."""


def test_a_killed_training_resumes_to_the_same_weights(
    crossing: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """The second view is as random as the crops: both are functions of the step."""
    torch.set_num_threads(1)
    recipe = Recipe(
        method=TINY, phases=(replace(PHASE, steps=6),), augment=Augment(), crop_px=32, batch=1, validate_every=3,
        optimiser=Optimiser(kind="adam", amsgrad=True, epsilon=1e-2),
    )  # fmt: skip
    done = train(recipe, [crossing], [crossing], tmp_path / "whole", device="cpu")

    def kill(step: int, steps: int) -> None:
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        train(recipe, [crossing], [crossing], tmp_path / "cut", device="cpu", on_step=kill)
    resumed = train(recipe, [crossing], [crossing], tmp_path / "cut", device="cpu")
    weights = [(run.folder / "weights.safetensors").read_bytes() for run in (done, resumed)]
    assert weights[0] == weights[1]
    rows = read_table(tmp_path / "cut")
    assert {"self", "cross", "pyramid", "foreground", "validation_loss"} < set(rows[0])
