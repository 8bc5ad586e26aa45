"""`platelayer models`: what is shipped, and what a path or URL holds."""

import json
import sys
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from flows.commands.terminal import wide_console
from flows.execution.segmenters import model_folder
from flows.jobs import DEFAULT_MODEL
from model.card import read_card, shipped


def models(
    reference: Annotated[
        str | None, Parameter(help="Name, path or URL of a checkpoint; default: list all.")
    ] = None,
) -> int:
    """List the shipped models, or describe the checkpoint at a path or URL."""
    if reference is not None:
        sys.stdout.write(json.dumps(read_card(model_folder(reference)), indent=1) + "\n")
        return 0
    table = Table(
        "model",
        "made for",
        "channels",
        "layers",
        "reach px",
        "AP.5",
        "meanAP",
        "AJI",
        "measured on",
        "licence",
    )
    for name, folder in shipped().items():
        table.add_row(*_cells(name, read_card(folder)))
    wide_console().print(table)
    sys.stdout.write(f"default: {DEFAULT_MODEL}; without a network: --segmenter threshold\n")
    return 0


def _cells(name: str, card: dict[str, Any]) -> list[str]:
    scores = card.get("scores") or {}
    numbers = [scores.get("AP", {}).get("0.5"), scores.get("meanAP"), scores.get("AJI")]
    shown = [f"{value:.3f}" if isinstance(value, int | float) else "-" for value in numbers]
    data = card.get("data") or {}
    made_for = data.get("title") or data.get("name") or "-"
    facts = [str(card[key]) for key in ("channels", "layers", "halo_px")]
    return [name, str(made_for), *facts, *shown, str(scores.get("split", "-")), str(card["licence"])]
