"""Names of files that belong to no plate: each is an image, except where parts say depth, time or channel.

``cells_001`` and ``cells_002`` are two images; ``stack_z01`` and ``stack_z02`` are two planes of one image, because
the rest of their names is the same.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from pipeline.datasets.files.name_parts import Part, parts_of
from pipeline.datasets.files.places import Place
from pipeline.datasets.files.source_files import SourceFile

_AXES = frozenset(("z", "t", "channel"))

Counted = tuple[Part, Mapping[str, str]]
"""A part of a name and what it says."""


def places_by_image(files: Sequence[SourceFile]) -> dict[SourceFile, Place]:
    """Return the image of every file, and its channel, time and depth where names of one image differ in them."""
    counted = {file: [_counted(part) for part in parts_of(file.stem)] for file in files}
    said = {file: [item for item in items if item] for file, items in counted.items()}
    axes = _differing(said)
    return {file: _place(file, said[file], axes) for file in files}


def _counted(part: Part) -> Counted | None:
    found = next((meaning for meaning in part.meanings if frozenset(meaning) <= _AXES), None)
    return (part, found) if found else None


def _differing(said: Mapping[SourceFile, Sequence[Counted]]) -> frozenset[str]:
    """Return the axes in which files differ whose names are otherwise the same."""
    groups: dict[str, list[dict[str, str]]] = defaultdict(list)
    for file, items in said.items():
        groups[_without(file.stem, [part for part, _ in items])].append(_merged(items))
    return frozenset(
        axis for group in groups.values() for axis in _AXES if len({found.get(axis) for found in group}) > 1
    )


def _merged(items: Iterable[Counted]) -> dict[str, str]:
    return {kind: text for _, meaning in items for kind, text in meaning.items()}


def _without(name: str, parts: Sequence[Part]) -> str:
    """Return a name without some parts, each with the separator before it (after it, at the beginning)."""
    for part in reversed(parts):
        before = name[: part.start].rstrip("_-. ,()[]=+")
        after = name[part.stop :]
        name = before + (after if before and not before.endswith("/") else after.lstrip("_-. ,()[]=+"))
    return name


def _place(file: SourceFile, items: Sequence[Counted], axes: frozenset[str]) -> Place:
    cut = [(part, meaning) for part, meaning in items if axes & meaning.keys()]
    found = _merged(cut)
    name = _without(file.stem, [part for part, _ in cut]).strip("/")
    return Place(
        image=name or "image",
        channel=found.get("channel", "") or _merged(items).get("channel", ""),
        t=int(found.get("t", "0")),
        z=int(found.get("z", "0")),
    )
