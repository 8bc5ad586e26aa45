"""The decision which arithmetic a new model runs in by default: measured on images with truth, kept in its card."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model.card import read_card, write_card
from model.precision import MEASURED, SCORES, Precision, decision
from pipeline.metrics.evaluation import assemble, measure
from pipeline.metrics.overlap import overlap

if TYPE_CHECKING:
    import torch

    from model.checkpoint import Checkpoint

Pair = tuple[np.ndarray, np.ndarray]
"""Normalised image ``(C, y, x)`` and true label stack ``(L, y, x)``."""


def decide_precision(folder: str | Path, pairs: Sequence[Pair], *, device: str = "auto") -> dict[str, Any]:
    """Measure the model in a folder in every arithmetic, write the decision into its card and return it.

    The digest of the card stays as it is. Without instructions for an arithmetic it takes more than twice as long.
    """
    from model.checkpoint import load_checkpoint

    entry = measured_precision(load_checkpoint(folder), pairs, device=device)
    write_card(Path(folder), read_card(folder) | {"precision": entry})
    return entry


def measured_precision(
    checkpoint: "Checkpoint", pairs: Sequence[Pair], *, device: str = "auto"
) -> dict[str, Any]:
    """Return the entry ``precision`` of a card: pooled scores in every arithmetic, and the one that was chosen."""
    where = _measuring_device(device)
    scores: dict[str, dict[str, float]] = {name: _scores(checkpoint, pairs, where, name) for name in MEASURED}
    return decision(scores) | {"images": len(pairs)}


def _measuring_device(device: str) -> "torch.device":
    """The device to measure on: the CPU in place of a GPU that cannot compute bfloat16 at all."""
    import torch

    from model.devices import choose_device

    where = choose_device(device)
    return where if where.type == "cuda" and torch.cuda.is_bf16_supported() else torch.device("cpu")


def _scores(
    checkpoint: "Checkpoint", pairs: Sequence[Pair], device: "torch.device", precision: Precision
) -> dict[str, float]:
    """Pooled scores of a model in one arithmetic, computed as the segmenter computes: normalisations folded."""
    from model.devices import autocast, placed
    from model.networks.folding import folded
    from model.prediction.inference import predict

    network = placed(folded(checkpoint.network), device)
    with autocast(device, precision):
        stacks = predict(checkpoint.method, network, [image for image, _ in pairs], device=device)
    overlaps = [overlap(truth, stack) for (_, truth), stack in zip(pairs, stacks, strict=True)]
    summary = assemble([measure(str(n), both) for n, both in enumerate(overlaps)], resamples=0).summary
    return {name: summary[name] for name in SCORES}
