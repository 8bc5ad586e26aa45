"""The result of reading a source: its images, their paths in a store, and what was left out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.datasets.files.places import Place

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Scan(Generic[Item]):
    """The images of a source, and what was left out."""

    fields: tuple[Item, ...]
    """Images that are whole, in the order of well and field, or of names."""
    left_out: Mapping[str, str]
    """Why an image is left out, by its path."""
    files: int
    """Number of files that were read."""
    title: str
    """How the names were read."""
    notes: tuple[str, ...]
    """Remarks for the user, one sentence each."""
    sidecar: str = ""
    """File beside the images that was used; empty where there is none."""


def store_paths(places: Sequence[Place]) -> list[str]:
    """Return the path of every image in its store: row, column and field, or its name in safe letters."""
    used: set[str] = set()
    paths: list[str] = []
    for place in places:
        path = "/".join((*place.well, place.field)) if place.well else _free(_safe(place.image), used)
        used.add(path.lower())
        paths.append(path)
    return paths


def _safe(name: str) -> str:
    """Return a name that every file system and reader takes; ``OME`` is the name of a group of its own."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")
    return f"{plain}_image" if plain.lower() in ("ome", "zarr.json") else plain


def _free(name: str, used: set[str]) -> str:
    candidate, number = name, 2
    while candidate.lower() in used:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
