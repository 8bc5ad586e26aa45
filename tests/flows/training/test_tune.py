"""`platelayer tune`: a model whose thresholds are wrong gets better ones, and nothing else of it changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flows.cli import run as command
from flows.ingest.samples import ingest_synthetic
from flows.training.tune import mean_ap
from model.card import read_card
from model.checkpoint import load_checkpoint, save_checkpoint
from model.methods.layering import Layering
from model.networks.unet import UNetShape


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tune") / "plate.zarr"
    ingest_synthetic(
        str(place), kind="cells", size=(64, 64), wells=[("A", "1"), ("A", "2"), ("B", "1")], density=0.3
    )
    return place


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network whose foreground is a steep function of the image, with a threshold far too high."""
    shape = UNetShape(
        heads={"layers": 2, "foreground": 1}, width=2, poolings=0, head_width=2, head_convs=0, fold=1
    )
    method = Layering(shape=shape, foreground_threshold=0.99, min_area=1)
    network = method.network(1)
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.fill_(1.0 if value.ndim > 1 or ("norm" in name and name.endswith("weight")) else 0.0)
    save_checkpoint(
        tmp_path / "model", network=network, method=method, name="m", normalise={"kind": "percentile"}
    )
    return tmp_path / "model"


def test_thresholds_and_area_are_chosen_and_the_weights_stay(
    plate: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def outputs(self: Layering, network: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Foreground: the image itself, between 0 and 1; everything on the first layer."""
        first = torch.ones_like(images)
        return {
            "foreground": images.clamp(0, 1) * 0.9,
            "layers": torch.cat([first, torch.zeros_like(first)], 1),
        }

    monkeypatch.setattr(Layering, "outputs", outputs)
    words = ["tune", str(model), str(plate), "--folder", str(tmp_path / "tuned"), "--folds", "3"]
    assert command(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 wells or images: meanAP 0.0000 as it was, 0.") and "tuned" in lines[2]
    before, after = read_card(model), read_card(tmp_path / "tuned")
    assert after["method"]["foreground_threshold"] < 0.8 and after["tuning"]["meanAP_cross_validated"] > 0.1
    assert after["min_area"] == after["method"]["min_area"]
    assert (after["weights_sha256"], after["tuning"]["from"]) == (before["weights_sha256"], before["digest"])
    assert after["digest"] != before["digest"]
    # The arithmetic is measured with the chosen settings; this stand-in for a network answers the same in each.
    scores = after["precision"]["scores"]
    assert scores["float32"] == scores["bfloat16"] and scores["float32"]["meanAP"] > 0.1
    assert lines[1].startswith("precision bfloat16 (float32 meanAP 0.") and after["precision"]["images"] == 3
    tuned = load_checkpoint(tmp_path / "tuned")
    assert replace(tuned.method, foreground_threshold=0.99, layer_threshold=0.5, min_area=1) == (
        load_checkpoint(model).method
    )
    assert command(words) == 1
    assert "expected a new one" in capsys.readouterr().err


def test_mean_ap_is_taken_of_added_counts() -> None:
    assert mean_ap(np.array([4, 4, 2, 2, 0, 4, 4])) == pytest.approx((1 + 1 + 1 / 3 + 1 / 3 + 0) / 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--truth", "cells"], "no image has labels 'cells'"),
        (["--folds", "1"], "two wells or images and two folds, got 3 and 1"),
    ],
)
def test_what_cannot_be_tuned(
    plate: Path,
    model: Path,
    tmp_path: Path,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(["tune", str(model), str(plate), "--folder", str(tmp_path / "new"), *words]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "new").exists()
