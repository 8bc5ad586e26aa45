"""What no code can do without in a plate of fields: the codecs on its chunks, and writing files of the same sizes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numcodecs import Blosc, Zstd


def floor(source: Path, output: Path, other: Path) -> dict[str, float]:
    """Seconds of the codecs alone on the chunks of a plate and of its labels, and of writing its output elsewhere."""
    images = [place.read_bytes() for place in source.glob("*/*/*/0/c/**/*") if place.is_file()]
    labels = [place.read_bytes() for place in output.glob("*/*/*/labels/n/*/c/**/*") if place.is_file()]
    found = [place for place in output.rglob("*") if place.is_file()]
    files = [(other / place.relative_to(output), place.read_bytes()) for place in found]
    plain = [Zstd().decode(label) for label in labels]
    steps: dict[str, Callable[[], Any]] = {
        "decode_s": lambda: [Blosc().decode(image) for image in images],
        "encode_s": lambda: [Zstd(level=0).encode(label) for label in plain],
        "write_s": lambda: [_write(place, content) for place, content in files],
    }
    return {name: _seconds(step) for name, step in steps.items()} | {"files": len(files)}


def _seconds(step: Callable[[], Any]) -> float:
    started = time.perf_counter()
    step()
    return round(time.perf_counter() - started, 2)


def _write(place: Path, content: bytes) -> None:
    """Write a file as a store does: under another name first."""
    partial = place.with_name(f"{place.name}.partial")
    if not place.parent.exists():
        place.parent.mkdir(parents=True)
    partial.write_bytes(content)
    partial.replace(place)
