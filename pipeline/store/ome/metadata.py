"""OME-NGFF metadata 0.4 and 0.5 as values: axes, scales, channels, plates.

Pure functions of JSON-like dictionaries, without a store. Every error names the place, the expectation and the value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import BadArgument, BadStore

AXES = ("t", "c", "z", "y", "x")
"""All axes, in the only order that is read and written."""

AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}

MICROMETERS = {
    "angstrom": 1e-4,
    "picometer": 1e-6,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "nm": 1e-3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "micron": 1.0,
    "mm": 1e3,
}
"""Micrometers per unit of length; other units give no physical size."""

COLORS = ("FFFFFF", "00FF00", "FF00FF", "0000FF", "FFFF00", "00FFFF", "FF0000")


@dataclass(frozen=True, kw_only=True)
class Multiscale:
    """The multiscale metadata of one image."""

    axes: tuple[str, ...]
    """Subset of t, c, z, y, x in that order; y and x last."""
    units: tuple[str | None, ...]
    """Unit per axis."""
    levels: tuple[str, ...]
    """Paths of the arrays, finest first."""
    scale: tuple[float, ...]
    """Size of a pixel of the finest level per axis, in its unit."""
    translation: tuple[float, ...]
    """Position of the first pixel of the finest level per axis, in its unit."""
    name: str
    """Name of the image, may be empty."""

    @property
    def spacing_um(self) -> tuple[float, float] | None:
        """Pixel size (y, x) in micrometers; None when the unit is not known."""
        factors = [MICROMETERS.get(unit or "") for unit in self.units[-2:]]
        if factors[0] is None or factors[1] is None:
            return None
        return self.scale[-2] * factors[0], self.scale[-1] * factors[1]


def parse_multiscale(ome: dict[str, Any], *, where: str, finest: int = 0) -> Multiscale:
    """Read the first multiscale of an image's metadata; ``where`` names the image in messages.

    Levels finer than ``finest`` are left out, as if the pyramid began with that one.
    """
    listed = ome.get("multiscales")
    if not isinstance(listed, list) or not listed or not isinstance(listed[0], dict):
        raise BadStore(
            f"{where}: no OME-Zarr image: expected 'multiscales' metadata; give the path of an image"
        )
    first = listed[0]
    axes, units = _parse_axes(first.get("axes"), _version(ome, first), where)
    datasets = first.get("datasets")
    if not isinstance(datasets, list) or not datasets or not all(_has_path(item) for item in datasets):
        raise BadStore(f"{where}: expected multiscales[0].datasets with paths, got {datasets!r}")
    if finest >= len(datasets):
        raise BadArgument(
            f"{where}: expected a level from 0 to {len(datasets) - 1}, got {finest}; `platelayer inspect` lists them"
        )
    datasets = datasets[finest:]
    fine = _transforms(datasets[0], len(axes), where)
    outer = _transforms(first, len(axes), where)
    return Multiscale(
        axes=axes,
        units=units,
        levels=tuple(item["path"] for item in datasets),
        scale=tuple(a * b for a, b in zip(fine[0], outer[0], strict=True)),
        translation=tuple(t * s + u for t, s, u in zip(fine[1], outer[0], outer[1], strict=True)),
        name=str(first.get("name") or ""),
    )


def check_axes(axes: Sequence[str], *, where: str = "axes") -> tuple[str, ...]:
    """Return the axes as a tuple; `BadStore` unless they are a subset of t, c, z, y, x in that order with y, x."""
    named = tuple(axes)
    if named != tuple(axis for axis in AXES if axis in named) or named[-2:] != ("y", "x"):
        raise BadStore(
            f"{where}: expected axes out of t, c, z, y, x in this order, with y and x, got {list(named)}; "
            "rewrite the image with these axes"
        )
    return named


def channel_names(ome: dict[str, Any], count: int) -> tuple[str, ...]:
    """Read the channel names; ``channel_0``, ... where there are none, made unique where two are equal."""
    omero = ome.get("omero")
    listed = omero.get("channels") if isinstance(omero, dict) else None
    entries = listed if isinstance(listed, list) and len(listed) == count else [{}] * count
    names: list[str] = []
    for index, entry in enumerate(entries):
        label = str((entry.get("label") if isinstance(entry, dict) else None) or f"channel_{index}")
        names.append(label if label not in names else f"{label}_{index}")
    return tuple(names)


def multiscales_metadata(
    *,
    axes: Sequence[str],
    units: Sequence[str | None],
    scales: Sequence[Sequence[float]],
    translation: Sequence[float],
    name: str,
    ngff: str,
    folder: str = "",
) -> dict[str, Any]:
    """Return the ``multiscales`` entry of an image with these scales; its levels are ``0``, ``1``, ... in a folder."""
    described = [
        {"name": axis, "type": AXIS_TYPES[axis], **({"unit": unit} if unit else {})}
        for axis, unit in zip(axes, units, strict=True)
    ]
    prefix = f"{folder}/" if folder else ""
    shift = [{"type": "translation", "translation": list(translation)}] if any(translation) else []
    datasets = [
        {
            "path": f"{prefix}{level}",
            "coordinateTransformations": [{"type": "scale", "scale": list(scale)}, *shift],
        }
        for level, scale in enumerate(scales)
    ]
    version = {"version": ngff} if ngff == "0.4" else {}
    return {"multiscales": [{**version, "name": name, "axes": described, "datasets": datasets}]}


def omero_metadata(
    channels: Sequence[str], *, limits: tuple[float, float], windows: Sequence[tuple[float, float]]
) -> dict[str, Any]:
    """Return the ``omero`` entry: channel names and display windows for viewers."""
    entries = [
        {
            "label": name,
            "color": COLORS[index % len(COLORS)],
            "active": True,
            "window": {"min": limits[0], "max": limits[1], "start": start, "end": end},
        }
        for index, (name, (start, end)) in enumerate(zip(channels, windows, strict=True))
    ]
    return {"omero": {"channels": entries}}


def acquisition_names(plate: dict[str, Any]) -> dict[int, str]:
    """Read id and name of the acquisitions that a plate describes; the name may be empty."""
    listed = plate.get("acquisitions")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {
        entry["id"]: str(entry.get("name") or "") for entry in entries if isinstance(entry.get("id"), int)
    }


def plate_metadata(name: str, wells: Sequence[tuple[str, str, int]], *, ngff: str) -> dict[str, Any]:
    """Return the ``plate`` entry for wells given as (row, column, number of fields)."""
    if not wells:
        raise BadArgument("a plate needs at least one well")
    rows = sorted({row for row, _, _ in wells}, key=lambda row: (len(row), row))
    columns = sorted({column for _, column, _ in wells}, key=lambda column: (len(column), column))
    places = sorted((rows.index(row), columns.index(column)) for row, column, _ in wells)
    plate: dict[str, Any] = {
        "name": name,
        "rows": [{"name": row} for row in rows],
        "columns": [{"name": column} for column in columns],
        "wells": [
            {"path": f"{rows[r]}/{columns[c]}", "rowIndex": r, "columnIndex": c}
            for r, c in dict.fromkeys(places)
        ],
        "field_count": max(fields for _, _, fields in wells),
        "version": ngff,
    }
    return {"plate": plate}


def well_metadata(fields: Sequence[str], *, ngff: str) -> dict[str, Any]:
    """Return the ``well`` entry that lists the fields."""
    version = {"version": ngff} if ngff == "0.4" else {}
    return {"well": {"images": [{"path": field} for field in fields], **version}}


def _version(ome: dict[str, Any], multiscale: dict[str, Any]) -> str:
    return str(ome.get("version") or multiscale.get("version") or "")


def _has_path(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("path"), str) and bool(item["path"])


def _parse_axes(listed: Any, version: str, where: str) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Read names and units of the axes; versions before 0.4 list names only, or (0.1, 0.2) always have all five."""
    if listed is None and version.startswith(("0.1", "0.2")):
        return AXES, (None,) * len(AXES)
    if not isinstance(listed, list) or not listed:
        raise BadStore(f"{where}: expected multiscales[0].axes, got {listed!r}; add the axes to the metadata")
    entries = [{"name": axis} if isinstance(axis, str) else axis for axis in listed]
    if not all(isinstance(axis, dict) and isinstance(axis.get("name"), str) for axis in entries):
        raise BadStore(f"{where}: expected axes with names (OME-Zarr 0.3 to 0.5), got {listed!r}")
    names = check_axes([_axis_letter(axis) for axis in entries], where=where)
    units = tuple(axis["unit"] if isinstance(axis.get("unit"), str) else None for axis in entries)
    return names, units


def _axis_letter(axis: dict[str, Any]) -> str:
    """Return the one-letter name of an axis; capital letters and ``channel`` or ``time`` spelled out are understood."""
    name = axis["name"].lower()
    if name in AXES:
        return name
    return {"time": "t", "channel": "c"}.get(str(axis.get("type") or name).lower(), axis["name"])


def _transforms(item: dict[str, Any], count: int, where: str) -> tuple[list[float], list[float]]:
    """Read (scale, translation) of a dataset or multiscale; absent means 1 and 0."""
    scale, translation = [1.0] * count, [0.0] * count
    for transform in item.get("coordinateTransformations") or []:
        kind = transform.get("type") if isinstance(transform, dict) else None
        if kind == "scale":
            scale = _numbers(transform.get("scale"), count, where, "scale")
        elif kind == "translation":
            translation = _numbers(transform.get("translation"), count, where, "translation")
    return scale, translation


def _numbers(values: Any, count: int, where: str, kind: str) -> list[float]:
    fits = isinstance(values, list) and len(values) == count
    if not fits or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise BadStore(f"{where}: expected a {kind} of {count} numbers (one per axis), got {values!r}")
    return [float(value) for value in values]
