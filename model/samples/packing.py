"""Training data in one file, so that a model can be trained where neither stores nor the pipeline are installed.

The file is an ``npz`` archive: ``about`` (JSON), and ``image_<i>`` (float16) and ``stack_<i>`` (unsigned integers), of
the training samples first and then of those that validate. Where objects have classes, ``classes_<i>`` (uint8) holds
the classes of the objects 1, 2, ...
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model.classes import class_of, with_classes, without_classes
from model.errors import BadSample
from model.samples.patches import Sample, check_samples

FORMAT = "platelayer training data 1"


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Samples to learn from and to validate with, and what the card of a model says of them."""

    samples: list[Sample]
    validation: list[Sample]
    about: dict[str, Any]
    """Name, normalisation, licence and source, as plain values."""


def write_packed(
    path: str | Path, samples: Sequence[Sample], validation: Sequence[Sample], about: Mapping[str, Any]
) -> int:
    """Write training and validation samples into one file; return its size in bytes."""
    check_samples(samples)
    arrays: dict[str, np.ndarray] = {}
    for index, (image, stack) in enumerate([*samples, *validation]):
        arrays[f"image_{index}"] = image.astype(np.float16)
        arrays[f"stack_{index}"] = _small(stack)
        if (classes := class_of(np.unique(stack[stack > 0]))).any():
            arrays[f"classes_{index}"] = classes.astype(np.uint8)
    record = {"format": FORMAT, "samples": len(samples), "validation": len(validation), "about": dict(about)}
    arrays["about"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    partial.replace(target)
    return target.stat().st_size


def _small(stack: np.ndarray) -> np.ndarray:
    """Return a stack with its labels renumbered 1, 2, ..., of the smallest unsigned type that holds them."""
    numbers = without_classes(stack)
    return numbers.astype(np.min_scalar_type(int(numbers.max())))


def _stack(file: Mapping[str, np.ndarray], index: int) -> np.ndarray:
    """Return a label stack with the classes of its objects in the ids, where they have any."""
    stack = file[f"stack_{index}"].astype(np.uint32)
    name = f"classes_{index}"
    return with_classes(stack, file[name]) if name in file else stack


def read_packed(path: str | Path) -> Packed:
    """Read a file that ``write_packed`` wrote.

    Raises:
        BadSample: no such file, another format, an array that is missing, or images and stacks that do not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            record = json.loads(bytes(file["about"]))
            if record.get("format") != FORMAT:
                raise BadSample(
                    f"{str(path)!r}: expected {FORMAT!r}, got {record.get('format')!r}; pack it again"
                )
            counts = int(record["samples"]), int(record["validation"])
            pairs = [(file[f"image_{i}"].astype(np.float32), _stack(file, i)) for i in range(sum(counts))]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, BadSample):
            raise
        raise BadSample(
            f"{str(path)!r}: expected a file written by `platelayer train --pack`, but {error}"
        ) from error
    samples, validation = pairs[: counts[0]], pairs[counts[0] :]
    check_samples(samples)
    return Packed(samples=samples, validation=validation, about=record["about"])
