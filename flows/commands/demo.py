"""`platelayer demo`: a small plate of overlapping worms and one of cells, from pixels to a page, in a minute or two."""

import shutil
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from flows.commands.segment import summary
from flows.commands.terminal import watcher
from flows.evaluation.comparing import compare
from flows.evaluation.evaluate import write_report
from flows.ingest.samples import ingest_synthetic
from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from pipeline.errors import RunConflict

NAME = "objects"
SIZE = (520, 696)
PLATES = {
    "worms": ("worms", [("A", "1"), ("A", "2"), ("B", "1")]),
    "cells": ("nuclei", [("C", "1"), ("C", "2"), ("D", "1")]),
}
"""The plates by kind of scene: the model that segments it, and its wells."""


def demo(
    folder: Annotated[Path, Parameter(help="Where to put it; there must be nothing of value.")] = Path(
        "demo"
    ),
) -> int:
    """Make, segment, evaluate and report a small plate."""
    marker = folder / ".platelayer-demo"
    if folder.exists() and not marker.exists():
        raise RunConflict(f"{folder}: expected no such folder, or one made by the demo; give another place")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()
    code = 0
    for seed, (kind, (model, wells)) in enumerate(PLATES.items()):
        store = folder / f"{kind}.zarr"
        sys.stdout.write(f"{kind}: drawing {len(wells)} wells\n")
        ingest_synthetic(str(store), kind=kind, size=SIZE, wells=wells, seed=11 + seed)
        work = job(SegmentJob, {"source": str(store), "model": model, "name": NAME, "tiling": {"core": 256}})
        watching = watcher()
        try:
            code = max(code, summary(segment(work, progress=watching)))
        finally:
            watching.close()
    compared = compare(str(folder), str(folder), prediction_name=NAME)
    write_report(compared, str(folder), "demo")
    for plate in compared.evaluation.groups["plate"].to_dict("records"):
        kind = str(plate["plate"])
        sys.stdout.write(
            f"{kind}, model {PLATES[kind][0]}: meanAP {plate['meanAP']:.3f}, AJI {plate['AJI']:.3f}\n"
        )
    sys.stdout.write(
        "(synthetic scenes; the models were trained on real images)\n"
        f"look at {(folder / 'report.html').resolve()}\n"
    )
    return code
