"""DCME: encoding, clipped gradients, votes, classes of the grid, and what decoding gives back of perfect outputs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from model.classes import CLASS_STEP, class_of
from model.method import Phase
from model.methods.dcme import Dcme
from model.methods.dcme.decode import cast_votes, fill_small_holes, find_centres
from model.methods.dcme.losses import vector_loss
from model.methods.dcme.targets import Targets, encode, grid_of
from model.methods.dcme.targets import centres_of as centres_in
from model.networks.unet import UNetShape

NARROW = UNetShape(
    heads={"vectors": 2, "grid": 2}, width=6, poolings=2, head_width=6, head_convs=1, order="norm-relu"
)
ONE = Phase(name="vectors", steps=1, weights={"vectors": 1.0, "grid": 1.0})


def masks_of(stack: np.ndarray) -> set[bytes]:
    return {(stack == label).any(0).tobytes() for label in np.unique(stack) if label}


def perfect(stack: np.ndarray, *, block: int = 16, **options: Any) -> dict[str, np.ndarray]:
    """The outputs of a network that answers with the targets."""
    targets = encode([stack], block=block, **options)
    classes = options.get("classes", 1) + 1
    grid = functional.one_hot(targets.grid, classes).movedim(-1, 1).float()
    return {"vectors": targets.vectors[0].numpy(), "grid": grid[0].numpy()}


def squares(*places: tuple[int, int], side: int = 7, size: int = 64) -> np.ndarray:
    stack = np.zeros((1, size, size), np.uint32)
    for label, (y, x) in enumerate(places, start=1):
        stack[0, y : y + side, x : x + side] = label
    return stack


def test_vectors_point_from_the_pixel_to_the_centre_x_first() -> None:
    stack = squares((10, 20))
    dx, dy = encode([stack], block=16).vectors[0].numpy()
    assert (dx[10, 20], dy[10, 20]) == (3, 3) and (dx[16, 21], dy[16, 21]) == (2, -3)
    assert (dx[13, 23], dy[13, 23]) == (0, 0)
    assert not dx[stack[0] == 0].any() and not dy[stack[0] == 0].any()


def test_a_shared_pixel_points_to_the_nearest_centre() -> None:
    stack = np.zeros((2, 32, 64), np.uint32)
    stack[0, 10:21, 5:36] = 4
    stack[1, 10:21, 25:56] = 9
    dx = encode([stack], block=16).vectors[0, 0].numpy()
    assert dx[15, 28] == 20 - 28 and dx[15, 33] == 40 - 33


@pytest.mark.parametrize(("y", "x"), [(0, 0), (15, 15), (16, 15), (511, 1023), (300, 777)])
def test_the_block_of_a_pixel_is_its_place_over_the_stride_rounded_down(y: int, x: int) -> None:
    stack = np.zeros((1, 512, 1024), np.uint32)
    stack[0, y, x] = 3
    grid = encode([stack], block=16).grid[0]
    assert grid.shape == (32, 64)
    assert torch.nonzero(grid).tolist() == [[y // 16, x // 16]]


def test_a_block_takes_the_class_that_covers_most_of_it_and_that_of_a_centre() -> None:
    stack = np.zeros((1, 32, 32), np.uint32)
    stack[0, :16, 2:16], stack[0, :, 16:24] = 1, 2
    centres = centres_in(stack)
    grid = grid_of(stack, centres, np.array([2, 1]), block=16, classes=2)
    assert grid.tolist() == [[2, 1], [0, 1]]
    sliver = np.zeros((1, 32, 32), np.uint32)
    sliver[0, :, 15:18] = 1
    assert encode([sliver], block=16).grid[0].tolist() == [[0, 1], [0, 0]]


def test_sizes_and_classes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        encode([np.zeros((1, 40, 32), np.uint32)], block=16)
    with pytest.raises(ValueError, match="class of 1 to 2"):
        encode([squares((3, 3))], block=16, classes=2, class_of=[{1: 3}])
    for wrong in ({"amplitude": 0.0}, {"radius_px": 0}, {"votes": -1}, {"shape": UNetShape()}):
        with pytest.raises(ValueError, match="DCME: expected"):
            Dcme(**wrong)


class Clipped(torch.autograd.Function):
    """The mean squared error whose gradient passes through the translated logistic, word for word."""

    @staticmethod
    def forward(ctx: Any, error: torch.Tensor, amplitude: float) -> torch.Tensor:
        ctx.save_for_backward(error)
        ctx.amplitude = amplitude
        return error.square().sum() / (2 * error.numel())

    @staticmethod
    def backward(ctx: Any, *of_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        (error,) = ctx.saved_tensors
        clipped = ctx.amplitude * (1 / (1 + torch.exp(-error)) - 0.5)
        return of_output[0] * clipped / error.numel(), None


@pytest.mark.parametrize("amplitude", [0.5, 4.0, 64.0])
def test_the_loss_has_the_gradients_of_the_translated_logistic(amplitude: float) -> None:
    error = torch.linspace(-30, 30, 2 * 6 * 5).view(1, 2, 6, 5).requires_grad_()
    targets = Targets(vectors=torch.zeros(1, 2, 6, 5), grid=torch.zeros(1, 1, 1).long())
    (own,) = torch.autograd.grad(vector_loss(error, targets, amplitude=amplitude), error)
    (literal,) = torch.autograd.grad(Clipped.apply(error, amplitude), error)
    torch.testing.assert_close(own, literal)
    torch.testing.assert_close(own, amplitude / 2 * torch.tanh(error.detach() / 2) / error.numel())
    far = vector_loss(torch.full((1, 2, 6, 5), 1e6), targets, amplitude=amplitude)
    assert torch.isfinite(far)


@settings(max_examples=30, deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12, unique=True),
    side=st.integers(5, 9),
    jitter=st.integers(0, 2),
)
def test_separate_convex_objects_come_back_from_perfect_outputs(
    places: list[tuple[int, int]], side: int, jitter: int
) -> None:
    corners = [(16 * y + jitter * (x % 2), 16 * x + jitter * (y % 2)) for y, x in places]
    stack = squares(*corners, side=side, size=96)
    decoded = Dcme(min_area=0).decode(perfect(stack), (96, 96))
    assert decoded.dtype == np.uint32 and masks_of(decoded) == masks_of(stack)
    turned = np.ascontiguousarray(stack.transpose(0, 2, 1))
    assert masks_of(Dcme(min_area=0).decode(perfect(turned), (96, 96))) == masks_of(turned)


def test_touching_objects_are_told_apart_and_small_ones_dropped() -> None:
    stack = np.zeros((1, 64, 64), np.uint32)
    stack[0, 5:25, 5:25], stack[0, 5:25, 25:45], stack[0, 40:47, 40:47] = 1, 2, 3
    assert masks_of(Dcme(min_area=0).decode(perfect(stack), (64, 64))) == masks_of(stack)
    assert Dcme(min_area=50).decode(perfect(stack), (64, 64)).max() == 2


def test_long_vectors_neither_wrap_nor_leave_the_image() -> None:
    stack = np.zeros((1, 64, 640), np.uint32)
    stack[0, 10:50, 3:637] = 1
    assert masks_of(Dcme().decode(perfect(stack), (64, 640))) == masks_of(stack)
    astray = np.zeros((2, 32, 32), np.float32)
    astray[0, :, :4], astray[1, :4] = -100, -100
    votes = cast_votes(astray)
    assert not len(votes.places)
    assert not Dcme().decode({"vectors": astray, "grid": np.ones((2, 2, 2))}, (32, 32)).any()


def test_every_pixel_has_one_vote_and_clusters_are_linked_over_gaps_only() -> None:
    vectors = perfect(squares((10, 10), (10, 40), side=9))["vectors"]
    votes = cast_votes(vectors)
    assert votes.counts(0).sum() == 2 * (81 - 1) and votes.counts(0)[14, 14] == 80
    near = find_centres(votes, least=10, spread_px=1, gap_px=2)
    assert near.tolist() == [[14, 14], [14, 44]]
    assert len(find_centres(votes, least=10, spread_px=1, gap_px=30)) == 1
    assert not len(find_centres(votes, least=80, spread_px=0, gap_px=2))


def test_objects_may_share_pixels_where_votes_are_near_two_centres() -> None:
    stack = squares((20, 20), (20, 27))
    outputs = perfect(stack)
    assert len(Dcme(min_area=0).decode(outputs, (64, 64))) == 1
    shared = Dcme(min_area=0, exclusive=False, radius_px=20.0)
    assert len(shared.decode(outputs, (64, 64))) == 2
    assert len(shared.without_overlaps().decode(outputs, (64, 64))) == 1


def test_objects_have_the_class_of_the_block_of_their_centre_and_background_blocks_none() -> None:
    stack = squares((4, 4), (4, 40), (40, 4), side=9)
    outputs = perfect(stack, block=4, classes=3, class_of=[{1: 3, 2: 1, 3: 2}])
    names = ("a", "b", "c")
    method = Dcme(shape=UNetShape(heads={"vectors": 2, "grid": 4}, poolings=2), class_names=names, min_area=0)
    found = method.decode_objects(outputs, (64, 64))
    ids = np.unique(method.decode_classes(outputs, (64, 64)))[1:]
    assert sorted(class_of(ids).tolist()) == [1, 2, 3] and sorted((ids % CLASS_STEP).tolist()) == [1, 2, 3]
    with pytest.raises(ValueError, match="class_names for each of the 3 classes"):
        replace(method, class_names=("a", "b"))
    assert found.classes.tolist() == [3, 1, 2] and (found.scores == 1).all()
    for label, kind in ((1, 3), (2, 1), (3, 2)):
        assert (found.stack[0] == found.classes.tolist().index(kind) + 1)[stack[0] == label].all()
    outputs["grid"][:, :4, :4] = [[[1.0]], [[0.0]], [[0.0]], [[0.0]]]
    assert method.decode_objects(outputs, (64, 64)).classes.tolist() == [1, 2]


def test_small_holes_inside_one_object_are_filled() -> None:
    labels = np.zeros((30, 30), np.uint32)
    labels[2:12, 2:12], labels[2:12, 12:22] = 1, 2
    expected = labels.copy()
    labels[5:7, 5:7] = 0
    labels[5:7, 11:13] = 0  # between two objects
    expected[5:7, 11:13] = 0
    labels[8:11, 14:18] = expected[8:11, 14:18] = 0  # too large
    labels[2, 4] = expected[2, 4] = 0  # open to the outside
    assert np.array_equal(fill_small_holes(labels, hole_px=9), expected)
    ring = ndimage.binary_dilation(np.pad([[True]], 9), iterations=7).astype(np.uint32)
    ring[9, 9] = 0
    assert fill_small_holes(ring, hole_px=1)[9, 9] == 1


def covered() -> np.ndarray:
    return np.full((1, 32, 32), 7, np.uint32)


@pytest.mark.parametrize("stack", [np.zeros((1, 32, 32), np.uint32), squares((3, 3), size=32), covered()])
def test_losses_and_gradients_are_finite(stack: np.ndarray) -> None:
    method = Dcme(shape=NARROW)
    network = method.network(1)
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    terms = method.losses(network, images, method.encode([stack, stack]), ONE, torch.Generator())
    assert set(terms) == set(method.terms)
    sum(terms.values()).backward()
    assert all(
        torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None
    ) and torch.isfinite(sum(terms.values()))


def test_the_network_looks_no_farther_than_it_says() -> None:
    network = Dcme(shape=NARROW).network(1).eval()
    size = 2 * 4 * 16
    images = torch.rand(1, 1, size, size).requires_grad_()
    values = network(images)
    assert values["grid"].shape == (1, 2, size // 4, size // 4)
    middle = (values["vectors"][..., size // 2, size // 2].sum()) + values["grid"][
        ..., size // 8, size // 8
    ].sum()
    (gradient,) = torch.autograd.grad(middle, images)
    touched = torch.nonzero(gradient[0, 0])
    assert (touched - size // 2).abs().max() <= network.halo_px < size // 2


def test_two_touching_objects_are_learnt() -> None:
    torch.manual_seed(0)
    stack = np.zeros((1, 32, 32), np.uint32)
    stack[0, 6:26, 4:16], stack[0, 6:26, 16:28] = 1, 2
    image = torch.from_numpy(((stack > 0) + 0.5 * (stack == 2)).astype(np.float32))[None]
    method = Dcme(shape=NARROW)
    network, targets = method.network(1), method.encode([stack])
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        sum(method.losses(network, image, targets, ONE, torch.Generator()).values()).backward()
        optimiser.step()
    with torch.inference_mode():
        outputs = method.outputs(network, image)
    decoded = method.decode({name: value[0].numpy() for name, value in outputs.items()}, (32, 32))[0]
    for label in (1, 2):
        of_label = decoded[stack[0] == label]
        best = np.bincount(of_label[of_label > 0]).argmax()
        both, either = (
            ((decoded == best) & (stack[0] == label)).sum(),
            ((decoded == best) | (stack[0] == label)).sum(),
        )
        assert both / either > 0.8
