"""Objects as ImageJ regions of interest: a ``.roi`` file, or a ``.zip`` of them as the ROI Manager saves it."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import BadArgument, BadStore
from pipeline.masks.objects import MaskObject
from pipeline.masks.outlines import Ring, object_of_rings, polygons_of

MOVE, LINE, CLOSE = 0.0, 1.0, 4.0
"""Codes of a path of several outlines, as Java's PathIterator has them."""


def _roifile() -> Any:
    try:
        import roifile
    except ImportError:
        raise BadArgument("ImageJ regions need the package roifile; install platelayer[roi]") from None
    return roifile


def read_rois(path: Path) -> Iterator[MaskObject]:
    """Yield the regions with an area: polygons, freehand and traced outlines, rectangles, ovals, composites.

    Raises:
        BadArgument: the package roifile is not installed.
        BadStore: not a file of regions.
    """
    roifile = _roifile()
    try:
        rois = roifile.roiread(path)
    except (OSError, ValueError, zipfile.BadZipFile, KeyError) as error:
        raise BadStore(f"{path}: expected ImageJ regions (.roi, .zip): {error!s:.80}") from None
    kinds = roifile.ROI_TYPE
    without_area = {kinds.LINE, kinds.FREELINE, kinds.POLYLINE, kinds.ANGLE, kinds.POINT, kinds.NOROI}
    for roi in rois if isinstance(rois, list) else [rois]:
        if roi.roitype not in without_area:
            name = roi.name or ""
            yield object_of_rings(int(name) if name.isdecimal() else 0, _outlines(roi))


def _outlines(roi: Any) -> list[Ring]:
    if roi.multi_coordinates is None and roi.roitype.name == "OVAL":
        return [_ellipse(roi)]
    return [np.asarray(ring, np.float64) for ring in roi.coordinates(multi=True)]


def _ellipse(roi: Any) -> Ring:
    """Outline of an oval in its bounding box, by as many points as its circumference has pixels."""
    height, width = roi.bottom - roi.top, roi.right - roi.left
    angle = np.linspace(0, 2 * np.pi, max(4 * (height + width), 16), endpoint=False)
    x = roi.left + width / 2 * (1 + np.cos(angle))
    y = roi.top + height / 2 * (1 + np.sin(angle))
    return np.stack([x, y], axis=1)


class RoiWriter:
    """Writes a zip archive, one region per object; objects of several parts or with holes are composites."""

    def __init__(self, path: Path) -> None:
        self._roifile = _roifile()
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)

    def add(self, item: MaskObject) -> None:
        """Write one object; its name is its id."""
        rings = [ring for polygon in polygons_of(item) for ring in polygon]
        name = str(item.label)
        roi = self._roifile.ImagejRoi.frompoints(rings[0], name=name)
        if len(rings) > 1:
            top, bottom, left, right = item.box
            roi = self._roifile.ImagejRoi()
            roi.name, roi.roitype = name, self._roifile.ROI_TYPE.RECT
            roi.top, roi.bottom, roi.left, roi.right = top, bottom, left, right
            path = np.concatenate([_path(ring) for ring in rings])
            roi.multi_coordinates, roi.shape_roi_size = path, len(path)
        self._zip.writestr(f"{name}.roi", roi.tobytes())

    def close(self) -> None:
        """Finish the archive."""
        self._zip.close()


def _path(ring: Ring) -> np.ndarray:
    codes = np.full((len(ring), 1), LINE)
    codes[0] = MOVE
    return np.append(np.concatenate([codes, ring], axis=1).reshape(-1), CLOSE).astype(np.float32)
