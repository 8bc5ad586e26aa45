"""Where the time of a run went: the seconds of all its workers, in the network and beside it."""

from collections.abc import Mapping

import plotly.graph_objects as go

from pipeline.report.blocks import Chart
from pipeline.report.charts import escaped, styled
from pipeline.report.palette import BLUE, GREEN, GREY, SKY

PARTS = {"read": SKY, "network": BLUE, "after": GREEN, "waiting": GREY}
"""Parts of the time of a run, as its record names them, and their colours."""

CAPTION = (
    "Seconds of all workers together. Read: reading and decoding pixels, normalising, limits. Network: in the "
    "segmenter alone. After: from layers to labels, tables and their files. Waiting: workers without work, and what "
    "it takes to send it to them; the planning of the run is not counted."
)


def time_chart(facts: Mapping[str, object]) -> tuple[Chart, ...]:
    """Draw one bar of the seconds that a run spent reading, in the network, after it and waiting.

    Args:
        facts: the record of a run; ``time_s`` is ``{part: seconds}``. Nothing is drawn without it.
    """
    recorded = facts.get("time_s")
    if not isinstance(recorded, Mapping):
        return ()
    seconds = {part: max(float(recorded.get(part, 0.0)), 0.0) for part in PARTS}
    total = sum(seconds.values())
    if not total:
        return ()
    figure = go.Figure()
    for part, spent in seconds.items():
        figure.add_bar(
            x=[spent],
            y=[""],
            name=f"{part} {spent / total:.0%}",
            orientation="h",
            marker={"color": PARTS[part]},
            hovertemplate=f"{escaped(part)}: {spent:,.1f} s, {spent / total:.1%}<extra></extra>",
        )
    styled(figure, legend=True)
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    figure.update_xaxes(title_text="seconds of all workers")
    figure.update_yaxes(showticklabels=False)
    return (
        Chart(
            title="Where the time went",
            figure=str(figure.to_json()),
            caption=CAPTION,
            height_px=150,
            wide=True,
        ),
    )
