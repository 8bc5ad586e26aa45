"""Images that need attention: failed, empty, out of focus, saturated, or without objects."""

from collections.abc import Iterator, Mapping

import pandas as pd

from pipeline.focus import BLURRED, BLURRED_DEVIATIONS, BLURRED_SHARE, SATURATED, SATURATED_SHARE
from pipeline.report.blocks import Block, Column, Note, Row, Table
from pipeline.report.wells import Places

EMPTY = "empty"
"""Flag of an image that holds only noise."""

RULES = {
    EMPTY: "nothing in the image stands out of the noise; normalise.scope=plate gives all images one range",
    BLURRED: f"focus below {BLURRED_SHARE:.0%} of the median of the run, and {BLURRED_DEVIATIONS:.0f} robust standard "
    "deviations away from it",
    SATURATED: f"{SATURATED_SHARE:.1%} of the pixels or more are clipped; their intensities are too low",
}
"""Flags of images by how they begin, and the rule of each."""

NO_OBJECTS = "no objects"

LISTED = 24
"""Images that are listed; the others are counted, and are in the table of images."""


def attention_blocks(where: Places, table: pd.DataFrame, anchors: Mapping[str, str]) -> tuple[Block, ...]:
    """List the images that need attention, failures before flags; a note where there are none."""
    entries = list(_found(where, table))
    if not entries:
        return (Note(text="No image failed, is empty, out of focus or saturated.", tone="good"),)
    with_reasons = any(why for *_, why in entries)
    rows = tuple(
        Row(
            cells=(name or "image", *([well] if where.is_plate else []), what, *([why] if with_reasons else [])),
            anchor=anchors.get(name, ""), group=well,
        )
        for name, well, what, why in entries[:LISTED]
    )  # fmt: skip
    columns = ("image", *(["well"] if where.is_plate else []), "what", *(["why"] if with_reasons else []))
    left = len(entries) - LISTED
    more = f" {left:,} more are flagged in the table of images." if left > 0 else ""
    return (
        Table(
            name="attention", title="Look at these first", columns=tuple(Column(name=name) for name in columns),
            rows=rows, caption=f"The name leads to the picture.{more}",
        ),
    )  # fmt: skip


def _found(where: Places, table: pd.DataFrame) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, well, problem and its rule for each image, the most severe first."""
    places = list(zip(table.index.astype(str), where.wells))
    for (name, well), status, reason in zip(places, table["status"], table["reason"]):
        if status != "done":
            yield name, well, str(status), str(reason)
    for flag, rule in RULES.items():
        for (name, well), flags in zip(places, table["flags"]):
            what = next((one for one in _split(flags) if one.startswith(flag)), "")
            if what:
                yield name, well, what, rule
    for (name, well), count, flags in zip(places, table["objects"], table["flags"]):
        if count == 0 and EMPTY not in flags:
            yield name, well, NO_OBJECTS, "there is a signal, but no object was found in it"


def _split(flags: str) -> list[str]:
    """The single flags of an image: commas within brackets part channels."""
    return [part.strip() for part in flags.split(";") if part.strip()]
