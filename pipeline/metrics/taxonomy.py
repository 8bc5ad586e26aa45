"""The kind of error of each object, in the terms of the layering paper and two more.

Every truth object and every prediction gets exactly one kind, from intersections alone. The rules, in their order,
are in docs/metrics.md; the three constants below are all there is to tune. Knows nothing of images or drawing.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.metrics.matching import match
from pipeline.metrics.overlap import Overlap

TRUTH_KINDS = ("match", "merged", "overlap", "split", "inaccurate", "missed")
"""Kinds of a truth object, in the order in which they are tried."""

PREDICTION_KINDS = ("match", "merged", "overlap", "split", "inaccurate", "spurious")
"""Kinds of a prediction, in the order in which they are tried."""

MATCH_IOU = 0.5
"""IoU at which a pair is a match."""

MOST = 0.5
"""Share of an object that counts as most of it."""

SPECK = 0.1
"""A prediction that holds less than this share of a truth object is no fragment of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Taxonomy:
    """The kinds of all objects of an image; partners are -1, and their IoU 0, where there is none."""

    truth_kind: np.ndarray
    """``(n_truth,)`` one of TRUTH_KINDS."""
    truth_partner: np.ndarray
    """``(n_truth,)`` index of the prediction that matches it or is the reason for its kind."""
    truth_iou: np.ndarray
    """``(n_truth,)`` IoU with the partner."""
    prediction_kind: np.ndarray
    """``(n_prediction,)`` one of PREDICTION_KINDS."""
    prediction_partner: np.ndarray
    """``(n_prediction,)`` index of the truth object."""
    prediction_iou: np.ndarray
    """``(n_prediction,)`` IoU with the partner."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Relations:
    """What each pair is to each other; masks over ``Overlap.pairs``."""

    matched: np.ndarray
    merged: np.ndarray
    """The prediction holds most of the unshared pixels of this truth object and of another one."""
    fragment: np.ndarray
    """Most of the prediction lies in the truth object, and it is no speck there."""
    inside: np.ndarray
    """Most of the prediction lies in the truth object."""
    about: np.ndarray
    """A fragment, or the prediction holds most of the truth object."""


def classify(overlap: Overlap) -> Taxonomy:
    """Give each object of both sides its kind."""
    pairs, related = overlap.pairs, _relations(overlap)
    truth_kind = _truth_kinds(overlap, related)
    of_pair = truth_kind[pairs.truth]
    prediction_reasons = {
        "match": related.matched,
        "merged": related.merged,
        "overlap": related.fragment & (of_pair == "overlap"),
        "split": related.inside & ((of_pair == "match") | (of_pair == "split")),
        "inaccurate": related.about,
    }
    kinds = {
        kind: _any(pairs.prediction, mask, overlap.n_prediction) for kind, mask in prediction_reasons.items()
    }
    prediction_kind = _first_kind(kinds, "spurious", overlap.n_prediction)
    truth_reasons = {
        "match": related.matched,
        "merged": related.merged,
        "overlap": np.ones_like(related.matched),
        "split": related.fragment,
        "inaccurate": related.about,
    }
    truth_partner, truth_iou = _partners(overlap, pairs.truth, pairs.prediction, truth_kind, truth_reasons)
    prediction_partner, prediction_iou = _partners(
        overlap, pairs.prediction, pairs.truth, prediction_kind, prediction_reasons
    )
    return Taxonomy(
        truth_kind=truth_kind,
        truth_partner=truth_partner,
        truth_iou=truth_iou,
        prediction_kind=prediction_kind,
        prediction_partner=prediction_partner,
        prediction_iou=prediction_iou,
    )


def kind_counts(taxonomy: Taxonomy) -> dict[str, int]:
    """Return how many objects of each side are of each kind, as ``truth_missed``, ``prediction_spurious``..."""
    sides = (
        ("truth", TRUTH_KINDS, taxonomy.truth_kind),
        ("prediction", PREDICTION_KINDS, taxonomy.prediction_kind),
    )
    return {f"{side}_{kind}": int((values == kind).sum()) for side, kinds, values in sides for kind in kinds}


def _relations(overlap: Overlap) -> _Relations:
    pairs = overlap.pairs
    unshared = overlap.truth_unshared_areas[pairs.truth]
    area = overlap.truth_areas[pairs.truth]
    swallowed = (unshared > 0) & (pairs.unshared_pixels >= MOST * unshared)
    greedy = np.bincount(pairs.prediction[swallowed], minlength=overlap.n_prediction) >= 2
    inside = pairs.pixels >= MOST * overlap.prediction_areas[pairs.prediction]
    fragment = inside & (pairs.pixels >= SPECK * area)
    matched = np.zeros(pairs.iou.size, bool)
    matched[match(overlap, MATCH_IOU).pair] = True
    return _Relations(
        matched=matched,
        merged=swallowed & greedy[pairs.prediction],
        fragment=fragment,
        inside=inside,
        about=fragment | (pairs.pixels >= MOST * area),
    )


def _truth_kinds(overlap: Overlap, related: _Relations) -> np.ndarray:
    truth, size = overlap.pairs.truth, overlap.n_truth
    own_found, shared_found = overlap.truth_covered(related.fragment)
    fragments = np.bincount(truth[related.fragment], minlength=size)
    kinds = {
        "match": _any(truth, related.matched, size),
        "merged": _any(truth, related.merged, size),
        "overlap": _overlap_not_handled(overlap, own_found, shared_found),
        "split": (fragments >= 2) & (own_found + shared_found >= MOST * overlap.truth_areas),
        "inaccurate": _any(truth, related.about, size),
    }
    return _first_kind(kinds, "missed", size)


def _overlap_not_handled(overlap: Overlap, own_found: np.ndarray, shared_found: np.ndarray) -> np.ndarray:
    """Say where the shared pixels were given to another object: found without them, or hidden below others."""
    unshared = overlap.truth_unshared_areas
    shared = overlap.truth_areas - unshared
    _, shared_seen = overlap.truth_covered(np.ones(overlap.pairs.iou.size, bool))
    without_them = (unshared > 0) & (own_found >= MOST * unshared)
    hidden = (unshared < MATCH_IOU * overlap.truth_areas) & (shared_seen >= MOST * shared)
    return (shared > 0) & (shared_found < MOST * shared) & (without_them | hidden)


def _first_kind(masks: dict[str, np.ndarray], otherwise: str, size: int) -> np.ndarray:
    kinds = np.full(size, otherwise, dtype="<U10")
    for kind in reversed(masks):
        kinds[masks[kind]] = kind
    return kinds


def _any(index: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(index[mask], minlength=size) > 0


def _partners(
    overlap: Overlap, objects: np.ndarray, other: np.ndarray, kind: np.ndarray, reasons: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each object of one side its partner among the pairs that explain its kind.

    The pair with most pixels, then the better IoU, then the smaller index.
    """
    pairs = overlap.pairs
    kind_of_pair = kind[objects]
    explains = np.zeros(objects.size, bool)
    for name, mask in reasons.items():
        explains |= mask & (kind_of_pair == name)
    left = np.flatnonzero(explains)
    left = left[np.lexsort((-other[left], pairs.iou[left], pairs.pixels[left]))]
    partner, iou = np.full(kind.size, -1), np.zeros(kind.size)
    partner[objects[left]], iou[objects[left]] = (
        other[left],
        pairs.iou[left],
    )  # the last write, the best one, stays
    return partner, iou
