"""Text about the images that `platelayer ingest` found in a source: wells, fields, channels, planes, counts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from flows.ingest.files import Source, Understood

LISTED = 12
"""Names that are listed; the others are counted."""


def describe(understood: Understood, *, heading: str, notes: Iterable[str], spacing_um: float | None) -> str:
    """Return the text that is shown before pixels are copied."""
    lines = [
        heading,
        *_places(understood),
        f"channels: {_varied(', '.join(image.channels) for image in understood.images)}",
        f"images: {_varied(_size(image) for image in understood.images)}",
        f"pixel size: {_pixel_size(understood.images, spacing_um)}",
        *(f"note: {note}" for note in notes),
        *_left_out(understood),
    ]
    return "\n".join([lines[0], *(f"  {line}" for line in lines[1:])]) + "\n"


def _places(understood: Understood) -> Iterator[str]:
    wells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for image in understood.images:
        if image.well:
            wells[image.well].append(image.path.rpartition("/")[2])
    total = len(understood.images) + len(understood.left_out)
    if not wells:
        names = [image.path for image in understood.images if image.path]
        yield f"no plate, {len(understood.images)} of {total} image(s)" + (
            f": {_some(names)}" if names else ""
        )
        return
    yield f"plate: {len(wells)} well(s): {_some([''.join(well) for well in wells])}"
    numbers = list(dict.fromkeys(field for fields in wells.values() for field in fields))
    yield f"fields: {len(understood.images)} of {total}, numbered {_some(sorted(numbers, key=_by_number))}"
    most = max(len(fields) for fields in wells.values())
    fewer = [
        f"{''.join(well)} ({len(fields)} of {most})" for well, fields in wells.items() if len(fields) < most
    ]
    if fewer:
        yield f"wells with fewer fields than others: {_some(fewer)}"


def _by_number(text: str) -> tuple[int, str]:
    return (int(text) if text.isdecimal() else 0), text


def _size(image: Source) -> str:
    lengths = dict(zip(image.axes, image.shape, strict=True))
    planes, times = lengths.get("z", 1), lengths.get("t", 1)
    return f"{lengths['y']} x {lengths['x']} px, {image.dtype}, {planes} plane(s), {times} time(s)"


def _pixel_size(images: Sequence[Source], spacing_um: float | None) -> str:
    if spacing_um:
        return f"{spacing_um:g} um, as given"
    return _varied(
        f"{image.spacing_um[0]:g} x {image.spacing_um[1]:g} um (y, x)"
        if image.spacing_um
        else "not known; --pixel-size-um gives it"
        for image in images
    )


def _varied(texts: Iterable[str]) -> str:
    """Return the most frequent value, and the number of images with another one."""
    counts = Counter(texts).most_common()
    if len(counts) <= 1:
        return counts[0][0] if counts else "none"
    return "; ".join(f"{text} ({count} images)" for text, count in counts[:3]) + (
        "; ..." if counts[3:] else ""
    )


def _some(names: Sequence[str]) -> str:
    rest = f", ... {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + rest


def _left_out(understood: Understood) -> Iterator[str]:
    for path, reason in list(understood.left_out.items())[:LISTED]:
        yield f"LEFT OUT {path}: {reason}"
    if len(understood.left_out) > LISTED:
        yield f"LEFT OUT: {len(understood.left_out) - LISTED} more"
