"""The card of a checkpoint: a JSON description of the model. No torch is imported, so that listing models is quick.

The digest covers the weights and every field that decides the model's answers; a card whose digest does not fit was
edited or belongs to other weights.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.errors import BadCheckpoint

CARD = "card.json"
WEIGHTS = "weights.safetensors"
FORMAT = 1
"""Format of the card; a newer one is refused."""
SHIPPED = Path(__file__).parent / "weights"
ANSWERS = ("format", "method", "network", "channels", "normalise", "weights_sha256")
"""Fields that decide the answers, and so the digest."""
REQUIRED = (
    *ANSWERS,
    "name",
    "digest",
    "halo_px",
    "stride",
    "layers",
    "min_area",
    "licence",
    "pixel_size_um",
)


def shipped() -> dict[str, Path]:
    """Return the folders of the models that come with the program, by name."""
    folders = sorted(path.parent for path in SHIPPED.glob(f"*/{CARD}"))
    return {folder.name: folder for folder in folders}


def read_card(folder: str | Path) -> dict[str, Any]:
    """Return the checked card of a checkpoint folder.

    Raises:
        BadCheckpoint: no card, not JSON, a newer format, a field missing, or a digest that does not fit.
    """
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadCheckpoint(_missing(Path(folder))) from None
    except (json.JSONDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadCheckpoint(
            f"{str(path)!r}: expected a JSON card, but {error}; copy the folder again"
        ) from error
    if isinstance(card, dict) and "reach_px" in card:  # the name of the field before it was called a halo
        card["halo_px"] = card.pop("reach_px")
    check_card(card, where=str(folder))
    return dict(card)


def check_card(card: Any, *, where: str) -> None:
    """Check the format, the fields and the digest of a card.

    Raises:
        BadCheckpoint: the card is not one this version reads, or was changed after it was made.
    """
    if not isinstance(card, dict) or not isinstance(card.get("format"), int):
        raise BadCheckpoint(f"{where!r}: expected a card with an integer format, got {card!r:.80}")
    if card["format"] > FORMAT:
        raise BadCheckpoint(
            f"{where!r}: expected card format {FORMAT} or older, got {card['format']!r}; update platelayer"
        )
    absent = [name for name in REQUIRED if name not in card]
    if absent:
        raise BadCheckpoint(f"{where!r}: expected the fields {absent!r} in {CARD}; train or copy it again")
    if card["digest"] != digest_of(card):
        raise BadCheckpoint(
            f"{where!r}: expected digest {digest_of(card)!r}, got {card['digest']!r}; "
            "the card was changed after the model was saved"
        )


def digest_of(card: dict[str, Any]) -> str:
    """Return the digest of the fields that decide the answers, 32 hexadecimal digits."""
    content = json.dumps({name: card[name] for name in ANSWERS}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def with_settings(card: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card with other settings of decoding or another least area, and so another digest.

    Raises:
        ValueError: a setting that the method has not or that cannot be changed after training, or a value out of range.
    """
    usual = _settable(card, settings)
    for name, value in settings.items():
        if name not in usual:
            raise ValueError(f"method.{name}: expected one of {sorted(usual)} of model {card['name']!r}")
        most = 1 if name.endswith("_threshold") else None
        whole = isinstance(usual[name], int)
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not number or value < 0 or (most is not None and value > most):
            wanted = "a whole number" if whole else "a number"
            span = "of 0 or more" if most is None else "of 0 to 1"
            raise ValueError(f"method.{name}: expected {wanted} {span}, got {value!r}")
    changed = dict(card) | {"method": card["method"] | dict(settings)}
    changed["min_area"] = changed["method"].get("min_area", card["min_area"])
    return changed | {"digest": digest_of(changed)} if settings else dict(card)


def _settable(card: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, int | float]:
    """The settings that can be changed after training, with a value each that has their type."""
    method = card["method"]
    usual = {name: 0.5 for name in method if name.endswith("_threshold")} | {"min_area": 1}
    if set(settings) <= set(usual):
        return usual
    from model.kinds import KINDS  # Methods import torch, which planning a run and listing models do without.

    kind = KINDS.get(method.get("kind", "layering"))
    tunable = kind.tunable if kind else {}
    return {name: values[0] for name, values in tunable.items()} | usual


def answers_digest(card_digest: str, *, precision: str = "float32", overlaps: bool = True) -> str:
    """Return the digest of a model at a precision, with or without overlaps: by default that of its card."""
    if precision == "float32" and overlaps:
        return card_digest
    return hashlib.sha256(f"{card_digest} {precision} {overlaps}".encode()).hexdigest()[:32]


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write a card atomically."""
    text = json.dumps(card, indent=1, sort_keys=False) + "\n"
    partial = folder / f".{CARD}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(folder / CARD)


def _missing(folder: Path) -> str:
    pickled = sorted(
        path.name for path in folder.glob("*") if path.suffix in (".pt", ".pth", ".pkl", ".ckpt")
    )
    if pickled:
        return (
            f"{str(folder)!r}: expected {CARD} and {WEIGHTS}, got {pickled!r}; pickled weights are never loaded, "
            "because they can run code: save the tensors with safetensors"
        )
    known = ", ".join(shipped()) or "none"
    return f"{str(folder)!r}: expected a folder with {CARD} and {WEIGHTS}; shipped models: {known}"
