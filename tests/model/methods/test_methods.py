"""What every method promises, whatever it does: finite losses, a card to come back from, tiles that fit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model import kinds
from model.card import ANSWERS, read_card, with_settings
from model.checkpoint import load_checkpoint, save_checkpoint
from model.devices import autocast
from model.errors import BadCheckpoint
from model.kinds import KINDS, method_from
from model.method import Method, Phase
from model.methods.affinity import Affinity
from model.methods.layering import Layering
from model.methods.stardist import StarDist
from model.methods.unet2 import UNet2
from model.methods.unet3 import UNet3
from model.networks.resunet import ResUNetShape
from model.networks.unet import UNetShape
from model.prediction.inference import predict, seeded
from model.prediction.segmenter import load_segmenter
from model.recipe import Optimiser
from model.training.schedule import make_optimiser


def unet(**heads: int) -> UNetShape:
    return UNetShape(heads=heads, width=4, poolings=1, head_width=4, head_convs=1, fold=2, order="norm-relu")


TINY: dict[str, Method] = {
    "affinity": Affinity(
        shape=ResUNetShape(width=4, levels=2, embedding=4),
        ranges=(1, 3),
        merge=((4, 5),),
        min_area=4,
        object_px=16,
    ),
    "layering": Layering(shape=unet(layers=3, foreground=1), min_area=4),
    "unet2": UNet2(shape=unet(foreground=1), min_area=4),
    "unet3": UNet3(shape=unet(foreground=1, contour=1), min_area=4),
}
each = pytest.mark.parametrize("method", TINY.values(), ids=TINY.keys())


def empty() -> np.ndarray:
    return np.zeros((1, 32, 32), np.uint32)


def one() -> np.ndarray:
    stack = empty()
    stack[0, 5:20, 8:30] = 7
    return stack


def covered() -> np.ndarray:
    """Object 2 lies wholly under 1; 3 fills the rest."""
    stack = np.zeros((2, 32, 32), np.uint32)
    stack[0], stack[0, 4:20, 4:20], stack[1, 8:12, 8:12] = 3, 1, 2
    return stack


@each
@pytest.mark.parametrize("stack", [empty(), one(), covered()], ids=["empty", "one", "covered"])
def test_losses_and_gradients_are_finite_on_any_crop(method: Method, stack: np.ndarray) -> None:
    network = method.network(1).train()
    phase = Phase(name="all", steps=1, weights=dict.fromkeys(method.terms, 1.0))
    images = torch.rand(2, 1, 32, 32, generator=seeded(1))
    terms = method.losses(network, images, method.encode([stack, empty()]), phase, seeded(0))
    assert set(terms) == set(method.terms)
    assert all(torch.isfinite(value) and value.ndim == 0 for value in terms.values())
    sum(terms.values(), torch.zeros(())).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())


@each
def test_losses_are_a_function_of_the_generator(method: Method) -> None:
    network = method.network(1).eval()
    phase = Phase(name="all", steps=1, weights=dict.fromkeys(method.terms, 1.0))
    images, targets = torch.rand(1, 1, 32, 32, generator=seeded(1)), method.encode([one()])
    first, again = (method.losses(network, images, targets, phase, seeded(3)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    some = replace(phase, weights={method.terms[0]: 1.0})
    assert list(method.losses(network, images, targets, some, seeded(3))) == [method.terms[0]]


@each
def test_outputs_are_float32_in_every_arithmetic(method: Method) -> None:
    network, images = method.network(1).eval(), torch.rand(1, 1, 32, 32, generator=seeded(1))
    with torch.inference_mode(), autocast(torch.device("cpu"), "bfloat16"):
        outputs = method.outputs(network, images)
    assert {value.dtype for value in outputs.values()} == {torch.float32}


@each
def test_a_checkpoint_brings_the_method_back(method: Method, tmp_path: Path) -> None:
    network = randomised(method)
    save_checkpoint(tmp_path, network=network, method=method, name="tiny")
    loaded, card = load_checkpoint(tmp_path), read_card(tmp_path)
    assert loaded.method.as_dict() | {"shape": {}} == method.as_dict() | {"shape": {}}
    assert (card["method"]["kind"], card["link"], card["stride"]) == (method.kind, method.link, method.stride)
    assert card["halo_px"] == network.halo_px + method.margin_px
    image = np.random.default_rng(0).random((1, 30, 33), dtype=np.float32)
    found = predict(loaded.method, loaded.network, [image])[0]
    assert found.dtype == np.uint32 and found.shape[1:] == (30, 33)
    assert np.array_equal(found, predict(method, network, [image])[0])
    ids = np.unique(found[found > 0])
    assert np.array_equal(ids, np.arange(1, len(ids) + 1))


@pytest.mark.parametrize("kind", [kind for kind, method in TINY.items() if method.link == "touch"])
def test_tiles_with_their_halo_are_the_whole_image(kind: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    network = learnt(TINY[kind], *touching(), 20, 2e-2)
    save_checkpoint(tmp_path, network=network, method=TINY[kind], name="tiny")
    segmenter = load_segmenter(tmp_path, device="cpu")
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 120, 100)).astype(np.float32)
    image = np.tile(touching()[0], (1, 4, 4))[:, :120, :100] + noise
    whole = segmenter(image)
    assert whole.dtype == bool and whole.shape[0] == segmenter.layers and 0.1 < whole.any(0).mean() < 0.9
    halo = -(-segmenter.halo_px // segmenter.stride) * segmenter.stride
    different = 0
    for y in range(0, 120, 60):
        for x in range(0, 100, 60):
            top, left = max(y - halo, 0), max(x - halo, 0)
            tile = segmenter(image[:, top : y + 60 + halo, left : x + 60 + halo])
            core = tile[:, y - top : y - top + 60, x - left : x - left + 60]
            different += int((core != whole[:, y : y + 60, x : x + 60]).sum())
    assert different <= 2  # pixels within rounding of a threshold


@pytest.mark.parametrize(("kind", "steps", "rate"), [("affinity", 45, 1e-2), ("unet3", 40, 2e-2)])
def test_objects_that_touch_are_learnt_apart(kind: str, steps: int, rate: float) -> None:
    torch.set_num_threads(1)
    image, stack = touching()
    found = predict(TINY[kind], learnt(TINY[kind], image, stack, steps, rate), [image])[0]
    assert found.max() == 3
    for label in (1, 2, 3):
        truth = stack[0] == label
        shares = [
            (truth & (found[0] == other)).sum() / (truth | (found[0] == other)).sum() for other in (1, 2, 3)
        ]
        assert max(shares) > 0.8


def touching() -> tuple[np.ndarray, np.ndarray]:
    """An image of two squares side by side and one apart, and its stack."""
    stack = np.zeros((1, 32, 32), np.uint32)
    stack[0, 3:15, 2:15], stack[0, 3:15, 15:28], stack[0, 19:29, 8:26] = 1, 2, 3
    return np.where(stack == 2, 0.6, stack > 0).astype(np.float32), stack


def learnt(method: Method, image: np.ndarray, stack: np.ndarray, steps: int, rate: float) -> nn.Module:
    """A network after a few steps on one image, with batch norm statistics that follow quickly."""
    torch.manual_seed(0)
    network = method.network(1).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.2
    weights = {
        name: 50.0 if name == "foreground" and method.kind == "affinity" else 1.0 for name in method.terms
    }
    phase = Phase(name="all", steps=steps, weights=weights)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate, eps=1e-3)
    images, targets = torch.from_numpy(image)[None], method.encode([stack])
    for step in range(steps):
        terms = method.losses(network, images, targets, phase, seeded(step))
        optimiser.zero_grad()
        torch.stack([weights[name] * value for name, value in terms.items()]).sum().backward()
        optimiser.step()
    return network.eval()


def randomised(method: Method) -> nn.Module:
    """A network whose batch norm statistics are not those of a fresh one, so that outputs vary."""
    torch.manual_seed(4)
    network = method.network(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    return network.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_say_what_they_are(kind: str) -> None:
    method = method_from({"kind": kind})
    assert method.kind == kind and method.title and method.paper and method.terms
    assert method_from(method.as_dict()) == method


def test_a_kind_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"'affinity': expected the package bioimage_cpp.*platelayer\[affinity\]"
    ):
        method_from({"kind": "affinity"})


def test_a_card_of_an_unknown_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, network=TINY["unet2"].network(1), method=TINY["unet2"], name="tiny")
    monkeypatch.delitem(KINDS, "unet2")
    with pytest.raises(BadCheckpoint, match=r"method.kind: expected one of .*got 'unet2'"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Optimiser(kind="sgd", momentum=0.5, weight_decay=0.1), torch.optim.SGD),
        (Optimiser(kind="adam", amsgrad=True, epsilon=0.01), torch.optim.Adam),
        (Optimiser(kind="adamw"), torch.optim.AdamW),
        (Optimiser(kind="rmsprop"), torch.optim.RMSprop),
    ],
)
def test_optimisers_take_their_constants(settings: Optimiser, expected: type) -> None:
    made = make_optimiser(settings, nn.Conv2d(1, 1, 3))
    assert type(made) is expected
    for name in ("momentum", "amsgrad"):
        if name in made.defaults and settings.kind != "rmsprop":
            assert made.defaults[name] == getattr(settings, name)
    assert made.defaults.get("eps", settings.epsilon) == settings.epsilon


def test_what_tuning_chooses_can_be_set_of_every_method() -> None:
    for name, kind in KINDS.items():
        card = dict.fromkeys(ANSWERS, 0) | {"name": name, "min_area": 20, "method": kind().as_dict()}
        chosen = {setting: values[-1] for setting, values in kind.tunable.items()} | {"min_area": 9}
        changed = with_settings(card, chosen)
        assert {setting: changed["method"][setting] for setting in chosen} == chosen
    star = {"name": "star", "min_area": 20, "method": StarDist().as_dict()}
    with pytest.raises(ValueError, match=r"expected one of .*'overlap', 'probability'.* of model 'star'"):
        with_settings(star, {"rays": 16})
    with pytest.raises(ValueError, match=r"method\.probability: expected a number of 0 or more, got 'high'"):
        with_settings(star, {"probability": "high"})
