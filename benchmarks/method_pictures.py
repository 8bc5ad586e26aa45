"""The pictures of `docs/methods.md`: image, outputs and objects of each method, on a generated image it has not seen.

    python benchmarks/method_pictures.py FOLDER [--steps 400] [--kinds unet2 unet3 ...]

The models are those that `benchmarks/methods.py FOLDER --cells 30 --steps N` has trained. Writes docs/images/KIND.png.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from methods import NORMALISE
from tilings import folders_of

from model.checkpoint import load_checkpoint
from model.kinds import KINDS
from model.method import Method
from model.methods.affinity import Affinity
from model.prediction.inference import outputs_of
from pipeline.datasets.synthetic.scenes import scene
from pipeline.normalise import normalised
from pipeline.report.overlay import outlined

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb

IMAGES = Path(__file__).parent.parent / "docs" / "images"
SEED = 2003
SIZE = 128
Outputs = Mapping[str, np.ndarray]
Panel = tuple[str, Callable[[Axes], object]]
"""Title of a panel, and what draws it."""


def main() -> None:
    """Draw a picture of each model that there is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    options = parser.parse_args()
    drawn = scene("cells", (SIZE, SIZE), seed=SEED, density=3.0).sample("image")
    image = normalised(drawn.image, NORMALISE)
    for kind, model in folders_of(options.folder, "cells", options.kinds, options.steps):
        checkpoint = load_checkpoint(model, _chosen(model))
        maps = outputs_of(checkpoint.method, checkpoint.network.eval(), image, device=torch.device("cpu"))
        outputs = {name: value.numpy() for name, value in maps.items()}
        objects = checkpoint.method.decode(outputs, (SIZE, SIZE))
        inside = PANELS[kind](checkpoint.method, image[0], outputs)
        panels = [grey("image", image[0]), *inside, outlines(image[0], objects)]
        draw(panels, IMAGES / f"{kind}.png")


def _chosen(model: Path) -> dict[str, Any]:
    """The settings of decoding that were best on the training images kept for that, where they have been measured."""
    result = model.parent.parent / "result.json"
    return dict(json.loads(result.read_text())["chosen"][0]) if result.is_file() else {}


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels side by side."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.2 * len(panels), 2.45), layout="constrained")
    for axis, (title, fill) in zip(axes, panels, strict=True):
        fill(axis)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def grey(title: str, values: np.ndarray) -> Panel:
    """A map from dark to bright."""
    return title, lambda axis: axis.imshow(values, cmap="gray", interpolation="nearest")


def shares(title: str, values: np.ndarray) -> Panel:
    """A map of probabilities or affinities, 0 to 1."""
    return title, lambda axis: axis.imshow(values, cmap="magma", vmin=0, vmax=1, interpolation="nearest")


def outlines(image: np.ndarray, objects: np.ndarray) -> Panel:
    """The outlines of the objects over the image, a colour per layer."""
    count = len(np.unique(objects)) - 1
    return f"{count} objects", lambda axis: axis.imshow(outlined(image, objects, longest_px=4 * SIZE))


def layering(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Foreground, and the layer of every pixel of it."""
    foreground, layers = outputs["foreground"][0, :SIZE, :SIZE], outputs["layers"][:, :SIZE, :SIZE]
    hue = layers.argmax(0) / len(layers)
    colours = hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.75), np.clip(foreground, 0, 1)], axis=-1))
    return [
        shares("foreground", foreground),
        (f"layer of {len(layers)}", lambda axis: axis.imshow(colours, interpolation="nearest")),
    ]


def unet(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """All probabilities."""
    return [shares(name, values[0, :SIZE, :SIZE]) for name, values in outputs.items()]


def affinity(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Affinities to the pixel on the left, near and further, and the foreground."""
    assert isinstance(method, Affinity)  # noqa: S101
    shown = [(n, -x) for n, (y, x) in enumerate(method.pairs) if not y and x in (-1, -9)]
    panels = [
        shares(f"affinity, {px} px to the left", outputs["affinity"][n, :SIZE, :SIZE]) for n, px in shown
    ]
    return [*panels, shares("foreground", outputs["foreground"][0, :SIZE, :SIZE])]


def dcme(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Directions of the vectors, and the blocks that hold objects."""
    x, y = outputs["vectors"][:, :SIZE, :SIZE]
    length, hue = np.hypot(x, y), (np.arctan2(y, x) / (2 * np.pi)) % 1
    bright = np.clip(length / np.percentile(length, 98), 0, 1)
    colours = hsv_to_rgb(np.stack([hue, np.full_like(hue, 0.8), bright], axis=-1))
    objectness = 1 - outputs["grid"][0, : SIZE // method.stride, : SIZE // method.stride]
    return [
        (
            "way to the centre: hue is direction",
            lambda axis: axis.imshow(colours, interpolation="nearest"),
        ),
        shares("blocks with objects", objectness),
    ]


def stardist(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Probability of centres, and the distance along one ray."""
    return [
        shares("probability", outputs["probability"][0]),
        grey("distance to the right", outputs["distances"][0] * (outputs["probability"][0] > 0.1)),
    ]


def maskrcnn(method: Method, image: np.ndarray, outputs: Outputs) -> list[Panel]:
    """Boxes with their scores."""

    def fill(axis: Axes) -> None:
        axis.imshow(image, cmap="gray")
        for (y0, x0, y1, x1), score in zip(outputs["boxes"], outputs["scores"], strict=True):
            if score > 0:
                axis.add_patch(plt.Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, color="gold", lw=0.8))
                axis.text(x0, y0, f"{score:.2f}", fontsize=4, color="gold", va="bottom")

    return [("boxes and scores", fill)]


PANELS: dict[str, Callable[[Method, np.ndarray, Outputs], list[Panel]]] = {
    "layering": layering, "unet2": unet, "unet3": unet, "affinity": affinity, "dcme": dcme, "stardist": stardist,
    "maskrcnn": maskrcnn,
}  # fmt: skip
"""What each method's picture shows between image and objects."""

if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
