"""`platelayer evaluate`: predicted against true labels, as numbers and as a page; several predictions side by side."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.evaluation.evaluate import Evaluated, EvaluateJob
from flows.evaluation.side_by_side import evaluate_side_by_side, predictions_of
from flows.execution.orchestrate import is_prefect_configured
from flows.jobs import field_comments
from pipeline.errors import BadArgument

_ABOUT = field_comments(EvaluateJob)
_SEVERAL = "Several are put side by side on one page: each store may be followed by names of labels in it."


def evaluate(
    *prediction: Annotated[str, Parameter(help=f"{_ABOUT['prediction']} {_SEVERAL}")],
    truth: Annotated[str, Parameter(help=_ABOUT["truth"])] = "",
    report: Annotated[str, Parameter(help=_ABOUT["report"])] = EvaluateJob.report,
    prediction_name: Annotated[str | None, Parameter(help=_ABOUT["prediction_name"])] = None,
    truth_name: Annotated[str, Parameter(help=_ABOUT["truth_name"])] = EvaluateJob.truth_name,
    layout: Annotated[str | None, Parameter(help=_ABOUT["layout"])] = None,
    condition_column: Annotated[
        str, Parameter(help=_ABOUT["condition_column"])
    ] = EvaluateJob.condition_column,
    split_components: Annotated[bool, Parameter(help=_ABOUT["split_components"], negative="")] = False,
    project: Annotated[Literal["none", "max"], Parameter(help=_ABOUT["project"])] = "none",
    baseline: Annotated[list[str] | None, Parameter(help=_ABOUT["baseline"])] = None,
    strict: Annotated[bool, Parameter(help=_ABOUT["strict"], negative="")] = False,
    markdown: Annotated[bool, Parameter(help=_ABOUT["markdown"], negative="")] = False,
    csv: Annotated[bool, Parameter(help=_ABOUT["csv"], negative="")] = False,
) -> int:
    """Compare predicted with true labels and write numbers and a report."""
    predictions = predictions_of(prediction, label=prediction_name)
    if not predictions:
        raise BadArgument("evaluate: expected a store with predicted labels, got none; name it")
    job = EvaluateJob(
        prediction=predictions[0].place, truth=truth, report=report, prediction_name=predictions[0].label,
        truth_name=truth_name, layout=layout, condition_column=condition_column,
        split_components=split_components, project=project,
        baseline=tuple(baseline or ()), strict=strict, markdown=markdown, csv=csv,
    )  # fmt: skip
    if is_prefect_configured():
        from flows.execution.orchestrate import reach_api

        reach_api()
        from flows.scheduling.prefect_flows import run_evaluate as run
    else:
        from flows.evaluation.evaluate import evaluate as run
    if len(predictions) == 1:
        _say(run(job))
        return 0
    evaluated = evaluate_side_by_side(job, predictions, run=run)
    for one in evaluated.evaluated.values():
        _say(one)
    sys.stdout.write(f"side by side: {_shown(evaluated.place)}\n")
    return 0


def _shown(place: str) -> str:
    return place if "://" in place else str(Path(place).resolve())


def _say(evaluated: Evaluated) -> None:
    compared = evaluated.compared
    summary = compared.evaluation.summary
    ap = "  ".join(f"AP{threshold} {value:.4f}" for threshold, value in summary["AP"].items())
    sys.stdout.write(
        f"{len(compared.evaluation.images)} image(s), {compared.prediction_name!r} against {compared.truth_name!r}\n"
        f"meanAP {summary['meanAP']:.4f}  AJI {summary['AJI']:.4f}  PQ {summary['PQ']:.4f}  {ap}\n"
    )
    for condition, numbers in summary.get("conditions", {}).items():
        sys.stdout.write(f"{condition}: meanAP {numbers['meanAP']:.4f}  AJI {numbers['AJI']:.4f}\n")
    sys.stdout.write(f"{_shown(evaluated.place)}\n")
    for hint in compared.hints:
        sys.stderr.write(f"{hint}\n")
    for what, names in compared.gaps.named().items():
        sys.stderr.write(f"{what}: {', '.join(names[:10])}{' ...' if len(names) > 10 else ''}\n")
