"""The first block of every page: what was run, on which data, with which model and settings, and when.

The record of a run is a plain dictionary; facts that older records lack are left out.
"""

from collections.abc import Mapping
from typing import Any

Pairs = tuple[tuple[str, str], ...]
"""Names and values in reading order."""

DIGEST = 12
"""Displayed digits of a digest, enough to distinguish models."""


def run_provenance(record: Mapping[str, Any]) -> Pairs:
    """Date, images, channel, model, thresholds, filters, normalisation and code of a run."""
    source = (record.get("job") or {}).get("source")
    code = _code(record.get("versions"))
    named = {
        "Date": _date(record),
        "Images": str(source or ""),
        "Channel": _channels(record),
        **model_facts(record),
        "Normalisation": _normalisation(record.get("normalise")),
        "Code": ", run ".join(part for part in (code, str(record.get("run", ""))) if part),
    }
    return tuple((name, value) for name, value in named.items() if value)


def model_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Name and digest of the model of a run, its arithmetic and thresholds, and the filters that objects passed."""
    model = record.get("model") or {}
    name = str(model.get("name") or record.get("segmenter") or "")
    digest = str(model.get("digest") or "")[:DIGEST]
    thresholds = model.get("thresholds") or {}
    return {
        "Model": f"{name} ({digest})" if name and digest else name,
        "Arithmetic": _arithmetic(model),
        "Thresholds": ", ".join(f"{_words(key)} {value:g}" for key, value in thresholds.items()),
        "Filters": _filters(record.get("filters")),
    }


def _arithmetic(model: Mapping[str, Any]) -> str:
    """Arithmetic of the network, and why it was taken where the job left it open."""
    precision, reason = (str(model.get(key) or "") for key in ("precision", "precision_reason"))
    return f"{precision}, {reason}" if precision and reason else precision


def _date(record: Mapping[str, Any]) -> str:
    """Begin and end, in UTC to the minute."""
    begin, end = (str(record.get(key) or "")[:16].replace("T", " ") for key in ("started", "ended"))
    if not begin or not end or begin == end:
        return f"{begin or end} UTC" if begin or end else ""
    return f"{begin} to {end[11:] if begin[:10] == end[:10] else end} UTC"


def _channels(record: Mapping[str, Any]) -> str:
    segmented, measured = (", ".join(record.get(key) or ()) for key in ("channels", "measured"))
    return f"{segmented}; measured: {measured}" if segmented and measured != segmented else segmented


def _filters(filters: Mapping[str, Any] | None) -> str:
    if not filters:
        return ""
    least, most = filters.get("min_area") or 0, filters.get("max_area")
    area = f"area at least {least} px" + (f" and at most {most} px" if most else "")
    edge = "objects at the image border dropped" if filters.get("drop_edge") else "objects at the border kept"
    return f"{area}; {edge}"


def _normalisation(normalise: Mapping[str, Any] | None) -> str:
    if not normalise or normalise.get("kind") == "none":
        return "none" if normalise else ""
    ends = f" {normalise['low']:g} to {normalise['high']:g}" if normalise.get("kind") == "percentile" else ""
    return f"{normalise.get('kind')}{ends}, per {normalise.get('scope', 'image')}"


def _code(versions: Mapping[str, str] | None) -> str:
    version = (versions or {}).get("platelayer")
    return f"platelayer {version}" if version else ""


def _words(key: str) -> str:
    return key.removesuffix("_threshold").replace("_", " ")
