"""Parts come back from disk as they went, and a model's numbers keep their keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import dlens
from dlens.findings.study.asking import COMPRESSED
from dlens.findings.study.results import Answers, Disrupted, Losses, Part, Reading, Thirds, kind_of
from tests.findings.studies import CHANGES, EARLY, deep, made_model, small

MADE = deep(made_model("diffusion", EARLY), EARLY, {"early": "1100", "middle": "1000", "late": "0000"})


@pytest.mark.parametrize(
    ("part", "read"),
    [
        (MADE.reading, Reading.from_json),
        (MADE.losses["apart"], Losses.from_json),
        (MADE.answers["whole"], Answers.from_json),
        (MADE.disruption, Disrupted.from_json),
        (MADE.thirds, Thirds.from_json),
    ],
    ids=lambda given: type(given).__name__,
)
def test_a_part_comes_back_from_json(part: Part, read: Callable[[Any], Part]) -> None:
    entry = json.loads(json.dumps(part.to_json()))
    again = read(entry)
    assert type(again) is type(part) and again.to_json() == part.to_json() == entry


def test_a_part_has_the_same_fields_as_on_disk() -> None:
    assert list(MADE.reading.to_json()) == ["channel", "share", "early_channels", "noise"]
    assert list(MADE.reading.to_json()["noise"]) == ["0", "0.25", "0.5", "0.75"]
    assert list(MADE.reading.to_json()["noise"]["0"]) == [
        *("cosine", "cosine_masked", "cosine_unmasked", "share"),
        *("early_share", "early_next_share", "recency", "similarity"),
    ]
    assert Losses((1.0, 2.0), "loss", 0.5).to_json() == {"losses": [1.0, 2.0], "estimator": "loss", "flops_saved": 0.5}
    answers = Answers((True, False), 0.25, ("a",), ("b",))
    assert answers.to_json() == {"correct": [1, 0], "repetition": 0.25, "examples": ["a"], "notes": ["b"]}
    assert MADE.thirds is not None and MADE.disruption is not None
    assert MADE.thirds.to_json()["kept"]["early"] == {"before": [1, 1, 0, 0], "after": [1, 1, 0, 0]}
    assert list(MADE.disruption.to_json()) == ["cosine", "low", "high", "fraction", "n"]


def test_the_numbers_of_a_model_keep_their_keys() -> None:
    keys = ["kind", "family", "n_layers", "d_model", "reading", "changes", "skipped", "losses", "answers"]
    assert list(made_model("ar", EARLY).to_json()) == keys
    entry = MADE.to_json()
    assert list(entry) == [*keys, "disruption", "thirds"]
    assert entry["changes"] == {name: f"{name} <in words>" for name in CHANGES}
    assert entry["skipped"]["apart"] == [1] and entry["skipped"]["whole"] == []


def test_text_with_masks_is_apart_from_text_without() -> None:
    assert MADE.reading.clean is MADE.reading.noise[0.0]
    assert list(MADE.reading.masked) == [0.25, 0.5, 0.75]
    assert MADE.disruption is not None and MADE.disruption.at(0.5).value.tolist() == EARLY


def test_the_kind_goes_by_objective_and_shift(ar: dlens.Model, diffusion: dlens.Model, ar_init: dlens.Model) -> None:
    assert [kind_of(model.family) for model in (ar, diffusion, ar_init)] == ["ar", "diffusion", "ar-init"]


def test_what_was_compressed_is_among_the_numbers() -> None:
    model = small(made_model("ar", EARLY), ["1100"] * 4, [0.5] * 4, [3.0] * 7)
    entry = model.to_json()
    assert list(entry)[-2:] == ["compressed", "spectra"] and list(entry["compressed"]) == list(COMPRESSED)
    own = entry["compressed"]["3 bits"]
    assert own["correct"] == [1, 1, 0, 0] and own["words"] == "3 bits <in words>" and own["left_out"] == []
    for part in (model.compressed["3 bits"], model.spectra):
        again = type(part).from_json(json.loads(json.dumps(part.to_json())))
        assert again.to_json() == part.to_json()
