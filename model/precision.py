"""The arithmetic in which the convolutions of a model run by default: measured once, and kept in its card.

A card's entry ``precision`` holds the scores of every arithmetic on images that the model was not trained on, and
the fastest one whose scores differ from those of float32 by at most `TOLERANCE`. It is outside the card's digest,
because it says which arithmetic is used and not what the model answers in it. No torch is imported.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

from model.errors import BadCheckpoint

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "float16")

FAST: tuple[Precision, ...] = ("bfloat16",)
"""Arithmetics a card may choose, the fastest first. float16 is as fast as bfloat16 and its values end at 65,504."""
MEASURED: tuple[Precision, ...] = ("float32", *FAST)
SCORES = ("meanAP", "AJI")
"""Scores that decide."""
TOLERANCE = 0.002
"""Largest difference of a score from that of float32."""


def decision(scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the entry ``precision`` of a card from the scores (`SCORES`) by arithmetic.

    Scores count as they are written, with 4 digits.
    """
    written = {name: {key: round(float(values[key]), 4) for key in SCORES} for name, values in scores.items()}
    chosen = next((name for name in FAST if name in written and _is_close(written, name)), "float32")
    return {"chosen": chosen, "tolerance": TOLERANCE, "scores": written}


def _is_close(scores: Mapping[str, Mapping[str, float]], name: str) -> bool:
    differences = (abs(scores[name][key] - scores["float32"][key]) for key in SCORES)
    return all(round(difference, 4) <= TOLERANCE for difference in differences)


def in_words(entry: Mapping[str, Any]) -> str:
    """Return one line about a decision: what was chosen, and the scores of every arithmetic."""
    scores = "; ".join(
        f"{name} {', '.join(f'{key} {value:.4f}' for key, value in values.items())}"
        for name, values in entry["scores"].items()
    )
    return f"precision {entry['chosen']} ({scores})"


def chosen_precision(card: Mapping[str, Any]) -> Precision | None:
    """Return the arithmetic that a card chooses; ``None`` where it was never measured.

    Raises:
        BadCheckpoint: the entry names no arithmetic that this version knows.
    """
    entry = card.get("precision")
    if entry is None:
        return None
    chosen = entry.get("chosen") if isinstance(entry, Mapping) else entry
    if chosen not in MEASURED:
        raise BadCheckpoint(
            f"model {card.get('name')!r}: expected a card whose precision.chosen is one of {list(MEASURED)}, got "
            f"{chosen!r}; copy the model again, or name a precision in the job"
        )
    return cast(Precision, chosen)
