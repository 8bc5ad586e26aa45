"""Models of the BioImage Model Zoo: a description with its weights, made here, and what the adapter takes from it."""

import hashlib
import textwrap

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from model.adapters.catalogue import load_adapter
from model.errors import BadCheckpoint

DESCRIPTION = """
format_version: 0.5.3
type: model
name: Tiny foreground
description: Foreground and boundary of bright objects
authors: [{name: A}]
cite: [{text: none, doi: 10.1000/182}]
license: MIT
documentation: {source: README.md}
inputs:
- id: raw
  axes:
  - {type: batch}
  - {type: channel, channel_names: [dna]}
  - {type: space, id: y, size: {min: 16, step: 8}, unit: micrometer, scale: 0.5}
  - {type: space, id: x, size: {min: 16, step: 8}, unit: micrometer, scale: 0.5}
  data: {type: float32}
  test_tensor: {source: input.npy}
  preprocessing: PREPROCESSING
outputs:
- id: map
  axes:
  - {type: batch}
  - {type: channel, channel_names: [foreground, boundary]}
  - {type: space, id: y, halo: 4, size: {tensor_id: raw, axis_id: y}, unit: micrometer, scale: 0.5}
  - {type: space, id: x, halo: 4, size: {tensor_id: raw, axis_id: x}, unit: micrometer, scale: 0.5}
  data: {type: float32}
  test_tensor: {source: output.npy}
  postprocessing: [{id: sigmoid}]
weights:
  torchscript: {source: weights.pt, sha256: SHA256, pytorch_version: '2.8'}
"""

USUAL = (
    "[{id: scale_range, kwargs: {axes: [y, x], min_percentile: 1, max_percentile: 99}},"
    " {id: clip, kwargs: {min: 0, max: 1}}]"
)


class Bright(nn.Module):
    """Logits of bright pixels, and of pixels at which the mean of a neighbourhood differs from the pixel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean = functional.avg_pool2d(images, 3, 1, 1)
        return torch.cat([20 * (mean - 0.5), 40 * (images - mean).abs() - 4], dim=1)


@pytest.fixture
def zoo_model(tmp_path):
    def make(preprocessing=USUAL):
        torch.jit.script(Bright()).save(str(tmp_path / "weights.pt"))
        digest = hashlib.sha256((tmp_path / "weights.pt").read_bytes()).hexdigest()
        for name in ("input", "output"):
            np.save(tmp_path / f"{name}.npy", np.zeros((1, 1 + (name == "output"), 16, 16), np.float32))
        (tmp_path / "README.md").write_text("# Tiny\n")
        text = textwrap.dedent(DESCRIPTION).replace("PREPROCESSING", preprocessing).replace("SHA256", digest)
        (tmp_path / "rdf.yaml").write_text(text)
        return tmp_path / "rdf.yaml"

    return make


def test_the_description_is_followed(zoo_model):
    made = load_adapter(f"bioimageio:{zoo_model()}")
    assert (made.name, made.channels, made.stride, made.halo_px) == ("bioimageio-Tiny foreground", 1, 8, 8)
    assert made.normalise == {"kind": "percentile", "low": 1.0, "high": 99.0}
    assert (made.link, made.pixel_size_um) == ("touch", 0.5)


def test_objects_are_foreground_without_boundary(zoo_model):
    block = np.random.default_rng(0).random((1, 21, 30), dtype=np.float32) * 2 - 0.5
    layer = load_adapter(f"bioimageio:{zoo_model()}")(block)
    grown = np.pad(np.clip(block, 0, 1), ((0, 0), (0, 3), (0, 2)), mode="reflect")
    foreground, boundary = Bright()(torch.from_numpy(grown)[None])[0].sigmoid().numpy()
    np.testing.assert_array_equal(layer[0], (foreground - boundary > 0.5)[:21, :30])
    assert 0 < layer.mean() < 1


def test_a_threshold_is_a_setting(zoo_model):
    block = np.random.default_rng(0).random((1, 32, 32), dtype=np.float32)
    place = zoo_model()
    more = load_adapter(f"bioimageio:{place}", settings={"foreground_threshold": 0.1})
    assert more(block).sum() > load_adapter(f"bioimageio:{place}")(block).sum()


def test_no_normalisation_is_none(zoo_model):
    made = load_adapter(f"bioimageio:{zoo_model('[{id: scale_linear, kwargs: {gain: 2, offset: -1}}]')}")
    assert made.normalise == {"kind": "none"}


def test_what_is_not_a_model_is_refused(zoo_model, tmp_path):
    late = "[{id: scale_linear, kwargs: {gain: 2, offset: -1}}, {id: zero_mean_unit_variance}]"
    with pytest.raises(BadCheckpoint, match="zero_mean_unit_variance after other steps"):
        load_adapter(f"bioimageio:{zoo_model(late)}")
    (tmp_path / "rdf.yaml").write_text("type: model\nname: nothing\nformat_version: 0.5.3\n")
    with pytest.raises(BadCheckpoint, match=r"cannot be loaded .*inputs"):
        load_adapter(f"bioimageio:{tmp_path / 'rdf.yaml'}")
