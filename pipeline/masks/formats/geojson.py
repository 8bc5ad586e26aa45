"""Objects as GeoJSON, as QuPath and other pathology software read and write it.

Coordinates are pixels of the full resolution (QuPath's convention: the first pixel spans 0 to 1), or micrometres.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pipeline.errors import BadStore
from pipeline.masks.objects import MaskObject, union
from pipeline.masks.outlines import Polygon, object_of_rings, polygons_of

SKIPPED = frozenset({"Point", "MultiPoint", "LineString", "MultiLineString"})
"""Geometries without an area."""


def read_geojson(path: Path, *, scale: tuple[float, float] = (1.0, 1.0)) -> Iterator[MaskObject]:
    """Yield the polygons of a FeatureCollection, a list of features or one feature; points and lines are left out.

    Args:
        path: the file; ``.gz`` is understood.
        scale: size of a pixel (y, x) in the unit of the coordinates; 1 for pixels.

    Raises:
        BadStore: not GeoJSON, or a geometry that is none.
    """
    for number, feature in enumerate(_features(path), start=1):
        geometry = feature.get("geometry") or {}
        if geometry.get("type") in SKIPPED:
            continue
        try:
            polygons = _polygons(geometry, scale)
        except (KeyError, TypeError, ValueError):
            raise BadStore(
                f"{path}: feature {number}: expected a Polygon or MultiPolygon, got {geometry!s:.80}"
            ) from None
        if polygons:
            item = union(_label(feature), [object_of_rings(0, polygon) for polygon in polygons])
            yield replace(item, category=_category(feature))


def _features(path: Path) -> list[dict[str, Any]]:
    try:
        data = path.read_bytes()
        document = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, ValueError, EOFError) as error:
        raise BadStore(f"{path}: expected GeoJSON ({error!s:.80})") from None
    if isinstance(document, dict):
        document = document.get("features", [document] if document.get("type") == "Feature" else None)
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise BadStore(f"{path}: expected a FeatureCollection or a list of features")
    return document


def _polygons(geometry: dict[str, Any], scale: tuple[float, float]) -> list[Polygon]:
    kind = geometry["type"]
    if kind == "GeometryCollection":
        parts = [part for part in geometry["geometries"] if part.get("type") not in SKIPPED]
        return [polygon for part in parts for polygon in _polygons(part, scale)]
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(kind)
    listed = [geometry["coordinates"]] if kind == "Polygon" else geometry["coordinates"]
    divisor = np.array([scale[1], scale[0]])
    return [
        [np.array([point[:2] for point in ring], np.float64).reshape(-1, 2) / divisor for ring in polygon]
        for polygon in listed
    ]


def _label(feature: dict[str, Any]) -> int:
    """Id of an object as platelayer writes it; 0 in files of other programs, whose ids are no numbers."""
    properties = feature.get("properties")
    label = properties.get("label") if isinstance(properties, dict) else None
    return label if isinstance(label, int) and not isinstance(label, bool) and label > 0 else 0


def _category(feature: dict[str, Any]) -> str:
    """Name of the classification of a feature, as QuPath writes it (derived ones as "Tumor: Positive"), or ''."""
    properties = feature.get("properties")
    found = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(found, dict):
        names = found.get("names")
        found = ": ".join(map(str, names)) if isinstance(names, list) else found.get("name")
    return found if isinstance(found, str) else ""


class GeoJsonWriter:
    """Writes a FeatureCollection object by object."""

    def __init__(self, file: TextIO, *, name: str, scale: tuple[float, float] = (1.0, 1.0)) -> None:
        """``name``: the classification of objects without a class."""
        self._file, self._name, self._scale = file, name, scale
        self._separator = ""
        file.write('{"type": "FeatureCollection", "features": [')

    def add(self, item: MaskObject) -> None:
        """Write one object as a feature of the kind QuPath shows as a detection."""
        factor = np.array([self._scale[1], self._scale[0]])
        polygons = [[_closed(ring, factor) for ring in polygon] for polygon in polygons_of(item)]
        single = len(polygons) == 1
        geometry = {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": polygons[0] if single else polygons,
        }
        properties = {
            "objectType": "detection",
            "name": str(item.label),
            "label": item.label,
            "classification": {"name": item.category or self._name},
        }
        feature = {"type": "Feature", "id": str(item.label), "geometry": geometry, "properties": properties}
        self._file.write(f"{self._separator}\n{json.dumps(feature)}")
        self._separator = ","

    def close(self) -> None:
        """Write the end of the collection."""
        self._file.write("\n]}\n")


def _closed(ring: np.ndarray, factor: np.ndarray) -> list[list[float]]:
    points = ring if (factor == 1).all() else ring * factor
    listed: list[list[float]] = points.tolist()
    return [*listed, listed[0]]
