"""The optional compiled network: the answers of torch, and clear errors where it cannot be had."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.checkpoint import save_checkpoint
from model.errors import NoDevice
from model.methods.layering import Layering
from model.prediction.inference import padded
from model.prediction.segmenter import TorchSegmenter, load_segmenter

TOLERANCE = 1e-4
"""Largest difference of a logit between OpenVINO and torch in float32."""


@pytest.fixture
def folder(tiny: Layering, tmp_path: Path) -> Path:
    torch.manual_seed(5)
    network = tiny.network(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    save_checkpoint(tmp_path, network=network, method=tiny, name="random")
    return tmp_path


def block(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((2, height, width), dtype=np.float32)


def far_from_thresholds(segmenter: TorchSegmenter, image: np.ndarray) -> np.ndarray:
    """Pixels ``(y, x)`` whose decisions no difference within the tolerance can change."""
    height, width = image.shape[1:]
    with torch.inference_mode():
        logits = segmenter.network(padded(torch.from_numpy(image)[None], segmenter.stride))
    layers = logits["layers"][0, :, :height, :width].numpy()
    ranked = np.sort(layers, axis=0)
    safe = (np.abs(layers) > TOLERANCE).all(0) & (ranked[-1] - ranked[-2] > 2 * TOLERANCE)
    return safe & (np.abs(logits["foreground"][0, 0, :height, :width].numpy()) > TOLERANCE)


def test_openvino_answers_as_torch_does_at_several_sizes(folder: Path) -> None:
    plain, compiled = (load_segmenter(folder, device=device) for device in ("cpu", "openvino"))
    for shape in ((32, 48), (61, 30)):
        image = block(*shape)
        batch = padded(torch.from_numpy(image)[None], plain.stride)
        with torch.inference_mode():
            expected, found = plain.network(batch), compiled.network(batch)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=TOLERANCE, rtol=0)
        safe = far_from_thresholds(plain, image)
        assert safe.mean() > 0.95
        assert np.array_equal(plain(image)[:, safe], compiled(image)[:, safe])
    assert (compiled.halo_px, compiled.stride, compiled.digest) == (
        plain.halo_px, plain.stride, plain.digest,
    )  # fmt: skip


def test_without_the_package_there_is_a_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(NoDevice, match=r"install platelayer\[openvino\]"):
        load_segmenter(folder, device="openvino")


def test_arithmetic_the_cpu_has_not_is_refused(folder: Path) -> None:
    with pytest.raises(NoDevice, match="does not compute in 'float16'"):
        load_segmenter(folder, device="openvino", precision="float16")
