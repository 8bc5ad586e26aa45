"""Quality of the shipped models on validation images they never saw, through the real main job.

    python benchmarks/quality.py ../shared/data [--models worms nuclei chromosomes]

For each model: the validation split of its dataset is ingested, segmented and evaluated (canonical and the paper
authors' assignment); worms also on the paper's crop. Then, for worms: the rule that takes the largest layer alone
against decoding that lets layers overlap, how many pixels differ between tile sizes, and what bfloat16 and OpenVINO
change in the scores and in the time of the network.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, write_result

from flows.evaluation.comparing import Compared, compare
from flows.ingest import ingest_samples
from flows.jobs import SegmentJob, job
from flows.segmentation.run import segment
from model.card import read_card, shipped
from model.segmenter import load_segmenter
from pipeline.datasets.catalogue import dataset
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


def numbers(compared: Compared) -> dict[str, Any]:
    """What a table shows of an evaluation."""
    summary = compared.evaluation.summary
    wanted = ("AP", "meanAP", "AJI", "PQ", "SBD", "sortedAP", "author")
    found = {name: summary[name] for name in wanted if name in summary}
    totals = compared.evaluation.images[["n_truth", "n_prediction"]].sum()
    return found | {"images": len(compared.evaluation.images), **{k: int(v) for k, v in totals.items()}}


def run(store: Path, name: str, **changes: Any) -> dict[str, Any]:
    """Segment a store and evaluate it."""
    started = time.perf_counter()
    record = segment(job(SegmentJob, {"source": str(store), "name": name, **changes}))
    seconds = time.perf_counter() - started
    network = sum(v for k, v in record.network_s.items() if "network" in k)
    result = numbers(compare(str(store), str(store), prediction_name=name))
    return result | {
        "seconds": round(seconds, 1),
        "network_seconds": round(network, 1),
        "status": record.status,
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


def ways(store: Path, model: str) -> dict[str, Any]:
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
        scores = run(store, f"way_{name}", model=model, **settings)
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


def main() -> None:
    """Measure and keep the results, one file per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", default=sorted(shipped()))
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        for model in options.models:
            name = DATA[model]
            store = folder / f"{name}.zarr"
            ingest_samples(dataset(name).read(options.data / name, split="validation"), str(store))
            card = read_card(shipped()[model])
            result = {
                "what": f"model {model} on the validation split of {name}", "machine": machine(SEED),
                "digest": card["digest"], "full_frame": run(store, model, model=model),
            }  # fmt: skip
            if model == "worms":
                crop = folder / "crop.zarr"
                ingest_samples(
                    dataset(name).read(options.data / name, split="validation", crop=True), str(crop)
                )
                result["paper_crop"] = run(crop, model, model=model)
                result["paper_crop_largest_layer_only"] = run(
                    crop, "largest", segmenter="benchmarks.quality:LargestLayerWorms"
                )
                result["paper_crop_other_ways"] = ways(crop, model)
                result["tile_sizes"] = tile_sizes(store, (256, 512, 1024))
            write_result(f"quality-{model}", result)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
