"""Networks of other packages: weights in the packages' own formats, answers as the packages give them."""

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from model.adapters import adapter, instanseg
from model.adapters.catalogue import is_adapter, load_adapter
from model.adapters.stardist import FIXED, shape_of
from model.errors import BadCheckpoint

TINY = Path(__file__).parent / "stardist_tiny"
"""A model of 38,000 weights that StarDist 0.9.2 trained with TensorFlow, and what it answered there."""

INSTANSEG = Path(__file__).parent / "instanseg_tiny"
"""A TorchScript file of InstanSeg 0.1.2, trained by the package's loss, and what the package answered."""


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("INSTANSEG_BIOIMAGEIO_PATH", str(tmp_path))
    return tmp_path


def test_names_of_packages_are_told_from_functions():
    assert is_adapter("cellpose:cpsam") and is_adapter("stardist:/a/b")
    assert not is_adapter("mymodule:segment") and not is_adapter("threshold") and not is_adapter("stardist:")


def test_stardist_answers_as_the_package_does_with_tensorflow():
    expected = np.load(TINY / "expected.npz")
    made = load_adapter(f"stardist:{TINY}")
    answer = made(expected["image"][None].astype(np.float32) / 1024)
    assert expected["labels"].max() == 16
    np.testing.assert_array_equal(answer[0], expected["labels"])
    assert (made.normalise, made.stride, made.channels) == (
        {"kind": "percentile", "low": 1.0, "high": 99.8},
        8,
        1,
    )


def test_stardist_thresholds_come_from_the_model_and_the_user():
    image = np.load(TINY / "expected.npz")["image"][None].astype(np.float32) / 1024
    few = load_adapter(f"stardist:{TINY}", settings={"prob": 0.95})
    assert few(image).max() < 16
    assert few.digest != load_adapter(f"stardist:{TINY}").digest
    with pytest.raises(ValueError, match=r"method: stardist has the settings prob, nms; got threshold"):
        load_adapter(f"stardist:{TINY}", settings={"threshold": 0.95})


def test_stardist_models_of_other_layers_are_refused(tmp_path):
    config = json.loads((TINY / "config.json").read_text())
    for change in ({"n_dim": 3}, {"unet_batch_norm": True}, {"grid": [1, 2]}):
        with pytest.raises(BadCheckpoint, match="expected a 2-D StarDist model"):
            shape_of(config | change, TINY)
    assert set(FIXED) <= set(config) | {"n_dim"}
    shutil.copy(TINY / "config.json", tmp_path)
    with pytest.raises(BadCheckpoint, match="expected Keras weights"):
        load_adapter(f"stardist:{tmp_path}")


def test_without_a_network_it_is_said_where_weights_belong(offline):
    with pytest.raises(
        BadCheckpoint, match=r"2D_versatile_fluo: the weights are not at .*Name or service not known"
    ):
        load_adapter("stardist:2D_versatile_fluo")
    with pytest.raises(BadCheckpoint, match="published are: 2D_versatile_fluo"):
        load_adapter("stardist:2D_fluo")
    assert not list(offline.rglob("*.h5"))


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("cellpose:cpsam", "cellpose"),
        ("bioimageio:affable-shark", "bioimageio"),
        ("stardist:2D_demo", "stardist"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(name, extra, monkeypatch):
    def missing(module):
        raise ModuleNotFoundError(f"No module named {module.partition('.')[0]!r}")

    module = load_adapter.__globals__["importlib"].import_module(f"model.adapters.{extra}")
    monkeypatch.setattr(adapter.importlib, "import_module", missing)
    with pytest.raises(BadCheckpoint, match=rf"pip install 'platelayer\[{extra}\]'"):
        module.load(name.partition(":")[2], device="cpu", settings={})


def test_instanseg_answers_as_the_package_does():
    expected = np.load(INSTANSEG / "expected.npz")
    made = load_adapter(f"instanseg:{INSTANSEG}")
    answer = made(expected["image"][None].astype(np.float32) / 1024)
    assert (made.name, made.pixel_size_um) == ("instanseg-instanseg_tiny", 0.5)
    # The package numbers objects in the order of their seeds, as the adapter does: equal up to rounding of the CPU.
    assert np.mean(answer[0] != expected["labels"]) < 1e-3
    assert len(np.unique(answer)) == len(np.unique(expected["labels"]))


def test_instanseg_says_what_it_needs(offline, monkeypatch, tmp_path):
    broken = tmp_path / "instanseg.pt"
    broken.write_bytes(b"no model")
    with pytest.raises(BadCheckpoint, match="expected a TorchScript file of InstanSeg"):
        load_adapter(f"instanseg:{broken}")
    with pytest.raises(BadCheckpoint, match="expected @nuclei or @cells"):
        load_adapter(f"instanseg:{INSTANSEG}@membranes")
    monkeypatch.setattr(
        instanseg, "optional", lambda module, extra: adapter.optional("no_such_package", extra=extra)
    )
    with pytest.raises(BadCheckpoint, match=r"platelayer\[instanseg\]"):
        load_adapter("instanseg:fluorescence_nuclei_and_cells")


def test_blocks_are_extended_by_mirrored_pixels():
    block = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    grown = adapter.padded(block, 8)
    assert grown.shape == (1, 8, 8)
    np.testing.assert_array_equal(grown[:, :3, :4], block)
    assert adapter.padded(np.ones((2, 1, 5), np.float32), 4, least=16).shape == (2, 16, 16)
