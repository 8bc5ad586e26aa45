"""The command line. Errors become one line and an exit code, never a traceback.

Exit codes: 0 done, 1 the request or the data cannot be used, 2 wrong usage, 3 finished, but images were set
aside, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM, as SLURM and Kubernetes send it).
"""

import gc
import logging
import os
import signal
import sys
from types import FrameType

from cyclopts import App
from cyclopts.exceptions import CycloptsError

from flows.execution.orchestrate import reach_server
from model.errors import BadCheckpoint, BadSample, NoDevice
from pipeline.errors import BadArgument, BadStore, RunConflict


def _version() -> str:
    """Version of the installed package, looked up when it is asked for."""
    from importlib.metadata import version

    return version("platelayer")


app = App(
    name="platelayer",
    help="Segment dense and overlapping objects in images too large or too many for one program.",
    version=_version,
    version_flags=["--version"],
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
COMMANDS = {
    "segment": "Segment an image, a plate or a job file; labels and tables land beside the images.",
    "ingest": "Make an OME-Zarr store from TIFF files, a published dataset or the generator of synthetic scenes.",
    "import-labels": "Put masks (TIFF, PNG, COCO, GeoJSON, ImageJ, CSV) beside the images of a store, as labels.",
    "export": "Write labels for other programs: geojson, coco, labels-tiff, roi-zip, ome-tiff, csv, anndata.",
    "evaluate": "Compare predicted with true labels and write numbers and a report.",
    "report": "Draw the report of a run: plate maps, distributions, montage, seam quality.",
    "review": "List the objects most worth a look: cut at tile borders, unusual in size or shape, overlapped.",
    "view": "Open images and labels of a store in napari.",
    "table": "Write all objects of a store as one table: CSV on standard output, or a Parquet dataset.",
    "inspect": "Show what a store holds: wells, channels, levels, labels, tables, runs.",
    "models": "List the shipped models, or describe the checkpoint at a path or URL.",
    "train": "Train a model from ingested images with truth.",
    "tune": "Choose thresholds and the least area of a model on images with truth.",
    "serve": "Run a job by the clock, or on every plate that appears at a place, until stopped.",
    "deploy": "Register a job, or a watch, on a work pool of Prefect.",
    "doctor": "Check this installation and this machine.",
    "clean": "Remove the scratch of finished runs.",
    "demo": "Make, segment, evaluate and report a small plate.",
}
PACKAGES = {
    **dict.fromkeys(("ingest", "import-labels", "export"), "data."),
    **dict.fromkeys(("models", "train", "tune"), "training."),
}
"""Packages below `flows.commands` of the commands that have one."""

for _name, _help in COMMANDS.items():
    _function = _name.replace("-", "_")
    app.command(f"flows.commands.{PACKAGES.get(_name, '')}{_function}:{_function}", name=_name, help=_help)


GARBAGE = 100_000
"""Objects made before Python looks for unused cycles among the young. A plate is a million small values that stay;
at the default of 700 the search takes a tenth of the time in which a plate is opened."""


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: everything ends as after Ctrl-C, with another exit code."""


def _terminate(number: int, frame: FrameType | None) -> None:
    """End the command in order: workers are stopped and locks released on the way out of it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the first
    raise Terminated


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    gc.set_threshold(GARBAGE)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    for package in ("flows", "pipeline", "model"):
        logging.getLogger(package).setLevel(os.environ.get("PLATELAYER_LOG", "INFO"))
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        reach_server(sys.argv[1:] if arguments is None else arguments)
        return app(arguments, exit_on_error=False, print_error=True) or 0
    except CycloptsError:
        return 2
    except (BadArgument, BadStore, RunConflict, BadCheckpoint, BadSample, NoDevice) as error:
        return _fail(str(error))
    except Terminated:
        return _fail("terminated; the same command goes on where it stopped", 143)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on where it stopped", 130)
    except OSError as error:
        if os.environ.get("PLATELAYER_LOG") == "DEBUG":
            raise
        return _fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
    except Exception as error:
        logging.getLogger("flows").debug("unexpected error", exc_info=True)
        return _fail(f"unexpected {type(error).__name__}: {error}; PLATELAYER_LOG=DEBUG shows where")


def _fail(message: str, code: int = 1) -> int:
    sys.stderr.write(f"platelayer: {message}\n")
    return code
