"""The report of an archive: one line per store, with a link to each, and what was set aside.

A page is made of plain values, without access to stores or runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.blocks import (
    Block,
    Column,
    KeyNumber,
    KeyNumbers,
    Note,
    Page,
    Row,
    Section,
    Table,
    counted,
)
from pipeline.report.facts import AGAIN
from pipeline.report.provenance import Pairs
from pipeline.store.places.traffic import Traffic


@dataclass(frozen=True, kw_only=True)
class StoreLine:
    """The result of one store."""

    name: str
    """Path below the archive."""
    status: str
    """complete, partial, unchanged (done before), or set aside."""
    images: int = 0
    objects: int = 0
    seconds: float = 0.0
    """Seconds of all its stages."""
    traffic: Traffic = Traffic()
    problems: tuple[str, ...] = ()
    """Images that were set aside or are missing, with the reason."""
    link: str = ""
    """Link to its report, or to the store."""


def archive_page(place: str, output: str, lines: Sequence[StoreLine], *, provenance: Pairs = ()) -> Page:
    """Lay out the report of an archive; ``provenance`` says when and by which code it was written."""
    blocks: list[Block] = [_numbers(lines)]
    if not lines:
        blocks.append(Note(text="No store fits.", tone="warn"))
    problems = [(line.name, problem) for line in lines for problem in line.problems]
    if problems:
        blocks.append(
            Table(
                name="set_aside", title="Set aside", columns=(Column(name="store"), Column(name="reason")),
                rows=tuple(Row(cells=cells) for cells in problems),
                caption=AGAIN,
            )
        )  # fmt: skip
    summary = Section(name="summary", title="Summary", blocks=tuple(blocks))
    stores = Section(name="stores", title="Stores", blocks=(_table(lines),))
    subtitle = "Segmentation of an archive" + (f" · results in {output}" if output != place else "")
    return Page(title=place, subtitle=subtitle, sections=(summary, stores), provenance=provenance)


def _numbers(lines: Sequence[StoreLine]) -> KeyNumbers:
    before = sum(line.status == "unchanged" for line in lines)
    bad = sum(bool(line.problems) for line in lines)
    traffic = sum((line.traffic for line in lines), Traffic())
    numbers = [
        KeyNumber(label="Stores", value=f"{len(lines):,}", detail=f"{before:,} done before"),
        KeyNumber(
            label="With something set aside", value=f"{bad:,}" if bad else "none",
            detail="named below" if bad else "", tone="bad" if bad else "good",
        ),
        KeyNumber(
            label="Objects", value=f"{sum(line.objects for line in lines):,}",
            detail=f"in {counted(sum(line.images for line in lines), 'image')}",
        ),
    ]  # fmt: skip
    if traffic:
        sizes = f"{traffic.bytes_in / 2**20:,.1f} MiB in, {traffic.bytes_out / 2**20:,.1f} MiB out"
        numbers.append(KeyNumber(label="Requests", value=f"{traffic.total:,}", detail=sizes))
    return KeyNumbers(numbers=tuple(numbers))


def _table(lines: Sequence[StoreLine]) -> Table:
    names = ("store", "status", "images", "objects", "set aside")
    columns = (
        *(Column(name=name) for name in names),
        Column(name="seconds", digits=1),
        Column(name="requests"),
    )
    rows = tuple(
        Row(
            cells=(
                line.name, line.status, line.images, line.objects, len(line.problems), line.seconds,
                line.traffic.total,
            ),
            link=line.link,
        )
        for line in lines
    )  # fmt: skip
    caption = (
        "The name leads to the report of the store. Seconds and requests add up over all starts of its run."
    )
    return Table(
        name="stores", title="", columns=columns, rows=rows, caption=caption, filterable=len(lines) > 10
    )
