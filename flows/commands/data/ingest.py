"""`platelayer ingest`: TIFF files, a published dataset or synthetic scenes become an OME-Zarr store."""

import inspect
import re
import sys
from collections.abc import Callable
from typing import Annotated, Literal

from cyclopts import App, Parameter

from flows.commands.data.understood import describe
from flows.ingest.files import Understood, copy_images
from flows.ingest.samples import Ingested, ingest_samples, ingest_synthetic
from pipeline.datasets.files import bioimage, folder
from pipeline.datasets.files.source_files import SourceFile, find_files
from pipeline.datasets.published.catalogue import DATASETS, dataset
from pipeline.errors import BadArgument, BadStore

ingest = App(
    name="ingest",
    help="Make an OME-Zarr store from TIFF files, a published dataset or the generator of synthetic scenes.",
)

Target = Annotated[str, Parameter(help="Store to make; there must be nothing yet.")]
PixelSize = Annotated[
    float | None, Parameter(help="Edge of a pixel in micrometres; default: what the files say.")
]
Incomplete = Annotated[
    Literal["skip", "stop"] | None,
    Parameter(
        help="An image that lacks a file or cannot be read: skip (default where there are others) or stop."
    ),
]
DryRun = Annotated[bool, Parameter(help="Only show what was understood.", negative="")]
Version = Annotated[
    Literal["0.4", "0.5"], Parameter(help="OME-Zarr version: 0.4 (zarr v2) or 0.5 (zarr v3).")
]


@ingest.command
def tiff(
    source: Annotated[
        str, Parameter(help="Folder, file or pattern of files such as 'scan/*.tif'; path or URL.")
    ],
    output: Target,
    *,
    pattern: Annotated[
        str | None,
        Parameter(
            help="Regular expression of file names with the groups row and column, or image, and field, "
            "channel, t, z."
        ),
    ] = None,
    pages: Annotated[str | None, Parameter(help="What the pages of a file are: t, z or c.")] = None,
    plate_wells: Annotated[
        int | None, Parameter(help="Wells of the plate where names count wells (CQ1): 96, 384, ...")
    ] = None,
    channel_names: Annotated[
        str | None, Parameter(help="Names of channels: w1=DAPI,w2=GFP; default: as files say.")
    ] = None,
    pixel_size_um: PixelSize = None,
    incomplete: Incomplete = None,
    dry_run: DryRun = False,
    ngff: Version = "0.5",
) -> int:
    """TIFF files: a plate by the names of the files, else images named after the files."""
    scan = folder.read(
        source,
        pattern=pattern,
        pages=pages,
        plate_wells=plate_wells,
        channel_names=_channel_names(channel_names),
        incomplete=incomplete,
    )
    origin = {"source": source, "files": scan.files, "names": scan.title, "sidecar": scan.sidecar}
    understood = Understood(images=scan.fields, left_out=scan.left_out, origin=origin)
    beside = [f"pixel size, channels and positions from {scan.sidecar}"] if scan.sidecar else []
    heading = f"understood: {scan.files} file(s), read {scan.title}"
    text = describe(understood, heading=heading, notes=[*scan.notes, *beside], spacing_um=pixel_size_um)
    return _copy(understood, text, output, pixel_size_um, incomplete, dry_run, ngff)


@ingest.command(name="any")
def other(
    source: Annotated[str, Parameter(help="File, folder or pattern of files such as 'scan/*.czi'.")],
    output: Target,
    *,
    pixel_size_um: PixelSize = None,
    incomplete: Incomplete = None,
    dry_run: DryRun = False,
    ngff: Version = "0.5",
) -> int:
    """Other formats (CZI, LIF, ND2, OME-TIFF, ...), through bioio where it is installed."""
    scan = bioimage.read(_some_files(source))
    understood = Understood(
        images=scan.fields,
        left_out=scan.left_out,
        origin={"source": source, "files": scan.files, "names": scan.title},
    )
    heading = f"understood: {scan.files} file(s), read {scan.title}"
    text = describe(understood, heading=heading, notes=scan.notes, spacing_um=pixel_size_um)
    return _copy(understood, text, output, pixel_size_um, incomplete, dry_run, ngff)


def _some_files(source: str) -> list[SourceFile]:
    files = [file for file in find_files(source) if not file.name.startswith(".")]
    if not files:
        raise BadStore(f"expected files at {source!r}, found none; check the spelling, and quote a glob")
    if not all(file.is_local for file in files):
        raise BadArgument(f"{source}: other formats than TIFF are read from a disk; copy the file first")
    return files


def _copy(
    understood: Understood,
    text: str,
    output: str,
    pixel_size_um: float | None,
    incomplete: str | None,
    dry_run: bool,
    ngff: str,
) -> int:
    """Print what was understood, then copy the images unless this is a dry run."""
    sys.stdout.write(text)
    sys.stdout.flush()
    if dry_run:
        return 3 if understood.left_out else 0
    made = copy_images(understood, output, spacing_um=pixel_size_um, ngff=ngff, stop=incomplete == "stop")
    for path in made.left_out.keys() - understood.left_out.keys():
        sys.stdout.write(f"  LEFT OUT {path}: {made.left_out[path]}\n")
    sys.stdout.write(f"{made.images} of {made.total} image(s) -> {output}\n")
    return 3 if made.left_out else 0


def _channel_names(text: str | None) -> dict[str, str]:
    pairs = [item.partition("=") for item in (text or "").split(",") if item.strip()]
    if not all(name.strip() and new.strip() for name, _, new in pairs):
        raise BadArgument(f"--channel-names: expected pairs such as w1=DAPI,w2=GFP, got {text!r}")
    return {name.strip(): new.strip() for name, _, new in pairs}


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
    """The command of a dataset; readers refuse options that they do not support."""

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
    match = re.fullmatch(r"(\d+)[x,](\d+)", text)
    if not match or not int(match[1]) or not int(match[2]):
        raise BadArgument(f"--size: expected height x width such as 2048x2048, got {text!r}")
    return int(match[1]), int(match[2])


def _wells(text: str | None) -> list[tuple[str, str]]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    matches = [re.fullmatch(r"([A-Za-z]+)(\d+)", name) for name in names]
    if not all(matches):
        raise BadArgument(f"--wells: expected names such as A1,B12, got {text!r}")
    return [(match[1].upper(), str(int(match[2]))) for match in matches if match]


def _say(made: Ingested, output: str) -> int:
    truth = f" with {made.objects} true objects" if made.objects else ""
    sys.stdout.write(f"{made.images} image(s){truth} -> {output}\n")
    return 0
