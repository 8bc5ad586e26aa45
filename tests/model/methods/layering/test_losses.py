"""The losses of the layering method on cases whose values are known, and on the edges."""

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from model.method import Phase
from model.methods.layering import Layering
from model.methods.layering.losses import (
    VARIANTS,
    Variant,
    apart,
    boundary_foreground_loss,
    foreground_loss,
    layering_losses,
    overlap_entropy,
    overlap_loss,
    pseudo_truth,
)
from model.methods.layering.targets import Targets, encode
from model.networks.unet import UNetShape

N = 8
BOTH = pytest.mark.parametrize("variant", ["paper", "code"])


def two_near() -> np.ndarray:
    stack = np.zeros((1, 40, 60), np.uint32)
    stack[0, 4:14, 4:14], stack[0, 4:14, 18:28] = 1, 2
    return stack


def three() -> np.ndarray:
    stack = two_near()
    stack[0, 4:14, 46:56] = 3
    return stack


def embed(stack: np.ndarray, layer_of: dict[int, int], *, exclusive: bool = False) -> torch.Tensor:
    """One-hot embeddings ``(1, N, y, x)``: every object wholly on its layer."""
    values = torch.zeros(1, N, *stack.shape[1:])
    for label, layer in layer_of.items():
        values[0, layer][torch.from_numpy((stack == label).any(0))] = 1
    return values


def losses(stack: np.ndarray, values: torch.Tensor, variant: str) -> dict[str, float]:
    terms = layering_losses(values, encode([stack]), variant=variant)
    return {name: float(terms[name]) for name in ("attraction", "repulsion", "sparsity")}


@BOTH
def test_one_hot_objects_on_different_layers_cost_nothing(variant: str) -> None:
    stack = two_near()
    for value in losses(stack, embed(stack, {1: 0, 2: 5}), variant).values():
        assert value == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("variant", "expected"), [("paper", 2 / 3), ("code", 1.0)])
def test_neighbours_on_one_layer_repel_and_an_isolated_object_counts_as_the_variant_says(
    variant: str, expected: float
) -> None:
    near, with_third = two_near(), three()
    assert losses(near, embed(near, {1: 0, 2: 0}), variant)["repulsion"] == pytest.approx(1, abs=1e-5)
    value = losses(with_third, embed(with_third, {1: 0, 2: 0, 3: 0}), variant)["repulsion"]
    assert value == pytest.approx(expected, abs=1e-5)


@BOTH
def test_far_objects_may_share_a_layer(variant: str) -> None:
    stack = three()
    stack[stack == 2] = 0
    assert losses(stack, embed(stack, {1: 0, 3: 0}), variant)["repulsion"] == 0


@BOTH
def test_equal_embeddings(variant: str) -> None:
    stack = two_near()
    values = losses(stack, torch.ones(1, N, 40, 60), variant)
    sparsity = 1 - 1 / math.sqrt(8) if variant == "paper" else (1 - 1 / 8) * 200 / (40 * 60)
    assert values == {
        "attraction": pytest.approx(0, abs=1e-5),
        "repulsion": pytest.approx(1, abs=1e-5),
        "sparsity": pytest.approx(sparsity, abs=1e-5),
    }


@BOTH
def test_zero_embeddings(variant: str) -> None:
    values = losses(two_near(), torch.zeros(1, N, 40, 60), variant)
    sparsity = 1 if variant == "paper" else 200 / (40 * 60)
    assert values == {"attraction": 1, "repulsion": 0, "sparsity": pytest.approx(sparsity)}


@BOTH
def test_perfect_layers_have_no_overlap_loss(variant: str) -> None:
    stack = np.zeros((2, 32, 32), np.uint32)
    stack[0, 10:20, 2:30], stack[1, 2:30, 10:20] = 1, 2
    values = embed(stack, {1: 3, 2: 6})
    assert float(overlap_loss(values, encode([stack]), variant=variant)) == pytest.approx(0, abs=1e-6)
    hollow = values.clone()
    hollow[:, 6, 10:20, 10:20] = 0
    assert float(overlap_loss(hollow, encode([stack]), variant=variant)) > 0.05


def test_entropy_still_pulls_where_a_layer_is_surely_off_and_the_dice_does_not() -> None:
    stack = np.zeros((2, 32, 32), np.uint32)
    stack[0, 10:20, 2:30], stack[1, 2:30, 10:20] = 1, 2
    sure = 20 * embed(stack, {1: 3, 2: 6}) - 10
    targets = encode([stack])
    assert float(overlap_entropy(sure, targets)) == pytest.approx(0, abs=1e-3)
    hollow = sure.clone()
    hollow[:, 6, 10:20, 10:20] = -10
    pulls = {}
    for name, loss in (
        ("entropy", overlap_entropy),
        ("dice", lambda v, t: overlap_loss(v.sigmoid(), t, variant="paper")),
    ):
        values = hollow.clone().requires_grad_()
        loss(values, targets).backward()
        assert values.grad is not None
        assert (values.grad[:, 6, 10:20, 10:20] < 0).all()
        pulls[name] = float(values.grad[:, 6, 10:20, 10:20].sum())
    assert pulls["entropy"] < 100 * pulls["dice"] < 0


def test_neighbours_are_asked_for_different_layers_and_the_surest_choose_first() -> None:
    stack = np.zeros((1, 12, 40), np.uint32)
    for label in (1, 2, 3):
        stack[0, 2:10, 12 * label - 10 : 12 * label] = label
    targets = encode([stack], distance_px=5.0)  # 1 and 2 are near, 2 and 3 are near
    wishes = torch.zeros(1, N, 12, 40)
    wishes[:, 4] = torch.from_numpy(stack[0] > 0).float()
    wishes[:, 6, :, 12:24] = 0.5 * wishes[:, 4, :, 12:24]  # the one in the middle is the least sure
    asked = pseudo_truth(wishes, targets, assignment="apart")[0]
    layers = [int(asked[:, stack[0] == label].sum(1).argmax()) for label in (1, 2, 3)]
    assert layers == [4, 6, 4]
    assert (asked.sum(0).numpy() == (stack[0] > 0)).all()
    same = pseudo_truth(wishes, targets)[0]
    assert (same[4].numpy() == (stack[0] > 0)).all()


@given(seed=st.integers(0, 10_000), layers=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_neighbours_share_a_layer_only_where_none_is_free(seed: int, layers: int) -> None:
    rng = np.random.default_rng(seed)
    stack = np.zeros((1, 34, 34), np.uint32)
    for label, (row, column) in enumerate(np.ndindex(4, 4), 1):
        if rng.random() < 0.8:
            stack[0, 8 * row + 1 : 8 * row + 7, 8 * column + 1 : 8 * column + 7] = label
    targets = encode([stack], distance_px=4.0)  # side by side and corner to corner
    values = torch.from_numpy(rng.random((1, layers, 34, 34), np.float32))
    asked = pseudo_truth(values, targets, assignment="apart")[0]
    number = targets.objects[0, 0]
    layer = [int(asked[:, number == label + 1].sum(1).argmax()) for label in range(len(targets.image_of))]
    neighbours: dict[int, set[int]] = {}
    for first, second in targets.pairs.tolist():
        neighbours.setdefault(first, set()).add(second)
    crowded = {
        label for label, o in neighbours.items() if {layer[other] for other in o} == set(range(layers))
    }
    for first, second in targets.pairs.tolist():
        assert layer[first] != layer[second] or crowded & {first, second}


def test_overlap_loss_counts_shared_pixels_per_object_in_the_paper_only() -> None:
    stack = np.zeros((2, 4, 4), np.uint32)
    stack[0, 0], stack[1, :, 0] = 1, 2
    values = embed(stack, {1: 0, 2: 1})
    values[0, :, 0, 0] = 0
    targets = encode([stack])
    paper = 1 - 2 * 6 / (6 + 10)
    code = 1 - (2 * 6 + 1) / (6 + 8 + 1)
    assert float(overlap_loss(values, targets, variant="paper")) == pytest.approx(paper)
    assert float(overlap_loss(values, targets, variant="code")) == pytest.approx(code)


def test_a_covered_object_gets_a_layer_from_its_full_mask() -> None:
    stack = np.zeros((2, 16, 16), np.uint32)
    stack[0, 2:14, 2:14], stack[1, 5:9, 5:9] = 1, 2
    values = torch.zeros(1, N, 16, 16)
    values[0, 0] = 0.6
    values[0, 4, 5:9, 5:9] = 0.9
    truth = pseudo_truth(values, encode([stack]))
    assert truth[0, 0].sum() == 144
    assert truth[0, 4].sum() == 16
    assert truth.sum() == 160


EDGES = {
    "nothing": np.zeros((1, 16, 16), np.uint32),
    "one": np.pad(np.full((1, 6, 6), 7, np.uint32), ((0, 0), (5, 5), (5, 5))),
    "covered": np.stack([np.full((16, 16), 1), np.pad(np.full((4, 4), 2), 6)]).astype(np.uint32),
    "both covered": np.stack([np.full((16, 16), 1), np.full((16, 16), 2)]).astype(np.uint32),
    "one pixel": np.pad(np.full((1, 1, 1), 3, np.uint32), ((0, 0), (8, 7), (8, 7))),
}


@BOTH
@pytest.mark.parametrize("start", [0.0, 0.3])
@pytest.mark.parametrize("edge", EDGES)
def test_edge_cases_are_finite_with_finite_gradients(variant: str, start: float, edge: str) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, N, 16, 16, generator=generator)
    values = (start * noise).requires_grad_()
    targets = encode([EDGES[edge], EDGES["one"]])
    terms = layering_losses(values, targets, variant=variant)
    terms["overlap"] = overlap_loss(values, targets, variant=variant)
    terms["entropy"] = overlap_entropy(values, targets)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert values.grad is not None and torch.isfinite(values.grad).all()


@BOTH
def test_an_image_without_exclusive_pixels_costs_nothing(variant: str) -> None:
    values = torch.rand(1, N, 16, 16)
    assert losses(EDGES["both covered"], values, variant) == {
        "attraction": 0, "repulsion": 0, "sparsity": 0,
    }  # fmt: skip


def brute_force(stack: np.ndarray, values: np.ndarray) -> dict[str, float]:
    """Equations 2 to 5, object by object."""
    depth = (stack > 0).sum(0)
    norm = np.sqrt(np.maximum((values**2).sum(0), 1e-12))
    ids = [int(i) for i in np.unique(stack) if i]
    own = {i: (stack == i).any(0) & (depth == 1) for i in ids}
    ids = [i for i in ids if own[i].any()]
    means = {i: values[:, own[i]].mean(1) for i in ids}
    count = sum(own[i].sum() for i in ids)

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / math.sqrt(max((a @ a) * (b @ b), 1e-24)))

    attraction = sum(cosine(values[:, y, x], means[i]) ** 2 for i in ids for y, x in np.argwhere(own[i]))
    near = {
        (i, j)
        for i in ids
        for j in ids
        if i != j
        and min(
            np.hypot(*(p - q))
            for p in np.argwhere((stack == i).any(0))
            for q in np.argwhere((stack == j).any(0))
        )
        < 15
    }
    repulsion = 0.0
    for i in ids:
        others = [cosine(means[i], means[j]) ** 2 for a, j in near if a == i]
        repulsion += np.mean(others) / len(ids) if others else 0
    largest = sum((values.max(0) / norm)[own[i]].sum() for i in ids)
    return {
        "attraction": 1 - attraction / count,
        "repulsion": repulsion,
        "sparsity": 1 - largest / count,
    }


def test_vectorised_losses_equal_the_equations_object_by_object() -> None:
    rng = np.random.default_rng(5)
    stack = np.zeros((2, 24, 48), np.uint32)
    stack[0, 2:8, 3:9], stack[0, 10:20, 4:10], stack[0, 3:9, 40:46] = 11, 5, 900
    stack[1, 5:14, 6:12], stack[1, 15:20, 30:36] = 2, 40
    values = rng.random((N, 24, 48)).astype(np.float32)
    found = losses(stack, torch.from_numpy(values)[None], "paper")
    assert found == pytest.approx(brute_force(stack, values), abs=1e-5)


def test_balance_is_low_when_objects_spread_over_the_layers() -> None:
    def balance(stack: np.ndarray, values: torch.Tensor) -> float:
        return float(layering_losses(values, encode([stack]), variant="code")["balance"])

    stack = three()
    together, apart = embed(stack, {1: 2, 2: 2, 3: 2}), embed(stack, {1: 0, 2: 3, 3: 7})
    assert balance(stack, together) == pytest.approx(1, abs=1e-5)
    assert balance(stack, apart) == pytest.approx((8 / 3 - 1) / 7, abs=1e-5)
    assert balance(stack, torch.ones(1, N, 40, 60)) == pytest.approx(0, abs=1e-5)
    assert balance(EDGES["nothing"], torch.rand(1, N, 16, 16)) == 0


def test_losses_are_a_mean_over_images() -> None:
    stacks, values = [three(), two_near()], torch.rand(2, N, 40, 60)
    together = layering_losses(values, encode(stacks), variant="code")
    alone = [layering_losses(values[i : i + 1], encode([stacks[i]]), variant="code") for i in range(2)]
    for name in ("attraction", "repulsion", "sparsity"):
        value = together[name]
        assert float(value) == pytest.approx(float(sum(part[name] for part in alone)) / 2, abs=1e-6)


def test_foreground_losses() -> None:
    targets = encode([two_near()])
    sure = torch.where(targets.depth[:, None] > 0, 40.0, -40.0)
    assert float(foreground_loss(sure, targets)) == pytest.approx(0, abs=1e-6)
    assert float(boundary_foreground_loss(sure, targets)) == pytest.approx(0, abs=1e-4)
    assert float(foreground_loss(-sure, targets)) == pytest.approx(-math.log(1e-7), rel=1e-4)
    assert float(foreground_loss(0 * sure, targets)) == pytest.approx(math.log(2), rel=1e-5)


def test_boundary_loss_punishes_an_error_at_the_edge_more_than_one_far_from_it() -> None:
    targets: Targets = encode([two_near()])
    sure = torch.where(targets.depth[:, None] > 0, 5.0, -5.0)
    edge, far = sure.clone(), sure.clone()
    edge[0, 0, 14, 4:14] *= -1
    far[0, 0, 30, 4:14] *= -1
    assert boundary_foreground_loss(edge, targets) > boundary_foreground_loss(far, targets)
    assert float(foreground_loss(edge, targets)) == pytest.approx(float(foreground_loss(far, targets)))


class Waits(TorchDispatchMode):
    """Collects the operations for which a program has to wait for a GPU: those whose shapes or values it needs."""

    NAMES = (
        "nonzero",
        "_local_scalar_dense",
        "masked_select",
        "unique",
        "_unique2",
        "is_nonzero",
        "bincount",
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in self.NAMES or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_waits_are_seen() -> None:
    with Waits() as waits:
        values = torch.arange(4)
        values[values > 1].sum().item()
    assert set(waits.seen) == {"index", "_local_scalar_dense"}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("completion", ["dice", "entropy"])
def test_a_step_never_waits_for_a_count_from_the_device(
    variant: Variant, completion: Literal["dice", "entropy"]
) -> None:
    """Not with covered objects, shared pixels and an empty image in the batch either."""
    shape = UNetShape(
        heads={"layers": 3, "foreground": 1}, width=2, poolings=1, head_width=2, head_convs=0, fold=1
    )
    method = Layering(
        shape=shape, variant=variant, foreground="boundary", completion=completion, assignment="apart"
    )
    stack = np.zeros((2, 32, 32), np.uint32)
    stack[0, 4:20, 4:20], stack[1, 8:12, 8:12], stack[1, 16:28, 16:28] = 1, 2, 3
    targets = method.encode([stack, np.zeros_like(stack)])
    assert targets.covered.tolist() == [1]
    phase = Phase(name="a", steps=1, weights=dict.fromkeys(method.terms, 1.0))
    network = method.network(1)
    with Waits() as waits:
        terms = method.losses(network, torch.rand(2, 1, 32, 32), targets, phase, torch.Generator())
        torch.stack(list(terms.values())).sum().backward()
    assert waits.seen == []
    assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)


def one_after_the_other(means: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The surest object chooses first; each takes its best layer that no neighbour before it took."""
    taken, chosen = np.zeros(means.shape, bool), np.zeros(len(means), np.int64)
    for index in np.argsort(-means.max(1), kind="stable"):
        wanted = means[index] if taken[index].all() else np.where(taken[index], -1, means[index])
        chosen[index] = wanted.argmax()
        taken[pairs[pairs[:, 0] == index, 1], chosen[index]] = True
    return chosen


@given(st.integers(1, 12), st.integers(1, 4), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_objects_choose_layers_as_if_one_after_the_other(
    objects: int, layers: int, dense: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    means = rng.integers(0, 5, (objects, layers)) / 4  # with ties
    touching = np.triu(rng.random((objects, objects)) < dense, 1)
    pairs = np.argwhere(touching | touching.T)
    chosen = apart(torch.from_numpy(means), torch.from_numpy(pairs.reshape(-1, 2)))
    assert chosen.tolist() == one_after_the_other(means, pairs).tolist()
