"""Methods that draw regions or votes: a training that was killed ends as one that was not, weight for weight."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import load_checkpoint
from model.method import Method, Phase
from model.methods.dcme import Dcme
from model.methods.maskrcnn import MaskRcnn
from model.methods.stardist import StarDist
from model.networks.regions import RegionShape
from model.networks.star_unet import StarShape
from model.networks.unet import UNetShape
from model.recipe import Optimiser, Recipe
from model.samples.augment import Augment
from model.training.loop import train

METHODS: dict[str, Method] = {
    "dcme": Dcme(shape=UNetShape(heads={"vectors": 2, "grid": 2}, width=4, poolings=1, head_width=4)),
    "stardist": StarDist(shape=StarShape(width=4, poolings=1, head_width=4, rays=8)),
    "maskrcnn": MaskRcnn(
        shape=RegionShape(blocks=(1,), width=4, pyramid_width=4, box_width=8, mask_convs=1),
        proposals_before=40,
        proposals=10,
        regions=8,
    ),
}


@pytest.mark.parametrize("kind", METHODS)
def test_a_killed_training_ends_with_the_same_weights(
    kind: str, crossing: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    method = METHODS[kind]
    recipe = Recipe(
        method=method,
        phases=(Phase(name="all", steps=4, weights=dict.fromkeys(method.terms, 1.0), lr=1e-2),),
        augment=Augment(paste=1.0),
        optimiser=Optimiser(clip_norm=1.0),
        batch=2,
        crop_px=32,
        ema=0.5,
        validate_every=2,
    )

    def at_step_three(done: int, steps: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    def trained(folder: str, **options: Any) -> dict[str, torch.Tensor]:
        done = train(recipe, [crossing], [crossing], tmp_path / folder, device="cpu", **options)
        return load_checkpoint(done.folder).network.state_dict()

    whole = trained("whole")
    with pytest.raises(KeyboardInterrupt):
        trained("cut", on_step=at_step_three)
    cut = trained("cut")
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    assert load_checkpoint(tmp_path / "cut" / "all").method == method
