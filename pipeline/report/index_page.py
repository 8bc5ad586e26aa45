"""The index of all plates of a watched place: newest first, with a picture, counts, drift and failures of each.

A page is made of plain values, without access to stores or runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.report.blocks import (
    Block,
    Column,
    Gallery,
    KeyNumber,
    KeyNumbers,
    Page,
    Picture,
    Row,
    Section,
    Table,
    counted,
)
from pipeline.report.provenance import Pairs

MOST_PICTURES = 48
"""Plates with a picture on the index, the newest ones."""

BAD = ("failed", "partial", "changed")
"""States of a plate that need attention."""


@dataclass(frozen=True, kw_only=True)
class PlateLine:
    """The result of one plate."""

    name: str
    """Path below the watched place."""
    status: str
    """complete, partial, failed or changed."""
    ended: str
    """Time at which it was finished, ISO 8601 in UTC."""
    images: int = 0
    objects: int = 0
    failures: int = 0
    """Images that were set aside."""
    drift: tuple[str, ...] = ()
    """Differences from earlier plates, one sentence each."""
    problems: tuple[str, ...] = ()
    """Further messages for the user."""
    scores: dict[str, float] = field(default_factory=dict)
    """Scores against the truth, where there is one."""
    link: str = ""
    """Link to its report, relative to the index."""
    picture: str = ""
    """Link to a picture of it, relative to the index."""
    picture_px: tuple[int, int] = (1, 1)
    """Width and height of that picture."""


def index_page(place: str, lines: Sequence[PlateLine], *, provenance: Pairs = ()) -> Page:
    """Lay out the index; the newest plate comes first. ``provenance`` says when and by which code it was written."""
    newest = sorted(lines, key=lambda line: line.ended, reverse=True)
    blocks: list[Block] = [_numbers(newest), _table(newest)]
    if pictures := tuple(
        _picture(at, line) for at, line in enumerate(newest[:MOST_PICTURES]) if line.picture
    ):
        caption = f"The newest {len(pictures)} with a picture." if len(pictures) < len(newest) else ""
        blocks.append(Gallery(title="Pictures", pictures=pictures, column_px=200, caption=caption))
    section = Section(name="plates", title="Plates", blocks=tuple(blocks))
    subtitle = "All plates of this place, newest first"
    return Page(title=place, subtitle=subtitle, sections=(section,), provenance=provenance)


def _numbers(lines: Sequence[PlateLine]) -> KeyNumbers:
    bad = sum(line.status in BAD or bool(line.failures) for line in lines)
    drifting = sum(bool(line.drift) for line in lines)
    return KeyNumbers(
        numbers=(
            KeyNumber(label="Plates", value=f"{len(lines):,}", detail=f"newest {_time(lines[0])}" if lines else ""),
            KeyNumber(label="Objects", value=f"{sum(line.objects for line in lines):,}",
                      detail=f"in {counted(sum(line.images for line in lines), 'image')}"),
            KeyNumber(label="With failures", value=f"{bad:,}" if bad else "none", tone="bad" if bad else "good"),
            KeyNumber(label="With drift", value=f"{drifting:,}" if drifting else "none",
                      detail="against earlier plates", tone="warn" if drifting else "good"),
        )
    )  # fmt: skip


def _time(line: PlateLine) -> str:
    return line.ended[:16].replace("T", " ")


def _table(lines: Sequence[PlateLine]) -> Table:
    scores = list(dict.fromkeys(name for line in lines for name in line.scores))
    names = ("plate", "ended (UTC)", "status", "images", "objects", "set aside", "drift", "problems")
    rows = tuple(
        Row(
            cells=(
                line.name, _time(line), line.status, line.images, line.objects, line.failures,
                "; ".join(line.drift), "; ".join(line.problems), *(line.scores.get(name) for name in scores),
            ),
            link=line.link, anchor="" if line.link else f"plate-{at}",
        )
        for at, line in enumerate(lines)
    )  # fmt: skip
    columns = (*(Column(name=name) for name in names), *(Column(name=name, digits=3) for name in scores))
    return Table(
        name="plates", title="", columns=columns, rows=rows, filterable=len(lines) > 10,
        caption="The name leads to the report of the plate. Drift: the number of objects per well or their area is far "
        "from the median of earlier plates.",
    )  # fmt: skip


def _picture(at: int, line: PlateLine) -> Picture:
    return Picture(
        anchor=f"plate-{at}", title=line.name, source=line.picture, width=line.picture_px[0],
        height=line.picture_px[1], caption=f"{line.status}, {counted(line.objects, 'object')}",
    )  # fmt: skip
