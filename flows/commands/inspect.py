"""`platelayer inspect`: what a store holds."""

from collections import Counter
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from flows.commands.terminal import wide_console
from pipeline.store.ledger import ROOT, Ledger
from pipeline.store.ome.collection import Collection, Image, open_collection
from pipeline.store.ome.labels import list_labels, stack_layers
from pipeline.store.ome.tables import list_tables
from pipeline.store.places.address import Address, address

SHOWN = 24
"""Images listed one by one before the rest is summed up."""


def inspect(store: Annotated[str, Parameter(help="OME-Zarr image or plate, path or URL.")]) -> int:
    """Show what a store holds: wells, channels, levels, labels, tables, runs."""
    collection = open_collection(address(store))
    console = wide_console()
    console.print(_headline(collection), markup=False)
    console.print(_images(collection))
    for message in collection.missing:
        console.print(f"missing: {message}", markup=False)
    runs = _runs(collection.address)
    console.print(runs if runs.row_count else "runs: none")
    return 3 if collection.missing else 0


def _headline(collection: Collection) -> str:
    wells = Counter(image.well for image in collection.images if image.well)
    place = f"plate, {len(wells)} wells, " if collection.kind == "plate" else ""
    return f"{collection.address}: OME-Zarr {collection.ngff}, {place}{len(collection.images)} image(s)"


def _images(collection: Collection) -> Table:
    table = Table(
        "image", "axes", "shape", "type", "channels", "px um", "levels", "labels (layers)", "tables"
    )
    for image in collection.images[:SHOWN]:
        table.add_row(*_image_cells(collection.address, image))
    if len(collection.images) > SHOWN:
        table.add_row(f"... {len(collection.images) - SHOWN} more")
    return table


def _image_cells(place: Address, image: Image) -> list[str]:
    labels = [
        f"{name} ({len(stack_layers(place, image.path, name))})" for name in list_labels(place, image.path)
    ]
    spacing = f"{image.spacing_um[0]:g}" if image.spacing_um else "-"
    return [
        image.path or ".", "".join(image.axes), "x".join(map(str, image.shape)), str(image.dtype),
        ", ".join(image.channels), spacing, str(len(image.levels)), ", ".join(labels) or "-",
        ", ".join(list_tables(place, image.path)) or "-",
    ]  # fmt: skip


def _runs(place: Address) -> Table:
    table = Table("run", "name", "state", "images", "objects", "set aside", title="runs")
    for run in place.children(ROOT):
        ledger = Ledger(place, run)
        record = ledger.find_json("record.json")
        if record is not None:
            objects = sum(facts["objects"] for facts in record["images"].values())
            cells = (
                record["name"],
                record["status"],
                len(record["images"]),
                objects,
                len(record["failures"]),
            )
            table.add_row(run, *map(str, cells))
        elif (job := ledger.find_json("job.json")) is not None:
            table.add_row(run, str(job.get("name") or job.get("model") or ""), "not finished", "", "", "")
    return table
