"""The page of a training: phases, the score it started from, the best one."""

import json

from pipeline.report.blocks import Chart
from pipeline.report.training_page import training_page


def row(phase, step, total, **numbers):
    blank = {
        "seconds": str(60 * total),
        "lr": "0.001",
        "loss": "",
        "sparsity": "",
        "score": "",
        "validation_loss": "",
    }
    return (
        blank
        | {"phase": phase, "step": str(step), "total_step": str(total)}
        | {k: str(v) for k, v in numbers.items()}
    )


ROWS = [
    row("initial", 0, 0, score=0.5, validation_loss=2.0),
    row("warm", 1, 1, loss=3.0, sparsity=0.1),
    row("warm", 2, 2, score=0.4, validation_loss=1.8),
    row("main", 1, 3, loss=2.0, sparsity=0.2),
    row("main", 2, 4, score=0.7, validation_loss=1.5),
]


def test_phases_start_and_best_score_are_shown():
    page = training_page("worms", ROWS)
    numbers = {number.label: number for number in page.sections[0].blocks[0].numbers}
    assert numbers["Starting score"].value == "0.5000"
    assert numbers["Best score"].value == "0.7000" and numbers["Best score"].tone == "good"
    assert numbers["Best score"].detail == "at step 4, +0.2000 against the start"
    charts = [block for block in page.sections[0].blocks if isinstance(block, Chart)]
    assert [chart.title for chart in charts] == [
        "Validation score", "Training loss and its terms", "Validation loss",
    ]  # fmt: skip
    layout = json.loads(charts[0].figure)["layout"]
    lines = {note["text"]: shape for note, shape in zip(layout["annotations"], layout["shapes"])}
    assert (lines["warm"]["x0"], lines["main"]["x0"]) == (0, 2)
    assert lines["starting model"]["y0"] == 0.5


def test_a_training_that_fell_below_its_start_is_told_and_one_from_nothing_has_no_start():
    worse = training_page("m", [ROWS[0], row("main", 1, 1, score=0.3)])
    best = worse.sections[0].blocks[0].numbers[-1]
    assert best.tone == "bad" and "-0.2000 against the start" in best.detail
    fresh = training_page("m", [row("main", 1, 1, loss=3.0), row("main", 2, 2, validation_loss=1.0)])
    assert "Starting score" not in {number.label for number in fresh.sections[0].blocks[0].numbers}
    assert [block.kind for block in fresh.sections[0].blocks] == ["numbers", "chart", "chart", "note"]
