"""The paper's table from our own runs: every method trained on the same images with the same budget.

    python benchmarks/methods.py FOLDER [--worms DATA] [--isbi2014 DATA] [--dsb2018 DATA] [--isbi2012 DATA] [--cells N]
                                 [--steps 3000] [--methods layering unet2 ...] [--device auto] [--again]

Each method takes its shipped recipe (layering: house) with the budget of the data set: so many steps of so many
crops of one size, and the same augmentation. The best model is chosen by its score on a tenth of the training images;
what is reported was measured on images that no training saw, by the evaluator of `platelayer evaluate`, beside plain
components of the foreground of the same network. FOLDER keeps trainings and results; the same command goes on where it
was killed, and with --again it measures its trained models once more. All results in FOLDER go to results/methods.json
and, as a table with the paper's numbers beside ours, to FOLDER/methods.md; without data sets nothing else is done.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from machine import machine, write_result
from own_foreground import OwnForeground, own_foreground, plain_scores
from paper_table import table

from flows.training.train import Example, score
from flows.training.tune import Trial
from model.checkpoint import Checkpoint, load_checkpoint
from model.devices import choose_device, placed
from model.kinds import KINDS
from model.prediction.inference import outputs_of
from model.recipe import Recipe, read_recipe
from model.samples.augment import Augment
from model.samples.patches import Sample
from model.training.curves import read_table
from model.training.loop import train
from pipeline.datasets.published.catalogue import dataset
from pipeline.datasets.synthetic.scenes import scene
from pipeline.metrics.evaluation import PLAIN, evaluate_dataset
from pipeline.metrics.overlap import overlap
from pipeline.normalise import Normalise, normalised

Pair = tuple[np.ndarray, np.ndarray]
"""True and predicted label stack of an image."""
NORMALISE = Normalise(kind="percentile", low=1.0, high=99.8)
AUGMENT = Augment(scale=1.3, paste=0.0)
BATCH = 2
WATCHED = 10
"""One training image in so many chooses the best model and the settings of decoding instead."""
VALIDATIONS = 8
"""Validations of a training."""
PARTITIONS = ("affinity", "unet2")
"""Methods for sections of tissue, where every pixel belongs to one cell."""

U_NET: dict[str, Any] = {"fold": 2, "width": 16}
"""Blocks of 2 x 2 pixels folded into channels: the arithmetic of half the width without folding, in less time."""
NETWORKS: dict[str, dict[str, Any]] = {
    "affinity": {"width": 8, "levels": 3},
    "stardist": {"width": 16, "head_width": 64},
    "maskrcnn": {"width": 16, "pyramid_width": 64, "box_width": 256, "mask_convs": 2},
}
"""Networks of the methods that have one of their own: small ones, as the U-Nets of the others are."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Images in folds of what to learn from and what to measure on, with the settings that suit their objects."""

    name: str
    what: str
    folds: list[tuple[list[Sample], list[Sample]]]
    crop_px: int
    min_area: int
    object_px: int
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of decoding that depend on the size of the objects, by method."""
    methods: tuple[str, ...] = tuple(KINDS)


def main() -> None:
    """Train and measure what is missing; the result holds what has ended so far."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    for name in ("worms", "isbi2014", "dsb2018", "isbi2012"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--cells", type=int, default=0, help="generated images of cells, 128 px")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--methods", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure trained models again")
    options = parser.parse_args()
    for data in _sets(options):
        for kind in (kind for kind in options.methods if kind in data.methods):
            measured(data, kind, options)
            report(options.folder, seed=options.seed)
    report(options.folder, seed=options.seed)


def report(folder: Path, *, seed: int) -> None:
    """Write all results of a folder as one file and one table."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]
    about = {
        "what": "each method on the same images with the same budget; AP and AJI pooled over the images",
        "machine": machine(seed),
    }
    write_result("methods", about | {"rows": rows})
    (folder / "methods.md").write_text(table(rows))


def _sets(options: argparse.Namespace) -> Iterator[Data]:
    if options.cells:
        yield _cells(options.cells)
    if options.worms:
        yield Data(
            name="worms", what="BBBC010, the paper's crop: training wells, measured on validation wells",
            folds=[_parts("bbbc010", options.worms, crop=True)], crop_px=160, min_area=250, object_px=160,
            settings={"dcme": {"votes": 20, "gap_px": 8, "radius_px": 20.0}},
        )  # fmt: skip
    if options.isbi2014:
        yield Data(
            name="cervical", what="ISBI 2014, training and validation images, three folds",
            folds=_thirds(_read("isbi2014", options.isbi2014, ("train", "validation"))),
            crop_px=192, min_area=250, object_px=200,
            settings={"dcme": {"votes": 50, "gap_px": 10, "radius_px": 15.0}},
        )  # fmt: skip
    if options.dsb2018:
        yield Data(
            name="nuclei", what="DSB2018, fluorescence, families apart: measured on validation images",
            folds=[_parts("dsb2018", options.dsb2018)], crop_px=192, min_area=15, object_px=64,
        )  # fmt: skip
    if options.isbi2012:
        yield Data(
            name="membranes", what="ISBI 2012, slices of one volume, measured on its last",
            folds=[_parts("isbi2012", options.isbi2012)], crop_px=192, min_area=25, object_px=200, methods=PARTITIONS,
        )  # fmt: skip


def _cells(count: int) -> Data:
    drawn = [scene("cells", (128, 128), seed=seed, density=3.0).sample(str(seed)) for seed in range(count)]
    pairs = [(normalised(s.image, NORMALISE), s.truth) for s in drawn if s.truth is not None]
    third = max(count // 3, 1)
    return Data(
        name="cells", what=f"{count} generated images of 128 px", folds=[(pairs[third:], pairs[:third])],
        crop_px=64, min_area=15, object_px=48,
    )  # fmt: skip


def _parts(name: str, source: Path, **options: Any) -> tuple[list[Sample], list[Sample]]:
    return _read(name, source, ("train",), **options), _read(name, source, ("validation",), **options)


def _read(name: str, source: Path, splits: Sequence[str], **options: Any) -> list[Sample]:
    """Samples with truth; parts that are kept for the final test are never read here."""
    samples = [sample for split in splits for sample in dataset(name).read(source, split=split, **options)]
    return [(normalised(s.image, NORMALISE), s.truth) for s in samples if s.truth is not None]


def _thirds(samples: list[Sample]) -> list[tuple[list[Sample], list[Sample]]]:
    numbers = range(len(samples))
    return [
        ([samples[n] for n in numbers if n % 3 != fold], [samples[n] for n in numbers if n % 3 == fold])
        for fold in range(3)
    ]


def recipe_of(kind: str, data: Data, *, steps: int, seed: int) -> Recipe:
    """Return the shipped recipe of a method with the budget of the data; its phases keep their shares of the steps.

    A network whose stride does not divide the crop sees larger crops and takes fewer steps, over as many pixels.
    """
    recipe = read_recipe("house" if kind == "layering" else kind)
    crop_px = -(-data.crop_px // recipe.method.stride) * recipe.method.stride
    steps = round(steps * (data.crop_px / crop_px) ** 2)
    whole = sum(phase.steps for phase in recipe.phases)
    phases = tuple(
        replace(phase, steps=max(phase.steps * steps // whole, 1), warmup=min(phase.warmup, steps // 20))
        for phase in recipe.phases
    )
    network = NETWORKS.get(kind, U_NET)
    settings: dict[str, Any] = {"min_area": data.min_area, "shape": replace(recipe.method.shape, **network)}
    settings |= {"object_px": data.object_px} if recipe.method.link == "match" else {}
    return replace(
        recipe, method=replace(recipe.method, **settings, **data.settings.get(kind, {})), phases=phases,
        augment=AUGMENT, batch=BATCH, crop_px=crop_px, validate_every=max(steps // VALIDATIONS, 1),
        validate_from=0, seed=seed,
    )  # fmt: skip


def measured(data: Data, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the row of a method on a data set, from its file if it was measured before."""
    place = options.folder / f"{data.name}-{kind}-{options.steps}-{options.seed}"
    kept = place / "result.json"
    if kept.is_file() and not options.again:
        return dict(json.loads(kept.read_text()))
    recipe = recipe_of(kind, data, steps=options.steps, seed=options.seed)
    folds, slopes = [], []
    for number, (learning, measuring) in enumerate(data.folds):
        folder = place / f"fold{number}"
        checkpoint = load_checkpoint(trained(recipe, learning, folder, device=options.device))
        folds.append(answers(checkpoint, learning[::WATCHED], measuring, device=options.device))
        slopes.append(slope(folder))
    pixels = sum(truth[0].size for _, measuring in data.folds for _, truth in measuring) / 1e6
    seconds = sum(fold.seconds for fold in folds) / pixels
    row = {
        "data": data.name, "what": data.what, "method": kind, "images": sum(len(m) for _, m in data.folds),
        "steps": recipe_steps(recipe), "batch": recipe.batch, "crop_px": recipe.crop_px,
        "parameters": checkpoint.card["parameters"], "minutes": checkpoint.card["training"]["minutes"],
        "slope_per_1000_steps": round(float(np.mean(slopes)), 4), "chosen": [fold.chosen for fold in folds],
        "network_s_per_Mpx": round(float(seconds[0]), 3), "decoding_s_per_Mpx": round(float(seconds[1]), 3),
        "commit": machine(options.seed)["commit"], **scores([pair for fold in folds for pair in fold.pairs]),
    }  # fmt: skip
    owns = [fold.own for fold in folds if fold.own]
    if owns:
        row["components"] = plain_scores(scores([pair for fold in folds for pair in fold.plain]), owns)
    kept.write_text(json.dumps(row, indent=1) + "\n")
    return row


def trained(recipe: Recipe, learning: Sequence[Sample], folder: Path, *, device: str) -> Path:
    """Train, or go on where a killed training was; return the folder of the best model, noted when it is over."""
    note = folder / "trained.txt"
    if not note.is_file():
        done = train(
            recipe, [s for n, s in enumerate(learning) if n % WATCHED], learning[::WATCHED], folder, score=score,
            device=device, say=print,
        )  # fmt: skip
        note.write_text(done.folder.name)
    return folder / note.read_text()


def tuned(checkpoint: Checkpoint, watched: Sequence[Sample], *, device: str) -> Checkpoint:
    """Return the model with the settings that are best on the watched images, of those that `platelayer tune` tries."""
    if not checkpoint.method.tunable:
        return checkpoint
    examples = [Example("watched", str(number), pair) for number, pair in enumerate(watched)]
    trial = Trial(checkpoint, examples, device=device)
    best = max(trial.thresholds(), key=lambda settings: trial.score(settings, trial.groups))
    return replace(checkpoint, method=replace(cast(Any, checkpoint.method), **dict(best)))


def recipe_steps(recipe: Recipe) -> int:
    """Steps of all phases."""
    return sum(phase.steps for phase in recipe.phases)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """The answers of a trained model to the images of a fold."""

    chosen: dict[str, Any]
    """Settings of decoding that were best on the watched images."""
    pairs: list[Pair]
    """Truth and answer of each image."""
    own: OwnForeground | None
    plain: list[Pair]
    """Truth and components of the network's own foreground."""
    seconds: np.ndarray
    """CPU seconds of network and decoding."""


def answers(
    checkpoint: Checkpoint, watched: Sequence[Sample], measuring: Sequence[Sample], *, device: str
) -> Fold:
    """Return the answers to whole images, with settings of decoding that are best on the watched images."""
    checkpoint = tuned(checkpoint, watched, device=device)
    method, target = checkpoint.method, choose_device(device)
    network, seconds = placed(checkpoint.network, target), np.zeros(2)

    def outputs_for(image: np.ndarray) -> dict[str, np.ndarray]:
        outputs = outputs_of(method, network, image, device=target)
        return {name: value.cpu().numpy() for name, value in outputs.items()}

    own = own_foreground(method, [(outputs_for(image), truth) for image, truth in watched], score)
    pairs, plain = [], []
    for image, truth in measuring:
        shape, started = (image.shape[1], image.shape[2]), time.process_time()
        outputs = outputs_for(image)
        between = time.process_time()
        pairs.append((truth, method.decode(outputs, shape)))
        seconds += between - started, time.process_time() - between
        plain += [(truth, own.objects(outputs, shape))] if own else []
    chosen = {name: getattr(method, name) for name in method.tunable}
    return Fold(chosen=chosen, pairs=pairs, own=own, plain=plain, seconds=seconds)


def slope(folder: Path) -> float:
    """Change of the validation score per 1,000 steps over the last third of a training."""
    rows = [row for row in read_table(folder) if row["score"]]
    points = np.array([(float(row["total_step"]), float(row["score"])) for row in rows])
    late = points[points[:, 0] >= points[-1, 0] * 2 / 3] if len(points) else points
    return float(1000 * np.polyfit(late[:, 0], late[:, 1], 1)[0]) if len(late) > 1 else 0.0


def scores(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Scores of all images together, by the canonical definitions and by the paper's."""
    items = ((str(number), overlap(*pair), {}) for number, pair in enumerate(pairs))
    summary = evaluate_dataset(items, resamples=0).summary
    names = ("AP", "meanAP", "AJI", *PLAIN)
    return {name: summary[name] for name in names} | {
        "counts": summary["counts"],
        "author": {name: summary["author"][name] for name in ("AP", "meanAP", "AJI")},
    }


if __name__ == "__main__":
    torch.set_num_threads(max(torch.get_num_threads() // 2, 1))
    main()
