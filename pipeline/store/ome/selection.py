"""Selection of images of a collection: one acquisition of a plate, one series of a converted file.

Nothing is read here. Images that are not chosen are left out; an ambiguous choice is an error that lists the choices.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import BadArgument
from pipeline.store.ome.collection import Collection
from pipeline.store.ome.image import Image, channel_index

MOST_LISTED = 12
"""Images that a message lists."""


def select_images(
    collection: Collection,
    *,
    acquisition: str | int | None = None,
    series: str | int | None = None,
    channels: Sequence[str | int] = (),
) -> Collection:
    """Keep the images of one acquisition of a plate, or of one series of a converted file.

    Without a choice all images stay, unless the same cells would be counted once per acquisition, or a slide
    together with its label picture: then the choices are listed in an error. Images that lack one of the channels
    do not count for that.

    Args:
        collection: the opened collection.
        acquisition: id or name; ``all`` keeps all.
        series: number (path) or name of the image; ``all`` keeps all.
        channels: the required channels.

    Raises:
        BadArgument: no such acquisition or series, or one has to be chosen.
    """
    usable = [image for image in collection.images if _has_channels(image, channels)]
    images = _of_acquisition(collection, usable, acquisition)
    kept = {image.path for image in images}
    images = _of_series(collection, [image for image in usable if image.path in kept], series, images)
    return collection if images == list(collection.images) else replace(collection, images=tuple(images))


def _of_acquisition(collection: Collection, usable: Sequence[Image], wanted: str | int | None) -> list[Image]:
    known = collection.acquisitions
    if wanted is None:
        if len({image.acquisition for image in usable} - {None}) > 1:
            raise BadArgument(
                f"{collection.address}: this plate holds several acquisitions of the same fields; choose one with "
                f"--acquisition, or --acquisition all to segment each: {_acquisitions(collection, known)}"
            )
        return list(collection.images)
    if str(wanted) == "all":
        return list(collection.images)
    number = next((n for n, name in known.items() if str(wanted) in (str(n), name)), None)
    if number is None:
        raise BadArgument(
            f"{collection.address}: there is no acquisition {wanted!r}; there are: "
            f"{_acquisitions(collection, known) or 'none'}"
        )
    return [image for image in collection.images if image.acquisition == number]


def _of_series(
    collection: Collection, usable: Sequence[Image], wanted: str | int | None, images: list[Image]
) -> list[Image]:
    if wanted is None:
        kinds = {(image.axes, image.channels, image.dtype.str) for image in usable}
        if collection.is_series and len(kinds) > 1:
            raise BadArgument(
                f"{collection.address}: this store holds images of several kinds; choose with --series (or "
                f"--series all), or name a --channel that only one kind has: {_listed(collection.images)}"
            )
        return images
    if str(wanted) == "all":
        return images
    kept = [image for image in images if str(wanted) in (image.path, image.name)]
    if not collection.is_series or not kept:
        series = (
            _listed(collection.images) if collection.is_series else "none (it is no converted file of series)"
        )
        raise BadArgument(f"{collection.address}: there is no series {wanted!r}; there are: {series}")
    return kept


def _has_channels(image: Image, channels: Sequence[str | int]) -> bool:
    try:
        return all(channel_index(image, channel) >= 0 for channel in channels)
    except BadArgument:
        return False


def _acquisitions(collection: Collection, known: dict[int, str]) -> str:
    """List the acquisitions with the channels of their first image."""
    parts = []
    for number, name in known.items():
        members = [image for image in collection.images if image.acquisition == number]
        called = f" {name!r}" if name else ""
        parts.append(f"{number}{called} ({len(members)} image(s), channels {', '.join(members[0].channels)})")
    return "; ".join(parts)


def _listed(images: Sequence[Image]) -> str:
    """List images by path, name, size and channels."""
    return "; ".join(
        f"{image.path}{f' {image.name!r}' if image.name else ''} "
        f"({image.size[0]} x {image.size[1]} px, channels {', '.join(image.channels)})"
        for image in images[:MOST_LISTED]
    ) + (" ..." if len(images) > MOST_LISTED else "")
