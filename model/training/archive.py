"""The files of a training as one archive in parts of limited size, for transfer from another machine.

Tensors are stored in half precision: weights as float16, the moments of the optimiser as bfloat16. A training that is
resumed from it is therefore not bit-identical with an uninterrupted one.
"""

import io
import json
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load, save

from model.errors import BadCheckpoint
from model.training.state import STATE

PART_BYTES = 15 * 2**20
MOST_BYTES = 60 * 2**20
"""Size of all parts together."""
PARTS = "training-{}.part"


def write_archive(work: Path, out: Path) -> int:
    """Write state, models and curves of the training in ``work`` as parts into ``out``; return their size in bytes.

    The state of the optimiser is left out where everything would exceed `MOST_BYTES`; it is then reset on resuming.

    Raises:
        ValueError: it is too large even so.
    """
    for optimiser in (True, False):
        blob = _zipped(work, optimiser=optimiser)
        if len(blob) <= MOST_BYTES:
            break
    else:
        raise ValueError(
            f"{str(out)!r}: expected at most {MOST_BYTES >> 20} MiB, got {len(blob) >> 20}; choose a narrower network"
        )
    out.mkdir(parents=True, exist_ok=True)
    parts = [blob[start : start + PART_BYTES] for start in range(0, len(blob), PART_BYTES)]
    for index, part in enumerate(parts):
        partial = out / f".{PARTS.format(index)}.partial"
        partial.write_bytes(part)
        partial.replace(out / PARTS.format(index))
    for old in out.glob(PARTS.format("*")):
        if old.name not in {PARTS.format(index) for index in range(len(parts))}:
            old.unlink()
    return len(blob)


def _zipped(work: Path, *, optimiser: bool) -> bytes:
    """Return a zip archive of a training folder with its tensors halved."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(work.rglob("*")):
            name = path.relative_to(work).as_posix()
            if path.suffix == ".safetensors" and path.parent == work:
                archive.writestr(name, _halved(path.read_bytes(), optimiser=optimiser))
            elif path.is_file() and ".partial" not in path.name:
                archive.writestr(name, path.read_bytes())
    return buffer.getvalue()


def _halved(blob: bytes, *, optimiser: bool) -> bytes:
    tensors = {}
    for name, value in load(blob).items():
        of_optimiser = name.startswith("optimiser.")
        if of_optimiser and not optimiser:
            continue
        half = torch.bfloat16 if of_optimiser else torch.float16
        tensors[name] = value.to(half) if value.is_floating_point() and value.ndim else value
    return save(tensors)


def read_archive(out: Path, work: Path) -> bool:
    """Unpack the parts in ``out`` into ``work``; return whether there were any.

    Raises:
        BadCheckpoint: a part is missing or damaged.
    """
    parts = sorted(out.glob(PARTS.format("*")), key=lambda path: int(path.name.split("-")[1].split(".")[0]))
    if not parts:
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts))) as archive:
            archive.extractall(work)
    except (OSError, zipfile.BadZipFile) as error:
        raise BadCheckpoint(
            f"{str(out)!r}: expected all parts {PARTS.format('*')!r} of a training, but {error}; copy them again"
        ) from error
    for path in work.glob("*.safetensors"):
        tensors = {
            name: v.float() if v.is_floating_point() else v for name, v in load(path.read_bytes()).items()
        }
        path.write_bytes(save(tensors))
    return (work / STATE).is_file() and bool(json.loads((work / STATE).read_text(encoding="utf-8")))
