"""`platelayer models`: shipped models, methods, and what a path or URL holds."""

import json
import sys
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from flows.commands.terminal import wide_console
from flows.execution.segmenters import model_folder
from flows.jobs import DEFAULT_MODEL
from model.card import read_card, shipped
from pipeline.errors import BadArgument

JOINED = {"touch": "touch, exact", "match": "match of whole objects"}
"""How the tiles of a method are joined, by its link."""


def models(
    reference: Annotated[
        str | None, Parameter(help="Name, path or URL of a checkpoint; default: list all.")
    ] = None,
    *,
    kinds: Annotated[bool, Parameter(help="List the methods that can be trained.", negative="")] = False,
) -> int:
    """List the shipped models or the methods, or describe the checkpoint at a path or URL."""
    if kinds and reference is not None:
        raise BadArgument(f"models: expected a checkpoint or --kinds, got both; leave out {reference!r}")
    if kinds:
        return _list_kinds()
    if reference is not None:
        sys.stdout.write(json.dumps(read_card(model_folder(reference)), indent=1) + "\n")
        return 0
    table = Table(
        "model",
        "made for",
        "channels",
        "layers",
        "halo px",
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


def _list_kinds() -> int:
    from model.kinds import KINDS  # Imported late, because torch is slow to import.

    table = Table("kind", "what it is", "overlaps", "tiles joined by", "paper")
    for name, method in KINDS.items():
        table.add_row(
            name, method.title, "yes" if method.overlaps else "no", JOINED[method.link], method.paper
        )
    wide_console().print(table)
    sys.stdout.write('train one with a recipe of that name, or with kind = "..." in [method] of your own\n')
    return 0


def _cells(name: str, card: dict[str, Any]) -> list[str]:
    scores = card.get("scores") or {}
    numbers = [scores.get("AP", {}).get("0.5"), scores.get("meanAP"), scores.get("AJI")]
    shown = [f"{value:.3f}" if isinstance(value, int | float) else "-" for value in numbers]
    data = card.get("data") or {}
    made_for = data.get("title") or data.get("name") or "-"
    facts = [str(card[key]) for key in ("channels", "layers", "halo_px")]
    return [name, str(made_for), *facts, *shown, str(scores.get("split", "-")), str(card["licence"])]
