"""Models that detect objects one by one: the tile with the centre of an object decides, in plans and in workers."""

import numpy as np
import pytest

from flows.execution.segmenters import SegmenterRef, full_traits
from model.checkpoint import save_checkpoint
from model.methods.dcme import Dcme
from model.methods.stardist import StarDist
from model.networks.star_unet import StarShape
from model.prediction.segmenter import load_segmenter

SMALL = StarShape(width=4, poolings=1, head_width=4, rays=8)


@pytest.mark.parametrize(
    ("method", "owner"),
    [
        (StarDist(shape=SMALL), "centre"),
        (StarDist(shape=SMALL, keep_overlaps=False), "core"),
        (Dcme(), "core"),
    ],
)
def test_the_card_says_which_tile_an_object_belongs_to(method, owner, tmp_path):
    save_checkpoint(tmp_path, network=method.network(1), method=method, name="model")
    reference = SegmenterRef(kind="model", reference=str(tmp_path))
    traits = full_traits(reference, np.zeros((1, 64, 64), np.float32))
    assert traits.owner == owner == load_segmenter(tmp_path, device="cpu").owner
