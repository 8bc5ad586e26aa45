"""Make the pictures of `docs/methods.md`: image, outputs and objects of every method, in one row.

    python docs/method_pictures.py [unet2 unet3 ...]

Every method is trained for a minute or so of one core on generated cells, and answers to an image that it has not seen.
Its thresholds are chosen as `platelayer tune` does, on images apart from both.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from pictures import coloured, save
from PIL import Image

from flows.training.train import Example, score
from flows.training.tune import Trial, best_settings
from model.checkpoint import Checkpoint, load_checkpoint
from model.kinds import KINDS
from model.method import Method
from model.methods.affinity import Affinity
from model.prediction.inference import outputs_of
from model.recipe import Recipe, read_recipe
from model.samples.augment import Augment
from model.samples.patches import Sample
from model.training.loop import train
from pipeline.datasets.synthetic.scenes import scene
from pipeline.normalise import Normalise, normalised

SIZE = 128
DENSITY = 3.0
SHOWN = 2003
"""Seed of the image in the pictures; the others begin at 0."""
LEARNING, WATCHED = 48, 4
"""Images to learn from, and images that choose the best model and its thresholds."""
ENLARGED = 4
"""Pixels of the last panel per pixel of the image, so that outlines are thin."""
Outputs = Mapping[str, np.ndarray]
Panel = tuple[str, Callable[[Axes], object]]
"""Title of a panel, and what draws it."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A short training of a small network."""

    steps: int
    network: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    batch: int = 4
    crop_px: int = 96
    rate: float | None = None
    """Learning rate where it is not that of the recipe."""


U_NET = {"width": 8, "poolings": 3}
BUDGETS = {
    "layering": Budget(steps=900, network=U_NET | {"fold": 1}),
    "unet2": Budget(steps=300, network=U_NET, rate=6e-3),
    "unet3": Budget(steps=500, network=U_NET, rate=6e-3),
    "affinity": Budget(steps=220, network={"width": 8, "levels": 3}, batch=2, rate=3e-3),
    "dcme": Budget(steps=700, network=U_NET),
    "stardist": Budget(steps=700, network={"width": 16, "head_width": 64}, rate=1e-3),
    "maskrcnn": Budget(
        steps=250, network={"width": 16, "pyramid_width": 64, "box_width": 256, "mask_convs": 2}, batch=2,
        crop_px=128, rate=1e-3,
    ),
}  # fmt: skip


def main(kinds: Sequence[str]) -> None:
    """Make the pictures of some methods, or of all."""
    torch.set_num_threads(1)
    learning, watched = [drawn(n) for n in range(LEARNING)], [drawn(LEARNING + n) for n in range(WATCHED)]
    image, truth = drawn(SHOWN)
    for kind in kinds or list(KINDS):
        started = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            best = train(recipe_of(kind), learning, watched, Path(folder), score=score, device="cpu").folder
            checkpoint = tuned(load_checkpoint(best), watched)
        method = checkpoint.method
        maps = outputs_of(method, checkpoint.network.eval(), image)
        outputs = {name: value.numpy() for name, value in maps.items()}
        objects = method.decode(outputs, (SIZE, SIZE))
        sys.stdout.write(
            f"{kind}: {time.process_time() - started:.0f} CPU s, meanAP {score([objects], [truth]):.2f}\n"
        )
        shown = [grey("image", image[0]), *PANELS[kind](method, image[0], outputs), found(image[0], objects)]
        save(row(shown), f"{kind}.png")


def drawn(seed: int) -> Sample:
    """A generated image of cells, and its label stack."""
    sample = scene("cells", (SIZE, SIZE), seed=seed, density=DENSITY).sample(str(seed))
    assert sample.truth is not None  # noqa: S101
    return normalised(sample.image, Normalise(kind="percentile", low=1.0, high=99.8)), sample.truth


def recipe_of(kind: str) -> Recipe:
    """The recipe of a method with its short budget; its phases keep their shares of the steps."""
    recipe, budget = read_recipe("house" if kind == "layering" else kind), BUDGETS[kind]
    whole = sum(phase.steps for phase in recipe.phases)
    phases = tuple(
        replace(
            phase, steps=phase.steps * budget.steps // whole, warmup=budget.steps // 20, lr=budget.rate or phase.lr
        )
        for phase in recipe.phases
    )  # fmt: skip
    method: Any = recipe.method
    shape = replace(method.shape, **budget.network)
    return replace(
        recipe, method=replace(method, shape=shape, **({"min_area": 20} | budget.settings)), phases=phases,
        augment=Augment(scale=1.2, paste=0.0), batch=budget.batch, crop_px=budget.crop_px, ema=0.98,
        validate_every=max(budget.steps // 6, 1), validate_from=0, seed=1,
    )  # fmt: skip


def tuned(checkpoint: Checkpoint, watched: Sequence[Sample]) -> Checkpoint:
    """The model with the settings that `platelayer tune` would choose on the watched images."""
    examples = [Example("watched", str(number), pair) for number, pair in enumerate(watched)]
    trial = Trial(checkpoint, examples, device="cpu")
    method: Any = checkpoint.method
    return replace(checkpoint, method=replace(method, **dict(best_settings(trial, trial.groups))))


def row(panels: Sequence[Panel]) -> Image.Image:
    """Draw panels side by side."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.4 * len(panels), 2.72), layout="constrained")
    for axis, (title, fill) in zip(axes, panels, strict=True):
        fill(axis)
        axis.set_title(title, fontsize=12)
        axis.set_axis_off()
    buffer = BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    return Image.open(buffer)


def grey(title: str, values: np.ndarray) -> Panel:
    """A map from dark to bright."""
    return title, lambda axis: axis.imshow(values, cmap="gray", interpolation="nearest")


def shares(title: str, values: np.ndarray) -> Panel:
    """A map of probabilities or affinities, 0 to 1."""
    return title, lambda axis: axis.imshow(values, cmap="magma", vmin=0, vmax=1, interpolation="nearest")


def colours(title: str, hue: np.ndarray, bright: np.ndarray) -> Panel:
    """A map of hues on black; all from 0 to 1."""
    shown = hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.8), np.clip(bright, 0, 1)], axis=-1))
    return title, lambda axis: axis.imshow(shown, interpolation="nearest")


def found(image: np.ndarray, objects: np.ndarray) -> Panel:
    """The objects in colours over the image, overlaps included."""
    count = len(np.unique(objects[objects > 0]))
    larger = [values.repeat(ENLARGED, -1).repeat(ENLARGED, -2) for values in (image, objects)]
    return f"{count} objects", lambda axis: axis.imshow(coloured(*larger))


def layering(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Foreground, and the layer of every pixel of it."""
    foreground, layers = outputs["foreground"][0, :SIZE, :SIZE], outputs["layers"][:, :SIZE, :SIZE]
    hue = layers.argmax(0) / len(layers)
    return [shares("foreground", foreground), colours(f"which of {len(layers)} layers", hue, foreground)]


def unet2(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Foreground, and what is above its threshold."""
    foreground, threshold = outputs["foreground"][0, :SIZE, :SIZE], method.as_dict()["foreground_threshold"]
    return [shares("foreground", foreground), shares(f"above {threshold}", foreground > threshold)]


def unet3(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Foreground and contours."""
    return [shares(name, outputs[name][0, :SIZE, :SIZE]) for name in ("foreground", "contour")]


def affinity(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Affinities to the pixel on the left, near and further, and the foreground."""
    assert isinstance(method, Affinity)  # noqa: S101
    number = method.pairs.index((0, -3))
    return [
        shares("foreground", outputs["foreground"][0, :SIZE, :SIZE]),
        shares("affinity, 3 px left", outputs["affinity"][number, :SIZE, :SIZE]),
    ]


def dcme(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Directions of the vectors, and the blocks that hold objects."""
    x, y = outputs["vectors"][:, :SIZE, :SIZE]
    length = np.hypot(x, y)
    objects = 1 - outputs["grid"][0, : SIZE // method.stride, : SIZE // method.stride]
    return [
        colours(
            "way to the centre", (np.arctan2(y, x) / (2 * np.pi)) % 1, length / np.percentile(length, 95)
        ),
        shares("blocks with objects", objects),
    ]


def stardist(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Probability of centres, and the distance along one ray."""
    probability, distances = outputs["probability"][0], outputs["distances"][0]
    return [
        shares("probability", probability),
        grey("outline to the right, px", distances * (probability > 0.1)),
    ]


def maskrcnn(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Boxes with their scores."""

    def fill(axis: Axes) -> None:
        axis.imshow(image, cmap="gray", interpolation="nearest")
        for (y0, x0, y1, x1), certainty in zip(outputs["boxes"], outputs["scores"], strict=True):
            if certainty > 0:
                axis.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="gold", lw=0.8))
                axis.text(x0, y0, f"{certainty:.2f}", fontsize=4, color="gold", va="bottom")

    return [("boxes and scores", fill)]


PANELS: dict[str, Callable[[Method, np.ndarray, Outputs], list[Panel]]] = {
    "layering": layering, "unet2": unet2, "unet3": unet3, "affinity": affinity, "dcme": dcme, "stardist": stardist,
    "maskrcnn": maskrcnn,
}  # fmt: skip
"""What the picture of a method shows between image and objects."""

if __name__ == "__main__":
    main(sys.argv[1:])
