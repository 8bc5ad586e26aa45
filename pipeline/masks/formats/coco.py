"""Objects as COCO JSON: run-length encoded masks (exact) and polygons.

COCO counts runs of a whole image column by column. Encoding and decoding here work on an object's bounding box, so
that an object costs memory by its size and not by the image's; tests compare with pycocotools.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pipeline.errors import BadStore
from pipeline.masks.objects import MaskObject, object_of_mask, union
from pipeline.masks.outlines import object_of_rings


@dataclass(frozen=True, kw_only=True)
class CocoImage:
    """An image that a COCO file describes."""

    name: str
    """File name."""
    size: tuple[int, int]
    """Height and width."""
    annotations: list[dict[str, Any]]
    """Its annotations."""
    categories: Mapping[Any, str]
    """Name of each category of the file, by id."""

    def objects(self) -> Iterator[MaskObject]:
        """Yield the object of each annotation that has a segmentation, with the name of its category.

        A category that the file does not name is called by its id.
        """
        for annotation in self.annotations:
            if annotation.get("segmentation"):
                label = annotation.get("label", annotation.get("id", 0))
                category = annotation.get("category_id", "")
                item = _object(annotation["segmentation"], label if isinstance(label, int) else 0)
                yield replace(item, category=self.categories.get(category, str(category)))


def read_coco(path: Path) -> list[CocoImage]:
    """Read what a COCO file says of each image.

    Raises:
        BadStore: not JSON, or not the layout of COCO (images and annotations).
    """
    try:
        document = json.loads(path.read_bytes())
        by_image: dict[Any, list[dict[str, Any]]] = {item["id"]: [] for item in document["images"]}
        for annotation in document["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        categories = {item["id"]: str(item["name"]) for item in document.get("categories") or []}
        return [
            CocoImage(
                name=str(item.get("file_name", item["id"])),
                size=(int(item["height"]), int(item["width"])),
                annotations=by_image[item["id"]],
                categories=categories,
            )
            for item in document["images"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadStore(
            f"{path}: expected COCO JSON with images and annotations that name them "
            f"({type(error).__name__}: {error!s:.80})"
        ) from None


def _object(segmentation: Any, label: int) -> MaskObject:
    try:
        if isinstance(segmentation, dict):
            counts = segmentation["counts"]
            decoded = counts if isinstance(counts, list) else decode_counts(counts)
            return _object_of_counts(np.asarray(decoded, np.int64), int(segmentation["size"][0]), label)
        rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in segmentation]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadStore(f"annotation {label}: the segmentation cannot be read ({error!s:.80})") from None
    return union(label, [object_of_rings(label, [ring]) for ring in rings])


def _object_of_counts(counts: np.ndarray, height: int, label: int) -> MaskObject:
    ends = np.cumsum(counts)
    first, last = ends[0:-1:2], ends[1::2]
    first, last = first[: len(last)][last > first[: len(last)]], last[last > first[: len(last)]]
    if not len(first):
        nothing = np.zeros(0, np.int64)
        return MaskObject(label, nothing, nothing, nothing)
    left, right = int(first[0] // height), int((last[-1] - 1) // height) + 1
    # Only the columns of the object are made into pixels.
    changes = np.zeros((right - left) * height + 1, np.int8)
    changes[first - left * height] += 1
    changes[last - left * height] -= 1
    mask = np.cumsum(changes[:-1], dtype=np.int8).astype(bool).reshape(right - left, height).T
    return object_of_mask(label, mask, left=left)


def counts_of(item: MaskObject, size: tuple[int, int]) -> list[int]:
    """Run lengths of an object in an image (height, width), column by column, beginning with background."""
    mask = item.crop()
    top, _, left, _ = item.box
    columns = object_of_mask(0, mask.T)  # a run of the transposed mask is a stretch of a column
    start = (columns.y + left) * size[0] + top + columns.x0
    end = (columns.y + left) * size[0] + top + columns.x1
    # A stretch that ends at the bottom of a column goes on at the top of the next one.
    begins = np.append(True, start[1:] > end[:-1])
    first = start[begins]
    last = np.append(end[np.flatnonzero(begins)[1:] - 1], end[-1])
    borders = np.stack([first, last], axis=1).reshape(-1)
    counts = np.diff(np.concatenate([[0], borders, [size[0] * size[1]]])).tolist()
    return counts if counts[-1] else counts[:-1]


def encode_counts(counts: list[int]) -> str:
    """Compress run lengths as pycocotools does: differences to the last but one, 5 bits a character."""
    out = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)
            out.append(chr((bits | 0x20 if more else bits) + 48))
    return "".join(out)


def decode_counts(text: str | bytes) -> list[int]:
    """Run lengths of a compressed mask."""
    data = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    position = 0
    while position < len(data):
        value = shift = 0
        more = True
        while more:
            bits = data[position] - 48
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            position, shift = position + 1, shift + 5
            if not more and bits & 0x10:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


class CocoWriter:
    """Writes annotations object by object; images and categories follow at the end."""

    def __init__(self, file: TextIO, *, category: str) -> None:
        """``category``: that of objects without a class."""
        self._file, self._usual = file, category
        self._categories: dict[str, int] = {}
        self._images: list[dict[str, Any]] = []
        self._count = 0
        file.write('{"annotations": [')

    def begin(self, name: str, size: tuple[int, int]) -> None:
        """Begin an image; what is added belongs to it."""
        self._images.append(
            {"id": len(self._images) + 1, "file_name": name, "height": size[0], "width": size[1]}
        )

    def add(self, item: MaskObject) -> None:
        """Write one object as an annotation with a compressed mask."""
        image = self._images[-1]
        size = image["height"], image["width"]
        top, bottom, left, right = item.box
        self._count += 1
        annotation = {
            "id": self._count,
            "image_id": image["id"],
            "category_id": self._categories.setdefault(
                item.category or self._usual, len(self._categories) + 1
            ),
            "iscrowd": 0,
            "area": item.area,
            "bbox": [left, top, right - left, bottom - top],
            "segmentation": {"size": list(size), "counts": encode_counts(counts_of(item, size))},
            "label": item.label,
        }
        self._file.write(f"{',' if self._count > 1 else ''}\n{json.dumps(annotation)}")

    def close(self) -> None:
        """Write images and categories."""
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        self._file.write(
            f'\n], "images": {json.dumps(self._images)}, "categories": {json.dumps(categories)}}}\n'
        )
