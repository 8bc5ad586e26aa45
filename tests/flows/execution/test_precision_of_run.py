"""The arithmetic of a run: the job, the card of the model and the device, in this order."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.execution import precision
from flows.execution.precision import Arithmetic, settled
from flows.execution.segmenters import known_traits, other_precisions, reference
from flows.jobs import Execution, SegmentJob, job
from model.card import read_card, shipped
from model.precision import decision
from pipeline.errors import BadArgument

SCORES = {"meanAP": 0.5, "AJI": 0.7}
FAST = {"precision": decision({"float32": SCORES, "bfloat16": SCORES})}
SLOW = {"precision": decision({"float32": SCORES, "bfloat16": {"meanAP": 0.4, "AJI": 0.7}})}


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say whether the device of this machine has instructions for bfloat16."""
    return lambda there: monkeypatch.setattr(precision, "_has_instructions", lambda device, name: there)


@pytest.mark.parametrize(
    ("named", "card", "execution", "there", "expected"),
    [
        ("auto", FAST, {}, True, Arithmetic("bfloat16", "as its card chose")),
        ("auto", FAST, {"device": "cuda"}, True, Arithmetic("bfloat16", "as its card chose")),
        ("auto", FAST, {"executor": "dask"}, True, Arithmetic("bfloat16", "as its card chose")),
        ("auto", FAST, {}, False, Arithmetic("float32", "no instructions for bfloat16 here")),
        ("auto", SLOW, {}, True, Arithmetic("float32", "as its card chose")),
        ("auto", {}, {}, True, Arithmetic("float32", "its card names no other")),
        (
            "auto",
            FAST,
            {"device": "openvino"},
            True,
            Arithmetic("float32", "its card chose bfloat16 for torch, not for OpenVINO"),
        ),
        (
            "auto",
            FAST,
            {"executor": "tcp://head:8786"},
            True,
            Arithmetic("float32", "workers elsewhere may lack other instructions"),
        ),
        ("float32", FAST, {}, True, Arithmetic("float32")),
        ("bfloat16", SLOW, {}, False, Arithmetic("bfloat16")),
        ("float16", {}, {}, False, Arithmetic("float16")),
    ],
)
def test_job_card_and_device_decide(
    instructions: Any, named: Any, card: dict[str, Any], execution: dict[str, Any], there: bool, expected: Any
) -> None:
    instructions(there)
    assert settled(named, card, Execution(**execution)) == expected


@pytest.mark.parametrize(
    ("flags", "asked"),
    [("flags : avx2 avx512f", False), ("flags : avx512_bf16", True), ("flags : amx_bf16 amx_tile", True)],
)
def test_torch_is_asked_only_where_linux_does_not_deny_the_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, asked: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(precision, "has_gpu_driver", lambda: False)
    questions: list[str] = []
    monkeypatch.setattr(
        "model.devices.has_instructions", lambda device, name: questions.append(device.type) is None
    )
    assert precision._has_instructions.__wrapped__("auto", "bfloat16") is asked
    assert questions == (["cpu"] if asked else [])


def test_a_gpu_that_is_not_there_has_no_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert precision._has_instructions.__wrapped__("cuda", "bfloat16") is False


def test_the_reference_of_a_model_holds_what_was_settled(
    instructions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = read_card(shipped()["nuclei"]) | FAST
    monkeypatch.setattr("flows.execution.segmenters.read_card", lambda folder: card)
    digests = {}
    for there, expected in ((False, "float32"), (True, "bfloat16")):
        instructions(there)
        model = reference(SegmentJob(source="plate.zarr"))
        assert model.precision == expected and model.precision_reason
        digests[expected] = known_traits(model).digest
        assert [other.precision for other in other_precisions(model)] == [
            name for name in ("float32", "bfloat16") if name != expected
        ]
    assert digests["float32"] == card["digest"] != digests["bfloat16"]
    named = reference(SegmentJob(source="plate.zarr", precision="bfloat16"))
    assert named == model and not named.precision_reason and not list(other_precisions(named))


def test_a_reason_makes_no_other_segmenter(instructions: Any) -> None:
    model = reference(SegmentJob(source="plate.zarr", precision="float32"))
    assert hash(model) == hash(replace(model, precision_reason="for another reason"))


@pytest.mark.parametrize("segmenter", ["threshold", "cellpose:cpsam"])
def test_other_segmenters_have_no_arithmetic(segmenter: str) -> None:
    for open_or_usual in ("auto", "float32"):
        chosen = reference(
            job(SegmentJob, {"source": "p", "segmenter": segmenter, "precision": open_or_usual})
        )
        assert chosen.precision == "float32" and not chosen.precision_reason
    with pytest.raises(BadArgument, match="only a model has one, got bfloat16"):
        reference(job(SegmentJob, {"source": "p", "segmenter": segmenter, "precision": "bfloat16"}))


@pytest.mark.parametrize("value", ["int8", "float64", "", 16])
def test_unknown_arithmetics_are_refused(value: object) -> None:
    with pytest.raises(BadArgument, match=r"^precision: .*'auto', 'float32', 'bfloat16' or 'float16', got"):
        job(SegmentJob, {"source": "plate.zarr", "precision": value})
