"""Drift: a comparison of a plate with the plates before it.

A few numbers of a plate are compared with the median of earlier plates. A change beyond a threshold is reported and
has no other effect. The history is one small file per plate beside the data, so that servers need no database.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
import pandas as pd

from pipeline.store.ledger import safe_name
from pipeline.store.places.address import Address

LEAST = 3
"""Earlier plates that are needed for a comparison."""

KEPT = 30
"""Number of latest plates that a plate is compared with."""


@dataclass(frozen=True, kw_only=True)
class PlateNumbers:
    """The numbers of a plate that are compared."""

    plate: str
    """Path of the plate below the watched place."""
    ended: str
    """Time at which it was finished, ISO 8601 in UTC; the history is in this order."""
    images: int
    objects: int
    objects_per_well: float
    """Median over wells (over images, where there are none)."""
    median_area_px: float
    """Median over objects; 0 without objects."""


COMPARED = ("objects_per_well", "median_area_px")
"""Names of the compared numbers."""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """A number of a plate that differs much from that of earlier plates."""

    number: str
    value: float
    usual: float
    """Median of earlier plates."""
    change: float
    """Relative change: 0.5 means 50 % more; infinite where the median is 0."""
    threshold: float
    plates: int
    """Number of earlier plates in the comparison."""

    def __str__(self) -> str:
        return (
            f"{self.number.replace('_', ' ')} {self.value:g} against {self.usual:g} in {self.plates} earlier plates "
            f"({self.change:+.0%}, threshold {self.threshold:.0%})"
        )


def drift(plate: PlateNumbers, earlier: Sequence[PlateNumbers], *, threshold: float) -> list[Drift]:
    """Find the numbers of a plate that differ by more than ``threshold`` (relative) from the median of earlier ones."""
    others = [numbers for numbers in earlier if numbers.plate != plate.plate][-KEPT:]
    if len(others) < LEAST:
        return []
    messages = []
    for name in COMPARED:
        value, usual = getattr(plate, name), median(getattr(numbers, name) for numbers in others)
        change = (value - usual) / usual if usual else float(np.inf) * value if value else 0.0
        if abs(change) > threshold:
            messages.append(
                Drift(
                    number=name, value=value, usual=usual, change=change, threshold=threshold, plates=len(others)
                )
            )  # fmt: skip
    return messages


def plate_numbers(plate: str, ended: str, objects: pd.DataFrame, images: Iterable[str]) -> PlateNumbers:
    """Compute the numbers of a plate from the object tables of its images; images without objects count too.

    ``images`` are the paths of all images that are done (``A/1/0``); the table has their path in ``image``.
    """
    paths = list(images)
    wells = [_well(path) for path in paths]
    counts = pd.Series(0, index=sorted(set(wells))).add(
        objects["image"].map(_well).value_counts(), fill_value=0
    )
    return PlateNumbers(
        plate=plate,
        ended=ended,
        images=len(paths),
        objects=len(objects),
        objects_per_well=float(counts.median()) if len(counts) else 0.0,
        median_area_px=float(objects["area_px"].median()) if len(objects) else 0.0,
    )


def _well(path: str) -> str:
    parts = path.split("/")
    return "/".join(parts[:2]) if len(parts) == 3 else path


def add_to_history(history: Address, numbers: PlateNumbers) -> None:
    """Add a plate to the history; files are named by time, so that a listing is in order."""
    stamp = numbers.ended.replace(":", "").replace("+0000", "Z")
    history.write_bytes(
        f"{stamp}~{safe_name(numbers.plate)}.json", json.dumps(asdict(numbers), indent=1).encode()
    )


def read_history(history: Address) -> list[PlateNumbers]:
    """The latest plates of the history, oldest first; of a repeated plate only its latest entry."""
    names = [name for name in history.children() if name.endswith(".json")][-2 * KEPT :]
    texts = [history.read_bytes_or_none(name) for name in names]
    earlier = [PlateNumbers(**json.loads(text)) for text in texts if text]
    return list({numbers.plate: numbers for numbers in earlier}.values())
