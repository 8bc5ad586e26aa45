"""Write the tables of the README from the results: `python benchmarks/table.py`. No number is typed by hand."""

import json
import re
from pathlib import Path
from typing import Any

from machine import RESULTS

README = Path(__file__).parent.parent / "README.md"


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
        for key, suffix in (("full_frame", ""), ("paper_crop", ", paper's crop")):
            if key in found:
                one = found[key]
                aps = [f"{one['AP'][t]:.3f}" for t in ("0.5", "0.6", "0.7", "0.8", "0.9")]
                facts = [name + suffix, str(one["images"]), str(one["n_truth"])]
                rows.append([*facts, *aps, f"{one['meanAP']:.3f}", f"{one['AJI']:.3f}"])
    note = "Pooled over the images, canonical assignment, AJI `kumar`; `benchmarks/quality.py`."
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + f"\n\n{note}"


def speed() -> str:
    """What the pipeline costs."""
    lines = []
    if stitch := result("stitch"):
        one, two = stitch["runs"][0], stitch["runs"][-1]
        lines.append(
            f"- Everything after the network on {stitch['size']} x {stitch['size']} px and 8 layers: "
            f"{one['Mpx_per_s_without_start']} Mpx/s on one core, {stitch['second_worker_gain']} times that with "
            f"{two['workers']} workers; `cc3d` alone on the whole array in memory: "
            f"{stitch['cc3d_whole_in_memory']['Mpx_per_s']} Mpx/s."
        )
    if memory := result("memory"):
        lines.append(
            f"- Peak memory at {memory['sizes'][-1]} px against {memory['sizes'][0]} px: {memory['ratio']} times."
        )
    if overhead := result("overhead"):
        lines.append(f"- Whole job against the network's forward pass alone: {overhead['ratio']} times.")
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the markers."""
    text = README.read_text()
    for name, block in (("quality", quality()), ("speed", speed())):
        pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
        text = re.sub(pattern, lambda m, block=block: f"{m[1]}{block}\n{m[2]}", text, flags=re.DOTALL)
    README.write_text(text)


if __name__ == "__main__":
    main()
