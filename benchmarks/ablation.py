"""What the parts of the method are worth: short trainings on equal budgets, side by side.

    python benchmarks/ablation.py FOLDER [--isbi2014 DATA] [--worms DATA] [--steps 900] [--seeds 0 1]

Every arm is a whole training with the real code, two thirds of the steps in phase 1 and the rest in phase 2, and
differs from the reference (the paper's losses of phase 1, 8 layers, overlap completion by entropy with neighbours on
different layers, a small network) in one thing. No arm picks its best model: the last weights are measured, on images
that were not trained on. Each trained arm is decoded twice, with the largest layer of a pixel alone and with layers
that may overlap. FOLDER keeps trainings and the result of each arm as it ends; the same command goes on where it was
killed.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, write_result
from scipy import ndimage

from model.checkpoint import Checkpoint, load_checkpoint
from model.method import Phase
from model.methods.layering import Layering
from model.networks.unet import UNetShape
from model.prediction.inference import outputs_of
from model.recipe import Optimiser, Recipe
from model.samples.patches import Sample
from model.training.loop import train
from pipeline.datasets.published.catalogue import dataset
from pipeline.datasets.synthetic.scenes import scene
from pipeline.metrics.evaluation import evaluate_dataset
from pipeline.metrics.overlap import overlap
from pipeline.normalise import Normalise, normalised

WEIGHTS = {"foreground": 1.0, "attraction": 1.0, "repulsion": 1.0, "sparsity": 0.1}
NORMALISE = Normalise(kind="percentile", low=1.0, high=99.8)
CELLS_PX = 256
CELLS_DENSITY = 4.0


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images to learn from and to measure on, with the settings that suit their objects."""

    name: str
    what: str
    learning: list[Sample]
    measuring: list[Sample]
    poolings: int
    crop_px: int
    batch: int
    adjacency_px: float
    min_area: int
    arms: tuple[str, ...]


def main() -> None:
    """Train what is missing; the result holds the arms that have ended so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--isbi2014", type=Path)
    parser.add_argument("--worms", type=Path)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = [cells()]
    sets += [cervical(options.isbi2014)] if options.isbi2014 else []
    sets += [worms(options.worms)] if options.worms else []
    about = {
        "what": "arms differ from the reference in one thing; meanAP and AJI pooled over the measured images",
        "machine": machine(options.seeds[0]),
    }
    arms: list[dict[str, Any]] = []
    for seed in options.seeds:
        for data in sets:
            for arm in data.arms:
                arms.append(measured(data, arm, options.folder, steps=options.steps, seed=seed))
                write_result("ablation", about | {"arms": arms})


def cells() -> Data:
    """Generated fluorescent cells, of which three in four overlap others."""
    drawn = [
        scene("cells", (CELLS_PX, CELLS_PX), seed=seed, density=CELLS_DENSITY).sample(str(seed))
        for seed in range(36)
    ]
    pairs = [(normalised(s.image, NORMALISE), s.truth) for s in drawn if s.truth is not None]
    return Data(
        name="cells",
        what=f"generated cells, density {CELLS_DENSITY}, {CELLS_PX} px",
        learning=pairs[:24],
        measuring=pairs[24:],
        poolings=2,
        crop_px=128,
        batch=4,
        adjacency_px=6.0,
        min_area=20,
        arms=tuple(ARMS),
    )


def cervical(source: Path) -> Data:
    """ISBI 2014 at half size; the challenge's training images only, every fifth of them to measure on."""
    return Data(
        name="cervical",
        what="ISBI 2014 training images at half size, 256 px, every fifth measured",
        learning=list(_read("isbi2014", source, "train", factor=0.5)),
        measuring=list(_read("isbi2014", source, "validation", factor=0.5)),
        poolings=3,
        crop_px=192,
        batch=2,
        adjacency_px=12.0,
        min_area=250,
        arms=(
            "reference",
            "no overlap completion",
            "completion of the paper",
            "neighbours may share a layer",
        ),
    )


def worms(source: Path) -> Data:
    """BBBC010 on the paper's crop, training wells to learn from and validation wells to measure on."""
    return Data(
        name="worms",
        what="BBBC010 training and validation wells, the paper's crop",
        learning=list(_read("bbbc010", source, "train", crop=True)),
        measuring=list(_read("bbbc010", source, "validation", crop=True)),
        poolings=3,
        crop_px=192,
        batch=2,
        adjacency_px=6.0,
        min_area=250,
        arms=(
            "reference",
            "no overlap completion",
            "completion of the paper",
            "neighbours may share a layer",
        ),
    )


def _read(name: str, source: Path, split: str, *, factor: float = 1.0, **options: Any) -> Iterator[Sample]:
    for sample in dataset(name).read(source, split=split, **options):
        if sample.truth is not None:
            image = ndimage.zoom(sample.image.astype(np.float32), (1, factor, factor), order=1)
            truth = ndimage.zoom(sample.truth, (1, factor, factor), order=0)
            yield normalised(image, NORMALISE), truth


def reference(data: Data, *, steps: int, seed: int) -> Recipe:
    """The recipe every arm changes in one thing."""
    shape = UNetShape(
        width=16, poolings=data.poolings, head_width=16, head_convs=1, fold=2, order="norm-relu"
    )
    first = steps * 2 // 3
    phases = (
        Phase(name="phase1", steps=first, weights=WEIGHTS, lr=3e-3, warmup=50, lr_end=0.1),
        Phase(
            name="phase2", steps=steps - first, weights=WEIGHTS | {"overlap": 1.0}, lr=2e-3, warmup=20,
            start="last",
        ),
    )  # fmt: skip
    return Recipe(
        method=Layering(
            shape=shape,
            variant="paper",
            completion="entropy",
            assignment="apart",
            adjacency_px=data.adjacency_px,
            min_area=data.min_area,
        ),
        phases=phases,
        optimiser=Optimiser(weight_decay=1e-4, clip_norm=1.0, epsilon=1e-8),
        batch=data.batch,
        crop_px=data.crop_px,
        ema=0.99,
        validate_every=steps,
        seed=seed,
    )


def _code_losses(recipe: Recipe) -> Recipe:
    return replace(recipe, method=replace(recipe.method, variant="code"))


def _layers(count: int) -> Callable[[Recipe], Recipe]:
    def changed(recipe: Recipe) -> Recipe:
        shape = replace(recipe.method.shape, heads={"layers": count, "foreground": 1})
        return replace(recipe, method=replace(recipe.method, shape=shape))

    return changed


def _paper_completion(recipe: Recipe) -> Recipe:
    """The paper's equation 6, with the layer every object prefers."""
    return replace(recipe, method=replace(recipe.method, completion="dice", assignment="largest"))


def _largest(recipe: Recipe) -> Recipe:
    return replace(recipe, method=replace(recipe.method, assignment="largest"))


def _no_completion(recipe: Recipe) -> Recipe:
    """The same steps and learning rates, with the losses of phase 1 to the end."""
    first, second = recipe.phases
    return replace(recipe, phases=(first, replace(second, weights=first.weights)))


ARMS: dict[str, Callable[[Recipe], Recipe]] = {
    "reference": lambda recipe: recipe,
    "no overlap completion": _no_completion,
    "completion of the paper": _paper_completion,
    "neighbours may share a layer": _largest,
    "losses of the code": _code_losses,
    "4 layers": _layers(4),
    "16 layers": _layers(16),
}


def measured(data: Data, arm: str, folder: Path, *, steps: int, seed: int) -> dict[str, Any]:
    """The result of an arm, from its file if it has ended before."""
    place = folder / f"{data.name}-{arm.replace(' ', '-')}-{steps}-{seed}"
    kept = place / "result.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text()))
    recipe = ARMS[arm](reference(data, steps=steps, seed=seed))
    done = train(recipe, data.learning, [], place, device="cpu")
    checkpoint = load_checkpoint(done.folder)
    result = {
        "data": data.what, "arm": arm, "seed": seed, "commit": machine(seed)["commit"],
        "steps": done.steps, "minutes": checkpoint.card["training"]["minutes"],
        "images": len(data.measuring),
        **scores(checkpoint, data.measuring),
    }  # fmt: skip
    kept.write_text(json.dumps(result, indent=1) + "\n")
    return result


def scores(checkpoint: Checkpoint, samples: Iterable[Sample]) -> dict[str, Any]:
    """Scores of both ways of decoding, and how well pixels with several objects are found."""
    truths, outputs = [], []
    for image, truth in samples:
        truths.append(truth)
        found = outputs_of(checkpoint.method, checkpoint.network, image)
        outputs.append({name: value.numpy() for name, value in found.items()})
    result = {}
    for name, method in (
        ("overlap_aware", checkpoint.method),
        ("largest_layer_only", checkpoint.method.without_overlaps()),
    ):
        stacks = [method.decode(*pair) for pair in zip(outputs, [t.shape[1:] for t in truths], strict=True)]
        pairs = list(zip(truths, stacks, strict=True))
        items = ((str(n), overlap(*pair), {}) for n, pair in enumerate(pairs))
        summary = evaluate_dataset(items, resamples=0).summary
        result[name] = {
            "n_truth": int(sum(len(np.unique(t[t > 0])) for t in truths)),
            "n_prediction": int(sum(len(np.unique(s[s > 0])) for s in stacks)),
            "meanAP": summary["meanAP"],
            "AP": summary["AP"],
            "AJI": summary["AJI"],
            "author": {key: summary["author"][key] for key in ("meanAP", "AJI")},
            "shared_pixels_dice": _shared_dice(pairs),
        }
    return result


def _shared_dice(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Dice of the pixels on which several objects lie, over all images; 0 where none are found."""
    both = total = 0
    for truth, found in pairs:
        shared, guessed = ((stack > 0).sum(0) > 1 for stack in (truth, found))
        both, total = both + int((shared & guessed).sum()), total + int(shared.sum() + guessed.sum())
    return 2 * both / max(total, 1)


if __name__ == "__main__":
    main()
