"""The record of a run as tables: stages, failures, retries, versions, fingerprints, the job.

The record is a plain dictionary, of which everything but the listing of images is shown; no job classes are used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.report.blocks import Block, Column, Note, Row, Table, Value
from pipeline.store.places.traffic import KINDS, Traffic, traffic_of

ELSEWHERE = ("stages", "failures", "images", "traffic", "time_s")
"""Keys with a table of their own, or shown in another part of the page."""

STAGES = ("plan", "check", "limits", "fields", "predict", "describe", "join", "paint", "complete", "finish")
"""Stages in the order of a run; others follow."""

AGAIN = (
    "Nothing was written in these places. The same command again tries them, and only them: that mends what was wrong "
    "with the machine or the connection. Data that are corrupt or missing have to be copied again first."
)
"""Advice on repeating the run, for the lists of failures."""

LONGEST = 2000
"""Rows shown of a list of failures; the rest is counted in a note."""


def fact_blocks(facts: Mapping[str, object]) -> tuple[Block, ...]:
    """Turn the record of a run into blocks.

    ``stages`` is ``{stage: {"seconds": s, "px": n, ...}}``. Every other dictionary becomes a table of its own,
    nested keys joined by dots; single values share one. ``failures`` is left to ``failure_blocks``.
    """
    blocks: list[Block] = []
    stages = facts.get("stages")
    if isinstance(stages, Mapping) and stages:
        blocks.append(stage_table(stages))
    traffic = facts.get("traffic")
    if isinstance(traffic, Mapping) and traffic:
        blocks.append(traffic_table(traffic))
    rest = {key: value for key, value in facts.items() if key not in ELSEWHERE and not _is_nothing(value)}
    single = {key: value for key, value in rest.items() if not isinstance(value, Mapping)}
    if single:
        blocks.append(_pairs("run", "Run", single))
    blocks += [_pairs(key, _title(key), value) for key, value in rest.items() if isinstance(value, Mapping)]
    return tuple(blocks)


def failure_blocks(facts: Mapping[str, object]) -> tuple[Block, ...]:
    """List the failures after all retries: dictionaries with keys such as image, stage, where, reason."""
    failures = recorded_failures(facts)
    if not failures:
        return ()
    keys = list(dict.fromkeys(key for entry in failures for key in entry))
    table = Table(
        name="failures",
        title="Failures",
        columns=tuple(Column(name=str(key)) for key in keys),
        rows=tuple(Row(cells=tuple(_value(entry.get(key)) for key in keys)) for entry in failures[:LONGEST]),
        caption=AGAIN,
        filterable=len(failures) > 10,
    )
    more = Note(text=f"{LONGEST:,} of {len(failures):,} failures are listed.", tone="warn")
    return (table, more) if len(failures) > LONGEST else (table,)


def recorded_failures(facts: Mapping[str, object]) -> list[Mapping[str, object]]:
    """The failures of a record; entries that are not dictionaries are left out."""
    failures = facts.get("failures")
    return (
        [entry for entry in failures if isinstance(entry, Mapping)] if isinstance(failures, Sequence) else []
    )


def recorded_retries(facts: Mapping[str, object]) -> int:
    """Number of retries over all stages of a record."""
    retries = facts.get("retries")
    return sum(int(number) for number in retries.values()) if isinstance(retries, Mapping) else 0


def stage_table(stages: Mapping[str, Mapping[str, object]]) -> Table:
    """Seconds, megapixels and their ratio per stage, then whatever else the stages carry."""
    further = list(
        dict.fromkeys(key for stage in stages.values() for key in stage if key not in ("seconds", "px"))
    )
    rows = []
    known = {name: at for at, name in enumerate(STAGES)}
    for name, stage in sorted(stages.items(), key=lambda item: known.get(item[0], len(known))):
        seconds, pixels = _number(stage.get("seconds")), _number(stage.get("px"))
        megapixels = pixels / 1e6 if pixels is not None else None
        rate = megapixels / seconds if seconds and megapixels is not None else None
        rows.append(
            Row(cells=(name, seconds, megapixels, rate, *(_value(stage.get(key)) for key in further)))
        )
    columns = (
        Column(name="stage"),
        Column(
            name="seconds", digits=1, hint="Wall-clock time of the stage, summed over all starts of the run."
        ),
        Column(name="Mpx", digits=1, hint="Million pixels that the stage worked on."),
        Column(name="Mpx/s", digits=1, hint="Million pixels over seconds."),
        *(Column(name=key) for key in further),
    )
    return Table(name="stages", title="Time per stage", columns=columns, rows=tuple(rows))


def traffic_table(traffic: Mapping[str, Mapping[str, Any]]) -> Table:
    """Requests by kind, bytes and retries per stage, and their sums."""
    stages = {name: traffic_of(facts) for name, facts in traffic.items()}
    stages["all"] = sum(stages.values(), Traffic())
    kinds = [kind for kind in KINDS if stages["all"].requests.get(kind)]
    rows = tuple(
        Row(
            cells=(
                name, one.total, *(one.requests.get(kind, 0) for kind in kinds),
                one.bytes_in / 2**20, one.bytes_out / 2**20, one.retries,
            )
        )
        for name, one in stages.items()
    )  # fmt: skip
    columns = (
        Column(name="stage"),
        Column(name="requests", hint="Every attempt counts."),
        *(Column(name=kind) for kind in kinds),
        Column(name="in", unit="MiB", digits=1),
        Column(name="out", unit="MiB", digits=1),
        Column(name="retries", hint="Attempts that were not the first."),
    )
    caption = (
        "Requests to object storage of this process and of all workers, summed over all starts of the run."
    )
    return Table(name="traffic", title="Object storage", columns=columns, rows=rows, caption=caption)


def flattened(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of a nested dictionary with dotted keys; empty dictionaries are leaves."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _pairs(name: str, title: str, values: Mapping[str, object]) -> Table:
    rows = tuple(Row(cells=(key, _text(value))) for key, value in flattened(values))
    return Table(
        name=name, title=title, columns=(Column(name="name"), Column(name="value")), rows=rows, narrow=True
    )


def _title(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_nothing(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, Mapping | Sequence) and not value)


def _value(value: object) -> Value:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return _text(value)


def _text(value: object) -> str:
    # facts are shown as they were written: a seed of 10000 has no thousands separator
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return ", ".join(_text(entry) for entry in value) or "–"
    return str(value)
