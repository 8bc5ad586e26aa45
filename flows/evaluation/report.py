"""The report of a run without truth, from its output store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from flows.evaluation.objects import AREA, only_table
from flows.evaluation.pictures import Views
from flows.segmentation.stages.scaling import at_level
from pipeline.errors import BadArgument
from pipeline.report.blocks import Page
from pipeline.report.layout import Layout, Spot, assign
from pipeline.report.run.numbers import QUALITY, Run
from pipeline.report.run.page import run_page
from pipeline.report.run.seams import SeamReport, seam_quality
from pipeline.report.wells import well_name
from pipeline.store.ledger import ROOT, Ledger
from pipeline.store.ome.collection import Collection, Image, channel_index, open_collection
from pipeline.store.ome.labels import list_labels
from pipeline.store.ome.selection import select_images
from pipeline.store.ome.table_listing import list_tables
from pipeline.store.ome.tables import read_table
from pipeline.store.places.address import Address, address


@dataclass(frozen=True, kw_only=True)
class ReportOn:
    """The run that a report is about, and what the page adds to it."""

    store: str
    """Output store of the run."""
    name: str | None = None
    """Labels to report on; default: those of the run."""
    source: str | None = None
    """Where the images are, for a run that wrote to another store; default: what the record says."""
    run: str | None = None
    """Which run, where there are several."""
    layout: Layout | None = None
    """Conditions of the wells."""
    drift: Sequence[str] = ()
    """Differences of the plate from earlier ones, one sentence each."""
    acquisition: str | None = None
    """Only this acquisition of the plate, by id or name; default: those of the run."""


def report_page(wanted: ReportOn) -> Page:
    """Lay out the report of a run (`pipeline.report.blocks.Page`)."""
    described, views = described_run(wanted)
    return run_page(described, picture=views.picture, window=views.window)


def described_run(wanted: ReportOn) -> tuple[Run, Views]:
    """Read what a run left in its output store, and where its pictures come from."""
    output = address(wanted.store)
    record = _record(output, wanted.name, wanted.run)
    facts: Mapping[str, Any] = record or {}
    collection = _collection(output, wanted.source or facts.get("job", {}).get("source") or wanted.store)
    name = wanted.name or (record["name"] if record else only_table(output, collection))
    images = {image.path or "image": image for image in _images_of(collection, facts, wanted.acquisition)}
    objects = _objects(output, images, name)
    listing = _listing(output, images, name, facts)
    gaps = {} if wanted.layout is None else _add_conditions(listing, wanted.layout, images, collection)
    described = Run(
        title=f"{collection.address.name}: {name}",
        objects=objects,
        images=listing,
        facts=facts,
        seams=_seams(objects, images, facts),
        layout_gaps=gaps,
        drift=tuple(wanted.drift),
    )
    views = Views(images, output, name, _channel(images, facts))
    return described, views


def _add_conditions(
    listing: pd.DataFrame, layout: Layout, images: Mapping[str, Image], collection: Collection
) -> dict[str, list[str]]:
    """Add condition, role and dose to the listing; return the wells that the layout or the plate lacks."""
    spots = [_spot(key, image, collection) for key, image in images.items()]
    assigned = assign(layout, spots, name="--layout")
    listing["condition"] = [assigned.conditions[key] for key in listing["image"]]
    listing["role"] = [assigned.roles[key] for key in listing["image"]]
    listing["dose"] = [assigned.doses.get(key, np.nan) for key in listing["image"]]
    return {
        "that the layout does not name": assigned.without_condition,
        "of the layout without an image": assigned.unknown_places,
    }


def _spot(key: str, image: Image, collection: Collection) -> Spot:
    plate = collection.address.name.removesuffix(".zarr")
    return Spot(image=key, plate=plate, well=well_name(*image.well) if image.well else "")


def _record(output: Address, name: str | None, run: str | None) -> dict[str, Any] | None:
    """The record of the requested run; of several runs with the same name of labels, the one that ended last."""
    records = {key: Ledger(output, key).find_json("record.json") for key in output.children(ROOT)}
    matching = {key: record for key, record in records.items() if record and name in (None, record["name"])}
    if run is not None:
        if run not in matching:
            raise BadArgument(
                f"{output}: no record of run {run!r}; there are: {', '.join(matching) or 'none'}"
            )
        return matching[run]
    if len({record["name"] for record in matching.values()}) > 1:
        choices = ", ".join(f"{record['name']} (--run {key})" for key, record in matching.items())
        raise BadArgument(f"{output}: several runs, choose with --name or --run: {choices}")
    return max(matching.values(), key=lambda record: record.get("ended", ""), default=None)


def _collection(output: Address, source: str) -> Collection:
    try:
        return open_collection(address(source))
    except ValueError:
        return open_collection(output)


def _images_of(collection: Collection, record: Mapping[str, Any], acquisition: str | None) -> list[Image]:
    """Images of the run on its pyramid level: those of its acquisition and series, without those left out."""
    job = record.get("job", {})
    wanted = {key: "all" if job.get(key) is None else job[key] for key in ("acquisition", "series")}
    chosen = select_images(collection, **(wanted | ({"acquisition": acquisition} if acquisition else {})))
    if not any(image.is_stand_in for image in chosen.images):
        chosen = at_level(chosen, job.get("level"), job.get("pixel_size_um"))
    projection = "max" if job.get("project") == "max" else ""
    left_out = record.get("left_out", {})
    return [image.projected(projection) for image in chosen.images if image.path not in left_out]


def _objects(output: Address, images: Mapping[str, Image], name: str) -> pd.DataFrame:
    tables = []
    for key, image in images.items():
        if name in list_tables(output, image.path):
            tables.append(read_table(output, image.path, name).assign(image=key))
    if not tables:
        raise BadArgument(f"{output}: no image has a table {name!r}; see platelayer inspect")
    if any(AREA not in table for table in tables):
        raise BadArgument(
            f"{output}: expected a table of measured objects, got {name!r}, which holds classes of labels only; "
            "choose that of a run with --name"
        )
    return pd.concat(tables, ignore_index=True)


def _listing(
    output: Address, images: Mapping[str, Image], name: str, facts: Mapping[str, Any]
) -> pd.DataFrame:
    failed = {failure["image"] or "image": failure for failure in facts.get("failures", [])}
    rows = []
    for key, image in images.items():
        failure = failed.get(key)
        done = name in list_labels(output, image.path)
        row, column = image.well or (None, None)
        rows.append(
            {
                "image": key, "row": row, "column": column, "field": image.field,
                "status": "done" if done and not failure else "set aside" if failure else "not done",
                "flags": "; ".join(_flags(facts, image.path)),
                "reason": failure["reason"] if failure else "", "failed_tiles": int(failure is not None),
                "height_px": image.size[0], "width_px": image.size[1], **_quality(facts, image.path),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _flags(facts: Mapping[str, Any], path: str) -> list[str]:
    """Facts of the run about the pixels of an image."""
    empty = (facts.get("images") or {}).get(path, {}).get("empty")
    return [*(["empty"] if empty else []), *(facts.get("flags") or {}).get(path, [])]


def _quality(facts: Mapping[str, Any], path: str) -> dict[str, float]:
    """Focus and share of clipped pixels of an image by channel, as columns of the listing; NaN where unknown."""
    facts_of_image = (facts.get("images") or {}).get(path, {})
    return {
        f"{kind}_{channel}": np.nan if value is None else value
        for kind in QUALITY
        for channel, value in (facts_of_image.get(kind) or {}).items()
    }


def _seams(objects: pd.DataFrame, images: Mapping[str, Image], facts: Mapping[str, Any]) -> SeamReport | None:
    core = facts.get("tiling", {}).get("core")
    if not core or not len(objects):
        return None
    return seam_quality(objects, {key: image.size for key, image in images.items()}, core_px=int(core))


def _channel(images: Mapping[str, Image], facts: Mapping[str, Any]) -> int:
    chosen = (facts.get("job") or {}).get("channel") or [0]
    try:
        return channel_index(next(iter(images.values())), chosen[0])
    except BadArgument:
        return 0
