"""Quality of the shipped models on validation images that they were not trained on, through the real main job.

    python benchmarks/quality.py ../shared/data [--models worms nuclei chromosomes]
    python benchmarks/quality.py ../shared/data --models nuclei --weights out/robust --as nuclei-left-out

``--weights`` measures a folder instead of the shipped weights of the one model named. A model that was trained on
all groups of its dataset in the end is measured on the images that its card lists as held out; the result says so.

For each model: the validation split of its dataset is ingested, segmented and evaluated (canonical and the paper
authors' assignment), as a whole and by group (experiment, slide, well), the worst group first; worms also on the
paper's crop. Beside it stands the control: plain connected components of all that the model found, which is what a
method without layers would make of it. Then fields without an object (generated camera noise, and background of the
dataset) and fields with three cells: the objects that were found, per megapixel. For worms also: the largest layer
alone against decoding that lets layers overlap, the pixels that differ between tile sizes, and what bfloat16 and
OpenVINO change.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, write_result
from scipy import ndimage
from skimage.measure import label

from flows.ingest.samples import ingest_samples
from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from model.card import read_card, shipped
from model.prediction.segmenter import load_segmenter
from pipeline.datasets.published.catalogue import dataset
from pipeline.datasets.sample import Sample
from pipeline.metrics.evaluation import Evaluation, evaluate_dataset
from pipeline.metrics.overlap import overlap
from pipeline.store.ome.collection import open_collection
from pipeline.store.ome.labels import read_stack
from pipeline.store.places.address import address

DATA = {"worms": "bbbc010", "nuclei": "dsb2018", "chromosomes": "mfish"}
"""Dataset each shipped model was trained on."""

SEED = 0
NOISE_SHAPE = (1040, 1388)
"""Size of generated fields: that of a common camera."""
LEAST_EMPTY_PX = 64
"""Least edge of a background crop."""
WAYS: dict[str, dict[str, Any]] = {
    "torch": {},
    "bfloat16": {"precision": "bfloat16"},
    "openvino": {"device": "openvino"},
}
"""Other ways to compute the same network, as settings of its segmenter."""


class LargestLayerWorms:
    """The worms network, decoded with the largest layer alone: no pixel belongs to two objects."""

    def __new__(cls) -> Any:
        """Load it."""
        return load_segmenter(shipped()["worms"], device="cpu", overlaps=False)


def numbers(evaluation: Evaluation) -> dict[str, Any]:
    """What a table shows of an evaluation."""
    summary = evaluation.summary
    wanted = ("AP", "meanAP", "AJI", "PQ", "SBD", "sortedAP", "author")
    totals = evaluation.images[["n_truth", "n_prediction"]].sum()
    scores = {name: summary[name] for name in wanted if name in summary}
    return scores | {"images": len(evaluation.images), **{k: int(v) for k, v in totals.items()}}


def by_group(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Pooled scores of each group, the worst first."""
    table = evaluation.groups["condition"].sort_values("meanAP")
    columns = ["condition", "images", "n_truth", "n_prediction", "AP_0.5", "AP_0.9", "meanAP", "AJI"]
    return [{k: row[k] for k in columns if k in row} for row in table.to_dict("records")]


def run(store: Path, name: str, groups: Mapping[str, str], **changes: Any) -> dict[str, Any]:
    """Segment a store and evaluate it, with the control beside it."""
    started = time.perf_counter()
    record = segment(job(SegmentJob, {"source": str(store), "name": name, **changes}))
    seconds = time.perf_counter() - started
    network = sum(v for k, v in record.network_s.items() if "network" in k)
    place = address(store)
    stacks = {
        image.path: (read_stack(place, image.path, "truth"), read_stack(place, image.path, name))
        for image in open_collection(place).images
    }
    evaluation = evaluate_dataset(
        ((path, overlap(*pair), {"condition": groups[path]}) for path, pair in stacks.items()), resamples=0
    )
    least = read_card(shipped().get(changes.get("model", "worms"), changes.get("model", "")))["min_area"]
    control = evaluate_dataset(
        (
            (path, overlap(truth, plain_components(found, least)), {})
            for path, (truth, found) in stacks.items()
        ),
        resamples=0,
    )
    return numbers(evaluation) | {
        "groups": by_group(evaluation),
        "control_plain_components": {k: numbers(control)[k] for k in ("AP", "meanAP", "AJI", "n_prediction")},
        "seconds": round(seconds, 1),
        "network_seconds": round(network, 1),
        "status": record.status,
    }


def plain_components(stack: np.ndarray, least_px: int) -> np.ndarray:
    """Return the 8-connected components ``(1, y, x)`` of all that is covered, from ``least_px`` pixels on."""
    components = label((stack > 0).any(0), connectivity=2)
    small = np.bincount(components.ravel()) < least_px
    components[small[components]] = 0
    return components[None].astype(np.uint32)


def without_objects(samples: list[Sample]) -> Iterator[Sample]:
    """Generated fields of camera noise, and the largest empty square of each image if it is wide enough."""
    rng = np.random.default_rng(SEED)
    for offset, sigma in ((100, 3.0), (400, 10.0), (1000, 30.0)):
        yield _field(f"noise-{offset}", rng.normal(offset, sigma, NOISE_SHAPE))
        yield _field(f"photons-{offset}", rng.poisson(offset, NOISE_SHAPE))
    for sample in samples:
        objects = np.zeros(sample.image.shape[1:], bool) if sample.truth is None else sample.truth.any(0)
        far = ndimage.distance_transform_cdt(np.pad(~objects, 1), "chessboard")[1:-1, 1:-1]
        y, x = np.unravel_index(far.argmax(), far.shape)
        half = int(far[y, x]) - 1
        if half >= LEAST_EMPTY_PX // 2:
            image = sample.image[0, y - half : y + half, x - half : x + half]
            yield _field(f"background-{sample.name}", image.astype(float))


def with_three_cells() -> Iterator[Sample]:
    """Three clear cells on camera noise of several levels."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[: NOISE_SHAPE[0], : NOISE_SHAPE[1]]
    for offset, sigma in ((100, 3.0), (400, 10.0), (1000, 30.0)):
        cells = sum(
            np.exp(-((((y - cy) / 14) ** 2 + ((x - cx) / 18) ** 2) ** 3))
            for cy, cx in rng.uniform(60, 900, (3, 2))
        )
        yield _field(
            f"three-{offset}", rng.normal(offset, sigma, NOISE_SHAPE) + 40 * sigma * np.asarray(cells)
        )


def _field(name: str, pixels: np.ndarray) -> Sample:
    image = np.clip(np.rint(pixels), 0, 65535).astype(np.uint16)[None]
    return Sample(name=name, image=image, truth=None, group=name)


def counted(store: Path, model: str) -> dict[str, Any]:
    """Objects that a model finds in each image, and per megapixel of all."""
    segment(job(SegmentJob, {"source": str(store), "name": "found", "model": model}))
    place = address(store)
    stacks = {i.path: read_stack(place, i.path, "found") for i in open_collection(place).images}
    objects = {path: len(np.unique(stack[stack > 0])) for path, stack in stacks.items()}
    megapixels = sum(stack[0].size for stack in stacks.values()) / 1e6
    return {"objects": objects, "per_megapixel": round(sum(objects.values()) / megapixels, 3)}


def tile_sizes(store: Path, cores: tuple[int, ...]) -> dict[str, Any]:
    """Segment with several tile sizes and count the pixels that differ from the whole image."""
    for core in cores:
        segment(
            job(
                SegmentJob,
                {"source": str(store), "name": f"core{core}", "model": "worms", "tiling": {"core": core}},
            )
        )
    place = address(store)
    images = open_collection(place).images
    whole = {i.path: read_stack(place, i.path, f"core{cores[-1]}") for i in images}
    result: dict[str, Any] = {"pixels": int(sum(stack[0].size for stack in whole.values()))}
    for core in cores[:-1]:
        stacks = {i.path: read_stack(place, i.path, f"core{core}") for i in images}
        result[f"core_{core}"] = {
            "objects": int(sum(len(np.unique(s[s > 0])) for s in stacks.values())),
            "foreground_pixels_that_differ": int(
                sum(((stacks[p] > 0).any(axis=0) != (whole[p] > 0).any(axis=0)).sum() for p in whole)
            ),
        }
    result["whole_image"] = {"objects": int(sum(len(np.unique(s[s > 0])) for s in whole.values()))}
    return result


def ways(store: Path, model: str, groups: Mapping[str, str]) -> dict[str, Any]:
    """Scores, pixels that differ from float32 of torch, and seconds per Mpx of each way, in turns on one block."""
    place, found = address(store), {}
    images = open_collection(place).images
    segmenters = {
        name: load_segmenter(shipped()[model], **{"device": "cpu", **way}) for name, way in WAYS.items()
    }
    seconds = network_seconds(segmenters)
    for name, way in WAYS.items():
        settings = {
            "precision": way.get("precision", "float32"),
            "execution": {"device": way.get("device", "cpu")},
        }
        scores = run(store, f"way_{name}", groups, model=model, **settings)
        usual, other = (
            [(read_stack(place, i.path, f"way_{key}") > 0).any(0) for i in images] for key in ("torch", name)
        )
        found[name] = {key: scores[key] for key in ("meanAP", "AP", "AJI", "n_prediction")} | {
            "foreground_pixels_that_differ": int(
                sum((a != b).sum() for a, b in zip(usual, other, strict=True))
            ),
            "seconds_per_Mpx": round(seconds[name], 3),
            "speed_against_torch": round(seconds["torch"] / seconds[name], 2),
        }
    return {"threads": torch.get_num_threads(), **found}


def network_seconds(segmenters: dict[str, Any], *, side_px: int = 512, rounds: int = 5) -> dict[str, float]:
    """Least seconds of processor time per Mpx of each segmenter, called in turns."""
    block = np.random.default_rng(SEED).random((1, side_px, side_px), dtype=np.float32)
    least = dict.fromkeys(segmenters, float("inf"))
    for _ in range(rounds):
        for name, segmenter in segmenters.items():
            started = time.process_time()
            segmenter(block)
            least[name] = min(least[name], (time.process_time() - started) / (side_px**2 / 1e6))
    return least


def stored(path: Path, samples: Iterable[Sample]) -> Path:
    """Write samples as a store."""
    ingest_samples(iter(samples), str(path))
    return path


def groups_of(store: Path, samples: Sequence[Sample]) -> dict[str, str]:
    """Group of each image by its path in the store; images are named after their samples, or stand in wells."""
    by_name = {sample.name: sample.group for sample in samples}
    by_well = {"/".join(sample.well): sample.group for sample in samples if sample.well}
    return {
        image.path: by_well["/".join(image.well)] if image.well else by_name[image.path]
        for image in open_collection(address(store)).images
    }


def measured(model: str, weights: str, data: Path, folder: Path) -> dict[str, Any]:
    """All that is measured of one model, whose weights are those of a shipped model or of a folder."""
    name = DATA[model]
    card = read_card(shipped().get(weights, weights))
    samples = list(unseen(card, name, data / name))
    store = stored(folder / f"{name}.zarr", samples)
    result = {
        "what": f"model {model} on the validation split of {name}",
        "machine": machine(SEED),
        "digest": card["digest"],
        "split": card.get("data", {}).get("split", "nothing of the validation split was trained on"),
        "full_frame": run(store, model, groups_of(store, samples), model=weights),
        "without_objects": counted(stored(folder / f"{name}-empty.zarr", without_objects(samples)), weights),
    }
    if model == "worms":
        crops = list(dataset(name).read(data / name, split="validation", crop=True))
        return result | of_worms(store, crops, folder)
    cells = stored(folder / f"{name}-three.zarr", with_three_cells())
    return result | {"three_cells": counted(cells, weights)}


def unseen(card: Mapping[str, Any], name: str, folder: Path) -> Iterator[Sample]:
    """Images that a model was not trained on: those its card lists, or the validation split of its dataset."""
    held = card.get("data", {}).get("held_out")
    for split in ("train", "validation") if held else ("validation",):
        for sample in dataset(name).read(folder, split=split):
            if not held or sample.name in held:
                yield sample


def of_worms(store: Path, crops: Sequence[Sample], folder: Path) -> dict[str, Any]:
    """What is measured of worms alone: the paper's crop, ways to decode and to compute it, tile sizes."""
    crop = stored(folder / "crop.zarr", crops)
    groups = groups_of(crop, crops)
    return {
        "paper_crop": run(crop, "worms", groups, model="worms"),
        "paper_crop_largest_layer_only": run(
            crop, "largest", groups, segmenter="benchmarks.quality:LargestLayerWorms"
        ),
        "paper_crop_other_ways": ways(crop, "worms", groups),
        "tile_sizes": tile_sizes(store, (256, 512, 1024)),
    }


def main() -> None:
    """Measure and keep the results, one file per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", default=sorted(shipped()))
    parser.add_argument("--weights", help="folder of a model to measure instead of the shipped weights")
    parser.add_argument("--as", dest="result", help="name of the result, for --weights")
    options = parser.parse_args()
    if options.weights and (len(options.models) != 1 or options.models == ["worms"] or not options.result):
        parser.error("--weights: expected one model, nuclei or chromosomes, and --as NAME for the result")
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        for model in options.models:
            weights = options.weights or model
            result = measured(model, weights, options.data, folder)
            write_result(f"quality-{options.result or model}", result)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
