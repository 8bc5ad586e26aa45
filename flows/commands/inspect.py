"""`platelayer inspect`: the contents of a store."""

from collections import Counter
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from flows.commands.terminal import wide_console
from pipeline.errors import BadStore
from pipeline.store.ledger import JOB, ROOT, Ledger
from pipeline.store.ome.collection import Collection, Image, open_collection
from pipeline.store.ome.label_images.reading import list_labels, open_label, stack_layers
from pipeline.store.ome.table_listing import list_tables
from pipeline.store.places.address import Address, address
from pipeline.store.places.faults import StoreLost

SHOWN = 24
"""Images that are listed; the others are counted."""


def inspect(store: Annotated[str, Parameter(help="OME-Zarr image or plate, path or URL.")]) -> int:
    """Show what a store holds: wells, channels, levels, labels, tables, runs."""
    place = address(store)
    console = wide_console()
    runs = _runs(place)
    try:
        collection = open_collection(place)
    except StoreLost:
        raise
    except BadStore:
        if not runs.row_count:
            raise
        # A run that was stopped before its first result has no images yet, but a state to show.
        console.print(f"{place}: no image yet", markup=False)
        console.print(runs)
        return 3
    console.print(_headline(collection), markup=False)
    table, problems = _images(collection)
    console.print(table)
    problems += [f"missing: {message}" for message in collection.missing]
    for line in problems:
        console.print(line, markup=False)
    console.print(runs if runs.row_count else "runs: none")
    return 3 if problems else 0


def _headline(collection: Collection) -> str:
    wells = Counter(image.well for image in collection.images if image.well)
    place = f"plate, {len(wells)} wells, " if collection.kind == "plate" else ""
    count = f"{len(collection.images)} image(s)"
    if any(image.is_stand_in for image in collection.images):
        count += ", results without pixels (labels are shown in their place)"
    acquisitions = ", ".join(
        f"{number} {name!r}" if name else str(number) for number, name in collection.acquisitions.items()
    )
    cycles = f", acquisitions {acquisitions}" if acquisitions else ""
    return f"{collection.address}: OME-Zarr {collection.ngff}, {place}{count}{cycles}"


def _images(collection: Collection) -> tuple[Table, list[str]]:
    """Make the table of images, and report broken labels."""
    table = Table(
        "image", "axes", "shape", "type", "channels", "px um", "levels", "labels (layers)", "tables"
    )
    problems: list[str] = []
    for image in collection.images[:SHOWN]:
        cells, broken = _image_cells(collection.address, image)
        table.add_row(*cells)
        problems += broken
    if len(collection.images) > SHOWN:
        table.add_row(f"... {len(collection.images) - SHOWN} more")
    return table, problems


def _image_cells(place: Address, image: Image) -> tuple[list[str], list[str]]:
    labels, broken = _labels(place, image)
    tables = _tables(place, image, broken)
    cells = [
        image.path or ".", "".join(image.axes), "x".join(map(str, image.shape)), str(image.dtype),
        ", ".join(image.channels), _spacing(image), str(len(image.levels)), ", ".join(labels) or "-",
        ", ".join(tables) or "-",
    ]  # fmt: skip
    return cells, broken


def _tables(place: Address, image: Image, broken: list[str]) -> list[str]:
    """Names of the tables of an image; an error in listing them is added to ``broken``."""
    try:
        return list_tables(place, image.path)
    except StoreLost:
        raise
    except BadStore as error:
        broken.append(f"broken tables: {error}")
        return []


def _spacing(image: Image) -> str:
    """Pixel size, once where pixels are square."""
    if not image.spacing_um:
        return "-"
    y, x = (f"{size:g}" for size in image.spacing_um)
    return y if y == x else f"{y} x {x}"


def _labels(place: Address, image: Image) -> tuple[list[str], list[str]]:
    """Labels of an image with the number of their layers; a broken one is named and does not hide the others."""
    try:
        names = list_labels(place, image.path)
    except StoreLost:
        raise
    except BadStore as error:
        return ["(broken)"], [f"broken labels: {error}"]
    cells, broken = [], []
    for name in names:
        try:
            layers = stack_layers(place, image.path, name)
            for layer in layers:
                open_label(place, image.path, layer)
            cells.append(f"{name} ({len(layers)})")
        except StoreLost:
            raise
        except BadStore as error:
            cells.append(f"{name} (broken)")
            broken.append(f"broken label {name!r}: {error}")
    return cells, broken


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
        elif (job := ledger.find_json(JOB)) is not None:
            table.add_row(run, str(job.get("name") or job.get("model") or ""), "not finished", "", "", "")
    return table
