"""Label images and binary masks as TIFF, PNG and npy files.

A label image holds an id per pixel; a stack of layers, for objects that overlap, is a TIFF of several pages.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image as Picture

from pipeline.errors import BadStore
from pipeline.masks.objects import MaskObject, object_of_mask
from pipeline.spans import runs_of, spans_of_stack

SUFFIXES = (".tif", ".tiff", ".png", ".bmp", ".npy")
"""Endings of files with pixels."""


def read_pixels(path: Path) -> np.ndarray:
    """Read a TIFF, PNG, BMP or npy file as an array; a colour picture of grey values becomes grey.

    Raises:
        BadStore: not readable, or a colour picture.
    """
    try:
        if path.suffix.lower() == ".npy":
            pixels = np.load(path, allow_pickle=False)
        elif path.suffix.lower() in (".tif", ".tiff"):
            pixels = tifffile.imread(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Picture.DecompressionBombWarning)
                pixels = np.asarray(Picture.open(path))
    except (OSError, ValueError, tifffile.TiffFileError, SyntaxError) as error:
        pickled = path.suffix.lower() == ".npy" and "allow_pickle" in str(error)
        reason = (
            "it holds pickled objects, which are not loaded; save the masks as TIFF or PNG"
            if pickled
            else error
        )
        raise BadStore(f"{path}: this picture cannot be read ({reason!s:.120})") from None
    return _without_colour(pixels, path)


def _without_colour(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.ndim != 3 or pixels.shape[-1] not in (3, 4) or pixels.shape[0] in (3, 4):
        return pixels
    if (pixels[..., :3] == pixels[..., :1]).all():
        return pixels[..., 0]
    raise BadStore(
        f"{path}: expected a label image of one number per pixel, got a colour picture {pixels.shape}"
    )


def checked_labels(pixels: np.ndarray, where: str) -> np.ndarray:
    """Return label pixels ``(..., y, x)`` as uint64.

    Raises:
        BadStore: negative ids, fractions, or a type that holds no numbers.
    """
    if pixels.dtype == bool:
        return pixels.astype(np.uint64)
    if pixels.dtype.kind not in "uif" or pixels.ndim < 2:
        raise BadStore(f"{where}: expected integer labels, got {pixels.dtype} of shape {pixels.shape}")
    if pixels.dtype.kind == "f" and not (np.isfinite(pixels).all() and (pixels == np.rint(pixels)).all()):
        raise BadStore(f"{where}: expected integer ids, got fractions (probabilities, distances?)")
    if pixels.size and pixels.min() < 0:
        raise BadStore(f"{where}: expected ids from 0, got {pixels.min()}; write the background as 0")
    return pixels.astype(np.uint64)


def objects_of_pixels(pixels: np.ndarray, where: str) -> Iterator[MaskObject]:
    """Yield the objects of a label image ``(y, x)`` or a stack ``(L, y, x)``; an id on two layers is two objects."""
    stack = checked_labels(pixels, where)
    stack = stack[None] if stack.ndim == 2 else stack
    for layer in stack:
        ids, index = np.unique(layer, return_inverse=True)
        spans, _, values = spans_of_stack(index.reshape(1, *layer.shape).astype(np.uint32) + (ids[0] != 0))
        runs = runs_of(spans, values)
        order = np.argsort(runs.value, kind="stable")
        labels, starts = np.unique(runs.value[order], return_index=True)
        for value, part in zip(labels.tolist(), np.split(order, starts[1:])):
            y, x0, x1 = (column[part].astype(np.int64) for column in (runs.y, runs.x0, runs.x1))
            yield MaskObject(int(ids[value - int(ids[0] != 0)]), y, x0, x1)


def is_binary(pixels: np.ndarray) -> bool:
    """Whether there are two values at most, so that a file may be the mask of one object."""
    return pixels.ndim == 2 and (pixels.dtype == bool or len(np.unique(pixels)) <= 2)


def object_of_file(path: Path, label: int) -> tuple[MaskObject, tuple[int, int]]:
    """Read a binary mask as one object, and its height and width."""
    pixels = read_pixels(path)
    if pixels.ndim != 2:
        raise BadStore(f"{path}: expected a mask (y, x) of one object, got shape {pixels.shape}")
    return object_of_mask(label, pixels != 0), (pixels.shape[0], pixels.shape[1])
