"""`platelayer ingest`: TIFF files, a published dataset or synthetic scenes become an OME-Zarr store."""

import inspect
import re
import sys
from collections.abc import Callable
from typing import Annotated, Literal

from cyclopts import App, Parameter

from flows.ingest import Ingested, ingest_fields, ingest_samples, ingest_synthetic
from pipeline.datasets import folder
from pipeline.datasets.catalogue import DATASETS, dataset
from pipeline.errors import BadArgument

ingest = App(
    name="ingest",
    help="Make an OME-Zarr store from TIFF files, a published dataset or the generator of synthetic scenes.",
)

Target = Annotated[str, Parameter(help="Store to make; there must be nothing yet.")]
Version = Annotated[
    Literal["0.4", "0.5"], Parameter(help="OME-Zarr version: 0.4 (zarr v2) or 0.5 (zarr v3).")
]


@ingest.command
def tiff(
    source: Annotated[str, Parameter(help="Folder, or pattern of files such as 'scan/*.tif'.")],
    output: Target,
    *,
    pattern: Annotated[
        str | None, Parameter(help="Regular expression with groups row, column, field, channel.")
    ] = None,
    pages: Annotated[str | None, Parameter(help="What the pages of a file are: t, z or c.")] = None,
    pixel_size_um: Annotated[
        float | None, Parameter(help="Edge of a pixel; default: what the files say.")
    ] = None,
    ngff: Version = "0.5",
) -> int:
    """TIFF files of a plate; well, field and channel come from their names."""
    fields = folder.read(source, pattern=pattern, pages=pages)
    return _say(ingest_fields(fields, output, spacing_um=pixel_size_um, ngff=ngff), output)


@ingest.command
def synthetic(
    output: Target,
    *,
    kind: Annotated[Literal["worms", "cells", "filaments"], Parameter(help="What is drawn.")] = "worms",
    size: Annotated[str, Parameter(help="Height and width in px: 2048x2048.")] = "1024x1024",
    wells: Annotated[
        str | None, Parameter(help="Wells of a plate: A1,A2,B1; default: a single image.")
    ] = None,
    fields: Annotated[int, Parameter(help="Images per well.")] = 1,
    seed: Annotated[int, Parameter(help="Another seed, another scene.")] = 0,
    density: Annotated[float, Parameter(help="Relative crowding.")] = 1.0,
    shards: Annotated[int | None, Parameter(help="Side of a shard in px (0.5 only).")] = None,
    ngff: Version = "0.5",
) -> int:
    """Synthetic scenes with exact overlapping truth, of any size, from a seed."""
    made = ingest_synthetic(
        output, kind=kind, size=_size(size), wells=_wells(wells), fields=fields, seed=seed, density=density,
        ngff=ngff, shards=shards,
    )  # fmt: skip
    return _say(made, output)


def _published(name: str) -> Callable[..., int]:
    """The command of a dataset; options that only some readers know are refused by the others."""

    def command(
        source: Annotated[str, Parameter(help="Folder with the files as the source ships them.")],
        output: Target,
        *,
        split: Annotated[str, Parameter(help="Named part: train, validation, test or all.")] = "all",
        crop: Annotated[bool, Parameter(help="Cut as in the paper (bbbc010).", negative="")] = False,
        ngff: Version = "0.5",
    ) -> int:
        chosen = dataset(name)
        if crop and "crop" not in inspect.signature(chosen.read).parameters:
            raise BadArgument(f"{name}: knows no crop; leave --crop out")
        options = {"crop": True} if crop else {}
        sys.stdout.write(f"{chosen.title}; cite: {chosen.citation}; licence: {chosen.licence}\n")
        return _say(ingest_samples(chosen.read(source, split=split, **options), output, ngff=ngff), output)

    command.__doc__ = f"The dataset {name}, with its truth as the label stack `truth`."
    return command


for _name in DATASETS:
    ingest.command(_published(_name), name=_name)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)[x,](\d+)", text)
    if not found or not int(found[1]) or not int(found[2]):
        raise BadArgument(f"--size: expected height x width such as 2048x2048, got {text!r}")
    return int(found[1]), int(found[2])


def _wells(text: str | None) -> list[tuple[str, str]]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    found = [re.fullmatch(r"([A-Za-z]+)(\d+)", name) for name in names]
    if not all(found):
        raise BadArgument(f"--wells: expected names such as A1,B12, got {text!r}")
    return [(match[1].upper(), str(int(match[2]))) for match in found if match]


def _say(made: Ingested, output: str) -> int:
    truth = f" with {made.objects} true objects" if made.objects else ""
    sys.stdout.write(f"{made.images} image(s){truth} -> {output}\n")
    return 0
