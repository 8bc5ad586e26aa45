"""Quality of the shipped models on validation images that they were not trained on, through the real main job.

    python benchmarks/quality.py ../shared/data [--models worms nuclei chromosomes]
    python benchmarks/quality.py ../shared/data --models nuclei --weights out/robust --as nuclei-left-out

``--weights`` measures a folder instead of the shipped weights of the one model named. A model that was trained on
all groups of its dataset in the end is measured on the images that its card lists as held out; the result says so.

For each model: the validation split of its dataset is ingested, segmented and evaluated (canonical and the paper
authors' assignment), as a whole and by group (experiment, slide, well), the worst group first; worms also on the
paper's crop. Beside it stands the control: plain connected components of all that the model found, which is what a
method without layers would make of it, and the objects that were found farther than an object's width from every
label, which are false or unlabelled. Then fields without an object (generated camera noise, and squares of the
dataset's background) and with two to four (`benchmarks/sparse_fields.py`): what was found of what is there. For worms
also: the largest layer alone against decoding that lets layers overlap, the pixels that differ between tile sizes, and
what bfloat16 and OpenVINO change. ``--models threshold``: the generated fields without a network.
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
from sparse_fields import background_squares, noise_fields, sparse_fields, width_of

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
        "away_from_labels": away_from_labels(list(stacks.values())),
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


def away_from_labels(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Objects farther than the median object's width from every label: false ones, or real ones without a label."""
    areas = np.concatenate([np.bincount(truth.ravel())[1:] for truth, _ in pairs])
    width = 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)
    objects, pixels = 0, 0
    for truth, found in pairs:
        near = ndimage.distance_transform_edt(~truth.any(0)) <= width
        objects += len(set(np.unique(found).tolist()) - set(np.unique(found[:, near]).tolist()))
        pixels += int((~near).sum())
    return {"objects": objects, "megapixels": round(pixels / 1e6, 3)}


def counted(store: Path, model: str) -> dict[str, Any]:
    """Objects that a model finds in each image, and per megapixel of all."""
    segment(job(SegmentJob, {"source": str(store), "name": "found", "model": model}))
    place = address(store)
    stacks = {i.path: read_stack(place, i.path, "found") for i in open_collection(place).images}
    objects = {path: len(np.unique(stack[stack > 0])) for path, stack in stacks.items()}
    megapixels = sum(stack[0].size for stack in stacks.values()) / 1e6
    return {
        "fields": len(objects),
        "megapixels": round(megapixels, 3),
        "objects": {path: count for path, count in objects.items() if count},
        "per_megapixel": round(sum(objects.values()) / megapixels, 3),
    }


def sparse(model: str, weights: str, folder: Path) -> dict[str, Any]:
    """Objects drawn and found in each generated field that holds a few."""
    fields = list(sparse_fields(model))
    found = counted(stored(folder / f"{model}-sparse.zarr", (sample for _, sample in fields)), weights)
    return {
        sample.name: {"drawn": drawn, "found": found["objects"].get(sample.name, 0)}
        for drawn, sample in fields
    }


def without_network(folder: Path) -> dict[str, Any]:
    """The generated fields, segmented by a threshold."""
    return {
        "what": "threshold on generated fields",
        "machine": machine(SEED),
        "noise": counted(stored(folder / "noise.zarr", noise_fields()), "threshold"),
        "sparse": sparse("threshold", "threshold", folder),
    }


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
        "noise": counted(stored(folder / f"{name}-noise.zarr", noise_fields()), weights),
        "background": counted(
            stored(folder / f"{name}-background.zarr", background_squares(samples, width_of(samples))),
            weights,
        ),
        "sparse": sparse(model, weights, folder),
    }
    if model != "worms":
        return result
    return result | of_worms(
        store, list(dataset(name).read(data / name, split="validation", crop=True)), folder
    )


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
    parser.add_argument("--models", nargs="+", default=[*sorted(shipped()), "threshold"])
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
            result = (
                without_network(folder)
                if model == "threshold"
                else measured(model, weights, options.data, folder)
            )
            write_result(f"quality-{options.result or model}", result)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
