"""The table of the layering paper beside our own: its numbers, what perfect outputs would give, how it is written."""

from collections.abc import Sequence
from typing import Any

PAPER: dict[str, dict[str, list[float]]] = {
    "worms": {
        "unet2": [0.5455, 0.4645, 0.4497, 0.4212, 0.2355, 0.4233, 0.5327],
        "unet3": [0.8863, 0.8197, 0.7412, 0.5795, 0.2717, 0.6597, 0.7786],
        "stardist": [0.3098, 0.1410, 0.0372, 0.0011, 0.0, 0.0978, 0.4499],
        "maskrcnn": [0.8953, 0.8629, 0.8111, 0.5305, 0.0382, 0.6276, 0.7580],
        "layering": [0.9357, 0.9188, 0.8648, 0.7606, 0.2904, 0.7541, 0.8442],
    },
    "cervical": {
        "unet2": [0.1548, 0.1303, 0.1129, 0.1055, 0.1048, 0.1217, 0.2058],
        "unet3": [0.7010, 0.6071, 0.5097, 0.3767, 0.1950, 0.4779, 0.5802],
        "stardist": [0.6556, 0.5566, 0.4346, 0.2970, 0.1547, 0.4197, 0.6927],
        "maskrcnn": [0.9277, 0.9181, 0.8870, 0.8117, 0.5564, 0.8202, 0.8412],
        "layering": [0.9230, 0.8768, 0.8007, 0.6788, 0.4349, 0.7429, 0.8353],
    },
}
"""Table 1 of Chen, Wu and Merhof (2022): AP.5 to AP.9, meanAP, AJI; its definitions of both."""

CEILINGS: dict[str, dict[str, float]] = {
    "worms": {
        "unet2": 0.52, "unet3": 0.73, "affinity": 0.834, "dcme": 0.987, "stardist": 0.223, "maskrcnn": 1.0,
    },
    "cervical": {
        "unet2": 0.068, "unet3": 0.516, "affinity": 0.636, "dcme": 0.648, "stardist": 0.932, "maskrcnn": 1.0,
    },
    "nuclei": {"unet2": 0.67, "unet3": 0.89, "affinity": 0.99, "dcme": 0.995, "maskrcnn": 1.0},
}  # fmt: skip
"""meanAP of decoding what encoding the truth of the measured images gives: no training can exceed it."""

DIFFERS = (
    "The paper: networks of up to 116 million parameters, 100,000 steps and more, Mask R-CNN from COCO weights, and "
    "test images (row D of the worms, half of the cells of the challenge). Ours: small networks from random weights, "
    "the budget of the column 'trained on', validation images. A slope well above 0 means that the training was not "
    "over: such a table ranks how quickly methods learn, not where they end."
)

HEAD = (
    "method", "AP.5", "AP.6", "AP.7", "AP.8", "AP.9", "meanAP", "AJI", "own foreground", "ceiling", "slope",
    "trained on", "parameters",
    "CPU s/Mpx network", "decoding",
)  # fmt: skip
PARTITIONS = ("membranes",)
"""Data sets on which every pixel belongs to an object: measured by VOI and ARAND, as in the affinity paper."""
PARTITION_HEAD = (
    "method",
    "VOI split",
    "VOI merge",
    "VOI",
    "ARAND",
    "meanAP",
    "AJI",
    "own foreground",
    "slope",
    "trained on",
    "parameters",
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the results in Markdown: a section per data set and budget, best method first.

    The paper's row stands below ours where it has one.
    """
    text = ["# Every method on the same images with the same budget", ""]
    for name, pixels in sorted({(row["data"], _budget(row)) for row in rows}, key=_order):
        alike = [row for row in rows if (row["data"], _budget(row)) == (name, pixels)]
        text += _section(name, sorted(alike, key=lambda row: -row["author"]["meanAP"]))
    notes = (
        "AP and AJI by the paper's definitions, pooled over the images; own foreground: meanAP of plain components of "
        "the foreground of the same network, where the method does more than that; ceiling: meanAP that perfect "
        "outputs would give; slope: change of the validation meanAP per 1,000 steps in the last third of the training; "
        "trained on: crops of all steps together, of each fold."
    )
    return "\n".join([*text, notes, "", DIFFERS, ""])


def _section(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    first = rows[0]
    head, cells = (PARTITION_HEAD, _partition_cells) if name in PARTITIONS else (HEAD, _cells)
    text = [f"## {name}", "", f"{first['what']}; {first['images']} images.", ""]
    text += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        text.append(f"| {' | '.join(cells(row))} |")
        theirs = PAPER.get(name, {}).get(row["method"])
        if theirs:
            blank = ["" for _ in range(len(HEAD) - 1 - len(theirs))]
            text.append(f"| {' | '.join(['the paper', *(f'{v:.3f}' for v in theirs), *blank])} |")
    return [*text, ""]


def _order(section: tuple[str, int]) -> tuple[int, int]:
    """The paper's data sets first; of one data set, the largest budget first."""
    known = (*PAPER, "nuclei", *PARTITIONS)
    return (known.index(section[0]) if section[0] in known else len(known), -section[1])


def _pixels(row: dict[str, Any]) -> float:
    """Million pixels of all crops of a training."""
    return float(row["steps"] * row["batch"] * row["crop_px"] ** 2 / 1e6)


def _budget(row: dict[str, Any]) -> int:
    """The budget in million pixels, without the difference that whole steps make."""
    return round(_pixels(row) / 5)


def _partition_cells(row: dict[str, Any]) -> list[str]:
    split, merge = row["VOI_split"], row["VOI_merge"]
    scored = (split, merge, split + merge, row["ARAND"], row["meanAP"], row["AJI"])
    plain = row.get("components", {}).get("meanAP")
    return [row["method"], *(f"{value:.3f}" for value in scored), _number(plain), *_training_cells(row)]


def _number(value: float | None) -> str:
    """A score; nothing where a row has none."""
    return "" if value is None else f"{value:.3f}"


def _training_cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['slope_per_1000_steps']:+.3f}", f"{_pixels(row):.0f} Mpx", f"{row['parameters'] / 1e6:.2f} M",
    ]  # fmt: skip


def _cells(row: dict[str, Any]) -> list[str]:
    author, ceiling = row["author"], CEILINGS.get(row["data"], {}).get(row["method"])
    scored = [*author["AP"].values(), author["meanAP"], author["AJI"]]
    return [
        row["method"],
        *(f"{value:.3f}" for value in scored),
        _number(row.get("components", {}).get("author", {}).get("meanAP")),
        _number(ceiling),
        *_training_cells(row),
        f"{row['network_s_per_Mpx']:.2f}",
        f"{row['decoding_s_per_Mpx']:.2f}",
    ]
