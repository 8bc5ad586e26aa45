"""The Python interface: segment stores, read label stacks, evaluate against truth.

```python
import platelayer

record = platelayer.segment("plate.zarr", model="nuclei", channel=["DAPI"])
stack = platelayer.read_stack("plate.zarr", "A/1/0", "nuclei")  # (layers, y, x), integers, 0 = background
result = platelayer.evaluate("plate.zarr", report="evaluation")
```

The code behind it lies in the packages ``pipeline``, ``model`` and ``flows``. They are imported from the folder of
this package even where the working directory has a file of one of these names, such as a script ``pipeline.py``.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from flows.evaluation.evaluate import Evaluated
    from flows.segmentation.record import RunRecord
    from pipeline.store.places.address import Address

__all__ = ["evaluate", "read_stack", "segment"]


def segment(source: "str | Path", **settings: Any) -> "RunRecord":
    """Segment every image of a store; labels and object tables are written as `platelayer segment` writes them.

    Args:
        source: OME-Zarr image or plate, path or URL.
        settings: keys of a segmentation job, such as ``model="nuclei"``, ``channel=["DAPI"]``,
            ``tiling={"core": 1024}``, ``execution={"executor": "threads"}``; see `platelayer segment --example`.

    Returns:
        The record of the run: images, numbers of objects, failures.

    Raises:
        BadArgument, BadStore, RunConflict: see `pipeline.errors`.
    """
    from flows.jobs import SegmentJob, job
    from flows.segmentation.run import segment as run

    return run(job(SegmentJob, {"source": str(source), **settings}))


def read_stack(
    store: "str | Path | Address",
    path: str,
    name: str,
    *,
    region: tuple[int, int, int, int] | None = None,
    plane: tuple[int, int] = (0, 0),
) -> "np.ndarray":
    """Read the label stack of an image.

    Args:
        store: OME-Zarr image or plate, path or URL.
        path: the image in it, such as ``A/1/0``; empty for a single image.
        name: name of the labels.
        region: ``(y0, y1, x0, x1)`` in px; default: the whole image.
        plane: ``(t, z)``.

    Returns:
        Integers ``(layers, y, x)``; 0 is background, and an object has the same id in the object table.
    """
    from pipeline.store.ome.labels import read_stack as read
    from pipeline.store.places.address import address

    return read(address(store), path, name, region=region, plane=plane)


def evaluate(prediction: "str | Path", truth: "str | Path" = "", **settings: Any) -> "Evaluated":
    """Compare predicted with true labels; numbers and a page are written as `platelayer evaluate` writes them.

    Args:
        prediction: store, plate or folder of stores with the predicted labels.
        truth: the same with the true labels; default: the same place.
        settings: ``report``, ``prediction_name``, ``truth_name``, ``layout``, ``baseline`` and the other options of
            `platelayer evaluate`.

    Returns:
        The numbers (``compared.evaluation``: tables and summary) and the address of the page (``place``).

    Raises:
        BadArgument, BadStore: see `pipeline.errors`.
    """
    from flows.evaluation.evaluate import EvaluateJob
    from flows.evaluation.evaluate import evaluate as run
    from flows.jobs import job

    return run(job(EvaluateJob, {"prediction": str(prediction), "truth": str(truth), **settings}))


def _import_siblings() -> None:
    """Import the packages of this installation, whatever files of these names the working directory has."""
    root = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(root))
    try:
        for name in ("pipeline", "model", "flows"):
            package = importlib.import_module(name)
            if Path(package.__file__ or "").resolve().parent != root / name:
                raise ImportError(
                    f"platelayer: expected its own package {name!r}, got {package.__file__}, which was imported "
                    "before; import platelayer first, or rename that file"
                )
    finally:
        sys.path.remove(str(root))


_import_siblings()
