"""The tables and the summary of a dataset: pooled means summed first, intervals come from the seed alone."""

import json

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import BadArgument
from pipeline.metrics import resampling
from pipeline.metrics.comparison import difference
from pipeline.metrics.evaluation import MATCH_COLUMNS, Evaluation, evaluate_dataset, evaluate_image
from pipeline.metrics.overlap import Overlap, overlap, truth_only
from pipeline.metrics.precision import DENSE_THRESHOLDS, sorted_ap, sorted_ap_ious
from pipeline.metrics.resampling import FEWEST, bootstrap
from pipeline.metrics.sums import image_sums, scores
from pipeline.stack import masks_of, stack_from_masks

SHAPE = (40, 40)


def image(seed: int, count: int = 12) -> Overlap:
    """Random rectangles that overlap, and the same moved, lost and joined by new ones."""
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        mask = np.zeros(SHAPE, bool)
        y, x = rng.integers(0, 32, 2)
        mask[y : y + rng.integers(4, 14), x : x + rng.integers(4, 14)] = True
        masks.append(mask)
    truth = stack_from_masks(masks, SHAPE)
    found = [
        np.roll(mask, rng.integers(-1, 2, 2), (0, 1)) for _, mask in masks_of(truth) if rng.random() > 0.2
    ]
    return overlap(truth, stack_from_masks([*found, *masks[:1]], SHAPE))


ITEMS = [
    (f"field{i}", image(i), {"well": "A/1" if i < 3 else "B/2", "condition": "drug" if i % 2 else None})
    for i in range(7)
]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate_dataset(ITEMS, resamples=200, seed=4)


def test_one_row_per_image_with_the_agreed_columns(evaluation):
    table = evaluation.images
    assert table["image"].tolist() == [name for name, _, _ in ITEMS]
    agreed = ["image", "well", "condition", "n_truth", "n_prediction", "AP_0.5", "AP_0.9", "meanAP", "AJI"]
    agreed += ["PQ", "SQ", "RQ", "dice", "SBD", "DiC", "sortedAP", "VOI_split", "VOI_merge", "ARAND", "ARI"]
    agreed += ["precision_0.5", "recall_0.5", "F1_0.5"]
    assert set(agreed) <= set(table.columns)
    assert table.columns.is_unique
    for (_, both, _), row in zip(ITEMS, table.to_dict("records")):
        alone = evaluate_image(both)
        assert {name: row[name] for name in alone} == alone
    assert not table.drop(columns="condition").isna().any().any()


def test_pooled_counts_are_sums_and_pooled_ap_their_quotient(evaluation):
    table, summary = evaluation.images, evaluation.summary
    assert summary["counts"]["n_truth"] == table["n_truth"].sum()
    matched = (table["precision_0.5"] * table["n_prediction"]).sum()
    total = table["n_truth"].sum() + table["n_prediction"].sum()
    assert summary["AP"]["0.5"] == pytest.approx(matched / (total - matched))
    assert summary["meanAP"] == pytest.approx(np.mean(list(summary["AP"].values())))
    assert summary["meanAP_dense"] == pytest.approx(np.mean(list(summary["AP_dense"].values())))
    assert summary["SBD"] == pytest.approx(table["SBD"].mean())
    assert summary["image_mean"]["AJI"] == pytest.approx(table["AJI"].mean())
    assert summary["image_mean"]["AJI"] != pytest.approx(summary["AJI"], abs=1e-6)
    assert summary["errors"]["truth"]["missed"] == table["truth_missed"].sum()


def test_pooled_aji_is_the_sum_of_intersections_over_the_sum_of_unions(evaluation):
    sums = [image_sums(both) for _, both, _ in ITEMS]
    expected = sum(s["AJI_i"] for s in sums) / sum(s["AJI_u"] for s in sums)
    assert evaluation.summary["AJI"] == pytest.approx(expected)
    assert evaluation.summary["author"]["AJI"] == evaluation.summary["AJI_variants"]["author"]


def test_pooled_sorted_ap_is_that_of_all_ious(evaluation):
    ious = np.sort(np.concatenate([sorted_ap_ious(both) for _, both, _ in ITEMS]))
    counts = evaluation.summary["counts"]
    expected = sorted_ap(ious, counts["n_truth"], counts["n_prediction"])
    assert evaluation.summary["sortedAP"] == pytest.approx(expected)


def test_summary_is_json_and_names_its_conventions(evaluation):
    again = json.loads(json.dumps(evaluation.summary, allow_nan=False))
    assert again == evaluation.summary
    assert list(again["AP"]) == ["0.5", "0.6", "0.7", "0.8", "0.9"]
    assert list(again["AP_dense"]) == [str(t) for t in DENSE_THRESHOLDS]
    assert (again["assignment"], again["aji"]) == ("canonical", "kumar")
    assert set(again["author"]) == {"AP", "meanAP", "AP_dense", "meanAP_dense", "AJI"}


def test_matches_have_a_row_for_every_object(evaluation):
    rows, table = evaluation.matches, evaluation.images
    assert tuple(rows.columns) == MATCH_COLUMNS
    truth = rows[rows["side"] != "prediction"].groupby("image").size()
    prediction = rows[rows["side"] != "truth"].groupby("image").size()
    assert truth.tolist() == table["n_truth"].tolist()
    assert prediction.tolist() == table["n_prediction"].tolist()
    counted = rows[rows["side"] != "prediction"].groupby("kind").size().to_dict()
    assert counted == {k: v for k, v in evaluation.summary["errors"]["truth"].items() if v}
    assert (rows.loc[rows["side"] == "truth", "truth_label"] > 0).all()
    assert (rows.loc[rows["side"] == "prediction", "prediction_label"] > 0).all()
    assert (rows.loc[rows["side"] == "both", "iou"] >= 0.5).all()
    assert rows["truth_label"].dtype == rows["prediction_label"].dtype == np.uint32


def test_groups_are_pooled_on_their_own(evaluation):
    wells = evaluation.groups["well"]
    assert wells["well"].tolist() == ["A/1", "B/2"]
    assert wells["images"].tolist() == [3, 4]
    first = evaluate_dataset(ITEMS[:3], resamples=0)
    assert wells["AJI"][0] == pytest.approx(first.summary["AJI"])
    assert wells["sortedAP"][0] == pytest.approx(first.summary["sortedAP"])
    assert evaluation.groups["condition"]["condition"].tolist() == ["drug"]
    assert evaluation.groups["condition"]["images"].tolist() == [3]
    assert evaluate_dataset([("x", image(1), {"well": None})]).groups == {}


def test_intervals_contain_the_value_and_come_from_the_seed(evaluation):
    confidence = evaluation.summary["confidence"]
    for name in ("meanAP", "AJI", "PQ", "dice", "SBD", "sortedAP", "ARI"):
        low, high = confidence[name]
        assert low <= evaluation.summary[name] <= high
        assert low < high
    low, high = confidence["author"]["AP"]["0.5"]
    assert low <= evaluation.summary["author"]["AP"]["0.5"] <= high
    assert evaluate_dataset(ITEMS, resamples=200, seed=4).summary == evaluation.summary
    assert evaluate_dataset(ITEMS, resamples=200, seed=5).summary["confidence"] != confidence


def test_resampling_is_evaluating_drawn_images(monkeypatch):
    overlaps = [both for _, both, _ in ITEMS]
    sums = pd.DataFrame([image_sums(both) for both in overlaps])
    ious = [sorted_ap_ious(both) for both in overlaps]
    low, high = 0.25, 0.75
    found = bootstrap(sums, ious, resamples=8, seed=3, level=high - low)
    copies = np.random.default_rng(3).multinomial(7, np.full(7, 1 / 7), size=8)
    values: dict[str, list[float]] = {"AJI": [], "meanAP": [], "sortedAP": [], "VOI_merge": []}
    for draw in copies:
        drawn = [(f"{i}-{k}", overlaps[i], {}) for i in range(7) for k in range(draw[i])]
        summary = evaluate_dataset(drawn, resamples=0).summary
        for name, column in values.items():
            column.append(summary[name])
    for name, column in values.items():
        assert found[name] == pytest.approx(tuple(np.quantile(column, [low, high])))
    monkeypatch.setattr(resampling, "CHUNK", 1)
    again = bootstrap(sums, ious, resamples=8, seed=3, level=high - low)
    assert again["sortedAP"] == pytest.approx(found["sortedAP"])


def test_scores_of_arrays_are_scores_of_numbers():
    sums = [image_sums(image(i, count)) for i, count in enumerate((0, 1, 5, 12))]
    together = scores({name: np.array([s[name] for s in sums]) for name in sums[0]})
    for i, alone in enumerate(sums):
        assert {name: column[i] for name, column in together.items()} == pytest.approx(scores(alone))


def test_few_images_have_no_interval_and_no_interval_of_a_difference():
    few = evaluate_dataset(ITEMS[: FEWEST - 1])
    assert few.summary["confidence"] == {"level": 0.95, "resamples": 1000, "seed": 0, "unit": "image"}
    conditions = evaluate_dataset(ITEMS).groups["condition"]
    assert conditions["images"].tolist() == [3] and conditions[["AJI_low", "AJI_high"]].isna().all(axis=None)
    found = difference(few, few)
    assert found.resamples == 0 and found.scores["low"].isna().all()


def test_a_difference_has_the_interval_of_images_drawn_for_both():
    run, baseline = evaluate_dataset(ITEMS), evaluate_dataset(ITEMS, resamples=0)
    same = difference(run, baseline)
    assert same.resamples and (same.scores[["low", "difference", "high"]] == 0).all(axis=None)
    assert same.images == len(ITEMS)


def test_images_without_objects_add_nothing_to_the_pool_and_one_to_the_mean():
    empty = overlap(*np.zeros((2, 1, 4, 4), np.uint32))
    plain = evaluate_dataset([("a", image(1), {}), ("b", image(2), {})], resamples=0).summary
    padded = evaluate_dataset(
        [("a", image(1), {}), ("b", image(2), {}), ("c", empty, {})], resamples=0
    ).summary
    for name in ("AP", "AJI", "PQ", "sortedAP", "VOI_split", "ARAND"):
        assert padded[name] == plain[name]
    mean = (plain["image_mean"]["AJI"] * 2 + 1) / 3
    assert padded["image_mean"]["AJI"] == pytest.approx(mean)


def test_a_missing_prediction_counts_as_missed_objects():
    summary = evaluate_dataset([("a", truth_only(np.ones((1, 3, 3), np.uint32)), {})]).summary
    assert summary["errors"]["truth"]["missed"] == 1
    assert (summary["meanAP"], summary["AJI"]) == (0, 0)


def test_overlaps_are_taken_one_at_a_time():
    alive = []

    def stream():
        for name, both, extra in ITEMS[:3]:
            alive.append(name)
            yield name, both, extra

    assert len(evaluate_dataset(stream()).images) == len(alive) == 3


def test_bad_arguments():
    with pytest.raises(BadArgument, match="at least one image"):
        evaluate_dataset([])
    with pytest.raises(BadArgument, match="'twice' comes up more than once"):
        evaluate_dataset([("twice", image(0), {}), ("twice", image(1), {})])
    with pytest.raises(BadArgument, match=r"resamples: .*-1"):
        evaluate_dataset(ITEMS[:5], resamples=-1)
    with pytest.raises(BadArgument, match=r"level: .*1\.5"):
        evaluate_dataset(ITEMS[:5], level=1.5)
    with pytest.raises(BadArgument, match="at least 5 images"):
        bootstrap(pd.DataFrame([image_sums(image(0))]), [np.ones(1)])
