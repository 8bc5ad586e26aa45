"""Which arithmetic the shipped models run in by default: measured on images none of them was trained on.

    python benchmarks/precision.py ../shared/data [--models worms] [--write]

For each model the images that its card holds out (or the validation split of its dataset) are computed in float32 and
in bfloat16, whole and on one thread, and scored as `platelayer tune` and `platelayer train` score theirs. ``--write``
puts the decision into the card of the shipped model; run it again whenever weights change. Adds to
``benchmarks/results/precision.json``. A CPU without instructions for bfloat16 computes the same values in more than
twice the time.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, machine, write_result
from quality import DATA, unseen

from flows.training.precision import Pair, measured_precision
from model.card import read_card, shipped, write_card
from model.checkpoint import load_checkpoint
from pipeline.normalise import Normalise, normalised

RESULT = "precision"


def pairs_of(card: dict[str, Any], model: str, data: Path) -> list[Pair]:
    """Normalised images and true label stacks that a model was not trained on."""
    normalise = Normalise(**(card["normalise"] or {"kind": "none"}))
    samples = unseen(card, DATA[model], data / DATA[model])
    return [(normalised(s.image, normalise), s.truth) for s in samples if s.truth is not None]


def results() -> dict[str, Any]:
    """Results of models measured before."""
    path = RESULTS / f"{RESULT}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    """Measure each model and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", default=sorted(shipped()), choices=sorted(shipped()))
    parser.add_argument("--write", action="store_true", help="write the decisions into the cards")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for model in options.models:
        folder = shipped()[model]
        card = read_card(folder)
        entry = measured_precision(load_checkpoint(folder), pairs_of(card, model, options.data), device="cpu")
        facts = {"digest": card["digest"], "machine": machine(0)}
        write_result(RESULT, results() | {model: entry | facts})
        if options.write:
            write_card(folder, card | {"precision": entry})


if __name__ == "__main__":
    main()
