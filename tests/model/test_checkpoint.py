"""Checkpoints: what is saved comes back, and whatever does not fit is refused by name."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from model.card import CARD, FORMAT, WEIGHTS, digest_of, read_card
from model.checkpoint import load_checkpoint, save_checkpoint, shipped
from model.errors import BadCheckpoint
from model.methods.layering import Layering


@pytest.fixture
def folder(tiny: Layering, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(
        tmp_path / "net", network=tiny.network(2), method=tiny, name="net",
        normalise={"kind": "percentile", "low": 1.0, "high": 99.8}, about={"citation": "nobody"},
    )  # fmt: skip
    return tmp_path / "net"


def edit(folder: Path, *, renew: bool = False, **changes: Any) -> None:
    card = json.loads((folder / CARD).read_text()) | changes
    if renew:
        card["digest"] = digest_of(card)
    (folder / CARD).write_text(json.dumps(card))


def rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    import hashlib

    save_file(tensors, folder / WEIGHTS)
    edit(folder, renew=True, weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())


def test_what_is_saved_comes_back(folder: Path, tiny: Layering) -> None:
    torch.manual_seed(0)
    network = tiny.network(2).eval()
    loaded = load_checkpoint(folder)
    assert loaded.network.shape.channels == 2 and not loaded.network.training
    assert (loaded.method.layers, loaded.method.min_area) == (tiny.layers, tiny.min_area)
    image = torch.randn(1, 2, 16, 16)
    with torch.inference_mode():
        assert torch.equal(loaded.network(image)["layers"], network(image)["layers"])
    assert (loaded.card["citation"], loaded.card["halo_px"]) == ("nobody", network.halo_px)
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, WEIGHTS])


def test_half_precision_takes_half_the_space_and_stays_close(tiny: Layering, tmp_path: Path) -> None:
    network = tiny.network(1).eval()
    for name, half in (("full", False), ("half", True)):
        save_checkpoint(tmp_path / name, network=network, method=tiny, name=name, half=half)
    sizes = [(tmp_path / name / WEIGHTS).stat().st_size for name in ("full", "half")]
    assert sizes[1] < 0.8 * sizes[0]
    image = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        quick = load_checkpoint(tmp_path / "half").network(image)["layers"]
        torch.testing.assert_close(quick, network(image)["layers"], atol=5e-3, rtol=5e-3)


def test_the_digest_follows_weights_and_thresholds_but_not_the_story(tiny: Layering, tmp_path: Path) -> None:
    network = tiny.network(1)

    def digest(name: str, method: Layering, **about: Any) -> str:
        card = save_checkpoint(tmp_path / name, network=network, method=method, name="x", about=about)
        return str(card["digest"])

    first = digest("a", tiny)
    assert digest("b", tiny, citation="someone") == first
    assert digest("c", Layering(shape=tiny.shape, min_area=4, layer_threshold=0.7)) != first
    with torch.no_grad():
        next(network.parameters()).add_(1e-3)
    assert digest("d", tiny) != first


def test_a_missing_tensor_and_an_extra_one_are_refused(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    name = next(iter(tensors))
    rewrite(folder, {key: value for key, value in tensors.items() if key != name})
    with pytest.raises(BadCheckpoint, match=f"expected tensor '{name}', but it is missing"):
        load_checkpoint(folder)
    rewrite(folder, tensors | {"more": torch.zeros(1)})
    with pytest.raises(BadCheckpoint, match=r"no other tensors, got \['more'\]"):
        load_checkpoint(folder)
    rewrite(folder, tensors | {name: torch.zeros(3)})
    with pytest.raises(BadCheckpoint, match="of shape"):
        load_checkpoint(folder)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name: value + 1 for name, value in tensors.items()}, folder / WEIGHTS)
    with pytest.raises(BadCheckpoint, match="sha256"):
        load_checkpoint(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(BadCheckpoint, match="beside the card"):
        load_checkpoint(folder)


def test_a_card_that_was_changed_is_newer_or_lacks_a_field_is_refused(folder: Path) -> None:
    edit(folder, channels=1)
    with pytest.raises(BadCheckpoint, match="digest"):
        read_card(folder)
    edit(folder, format=FORMAT + 1)
    with pytest.raises(BadCheckpoint, match="update platelayer"):
        read_card(folder)
    edit(folder, format=FORMAT)
    card = json.loads((folder / CARD).read_text())
    del card["network"]
    (folder / CARD).write_text(json.dumps(card))
    with pytest.raises(BadCheckpoint, match="network"):
        read_card(folder)
    (folder / CARD).write_text("{")
    with pytest.raises(BadCheckpoint, match="JSON"):
        read_card(folder)


def test_a_network_this_version_does_not_know_is_refused(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text())
    edit(folder, renew=True, network=card["network"] | {"attention": True})
    with pytest.raises(BadCheckpoint, match="attention"):
        load_checkpoint(folder)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(BadCheckpoint, match="never loaded"):
        load_checkpoint(tmp_path)


def test_a_folder_that_is_not_there_names_what_is_shipped(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match="shipped models"):
        load_checkpoint(tmp_path / "nothing")


def test_cards_are_read_without_torch(folder: Path) -> None:
    code = (
        "import sys; from model.card import read_card, shipped; shipped(); "
        f"card = read_card({str(folder)!r}); sys.exit('torch' in sys.modules or card['name'] != 'net')"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shipped_models_load_and_answer() -> None:
    for name, path in shipped().items():
        checkpoint = load_checkpoint(name)
        assert checkpoint.card["name"] == path.name
        assert all(torch.isfinite(value).all() for value in checkpoint.network.state_dict().values())
        assert np.isfinite(checkpoint.card["scores"]["meanAP"])
