"""Cellpose 3 or 4, whichever is installed, with random weights in the package's own format (`make test-adapters`)."""

import importlib.metadata

import numpy as np
import pytest
import torch

from model.adapters.catalogue import load_adapter
from model.adapters.cellpose import tolerate_vision_without_operators
from model.errors import BadCheckpoint

VERSION = importlib.metadata.version("cellpose")
IS_OLD = VERSION < "4"
ANY_OBJECT = {"flow_threshold": 0.0, "cellprob_threshold": -6.0, "min_size": 5}
"""Thresholds at which a network without training finds objects."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of an untrained network of this version, as the package saves them."""
    tolerate_vision_without_operators()
    path = tmp_path_factory.mktemp("weights") / "untrained"
    torch.manual_seed(0)
    if IS_OLD:
        from cellpose.resnet_torch import CPnet

        network = CPnet([2, 32, 64, 128, 256], 3, sz=3)
    else:
        from cellpose.vit import CPSAM

        network = CPSAM()
    network.save_model(str(path))
    return path


@pytest.fixture
def block():
    """A normalised block with bright disks."""
    y, x = np.mgrid[:120, :150]
    disks = sum((np.hypot(y - cy, x - cx) < 12).astype(np.float32) for cy in (30, 80) for cx in (30, 75, 120))
    return (disks + 0.1 * np.random.default_rng(0).random(disks.shape)).astype(np.float32)[None]


def test_the_answer_is_that_of_the_package(weights, block):
    made = load_adapter(f"cellpose:{weights}", device="cpu", settings=ANY_OBJECT)
    assert (made.name, made.halo_px, made.link, made.min_area) == ("cellpose-untrained", 128, "match", 5)
    assert made.normalise == {"kind": "percentile", "low": 1.0, "high": 99.0}
    answer = made(block)
    from cellpose.models import CellposeModel

    options = {"channels": [0, 0]} if IS_OLD else {}
    model = CellposeModel(
        gpu=False, pretrained_model=str(weights), **({} if IS_OLD else {"use_bfloat16": False})
    )
    masks = model.eval(
        block[0], normalize=False, flow_threshold=0.0, cellprob_threshold=-6.0, min_size=-1, max_size_fraction=1.0,
        **options,
    )[0]  # fmt: skip
    assert answer.shape == (1, 120, 150) and answer.max() > 0
    np.testing.assert_array_equal(answer[0], masks)


def test_a_diameter_widens_the_margin_and_changes_the_work(weights):
    usual = load_adapter(f"cellpose:{weights}", device="cpu")
    large = load_adapter(f"cellpose:{weights}", device="cpu", settings={"diameter": 100})
    assert (usual.halo_px, large.halo_px) == (128, 300)
    assert usual.digest != large.digest
    with pytest.raises(ValueError, match="cellpose has the settings diameter, flow_threshold"):
        load_adapter(f"cellpose:{weights}", settings={"diametre": 100})


def test_weights_of_the_other_version_are_refused_with_what_to_install(weights, tmp_path):
    other = tmp_path / "other"
    state = torch.load(weights, weights_only=True)
    torch.save({"W2": torch.zeros(1)} if IS_OLD else {k: v for k, v in state.items() if k != "W2"}, other)
    with pytest.raises(BadCheckpoint, match=f"cellpose {VERSION} cannot read these weights"):
        load_adapter(f"cellpose:{other}", device="cpu")
    missing = "cpsam" if IS_OLD else "cyto3"
    with pytest.raises(BadCheckpoint, match="neither a file nor a model of cellpose"):
        load_adapter(f"cellpose:{missing}")


def test_without_a_network_it_is_said_where_weights_belong(monkeypatch, tmp_path):
    from cellpose import models, utils

    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(models, "MODEL_DIR", tmp_path)
    monkeypatch.setattr(utils, "urlopen", refuse)
    known = "cyto3" if IS_OLD else "cpsam"
    with pytest.raises(
        BadCheckpoint, match=f"cellpose:{known}: the weights are not at .*Name or service not known"
    ):
        load_adapter(f"cellpose:{known}")
