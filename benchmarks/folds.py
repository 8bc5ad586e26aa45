"""Leave-groups-out cross-validation of a recipe on the training and validation images of a published dataset.

    OMP_NUM_THREADS=1 python benchmarks/folds.py FOLDER --data dsb2018 --source DATA --recipe unet3-robust --steps 1500
                                                 --folds 4 --as nuclei

The images are divided into folds by group: the experiment (dsb2018), the slide (mfish), or with ``--by row`` or
``--by column`` those of a plate's wells (bbbc010). Each fold trains the recipe from random weights, shortened to
``--steps``, on the images of the other folds, a part of which chooses the model and its settings. Every image is scored
by the model that did not see its group. FOLDER keeps trainings and label stacks; the same command goes on where it was
killed. Images that the dataset keeps for its test are never read. The result goes to results/folds-NAME.json; of
bbbc010 the paper's crop is scored too.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, write_result
from quality import by_group, numbers, plain_components

from flows.training.folds import Fold, Member, segmented, train_folds
from model.recipe import Recipe, read_recipe
from model.training.budget import with_steps
from pipeline.datasets.published.catalogue import dataset
from pipeline.datasets.sample import Sample
from pipeline.metrics.evaluation import Evaluation, evaluate_dataset
from pipeline.metrics.overlap import overlap
from pipeline.normalise import Normalise, normalised

NORMALISE = Normalise(kind="percentile", low=1.0, high=99.8)
CROPPED = "bbbc010"
"""Dataset of which the paper's crop is scored too."""
KEPT = ("images", "n_truth", "n_prediction", "AP", "meanAP", "AJI", "PQ")
"""What is kept of the scores of a fold."""


def main() -> None:
    """Train what is missing, score and write the result."""
    options = arguments().parse_args()
    recipe = with_steps(read_recipe(options.recipe), options.steps)
    members = list(members_of(options))
    folds = train_folds(recipe, members, options.folds, options.folder, device=options.device)
    result = about(options, recipe) | scored(folds, members, options.folder / "full_frame")
    if options.data == CROPPED:
        crops = list(members_of(options, crop=True))
        result["paper_crop"] = scored(folds, crops, options.folder / "paper_crop")
    write_result(f"folds-{options.result or options.data}", result)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="keeps trainings and label stacks")
    parser.add_argument("--data", required=True, help="name of a published dataset")
    parser.add_argument("--source", required=True, type=Path, help="folder of the dataset")
    parser.add_argument("--recipe", required=True, help="shipped recipe, or a TOML file")
    parser.add_argument("--steps", required=True, type=int, help="steps of each fold, all phases together")
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--by", choices=("group", "row", "column"), default="group")
    parser.add_argument("--as", dest="result", help="name of the result; default: the dataset")
    parser.add_argument("--device", default="auto")
    return parser


def members_of(options: argparse.Namespace, **reading: Any) -> Iterator[Member]:
    """Images with truth of the training and validation parts, normalised."""
    for split in ("train", "validation"):
        for sample in dataset(options.data).read(options.source, split=split, **reading):
            if sample.truth is not None:
                pair = normalised(sample.image, NORMALISE), sample.truth
                yield Member(name=sample.name, group=group_of(sample, options.by), pair=pair)


def group_of(sample: Sample, by: str) -> str:
    """The group of the dataset, or the row or column of the well."""
    if by == "group":
        return sample.group
    if sample.well is None:
        raise SystemExit(f"--by {by}: expected wells, but {sample.name} is in none; leave --by out")
    return sample.well[by == "column"]


def about(options: argparse.Namespace, recipe: Recipe) -> dict[str, Any]:
    """What was trained, and how long."""
    return {
        "what": f"{options.data}: {options.folds} folds by {options.by}, every image scored by the model that was not "
        "trained on its group; training and validation images only",
        "machine": machine(recipe.seed),
        "recipe": Path(options.recipe).name,
        "budget": {
            "steps": sum(phase.steps for phase in recipe.phases),
            "batch": recipe.batch,
            "crop_px": recipe.crop_px,
            "initial_weights": "random",
        },
    }


def scored(folds: Sequence[Fold], members: Sequence[Member], folder: Path) -> dict[str, Any]:
    """Scores of all images together, as a mean over the folds, of each fold, and of each group, the worst first."""
    known = {member.name: member for member in members}
    stacks = segmented(folds, {name: member.pair[0] for name, member in known.items()}, folder)
    pooled = evaluated(known, stacks)
    control = {name: plain(stack, folds[0].model.card["min_area"]) for name, stack in stacks.items()}
    each = []
    for fold in folds:
        inside = {name: known[name] for name in fold.names}
        scores = numbers(evaluated(inside, stacks))
        each.append(dict(fold.facts) | {key: scores[key] for key in KEPT})
    return {
        "pooled": numbers(pooled),
        "mean_over_folds": {
            key: round(float(np.mean([f[key] for f in each])), 4) for key in ("meanAP", "AJI")
        },
        "control_plain_components": {
            key: value
            for key, value in numbers(evaluated(known, control)).items()
            if key in ("meanAP", "AJI")
        },
        "folds": sorted(each, key=lambda fold: float(fold["meanAP"])),
        "groups": by_group(pooled),
    }


def plain(stack: np.ndarray, least_px: int) -> np.ndarray:
    """Plain components of what was found, or the empty stack."""
    return plain_components(stack, least_px) if len(stack) else stack


def evaluated(members: Mapping[str, Member], stacks: Mapping[str, np.ndarray]) -> Evaluation:
    """Evaluate the stacks of some images."""
    return evaluate_dataset(
        (
            (name, overlap(member.pair[1], stacks[name]), {"condition": member.group})
            for name, member in members.items()
        ),
        resamples=0,
    )


if __name__ == "__main__":
    main()
