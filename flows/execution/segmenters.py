"""The segmenter a job names: a checkpoint, the classical one, another package's network, or a function of the user.

A small reference travels with every tile; the segmenter itself is loaded once per process.
"""

import difflib
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flows.execution.precision import BEGUN, settled
from flows.jobs import DEFAULT_MODEL, SegmentJob
from model.adapters.catalogue import is_adapter, load_adapter
from model.card import CARD, WEIGHTS, answers_digest, read_card, shipped, with_settings
from model.errors import BadCheckpoint
from model.precision import MEASURED, Precision
from pipeline.errors import BadArgument
from pipeline.segment import Segmenter, Traits, imported, traits
from pipeline.store.places.address import Address, address
from pipeline.threshold import Threshold


@dataclass(frozen=True)
class SegmenterRef:
    """A segmenter by ``kind`` and the name, path, URL, ``package:model`` or ``module:function`` of that kind."""

    kind: Literal["model", "threshold", "adapter", "import"]
    reference: str
    device: str = "auto"
    precision: Precision = "float32"
    precision_reason: str = field(default="", compare=False)
    """Why this arithmetic was taken; empty where the job names it."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Settings that replace those of the model (thresholds, sizes, least area), as names and values."""
    digest: str = ""
    """Digest of the segmenter, so that a model that replaced another at the same place is loaded."""


def reference(job: SegmentJob) -> SegmenterRef:
    """The segmenter a job asks for."""
    device = job.execution.device
    classical = job.segmenter == "threshold" or (job.segmenter is None and job.model == "threshold")
    if (classical or job.segmenter) and job.precision not in ("auto", "float32"):
        raise BadArgument(f"precision: only a model has one, got {job.precision}; leave precision out")
    adapted = job.segmenter is not None and is_adapter(job.segmenter)
    if (classical or job.segmenter) and not adapted and job.method:
        raise BadArgument(f"method: only a model has settings, got {sorted(job.method)}; leave method out")
    if classical:
        if device in ("cuda", "openvino"):
            raise BadArgument(
                f"device: threshold computes on the CPU only, got {device}; leave execution.device out"
            )
        return SegmenterRef("threshold", "threshold", device)
    settings = tuple(sorted(job.method.items()))
    if adapted and device == "openvino":
        raise BadArgument(
            f"device: openvino runs the models of platelayer, not {job.segmenter}; use cpu or cuda"
        )
    if job.segmenter:
        return SegmenterRef("adapter" if adapted else "import", job.segmenter, device, settings=settings)
    return _model_reference(job, settings)


def _model_reference(job: SegmentJob, settings: tuple[tuple[str, Any], ...]) -> SegmenterRef:
    model = job.model or DEFAULT_MODEL
    arithmetic = settled(job.precision, read_card(model_folder(model)), job.execution)
    return SegmenterRef(
        "model", model, job.execution.device, arithmetic.precision, arithmetic.reason, settings=settings
    )


def other_precisions(reference: SegmenterRef) -> Iterator[SegmenterRef]:
    """Yield a model in the arithmetics that another machine may have taken, where the job leaves that open."""
    if reference.precision_reason:
        for precision in MEASURED:
            if precision != reference.precision:
                yield replace(reference, precision=precision, precision_reason=BEGUN)


class Guarded:
    """A segmenter behind a lock: one thread uses it at a time, while others read and write tiles."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self._lock = threading.Lock()

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Segment a block."""
        with self._lock:
            return self.segmenter(block)

    def many(self, blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Segment several blocks, in one pass of the network where the segmenter offers that."""
        with self._lock:
            at_once = getattr(self.segmenter, "many", None)
            return at_once(blocks) if at_once else [self.segmenter(block) for block in blocks]


@lru_cache(maxsize=4)
def loaded(reference: SegmenterRef) -> Guarded:
    """The segmenter, loaded once per process."""
    return Guarded(_load(reference))


def _load(reference: SegmenterRef) -> Segmenter:
    if reference.kind == "threshold":
        return Threshold()
    if reference.kind == "import":
        return imported(reference.reference)
    if reference.kind == "adapter":
        return _adapted(reference)
    from model.prediction.segmenter import load_segmenter

    folder = model_folder(reference.reference)
    return load_segmenter(
        folder, device=reference.device, precision=reference.precision, settings=dict(reference.settings)
    )


def _adapted(reference: SegmenterRef) -> Segmenter:
    """Load the network of another package; an unknown setting is an error of the user."""
    try:
        return load_adapter(reference.reference, device=reference.device, settings=dict(reference.settings))
    except BadCheckpoint:
        raise
    except ValueError as error:
        raise BadArgument(str(error)) from None


def model_folder(reference: str) -> Path:
    """Folder of a shipped model, of a path, or of a URL (copied once to the user's cache)."""
    known = shipped()
    if reference in known:
        return known[reference]
    if "://" in reference:
        return _downloaded(address(reference))
    if Path(reference).exists():
        return Path(reference)
    near = difflib.get_close_matches(reference, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"shipped models: {', '.join(known) or 'none'}"
    raise BadArgument(f"model {reference!r}: neither a shipped model nor a folder; {hint}")


def _downloaded(place: Address) -> Path:
    """Copy a checkpoint into the cache unless its card there is the same; its digest is checked when it is read."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "platelayer" / "models"
    name = hashlib.sha256(str(place).encode()).hexdigest()[:16]
    local, card = address(cache / name), place.read_bytes(CARD)
    if local.read_bytes_or_none(CARD) != card or not local.exists(WEIGHTS):
        local.write_bytes(WEIGHTS, place.read_bytes(WEIGHTS))
        local.write_bytes(CARD, card)
    return cache / name


def known_traits(reference: SegmenterRef) -> Traits | None:
    """Traits of a model from its card, without loading the network; ``None`` for other segmenters."""
    if reference.kind != "model":
        return None
    try:
        card = with_settings(read_card(model_folder(reference.reference)), dict(reference.settings))
    except BadCheckpoint:
        raise
    except ValueError as error:
        raise BadArgument(str(error)) from None
    names = ("name", "halo_px", "stride", "layers", "channels", "normalise", "min_area", "pixel_size_um")
    digest = answers_digest(card["digest"], precision=reference.precision)
    link = card.get("link", "touch")  # Older cards have no such entry.
    classes = tuple(card["method"].get("class_names", ()))
    judged = card["method"].get("object_threshold", 0) > 0
    diameters = tuple((card.get("expects") or {}).get("diameter_px", ()))
    owner = card.get("owner", "core")  # Nor this one.
    return Traits(
        link=link, digest=digest, classes=classes, judged=judged, diameters_px=diameters, owner=owner,
        **{name: card[name] for name in names},
    )  # fmt: skip


def expected_channels(reference: SegmenterRef) -> tuple[str, ...]:
    """Names of the channels a model was made for, by its card or its title; empty where neither names any."""
    if reference.kind != "model":
        return ()
    card = read_card(model_folder(reference.reference))
    title = [str(card["title"])] if card["channels"] == 1 and card.get("title") else []
    return tuple(str(name) for name in card.get("channel_names") or title)


def described(reference: SegmenterRef, traits: Traits) -> dict[str, Any]:
    """Facts of a segmenter for the record: name, digest, a model's arithmetic and settings, the objects it knows."""
    facts: dict[str, Any] = {"name": traits.name, "digest": traits.digest}
    if traits.diameters_px:
        facts["diameters_px"] = list(traits.diameters_px)
    if reference.kind == "model":
        facts |= {"precision": reference.precision, "precision_reason": reference.precision_reason}
        method = read_card(model_folder(reference.reference))["method"]
        facts["thresholds"] = {key: value for key, value in method.items() if key.endswith("threshold")}
    elif reference.settings:
        facts["thresholds"] = dict(reference.settings)
    return facts


def full_traits(reference: SegmenterRef, probe: np.ndarray) -> Traits:
    """Traits of any segmenter; a plain function is called with ``probe`` to find out."""
    return known_traits(reference) or traits(loaded(reference).segmenter, probe=probe)
