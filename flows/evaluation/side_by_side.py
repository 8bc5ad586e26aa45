"""Several predictions of the same images on one page, each with an evaluation of its own.

Every prediction is evaluated as a job of its own, so its numbers are those of `platelayer evaluate` for it alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.evaluation.evaluate import Evaluated, EvaluateJob, evaluate, provenance
from flows.evaluation.pictures import Comparisons
from pipeline.errors import BadArgument
from pipeline.report.blocks import Page
from pipeline.report.evaluation.side_by_side import Entry, side_by_side_page
from pipeline.report.markdown import csv_tables, markdown_page
from pipeline.report.page import html_page
from pipeline.store.places.address import address


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Labels to be compared."""

    place: str
    """Store, plate or folder of stores."""
    label: str | None = None
    """Name of the labels; None: the only ones beside the truth."""


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """The result of a comparison."""

    evaluated: Mapping[str, Evaluated]
    """The evaluation of each prediction, by the name it has on the page."""
    page: Page
    """The page of all."""
    place: str
    """Address of report.html."""


def predictions_of(words: Sequence[str], *, label: str | None = None) -> list[Prediction]:
    """Read words of a command line: stores, each followed by the names of the labels in it that are compared.

    The first word is a store, and so is any other that contains a slash, ends with ``.zarr`` or exists as a path. Of a
    store without names, the only labels are compared, or those called ``label``.

    Raises:
        BadArgument: a prediction is named twice.
    """
    groups: list[tuple[str, list[str]]] = []
    for word in words:
        if not groups or _is_place(word):
            groups.append((word, []))
        else:
            groups[-1][1].append(word)
    predictions = [
        prediction
        for place, names in groups
        for prediction in (
            [Prediction(place=place, label=name) for name in names] or [Prediction(place=place, label=label)]
        )
    ]
    for prediction in predictions:
        if predictions.count(prediction) > 1:
            named = " ".join(filter(None, [prediction.place, prediction.label]))
            raise BadArgument(f"expected every prediction once, got {named!r} twice; leave one out")
    return predictions


def _is_place(word: str) -> bool:
    return "/" in word or word.endswith(".zarr") or Path(word).exists()


def page_names(predictions: Sequence[Prediction]) -> list[str]:
    """Name every prediction: by its labels if these differ, by its store if the stores differ, else by both."""
    labels = [prediction.label or "" for prediction in predictions]
    stores = [address(prediction.place).name.removesuffix(".zarr") for prediction in predictions]
    for names in (labels, stores, [f"{s} {n}".strip() for s, n in zip(stores, labels, strict=True)]):
        if all(names) and len({_file_name(name) for name in names}) == len(names):
            return names
    raise BadArgument(f"expected predictions of different names, got {', '.join(stores)}; rename a store")


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".")


def evaluate_side_by_side(
    job: EvaluateJob,
    predictions: Sequence[Prediction],
    *,
    run: Callable[[EvaluateJob], Evaluated] = evaluate,
) -> SideBySide:
    """Evaluate every prediction as ``job`` says and write one page of all to its folder.

    The evaluation of a prediction is in a folder of its name below. Without ``job.truth`` the truth is in the place of
    the first prediction. ``run`` evaluates one job; `flows.scheduling.prefect_flows.run_evaluate` does it as a flow.

    Raises:
        BadArgument, BadStore: as `evaluate`; evaluations that were finished before are kept, the page is not written.
    """
    if job.baseline:
        raise BadArgument(
            "--baseline: expected one prediction, got several; name the earlier labels beside them"
        )
    names = page_names(predictions)
    truth = job.truth or predictions[0].place
    evaluated = {
        name: run(
            replace(
                job, prediction=prediction.place, prediction_name=prediction.label, truth=truth,
                report=str(address(job.report).child(_file_name(name))),
            )
        )
        for name, prediction in zip(names, predictions, strict=True)
    }  # fmt: skip
    page = side_by_side_page(
        address(truth).name, {name: _entry(name, one) for name, one in evaluated.items()},
        provenance=_provenance(evaluated),
    )  # fmt: skip
    _write(page, job)
    return SideBySide(evaluated=evaluated, page=page, place=str(address(job.report).child("report.html")))


def _entry(name: str, evaluated: Evaluated) -> Entry:
    return Entry(
        evaluation=evaluated.compared.evaluation,
        picture=Comparisons(evaluated.compared.pairs).picture,
        link=f"{_file_name(name)}/report.html",
    )


def _provenance(evaluated: Mapping[str, Evaluated]) -> list[tuple[str, str]]:
    """Return what all predictions share once, and the labels, run and model of each under its name."""
    facts = {name: dict(provenance(one.compared)) for name, one in evaluated.items()}
    first = next(iter(facts.values()))
    shared = [(key, first[key]) for key in ("Date", "Truth", "Code") if key in first]
    facts_of_each = [
        (
            name,
            "; ".join(
                f"{key.lower()}: {fact[key]}" for key in ("Scored labels", "Run", "Model") if key in fact
            ),
        )
        for name, fact in facts.items()
    ]
    return [*shared, *facts_of_each]


def _write(page: Page, job: EvaluateJob) -> None:
    """Write the page, and its tables where the job asks for them."""
    folder = address(job.report)
    folder.write_bytes("report.html", html_page(page).encode())
    if job.markdown:
        folder.write_bytes("report.md", markdown_page(page).encode())
    for name, table in (csv_tables(page) if job.csv else {}).items():
        folder.write_bytes(f"{name}.csv", table.encode())
