"""The networks: sizes, what they see, tiles, folding, bad input."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from model.networks.folding import folded
from model.networks.unet import UNet, UNetShape, house
from model.recipe import read_recipe

SMALL = UNetShape(heads={"layers": 2, "foreground": 1}, width=2, poolings=2, head_width=2)
HOUSE = replace(house(width=2), poolings=1)
SHAPES = pytest.mark.parametrize("shape", [SMALL, HOUSE, replace(SMALL, poolings=0, head_convs=1)])


@pytest.mark.parametrize(
    ("poolings", "millions", "stride", "reach"),
    [(3, 7.335, 8, 60), (4, 29.104, 16, 124), (5, 116.157, 32, 252)],
)
def test_the_papers_networks(poolings: int, millions: float, stride: int, reach: int) -> None:
    """UNet-S, UNet-M and UNet-L, by the recipe that bears the paper's name."""
    with torch.device("meta"):
        network = UNet(replace(read_recipe("paper").method.shape, poolings=poolings))
    assert sum(value.numel() for value in network.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)
    assert (network.stride, network.halo_px) == (stride, reach)


def test_the_house_network_is_small_and_sees_twice_the_length_of_a_worm() -> None:
    network = UNet(house())
    assert sum(value.numel() for value in network.parameters()) < 2e6
    assert (network.stride, network.halo_px) == (32, 247)
    assert read_recipe("house").method.shape == house()


def positive(shape: UNetShape) -> UNet:
    """A network in which every weight that could matter does, the same everywhere."""
    network = UNet(shape).eval().double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
                module.bias.fill_(0.1)
    return network


@SHAPES
def test_reach_is_what_the_gradient_says(shape: UNetShape) -> None:
    network = positive(shape)
    stride, reach = network.stride, network.halo_px
    half = -(-reach // stride) * stride + stride
    size = 2 * half + stride
    farthest = 0
    for y in range(half, half + stride):
        # Values grow along both axes, so that poolings pick the last pixel of a cell, then the first.
        for sign in (1, -1):
            ramp = torch.arange(size, dtype=torch.float64)
            image = (3 + sign * 1e-3 * (ramp[:, None] + ramp[None])).expand(1, shape.channels, -1, -1)
            image = image.clone().requires_grad_()
            network(image)["foreground"][0, 0, y, y].backward()
            assert image.grad is not None
            rows = torch.nonzero(image.grad.abs().sum((0, 1, 3)))[:, 0]
            farthest = max(farthest, y - int(rows.min()), int(rows.max()) - y)
    assert farthest == reach


@SHAPES
def test_a_tile_with_its_halo_equals_the_whole_image(shape: UNetShape) -> None:
    torch.manual_seed(1)
    network = UNet(shape)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    network.eval()
    halo = -(-network.halo_px // network.stride) * network.stride
    core, origin = 4 * network.stride, halo + network.stride
    size = origin + core + halo + network.stride
    image = torch.randn(1, shape.channels, size, size)
    with torch.inference_mode():
        whole = network(image)
        window = slice(origin - halo, origin + core + halo)
        tile = network(image[..., window, window].contiguous())
    inside, same = slice(halo, halo + core), slice(origin, origin + core)
    for name, value in whole.items():
        difference = (value[..., same, same] - tile[name][..., inside, inside]).abs().max()
        assert float(difference) < 1e-5


@pytest.mark.parametrize("order", ["norm-relu", "relu-norm"])
def test_folding_keeps_the_answers(order: str) -> None:
    torch.manual_seed(0)
    network = UNet(replace(HOUSE, order=order))
    network(torch.randn(4, 1, 32, 32) * 3 + 1)
    network.eval()
    quick = folded(network)
    image = torch.randn(1, 1, 32, 48)
    with torch.inference_mode():
        for name, value in network(image).items():
            torch.testing.assert_close(quick(image)[name], value, atol=2e-5, rtol=1e-4)
    left = sum(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    assert (left == 0) == (order == "norm-relu")


def test_outputs_have_the_size_of_the_image_and_the_maps_of_the_heads() -> None:
    outputs = UNet(HOUSE).eval()(torch.zeros(2, 1, 8, 16))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "layers": (2, 8, 8, 16),
        "foreground": (2, 1, 8, 16),
    }


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 2, 8, 8), "channel|B, 1"), ((1, 1, 9, 8), "multiples of 4"), ((1, 8, 8), "B, 1")],
)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(HOUSE)(torch.zeros(shape))


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"poolings": -1}, {"heads": {}}, {"heads": {"layers": 0}}, {"order": "norm"}]
)
def test_shapes_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        UNetShape(**wrong)
