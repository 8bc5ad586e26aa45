"""Which arithmetic a card chooses, and which devices have instructions for it."""

from typing import Any
from unittest import mock

import pytest
import torch

from model.devices import has_instructions
from model.errors import BadCheckpoint
from model.precision import Precision, chosen_precision, decision, in_words

PLAIN = {"meanAP": 0.65, "AJI": 0.77}


@pytest.mark.parametrize(
    ("fast", "chosen"),
    [
        ({"meanAP": 0.65, "AJI": 0.77}, "bfloat16"),
        ({"meanAP": 0.652, "AJI": 0.768}, "bfloat16"),  # exactly the tolerance, on both sides
        ({"meanAP": 0.6521, "AJI": 0.77}, "float32"),  # a better score differs, too
        ({"meanAP": 0.65, "AJI": 0.7679}, "float32"),
        ({"meanAP": 0.65, "AJI": float("nan")}, "float32"),
    ],
)
def test_the_fast_arithmetic_is_chosen_where_no_score_moves(fast: dict[str, float], chosen: str) -> None:
    entry = decision({"float32": PLAIN, "bfloat16": fast})
    assert entry["chosen"] == chosen == chosen_precision({"precision": entry})
    assert entry["scores"]["float32"] == PLAIN and entry["tolerance"] == 0.002
    assert in_words(entry).startswith(f"precision {chosen} (float32 meanAP 0.6500, AJI 0.7700; bfloat16 ")


def test_scores_of_float32_alone_choose_it() -> None:
    assert decision({"float32": PLAIN})["chosen"] == "float32"


def test_a_card_without_a_decision() -> None:
    assert chosen_precision({"name": "old"}) is None


@pytest.mark.parametrize("entry", [{"chosen": "int8"}, {"chosen": "float16"}, {"scores": {}}, "fast", []])
def test_a_card_with_an_unknown_arithmetic_is_refused(entry: Any) -> None:
    with pytest.raises(BadCheckpoint, match=r"'m'.*precision.chosen.*\['float32', 'bfloat16'\]"):
        chosen_precision({"name": "m", "precision": entry})


@pytest.mark.parametrize(
    ("kind", "flags", "precision", "expected"),
    [
        ("cpu", {}, "float32", True),
        ("cpu", {}, "bfloat16", False),
        ("cpu", {"cpu._is_avx512_bf16_supported"}, "bfloat16", True),
        ("cpu", {"cpu._is_amx_tile_supported"}, "bfloat16", True),
        ("cpu", {"cuda.is_bf16_supported"}, "bfloat16", False),
        ("cpu", {}, "float16", False),
        ("cuda", {}, "bfloat16", False),
        ("cuda", {"cuda.is_bf16_supported"}, "bfloat16", True),
        ("cuda", {}, "float16", True),
        ("mps", {"cpu._is_avx512_bf16_supported"}, "bfloat16", False),
    ],
)
def test_instructions_of_a_device(kind: str, flags: set[str], precision: Precision, expected: bool) -> None:
    queries = ("cpu._is_avx512_bf16_supported", "cpu._is_amx_tile_supported", "cuda.is_bf16_supported")
    patches = [mock.patch(f"torch.{name}", return_value=name in flags) for name in queries]
    with patches[0], patches[1], patches[2]:
        assert has_instructions(torch.device(kind), precision) is expected
