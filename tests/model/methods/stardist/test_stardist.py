"""StarDist: targets and suppression beside the authors' package, overlaps in targets and results, losses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stardist.geometry import star_dist
from stardist.nms import non_maximum_suppression_sparse
from stardist.utils import edt_prob

from model.method import Phase
from model.methods.stardist import StarDist
from model.methods.stardist.losses import distance_loss
from model.methods.stardist.polygons import Polygons, suppress
from model.methods.stardist.targets import encode
from model.networks.star_unet import StarShape
from model.stacking import stack_of_objects

NARROW = StarShape(width=8, poolings=1, head_width=16, grid=2)
ONE = Phase(name="polygons", steps=1, weights={"probability": 1.0, "distances": 0.2})


def ellipses(*rows: tuple[float, float, float, float, float], size: int = 96) -> np.ndarray:
    """Stack of ellipses given as y, x, radius, ratio of the radii and angle, each whole on a layer."""
    y, x = np.mgrid[:size, :size]
    objects = []
    for cy, cx, radius, ratio, angle in rows:
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        objects.append(np.flatnonzero((along / radius) ** 2 + (across / radius / ratio) ** 2 <= 1))
    return stack_of_objects(objects, (size, size))


def perfect(method: StarDist, stack: np.ndarray) -> dict[str, np.ndarray]:
    targets = method.encode([stack])
    return {"probability": targets.probability[0].numpy(), "distances": targets.distances[0].numpy()}


def ious(stack: np.ndarray, other: np.ndarray) -> list[float]:
    """The best IoU of every object of ``stack`` with one of ``other``."""
    theirs = [(other == label).any(0) for label in np.unique(other) if label]
    own = [(stack == label).any(0) for label in np.unique(stack) if label]
    return [max(((a & b).sum() / (a | b).sum() for b in theirs), default=0.0) for a in own]


@pytest.mark.parametrize("grid", [1, 2, 4])
@pytest.mark.parametrize("rays", [8, 16, 32])
def test_targets_of_label_images_are_those_of_the_authors_package(rays: int, grid: int) -> None:
    rng = np.random.default_rng(rays * grid)
    coarse = rng.integers(0, 6, (8, 8))
    labels = np.kron(coarse, np.ones((8, 8), int)).astype(np.uint32)
    labels = np.where(rng.random(labels.shape) < 0.02, 0, labels) * 1_000_003  # large ids cost nothing
    targets = encode([labels[None]], rays=rays, grid=grid)
    reference = star_dist((labels // 1_000_003).astype(np.uint16), rays, grid=(grid, grid))
    np.testing.assert_allclose(targets.distances[0].numpy(), reference.transpose(2, 0, 1), atol=1e-3)
    central = edt_prob((labels // 1_000_003).astype(int))[::grid, ::grid]
    np.testing.assert_allclose(targets.probability[0, 0].numpy(), central, atol=1e-5)


def test_rays_follow_an_object_under_another_and_shared_pixels_describe_the_more_central_one() -> None:
    stack = np.zeros((2, 32, 64), np.uint32)
    stack[0, 8:24, 4:36], stack[1, 8:24, 28:60] = 1, 2
    targets = encode([stack], rays=4, grid=1)
    right = targets.distances[0, 0].numpy()
    assert right[16, 10] == pytest.approx(25.5)  # through the shared part
    assert right[16, 28] == pytest.approx(7.5) and right[16, 35] == pytest.approx(24.5)
    assert encode([stack[:, :, ::-1].copy()], rays=4, grid=1).probability.flip(-1).equal(targets.probability)


round_objects = st.lists(
    st.tuples(
        st.integers(12, 84), st.integers(12, 84), st.integers(6, 11), st.floats(0.6, 1.0), st.floats(0, 3)
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(rows=round_objects)
def test_convex_objects_come_back_from_perfect_outputs_overlaps_included(rows: list[tuple]) -> None:
    stack = ellipses(*rows)
    masks = [(stack == label).any(0) for label in np.unique(stack) if label]
    areas = [mask.sum() for mask in masks]
    crowded = any(
        (masks[i] & masks[j]).sum() > 0.25 * min(areas[i], areas[j])
        for i in range(len(masks))
        for j in range(i)
    )
    decoded = StarDist(min_area=0, probability=0.7).decode(perfect(StarDist(), stack), (96, 96))
    assert decoded.dtype == np.uint32 and decoded.shape[1:] == (96, 96)
    if not crowded:
        assert len(np.unique(decoded)) == len(np.unique(stack))
        assert min(ious(stack, decoded), default=1) > 0.75


def test_shared_pixels_are_kept_or_go_to_the_likelier_object() -> None:
    stack = ellipses((40, 36, 14, 1.0, 0.0), (44, 57, 14, 1.0, 0.0))
    method = StarDist(min_area=0)
    decoded = method.decode(perfect(method, stack), (96, 96))
    assert len(decoded) == 2 and min(ious(stack, decoded)) > 0.9
    flat = method.without_overlaps().decode(perfect(method, stack), (96, 96))
    assert len(flat) == 1 and np.array_equal(flat[0] > 0, decoded.any(0))
    assert method.decode(perfect(method, stack[:, :91, :70]), (91, 70)).shape[1:] == (91, 70)


@settings(max_examples=30, deadline=None)
@given(radii=st.lists(st.floats(1, 20), min_size=3, max_size=40))
def test_areas_pixels_and_points_agree(radii: list[float]) -> None:
    polygons = Polygons(centres=np.array([[30.0, 31.0]]), radii=np.array([radii]))
    angles = 2 * np.pi / len(radii) * np.arange(len(radii))
    y, x = 30 + np.sin(angles) * radii, 31 + np.cos(angles) * radii
    shoelace = abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2
    assert polygons.areas[0] == pytest.approx(shoelace)
    pixels = polygons.pixels(0, (64, 64))
    assert abs(len(pixels) - shoelace) < 10 + 0.1 * shoelace
    assert 30 * 64 + 31 in pixels
    assert polygons.hold(polygons.points(0))[0].all()


@pytest.mark.parametrize("seed", range(4))
def test_suppression_keeps_what_the_authors_package_keeps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = np.repeat(rng.integers(20, 140, (25, 2)), 12, axis=0) + rng.integers(-3, 4, (300, 2))
    radii = np.repeat(rng.uniform(6, 14, (25, 1)), 12, axis=0) * rng.uniform(0.9, 1.1, (300, 32))
    scores = rng.random(300).astype(np.float32)
    kept = suppress(Polygons(centres=centres.astype(float), radii=radii), scores, overlap=0.4)
    points, *_ = non_maximum_suppression_sparse(
        radii.astype(np.float32), scores, centres.astype(np.float32), nms_thresh=0.4
    )
    theirs, own = {tuple(p) for p in np.asarray(points).astype(int)}, {tuple(p) for p in centres[kept]}
    assert len(own & theirs) >= 0.9 * max(len(own), len(theirs))
    assert (np.diff(scores[kept]) <= 0).all()


def test_suppression_of_nothing_and_of_one() -> None:
    empty = Polygons(centres=np.zeros((0, 2)), radii=np.zeros((0, 8)))
    assert not len(suppress(empty, np.zeros(0), overlap=0.4))
    one = Polygons(centres=np.zeros((1, 2)), radii=np.ones((1, 8)))
    assert suppress(one, np.ones(1), overlap=0.4).tolist() == [0]


@pytest.mark.parametrize(
    "stack",
    [
        np.zeros((1, 32, 32), np.uint32),
        ellipses((10, 12, 6, 1.0, 0.0), size=32),
        np.full((1, 32, 32), 7, np.uint32),
    ],
)
def test_losses_and_gradients_are_finite(stack: np.ndarray) -> None:
    method = StarDist(shape=NARROW)
    network = method.network(1)
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    terms = method.losses(network, images, method.encode([stack, stack]), ONE, torch.Generator())
    assert set(terms) == set(method.terms)
    sum(terms.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_perfect_values_have_no_distance_loss_inside_objects() -> None:
    targets = encode([ellipses((40, 40, 20, 0.8, 1.0))], rays=32, grid=2)
    assert float(distance_loss(targets.distances, targets)) < 1e-3
    off = targets.distances + (targets.probability > 0)
    assert float(distance_loss(off, targets)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("shape", [NARROW, StarShape(width=4, poolings=2, head_width=4, grid=1)])
def test_the_network_looks_no_farther_than_it_says(shape: StarShape) -> None:
    network = StarDist(shape=shape).network(1).eval()
    size = 16 * network.stride
    images = torch.rand(1, 1, size, size).requires_grad_()
    values = network(images)
    cell = size // shape.grid // 2
    middle = values["distances"][..., cell, cell].sum() + values["probability"][..., cell, cell].sum()
    (gradient,) = torch.autograd.grad(middle, images)
    assert (torch.nonzero(gradient[0, 0]) - size // 2).abs().max() <= network.halo_px < size // 2


@pytest.mark.parametrize(
    "wrong", [{"probability": 1.0}, {"overlap": 2.0}, {"min_area": -1}, {"object_px": 0}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="stardist: expected"):
        StarDist(**wrong)
    with pytest.raises(ValueError, match="power of two"):
        StarShape(grid=3)


def test_two_overlapping_cells_are_learnt() -> None:
    torch.manual_seed(0)
    stack = ellipses((18, 15, 9, 1.0, 0.0), (26, 29, 9, 1.0, 0.0), size=48)
    image = torch.from_numpy((stack > 0).sum(0, dtype=np.float32))[None, None]
    method = StarDist(shape=NARROW, probability=0.6)
    network, targets = method.network(1), method.encode([stack])
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        terms = method.losses(network, image, targets, ONE, torch.Generator())
        (terms["probability"] + 0.2 * terms["distances"]).backward()
        optimiser.step()
    with torch.inference_mode():
        outputs = method.outputs(network, image)
    decoded = method.decode({name: value[0].numpy() for name, value in outputs.items()}, (48, 48))
    assert len(decoded) == 2 and len(np.unique(decoded)) == 3
    assert min(ious(stack, decoded)) > 0.75
