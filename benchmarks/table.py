"""Write the tables of the documents from the results: `python benchmarks/table.py`. No number is typed by hand."""

import json
import re
from pathlib import Path
from typing import Any

from machine import RESULTS

ROOT = Path(__file__).parent.parent


MODELS = ("worms", "nuclei", "chromosomes")

LEFT_OUT = {"nuclei-left-out": "nuclei, earlier weights: experiments never seen"}
"""What a result is called whose name is not that of a model."""


def result(name: str) -> dict[str, Any] | None:
    """A result, if it was measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def quality() -> str:
    """Scores of the shipped models on their validation images."""
    head = ["model", "validation images", "objects", "AP.5", "AP.6", "AP.7", "AP.8", "AP.9", "meanAP", "AJI"]
    rows = [head, ["---"] * len(head)]
    for path in sorted(RESULTS.glob("quality-*.json")):
        found = json.loads(path.read_text())
        name = path.stem.removeprefix("quality-")
        name = LEFT_OUT.get(name, name)
        for key, suffix in (("full_frame", ""), ("paper_crop", ", paper's crop")):
            if key in found:
                one = found[key]
                aps = [f"{one['AP'][t]:.3f}" for t in ("0.5", "0.6", "0.7", "0.8", "0.9")]
                facts = [name + suffix, str(one["images"]), str(one["n_truth"])]
                rows.append([*facts, *aps, f"{one['meanAP']:.3f}", f"{one['AJI']:.3f}"])
    note = "Pooled over the images, canonical assignment, AJI `kumar`; `benchmarks/quality.py`."
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + f"\n\n{note}"


def held_out() -> str:
    """Per shipped model: scores on images not trained on, the control, the worst group, and fields with few objects."""
    head = [
        "model", "meanAP / AJI", "plain components of its foreground", "worst group: meanAP / AJI",
        "objects away from labels", "on noise, per Mpx", "on background, per Mpx", "sparse fields exact",
    ]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    for name in MODELS:
        if found := result(f"quality-{name}"):
            whole = found["full_frame"]
            worst = whole["groups"][0]
            away, fields = whole.get("away_from_labels"), list(found.get("sparse", {}).values())
            exact = sum(field["drawn"] == field["found"] for field in fields)
            rows.append(
                [
                    name, _pair(whole), _pair(whole["control_plain_components"]),
                    f"{worst['condition']} ({worst['images']} images): {_pair(worst)}",
                    f"{away['objects']} in {away['megapixels']} Mpx" if away else "-",
                    *(f"{found[key]['per_megapixel']}" if key in found else "-" for key in ("noise", "background")),
                    f"{exact} of {len(fields)}" if fields else "-",
                ]
            )  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def folds() -> str:
    """Leave-groups-out cross-validation, where it was measured."""
    head = [
        "data",
        "folds",
        "steps each",
        "images",
        "meanAP / AJI, mean over folds",
        "pooled",
        "worst fold",
        "worst group",
    ]
    rows = [head, ["---"] * len(head)]
    for path in sorted(RESULTS.glob("folds-*.json")):
        found = json.loads(path.read_text())
        pooled, worst, group = found["pooled"], found["folds"][0], found["groups"][0]
        rows.append(
            [
                path.stem.removeprefix("folds-"), str(len(found["folds"])), str(found["budget"]["steps"]),
                str(pooled["images"]), _pair(found["mean_over_folds"]), _pair(pooled), _pair(worst),
                f"{group['condition']}: {_pair(group)}",
            ]
        )  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) if len(rows) > 2 else "Not measured yet."


def feed() -> str:
    """What it costs to feed a training."""
    if not (found := result("feed")):
        return "Not measured yet."
    head = [
        "recipe",
        "batch",
        "cut, ms",
        "encode, ms",
        "a CPU's step, ms",
        "shortest GPU step that twelve cores feed, ms",
    ]
    rows = [head, ["---"] * len(head)]
    for name, one in found["recipes"].items():
        parts = [f"{1000 * one[key]:.0f}" for key in ("cut_s", "encode_s", "step_s")]
        size = f"{one['batch']} x {one['crop_px']} px"
        rows.append([name, size, *parts, f"{one['least_gpu_step_ms_that_is_fed']:.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _pair(scores: dict[str, Any]) -> str:
    """meanAP and AJI."""
    return f"{scores['meanAP']:.3f} / {scores['AJI']:.3f}"


def speed() -> str:
    """What the pipeline costs."""
    lines = []
    if stitch := result("stitch"):
        rates = stitch["median_Mpx_per_s_without_start"]
        lines.append(
            f"- Everything after the network on {stitch['size']} x {stitch['size']} px and 8 layers: "
            f"{rates['1']} Mpx/s on one core, {stitch['second_worker_gain']} times that with two Dask workers, their "
            f"start of seconds not counted (medians; two separate runs at once: {stitch['two_separate_runs_gain']} "
            f"times); `cc3d` alone on the whole array in memory: {stitch['cc3d_whole_in_memory']['Mpx_per_s']} Mpx/s."
        )
    if scaling := result("scaling"):
        lines.append(
            f"- Whole job on {scaling['size']} x {scaling['size']} px with the model `{scaling['model']}` on CPUs: "
            f"{scaling['gain']} times as fast with two Dask workers as with one, their start and end counted (medians)."
        )
    if memory := result("memory"):
        lines.append(
            f"- Peak memory at {memory['sizes'][-1]} px against {memory['sizes'][0]} px: {memory['ratio']} times."
        )
    if overhead := result("overhead"):
        lines.append(f"- Whole job against the network's forward pass alone: {overhead['ratio']} times.")
    return "\n".join(lines)


def ablation() -> str:
    """The arms of the ablation that have ended, the latest measurement of each."""
    if not (found := result("ablation")):
        return "Not measured yet."
    head = [
        "data",
        "arm",
        "steps",
        "meanAP",
        "AJI",
        "meanAP, authors'",
        "AJI, authors'",
        "Dice of shared pixels",
    ]
    head += ["meanAP, largest layer alone"]
    rows = [head, ["---"] * len(head)]
    for arm in found["arms"]:
        one = arm["overlap_aware"]
        scores = [one["meanAP"], one["AJI"], one["author"]["meanAP"], one["author"]["AJI"]]
        scores += [one["shared_pixels_dice"], arm["largest_layer_only"]["meanAP"]]
        rows.append([arm["data"], arm["arm"], str(arm["steps"]), *(f"{score:.3f}" for score in scores)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def ways() -> str:
    """What other arithmetic changes."""
    found = (result("quality-worms") or {}).get("paper_crop_other_ways")
    if not found:
        return "Not measured yet."
    head = ["computed by", "meanAP", "AJI", "objects", "pixels that differ", "speed against torch in float32"]
    rows = [head, ["---"] * len(head)]
    for name, one in found.items():
        if name != "threads":
            facts = [name, f"{one['meanAP']:.4f}", f"{one['AJI']:.4f}", str(one["n_prediction"])]
            rows.append([*facts, str(one["foreground_pixels_that_differ"]), str(one["speed_against_torch"])])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


BLOCKS = {
    "README.md": {"quality": quality, "speed": speed},
    "docs/training.md": {"feed": feed},
    "docs/model.md": {"held-out": held_out, "folds": folds, "ablation": ablation, "ways": ways},
}
"""The blocks of each document, by the name of their markers."""


def main() -> None:
    """Replace what stands between the markers."""
    for name, blocks in BLOCKS.items():
        text = (ROOT / name).read_text()
        for marker, made in blocks.items():
            pattern = rf"(<!-- {marker}:begin -->\n).*?(<!-- {marker}:end -->)"
            block = made()
            text = re.sub(pattern, lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL)
        (ROOT / name).write_text(text)


if __name__ == "__main__":
    main()
