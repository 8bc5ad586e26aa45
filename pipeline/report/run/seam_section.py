"""The seam section of a run report: a verdict, the three tests, profiles, and pictures of the worst seams."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from pipeline.report.blocks import (
    Block,
    Chart,
    Column,
    Gallery,
    KeyNumber,
    LegendEntry,
    Note,
    Outline,
    Picture,
    Row,
    Section,
    Table,
    counted,
)
from pipeline.report.charts import Curve, add_band, escaped, styled
from pipeline.report.palette import GREY, VERMILLION, WHITE
from pipeline.report.pictures import WindowOf, large_picture, layer_legend, layer_outlines, line
from pipeline.report.run.seams import ENOUGH_OBJECTS, LEVEL, Seam, SeamReport, SeamTest

WINDOW_PX = 256
"""Side of the picture of a seam, at full resolution."""

RATIO_TICKS = (
    (1.5, (0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4)),
    (4.0, (0.3, 0.5, 0.7, 1, 1.4, 2, 3)),
    (float("inf"), (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)),
)
"""Ticks of the axis of ratios, by how far it reaches."""

NULL_BAND = "rgba(138,148,158,0.30)"
"""Colour of the range that chance gives."""

VERDICTS = {
    "clear": ("good", "No trace of the tiling found"),
    "trace": ("bad", "The tiling left a trace"),
    "few": ("warn", "Too few objects near tile borders to tell"),
    "untiled": ("plain", "No tile border to test"),
}

DETAILS = {
    "clear": "no test below p = {level}; {near:,} objects near {borders:,} borders",
    "trace": "lowest p = {p:.3g}; {near:,} objects near {borders:,} borders",
    "few": "{near:,} objects near {borders:,} borders, {enough} are needed",
    "untiled": "every image fits one tile",
}


def seam_number(report: SeamReport) -> KeyNumber:
    """The verdict for the top of the page."""
    tone, _ = VERDICTS[report.verdict]
    short = {"clear": "no trace", "trace": "trace found", "few": "cannot tell", "untiled": "one tile each"}
    return KeyNumber(label="Seams", value=short[report.verdict], detail=_detail(report), tone=tone)


def seam_section(report: SeamReport, anchors: Mapping[str, str], window: WindowOf | None) -> Section:
    """Lay out the seam report; ``window`` gives pictures around the worst seams."""
    tone, words = VERDICTS[report.verdict]
    blocks: list[Block] = [Note(text=f"{words}: {_detail(report)}.", tone=tone)]
    if report.tests:
        blocks += [*_charts(report), _test_table(report)]
    if report.worst:
        blocks.append(_worst_table(report, anchors))
        pictures = (
            tuple(_picture(seam, at, report, window) for at, seam in enumerate(report.worst))
            if window
            else ()
        )
        if pictures:
            blocks.append(_gallery(report, pictures))
    intro = (
        f"Tiles have cores of {report.core_px[0]} × {report.core_px[1]} px. Objects within {report.near_px} px of a "
        f"tile border are compared with those in the ring of {3 * report.near_px} px beyond, and with what "
        f"{report.shifts:,} random positions of the same grid give (seed {report.seed})."
    )
    return Section(
        name="seams", title="Seam quality", intro=intro if report.tests else "", blocks=tuple(blocks)
    )


def _detail(report: SeamReport) -> str:
    lowest = min((test.p for test in report.tests), default=1.0)
    return DETAILS[report.verdict].format(
        level=LEVEL, near=report.objects_near, borders=report.borders, p=lowest, enough=ENOUGH_OBJECTS
    )


def _charts(report: SeamReport) -> list[Chart]:
    labels = [test.name for test in report.tests]
    band = np.array([[test.low, test.high] for test in report.tests])
    profile = report.profile
    charts = [
        Chart(
            title="At the tile borders against chance",
            figure=against_chance(labels, [test.ratio for test in report.tests], band),
            caption="A diamond outside its grey bar is unlikely without a seam. Objects cut at borders move the first "
            "and third to the right, the second to the left.",
            height_px=250,
            wide=True,
        )
    ]
    for name, title in (
        ("density", "Objects by distance from a border"),
        ("area", "Area by distance from a border"),
    ):
        curve = Curve(
            name="at the tile borders",
            x=profile["distance_px"].tolist(),
            y=profile[name].tolist(),
            low=profile[f"{name}_low"].tolist(),
            high=profile[f"{name}_high"].tolist(),
        )
        what = "Geometric mean area" if name == "area" else "Objects per area"
        charts.append(
            Chart(
                title=title,
                figure=band_profile(
                    curve, x_title="distance from the nearest border (px)", y_title="ratio to the ring"
                ),
                caption=f"{what}, relative to the ring beyond {report.near_px} px.",
                height_px=270,
            )
        )
    return charts


def _test_table(report: SeamReport) -> Table:
    columns = (
        Column(name="test"),
        Column(name="ratio", digits=3, hint="At the tile borders, over what is expected without a seam."),
        Column(name="chance from", digits=3, hint="2.5 percentile over the shifted grids."),
        Column(name="chance to", digits=3, hint="97.5 percentile over the shifted grids."),
        Column(name="p", digits=4, hint="Permutation test, adjusted for the number of tests (Holm)."),
        Column(name="answer"),
    )
    return Table(
        name="seams",
        title="Permutation tests",
        columns=columns,
        rows=tuple(
            Row(cells=(test.name, test.ratio, test.low, test.high, test.p, _answer(test)))
            for test in report.tests
        ),
        caption=f"{report.objects:,} objects; {report.straight_sides:,} sides of bounding boxes lie on a tested "
        "border. Borders whose ring would leave the image are not tested.",
    )


def _answer(test: SeamTest) -> str:
    return "trace" if test.p < LEVEL else "no trace"


def _worst_table(report: SeamReport, anchors: Mapping[str, str]) -> Table:
    columns = (
        Column(name="image"),
        Column(name="border"),
        Column(name="near", unit="px", hint="Place along the border, around which the straight sides lie."),
        Column(name="straight sides", hint="Sides of bounding boxes on this piece of border."),
    )
    rows = tuple(
        Row(
            cells=(
                seam.image or "image",
                f"{seam.axis} = {seam.border_px}",
                seam.along_px,
                seam.straight_sides,
            ),
            anchor=anchors.get(seam.image, ""),
        )
        for seam in report.worst
    )
    return Table(
        name="worst_seams",
        title="Pieces of border with most straight sides",
        columns=columns,
        rows=rows,
        caption="A few are there by chance: the flat top of a round object may fall on a border.",
    )


def _gallery(report: SeamReport, pictures: tuple[Picture, ...]) -> Gallery:
    layers = max(
        (int(o.key.removeprefix("layer")) for p in pictures for o in p.outlines if o.key != "border"),
        default=0,
    )
    border = LegendEntry(key="border", label="tile border", colour=WHITE, dashed=True)
    return Gallery(
        title="The worst seams, seen",
        pictures=pictures,
        legend=(border, *layer_legend(layers + 1)),
        caption=f"{WINDOW_PX} px windows at full resolution, in the order of the table.",
    )


def _picture(seam: Seam, at: int, report: SeamReport, window: WindowOf) -> Picture:
    centre = (seam.border_px, seam.along_px) if seam.axis == "y" else (seam.along_px, seam.border_px)
    y0, x0 = (
        max(0, min(place - WINDOW_PX // 2, side - WINDOW_PX)) for place, side in zip(centre, seam.shape_px)
    )
    y1, x1 = min(y0 + WINDOW_PX, seam.shape_px[0]), min(x0 + WINDOW_PX, seam.shape_px[1])
    grey, stack = window(seam.image, y0, y1, x0, x1)
    objects = layer_outlines(stack) if stack is not None else ()
    return large_picture(
        f"seam-{at}",
        seam.image or "image",
        grey,
        (*objects, *_borders(grey.shape, (y0, x0), report.core_px)),
        caption=f"{seam.axis} = {seam.border_px}, {counted(seam.straight_sides, 'straight side')}",
    )


def _borders(
    shape: tuple[int, ...], corner: tuple[int, int], core_px: tuple[int, int]
) -> tuple[Outline, ...]:
    height, width = shape
    first = [-(-start // core) * core - start for start, core in zip(corner, core_px)]
    paths = [line(y, 0, y, width) for y in range(first[0], height, core_px[0]) if y > 0]
    paths += [line(0, x, height, x) for x in range(first[1], width, core_px[1]) if x > 0]
    return tuple(
        Outline(path=path, colour=WHITE, key="border", dashed=True, title="tile border") for path in paths
    )


def against_chance(labels: Sequence[str], observed: Sequence[float], band: np.ndarray) -> str:
    """Observed ratios as points on the range ``band (n, 2)`` that chance gives, on a logarithmic axis."""
    figure = go.Figure()
    for index, label in enumerate(labels):
        figure.add_scatter(
            x=band[index].tolist(),
            y=[escaped(label)] * 2,
            mode="lines",
            line={"color": GREY, "width": 14},
            opacity=0.45,
            name="95 % of shifted grids",
            showlegend=index == 0,
            hovertemplate="chance: %{x:.3f}<extra></extra>",
        )
    figure.add_scatter(
        x=list(observed),
        y=[escaped(label) for label in labels],
        mode="markers",
        name="at the tile borders",
        marker={"color": VERMILLION, "size": 11, "symbol": "diamond"},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    styled(figure, legend=True)
    farthest = np.exp(np.nanmax(np.abs(np.log(np.r_[observed, band.ravel()])), initial=0))
    spread = max(1.25, 1.15 * float(farthest))
    figure.update_xaxes(
        type="log",
        range=[-np.log10(spread), np.log10(spread)],
        title_text="ratio (1 = no trace)",
        tickvals=next(ticks for most, ticks in RATIO_TICKS if spread < most),
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.add_vline(x=1, line={"color": "#1b1f24", "width": 1, "dash": "dot"})
    return str(figure.to_json())


def band_profile(line: Curve, *, x_title: str, y_title: str) -> str:
    """One line over the range that chance gives at each abscissa."""
    figure = go.Figure()
    add_band(figure, line.x, line.low or (), line.high or (), fill=NULL_BAND, name="95 % of shifted grids")
    figure.add_scatter(
        x=list(line.x),
        y=list(line.y),
        name=escaped(line.name),
        mode="lines+markers",
        line={"color": VERMILLION, "width": 2},
        marker={"size": 6, "symbol": "diamond"},
        hovertemplate="%{x:.0f} px: %{y:.3f}<extra></extra>",
    )
    styled(figure, legend=True)
    figure.update_xaxes(title_text=escaped(x_title), rangemode="tozero")
    figure.update_yaxes(title_text=escaped(y_title))
    return str(figure.to_json())
