"""Scenes and small networks for the tests of the model wing."""

from dataclasses import replace

import numpy as np
import pytest

from model.method import Phase
from model.methods.layering import Layering
from model.networks.unet import UNetShape
from model.recipe import Optimiser, Recipe
from model.samples.augment import Augment

WEIGHTS = {"foreground": 1.0, "attraction": 1.0, "repulsion": 1.0, "sparsity": 0.1}
STILL = Augment(
    exact=1.0, elastic=0.0, gamma=0.0, contrast=0.0, brightness=0.0, noise=0.0, blur=0.0, paste=0.0
)


@pytest.fixture
def crossing() -> tuple[np.ndarray, np.ndarray]:
    """An image ``(1, 64, 64)`` of a bar lying on another, and its stack of two layers."""
    stack = np.zeros((2, 64, 64), np.uint32)
    stack[0, 26:36, 6:58] = 1
    stack[1, 6:58, 26:36] = 2
    return (stack > 0).sum(0, dtype=np.float32)[None], stack


@pytest.fixture
def tiny() -> Layering:
    """A layering method with a network of a few thousand parameters and a total stride of 4."""
    shape = UNetShape(
        heads={"layers": 3, "foreground": 1},
        width=6,
        poolings=1,
        head_width=6,
        head_convs=1,
        fold=2,
        order="norm-relu",
    )
    return Layering(shape=shape, min_area=4)


@pytest.fixture
def small_recipe(tiny: Layering) -> Recipe:
    """Two phases of six steps on crops of 32 pixels."""
    phases = (
        Phase(name="phase1", steps=6, weights=WEIGHTS, lr=1e-2),
        Phase(name="phase2", steps=6, weights=WEIGHTS | {"overlap": 1.0}, lr=1e-2, start="best"),
    )
    return Recipe(
        method=replace(tiny, variant="code"),
        phases=phases,
        augment=Augment(),
        optimiser=Optimiser(clip_norm=1.0),
        batch=2,
        crop_px=32,
        ema=0.9,
        validate_every=3,
        seed=3,
    )


@pytest.fixture
def still() -> Augment:
    """Augmentation that flips and turns by 90 degrees only."""
    return STILL
