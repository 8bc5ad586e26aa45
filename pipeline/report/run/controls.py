"""Decisions on a plate with controls: assay quality, effects against the negative control, wells out of range.

One number per well goes in (the median over its images). Z' = 1 - 3 (s_p + s_n) / |m_p - m_n| (Zhang, Chung, Oldenburg
1999), SSMD = (m_p - m_n) / sqrt(s_p^2 + s_n^2) (Zhang 2007), with means m and standard deviations s (n - 1) of the
positive and negative control wells. Effects are differences of means with Welch's interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from pipeline.report.blocks import Block, Chart, Column, KeyNumber, Note, Row, Section, Table, number_text
from pipeline.report.charts import Curve, curves, height_px, ranges
from pipeline.report.wells import Places

NEGATIVE, POSITIVE = "negative", "positive"
"""Roles of control wells in a layout."""

FEWEST_WELLS = 2
"""Wells below which a group has no standard deviation."""

LEVEL = 0.95
"""Of the intervals of effects."""

SIGMAS = 3
"""A well is out of range beyond so many standard deviations of both kinds of controls."""

NONE_OUTSIDE = (
    f"No well lies beyond both kinds of controls by more than {SIGMAS} of their standard deviations."
)

GOOD_Z, POOR_Z = 0.5, 0.0
"""Z' of an excellent assay, and of one whose controls' bands touch (Zhang, Chung, Oldenburg 1999, table 1)."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How well a measure separates the controls."""

    z_prime: float
    ssmd: float
    low: float
    """Lower end of the range that the controls span, `SIGMAS` standard deviations included."""
    high: float


@dataclass(frozen=True, kw_only=True)
class Effect:
    """Difference of the mean of a group of wells to that of the negative controls."""

    difference: float
    low: float
    high: float


def wells_table(where: Places, table: pd.DataFrame, measures: Mapping[str, str]) -> pd.DataFrame:
    """One row per well: condition, role and dose of its first image, medians of the measures over its images."""
    named = table.assign(well=[well or name for well, name in zip(where.wells, where.images)])
    groups = named.groupby("well", sort=False)
    return groups[["condition", "role", "dose"]].first().join(groups[list(measures)].median())


def has_controls(table: pd.DataFrame) -> bool:
    """Whether the layout names negative controls."""
    return bool((table["role"] == NEGATIVE).any())


def quality(negative: np.ndarray, positive: np.ndarray) -> Quality | None:
    """Z', SSMD and range of one measure from the values of the control wells.

    None of fewer than `FEWEST_WELLS` wells on a side, and where all of them have the same value.
    """
    if min(len(negative), len(positive)) < FEWEST_WELLS or not np.ptp(np.concatenate([negative, positive])):
        return None
    (m_n, s_n), (m_p, s_p) = ((float(v.mean()), float(v.std(ddof=1))) for v in (negative, positive))
    apart, spread = abs(m_p - m_n), float(np.hypot(s_p, s_n))
    return Quality(
        z_prime=1 - 3 * (s_p + s_n) / apart if apart else float("-inf"),
        ssmd=(m_p - m_n) / spread if spread else float("nan"),
        low=min(m_n - SIGMAS * s_n, m_p - SIGMAS * s_p),
        high=max(m_n + SIGMAS * s_n, m_p + SIGMAS * s_p),
    )


def effect(negative: np.ndarray, wells: np.ndarray) -> Effect | None:
    """Difference of means with Welch's interval at `LEVEL` (NaN of fewer than two wells); None without wells."""
    if not len(negative) or not len(wells):
        return None
    difference = float(wells.mean() - negative.mean())
    if min(len(negative), len(wells)) < FEWEST_WELLS:
        return Effect(difference=difference, low=float("nan"), high=float("nan"))
    parts = [float(v.var(ddof=1)) / len(v) for v in (wells, negative)]
    variance = sum(parts)
    if not variance:
        return Effect(difference=difference, low=difference, high=difference)
    freedom = variance**2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (wells, negative)))
    half = float(student.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    return Effect(difference=difference, low=difference - half, high=difference + half)


def quality_number(wells: pd.DataFrame, measures: Mapping[str, str]) -> KeyNumber | None:
    """The best Z' of all measures, for the top of the page."""
    known = {title: quality.z_prime for name, title in measures.items() if (quality := _quality(wells, name))}
    if not known:
        return None
    title = max(known, key=lambda name: known[name])
    value = known[title]
    tone = "good" if value >= GOOD_Z else "warn" if value > POOR_Z else "bad"
    return KeyNumber(label="Z' of the controls", value=number_text(value, 2), detail=f"by {title}", tone=tone)


def controls_section(wells: pd.DataFrame, measures: Mapping[str, str], anchors: Mapping[str, str]) -> Section:
    """Lay out quality of the assay, effects, and wells out of the controls' range."""
    quality_rows = [row for name, title in measures.items() if (row := _quality_row(wells, name, title))]
    blocks: list[Block] = []
    if quality_rows:
        blocks.append(_quality_table(quality_rows))
    else:
        text = "Z' and SSMD need two wells or more of each role, positive and negative."
        blocks.append(Note(text=text, tone="warn"))
    effects = _effects(wells, measures)
    blocks += _effect_charts(effects, measures)
    blocks.append(_effect_table(effects))
    outside = _outside_rows(wells, measures, anchors)
    blocks.append(_outside_table(outside) if outside else Note(text=NONE_OUTSIDE))
    intro = (
        "Controls are the wells whose role in the layout is positive or negative. A well counts by the median over its "
        f"images. Intervals: {100 * LEVEL:.0f} %, Welch, of the difference of means between wells."
    )
    return Section(name="controls", title="Controls and effects", intro=intro, blocks=tuple(blocks))


def _values(wells: pd.DataFrame, name: str) -> np.ndarray:
    return wells[name].dropna().to_numpy(float)


def _quality(wells: pd.DataFrame, name: str) -> Quality | None:
    return quality(*(_values(wells[wells["role"] == role], name) for role in (NEGATIVE, POSITIVE)))


def _quality_row(wells: pd.DataFrame, name: str, title: str) -> Row | None:
    quality = _quality(wells, name)
    if quality is None:
        return None
    sides = [_values(wells[wells["role"] == role], name) for role in (NEGATIVE, POSITIVE)]
    numbers = [
        number for side in sides for number in (len(side), float(side.mean()), float(side.std(ddof=1)))
    ]
    return Row(cells=(title, quality.z_prime, quality.ssmd, *numbers))


def _quality_table(rows: list[Row]) -> Table:
    sides = [
        column
        for side in (NEGATIVE, POSITIVE)
        for column in (Column(name=f"{side} wells"), Column(name=f"{side} mean"), Column(name=f"{side} sd"))
    ]
    return Table(
        name="control_quality", title="How well the controls are told apart",
        columns=(
            Column(name="measure"),
            Column(name="Z'", digits=2, best="high", hint="1 - 3 (sd+ + sd-) / |mean+ - mean-|; 0.5 is excellent."),
            Column(name="SSMD", digits=2, hint="(mean+ - mean-) / sqrt(sd+^2 + sd-^2); beyond 3 or -3 is strong."),
            *sides,
        ),
        rows=tuple(rows),
        caption="Z' below 0: the controls' bands of three standard deviations overlap, and no well can be called by "
        "this measure.",
    )  # fmt: skip


def _effects(wells: pd.DataFrame, measures: Mapping[str, str]) -> pd.DataFrame:
    """One row per measure, condition and dose, but for the negative controls themselves."""
    negative = wells[wells["role"] == NEGATIVE]
    rows, order = [], {name: at for at, name in enumerate(measures)}
    others = wells[(wells["role"] != NEGATIVE) & (wells["condition"] != "")]
    for (condition, dose), group in others.groupby(["condition", "dose"], sort=False, dropna=False):
        for name, title in measures.items():
            difference = effect(_values(negative, name), _values(group, name))
            if difference is not None:
                base = float(_values(negative, name).mean())
                share = difference.difference / base if base else float("nan")
                rows.append(
                    (
                        name,
                        title,
                        str(condition),
                        dose,
                        len(group),
                        difference.difference,
                        difference.low,
                        difference.high,
                        share,
                    )
                )
    names = ["name", "measure", "condition", "dose", "wells", "difference", "low", "high", "relative"]
    return pd.DataFrame(rows, columns=names).sort_values(
        "name", key=lambda column: column.map(order), kind="stable"
    )


def _effect_table(effects: pd.DataFrame) -> Table:
    with_dose = effects["dose"].notna().any()
    shown = [
        "measure",
        "condition",
        *(["dose"] if with_dose else []),
        "wells",
        "difference",
        "low",
        "high",
        "relative",
    ]
    headings = {"low": "from", "high": "to", "relative": "relative"}
    return Table(
        name="effects", title="Effect against the negative controls",
        columns=tuple(Column(name=headings.get(name, name)) for name in shown),
        rows=tuple(
            Row(cells=tuple(_cell(value) for value in record))
            for record in effects[shown].itertuples(index=False)
        ),
        filterable=len(effects) > 12,
        caption="Difference of means between wells; relative: over the mean of the negative controls. There is no "
        "correction for the number of comparisons.",
    )  # fmt: skip


def _cell(value: object) -> str | float | int | None:
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    return None if value is None or value is pd.NA else str(value)


def _effect_charts(effects: pd.DataFrame, measures: Mapping[str, str]) -> list[Chart]:
    charts = []
    for name, title in list(measures.items())[:2]:
        rows = effects[effects["name"] == name]
        if rows["dose"].nunique() > 1:
            lines = [
                Curve(name=str(condition), x=part["dose"].tolist(), y=part["difference"].tolist())
                for condition, group in rows.dropna(subset="dose").groupby("condition", sort=False)
                if len(part := group.sort_values("dose")) > 1
            ]
            figure = curves(lines, x_title="dose", y_title=f"difference in {title}")
            charts.append(Chart(title=f"Effect on {title} by dose", figure=figure))
        elif len(rows):
            labels = [f"{row.condition} ({row.wells} wells)" for row in rows.itertuples()]
            between = rows[["low", "high"]].to_numpy(float)
            figure = ranges(labels, rows["difference"].tolist(), between, x_title=f"difference in {title}")
            charts.append(Chart(title=f"Effect on {title}", figure=figure, height_px=height_px(len(rows))))
    return charts


def _outside_rows(wells: pd.DataFrame, measures: Mapping[str, str], anchors: Mapping[str, str]) -> list[Row]:
    rows: list[Row] = []
    for name, title in measures.items():
        quality = _quality(wells, name)
        if quality is None:
            continue
        outside = wells[(wells[name] < quality.low) | (wells[name] > quality.high)]
        rows += [
            Row(
                cells=(str(well), row["condition"], title, float(row[name]), quality.low, quality.high),
                anchor=anchors.get(str(well), ""), group=str(well),
            )
            for well, row in outside.iterrows()
        ]  # fmt: skip
    return rows


def _outside_table(rows: list[Row]) -> Table:
    return Table(
        name="outside", title="Wells outside the controls' range",
        columns=tuple(Column(name=name) for name in ("well", "condition", "measure", "value", "from", "to")),
        rows=tuple(rows),
        filterable=len(rows) > 12,
        caption=f"Beyond both kinds of controls by more than {SIGMAS} of their standard deviations: look here first.",
    )  # fmt: skip
