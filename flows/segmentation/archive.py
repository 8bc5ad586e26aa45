"""Archives: a place with many stores is one run, with one report.

Stores are segmented one after the other and each can be resumed, so a killed run over an archive continues with the
store it was at. A store that cannot be used is set aside by name; the others are segmented.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from urllib.parse import quote

from flows.execution.versions import written_by
from flows.jobs import SegmentJob
from flows.segmentation.record import RunRecord
from flows.segmentation.run import segment
from pipeline.errors import BadArgument, BadStore, RunConflict
from pipeline.report.archive_page import StoreLine, archive_page
from pipeline.report.blocks import Page
from pipeline.report.page import html_page
from pipeline.store.ledger import ROOT
from pipeline.store.places.address import Address, address
from pipeline.store.places.faults import StoreLost

STORE = ".zarr"
"""Ending of the name of a store; the inside of a store is not searched."""

SUMMARY = f"{ROOT}/archive.json"
"""Key of the summary of the latest run over an archive, below its output (or the archive itself)."""

REPORT = f"{ROOT}/archive.html"
"""The same as a page, one line per store."""


@dataclass
class ArchiveRecord:
    """The results of a run over many stores."""

    place: str
    """The archive."""
    stores: dict[str, RunRecord] = field(default_factory=dict)
    """Record of each store that could be used, by its path below the archive."""
    set_aside: dict[str, str] = field(default_factory=dict)
    """Why a store could not be used at all."""
    report: str = ""
    """Path or URL of the report."""

    def page(self, root: Address) -> Page:
        """The report; links are relative where the archive is a folder, so that it may be moved as a whole."""
        lines = [_line(key, record, root) for key, record in self.stores.items()]
        lines += [
            StoreLine(name=key, status="set aside", problems=(why,)) for key, why in self.set_aside.items()
        ]
        return archive_page(
            self.place, str(root), sorted(lines, key=lambda line: line.name), provenance=written_by()
        )

    @property
    def objects(self) -> int:
        """Objects found over all stores."""
        return sum(record.objects for record in self.stores.values())

    @property
    def skipped(self) -> list[str]:
        """Stores that an earlier run had finished."""
        return [key for key, record in self.stores.items() if record.status == "unchanged"]

    @property
    def holes(self) -> list[str]:
        """Stores in which images were set aside or missing."""
        return [key for key, record in self.stores.items() if record.failures or record.missing]

    def lines(self) -> Iterator[str]:
        """The summary, one line of text each."""
        yield (
            f"{len(self.stores)} store(s), {len(self.skipped)} of them done before, {self.objects} objects; "
            f"{len(self.set_aside) + len(self.holes)} with something set aside"
        )
        for key, reason in self.set_aside.items():
            yield f"set aside: {key}: {reason}"
        for key in self.holes:
            record = self.stores[key]
            yield from (
                f"set aside: {key}/{failure['image']} in {failure['stage']}: {failure['reason']}"
                for failure in record.failures
            )
            yield from (f"missing: {key}: {message}" for message in record.missing)
        for key, record in self.stores.items():
            for image, reason in record.left_out.items():
                yield f"left out: {key}/{image}: {reason}"
        if self.report:
            yield f"report: {self.report}"

    @property
    def exit_code(self) -> int:
        """3 when anything was set aside or missing, else 0."""
        return 3 if self.set_aside or self.holes else 0


def find_stores(place: Address, pattern: str, *, output: Address | None = None) -> list[str]:
    """Find the stores that match ``*.zarr``, ``*/*.zarr`` or ``**/*.zarr``: sorted paths below ``place``.

    Stores are not searched for further stores, and everything below ``output`` is left out.
    """
    parts = PurePosixPath(pattern).parts
    if not parts or pattern.startswith("/") or ".." in parts:
        raise BadArgument(f"--match: expected a pattern such as '*.zarr' or '**/*.zarr', got {pattern!r}")
    results = f"{output.url.rstrip('/')}/" if output and output != place else "\0"
    stores = set(_fitting(place, "", parts))
    return sorted(key for key in stores if not f"{place.child(key).url}/".startswith(results))


def _fitting(place: Address, folder: str, parts: tuple[str, ...]) -> Iterator[str]:
    first, rest = parts[0], parts[1:]
    if first == "**" and rest:
        yield from _fitting(place, folder, rest)
    for name in place.children(folder):
        path = f"{folder}/{name}" if folder else name
        if name.startswith("."):
            continue
        if first == "**":
            if not name.endswith(STORE):
                yield from _fitting(place, path, parts)
        elif fnmatchcase(name, first):
            if not rest:
                yield path
            elif not name.endswith(STORE):
                yield from _fitting(place, path, rest)


def jobs_of(job: SegmentJob, keys: Iterable[str]) -> Iterator[tuple[str, SegmentJob]]:
    """The job of each store: source below the archive, output (if any) at the same path below the output."""
    place, root = address(job.source), address(job.output) if job.output else None
    for key in keys:
        output = str(root.child(key)) if root else None
        yield key, replace(job, source=str(place.child(key)), output=output)


def segment_archive(
    job: SegmentJob,
    pattern: str,
    *,
    run: Callable[[SegmentJob], RunRecord] = segment,
    on_store: Callable[[str, int], None] = lambda key, of: None,
    on_record: Callable[[RunRecord], None] = lambda record: None,
) -> ArchiveRecord:
    """Segment every store below ``job.source`` whose path matches; finished stores are skipped.

    ``run`` segments one store. ``on_store`` is called before each store with its path and the number of stores,
    ``on_record`` with the record of each segmented store, for example to write its report.

    Raises:
        BadArgument: no store matches, or ``match`` is not a pattern of stores.
    """
    place = address(job.source)
    root = address(job.output) if job.output else place
    keys = find_stores(place, pattern, output=root)
    if not keys:
        raise BadArgument(f"{place}: no store fits --match {pattern!r}; there are: {_some(place.children())}")
    archive = ArchiveRecord(str(place))
    for key, one in jobs_of(job, keys):
        on_store(key, len(keys))
        try:
            archive.stores[key] = record = run(one)
            on_record(record)
        except StoreLost:
            raise  # Expired credentials are not the fault of this store; all further stores would fail too.
        except (BadArgument, BadStore, RunConflict) as error:
            archive.set_aside[key] = str(error)
    root.write_bytes(REPORT, html_page(archive.page(root)).encode())
    archive.report = str(root.child(REPORT))
    root.write_bytes(SUMMARY, json.dumps(asdict(archive), indent=1, default=str).encode())
    return archive


def _line(key: str, record: RunRecord, root: Address) -> StoreLine:
    reasons = [f"{one['image'] or 'image'} in {one['stage']}: {one['reason']}" for one in record.failures]
    report = f"{ROOT}/{record.run}/report.html"
    target = f"{key}/{report}" if root.child(key).exists(report) else key
    return StoreLine(
        name=key, status=record.status, images=len(record.images), objects=record.objects,
        seconds=sum(stage["seconds"] for stage in record.stages.values()), traffic=record.requests,
        problems=(*reasons, *record.missing), link=f"../{quote(target)}" if root.is_local else f"{root}/{target}",
    )  # fmt: skip


def _some(names: list[str]) -> str:
    return (", ".join(names[:8]) + (" ..." if len(names) > 8 else "")) or "nothing"
