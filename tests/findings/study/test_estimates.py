"""Effects equal what is worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest

from dlens.findings.study.claims import claims
from dlens.findings.study.estimates import (
    dynamics,
    early_redundancy,
    kept,
    late_minus_early,
    loss_change,
    outlier_share,
    overall,
    recency,
)
from tests.findings.studies import EARLY, EVEN, TRIO, made_model, made_study


def test_early_minus_late_cosine_without_the_first_block() -> None:
    study = made_study(TRIO)
    effect = early_redundancy(study, "dllm")
    assert effect.value == pytest.approx((0.99 + 0.99) / 2 - (0.9 + 0.8) / 2)
    assert [words for words, _ in effect.beside] == ["25% masked", "50% masked", "75% masked"]
    row = claims(study)[0]
    assert [cell.verdict for cell in row.cells] == ["holds", "holds"]


def test_recency_is_compared_with_the_other_kind() -> None:
    study = made_study(TRIO)
    assert recency(study, "ar").value == pytest.approx(0.2)
    assert recency(study, "dllm").value == pytest.approx(-0.2)
    alone = recency(made_study({"ar": TRIO["ar"]}), "ar")
    assert isnan(alone.low) and alone.why == "no native diffusion model to compare with"
    assert alone.beside[0][1].value == pytest.approx(0.3, abs=0.01)


def test_dynamics_is_the_place_between_both() -> None:
    quarter = (0.25 * np.array(EARLY) + 0.75 * np.array(EVEN)).tolist()
    study = made_study(TRIO | {"init": made_model("ar-init", quarter)})
    assert dynamics(study, "init").value == pytest.approx(0.75, abs=0.02)
    assert dynamics(study, "ar").value == pytest.approx(1, abs=0.02)
    assert dynamics(study, "dllm").value == pytest.approx(0, abs=0.02)
    assert [cell.verdict for cell in claims(study)[2].cells] == ["holds"] * 3
    assert dynamics(made_study({"dllm": TRIO["dllm"]}), "dllm").why == "no autoregressive model to compare with"


def test_there_is_no_place_between_equal_profiles() -> None:
    study = made_study({name: replace(TRIO["dllm"], kind=kind) for name, kind in (("a", "diffusion"), ("b", "ar"))})
    effect = dynamics(study, "a")
    assert isnan(effect.value) and isnan(effect.low) and isnan(effect.high)
    assert effect.why == "native diffusion and autoregressive models have the same profile, so nothing lies between"
    assert claims(study)[2].cells[0].verdict == "undecided"


def test_models_of_unequal_depth_are_compared_at_equal_depths() -> None:
    deep = np.interp(np.linspace(0, 1, 30), np.linspace(0, 1, 6), EARLY[1:]).tolist()
    study = made_study(TRIO | {"deep": made_model("diffusion", [0.1, *deep])})
    assert abs(dynamics(study, "deep").value) < 0.1


def test_what_is_kept_of_nothing_is_not_measurable() -> None:
    solved = dict.fromkeys(("whole", "apart", "early run", "no outlier", "no random"), "0000")
    study = made_study({"ar": made_model("ar", EVEN, solved=solved)})
    effect = kept("apart")(study, "ar")
    assert isnan(effect.value) and effect.why == (
        "1 of 7 blocks: apart <in words>; the verdict is about 4 problems; not measurable: baseline solves 0 of 4"
    )
    assert claims(study)[3].cells[0].verdict == "undecided"


def test_a_second_channel_of_half_the_share_is_shown() -> None:
    study = made_study({"dllm": made_model("diffusion", EARLY, share=0.6, next_share=0.31)})
    effect = outlier_share(study, "dllm")
    assert effect.value == pytest.approx(0.6, abs=0.01)
    second = dict(effect.beside)["channel 7, the next"]
    assert second == dict(effect.shown)["channel 7, the next"]
    assert second.value == pytest.approx(0.31, abs=0.01)
    assert effect.why.startswith("channel 6; over all blocks but the last channel 5 has the larger share")
    small = outlier_share(made_study({"dllm": made_model("diffusion", EARLY, share=0.6, next_share=0.29)}), "dllm")
    assert not any("the next" in words for words, _ in (*small.beside, *small.shown))
    assert outlier_share(made_study({"ar": made_model("ar", EVEN, share=0.6)}), "ar").shown == ()


def test_late_blocks_against_early_ones_in_loss() -> None:
    study = made_study({"dllm": made_model("diffusion", EARLY, losses={"late run": 0.5, "early run": 0.2})})
    effect = late_minus_early(study, "dllm")
    assert effect.value == pytest.approx(0.3)
    assert dict(effect.beside)["without late blocks"].value == pytest.approx(0.5)
    rise = loss_change(study, "dllm", "late run")
    assert (rise.n, rise.unit) == (6, "nats a token") and rise.low == pytest.approx(0.5) == rise.high


@pytest.mark.parametrize(
    ("early", "other", "words"),
    [
        (0.30, 0.20, "(0.100), but on the 6 texts here channel 6 holds more (0.300 against 0.200)"),
        (0.20, 0.30, "(0.100), as on the 6 texts here (0.300 against 0.200)"),
        (0.2002, 0.2001, "but on the 6 texts here channel 6 holds more (0.2002 against 0.2001)"),
        (0.25, 0.25, "(0.100), on the 6 texts here both hold as much (0.250)"),
    ],
)
def test_whose_numbers_say_which_channel_is_larger(early: float, other: float, words: str) -> None:
    """The channel is found on calibration texts; the texts of a study may say the reverse."""
    model = made_model("ar", EVEN)
    read = replace(model.reading.clean, early_share=np.full((6, 7), early), share=np.full((6, 7), other))
    reading = replace(model.reading, noise={0.0: read})
    effect = outlier_share(made_study({"ar": replace(model, reading=reading)}), "ar")
    found = "over all blocks but the last channel 5 has the larger share of the energy of 12 calibration texts together"
    assert effect.why == f"channel 6; {overall(reading)}" and overall(reading).startswith(found)
    assert overall(reading).endswith(words)
    means = {words: own.value for words, own in effect.beside}
    assert means["channel 6, in all blocks but the last"] == pytest.approx(early)
    assert means["channel 5, in all blocks but the last"] == pytest.approx(other)
    assert overall(replace(reading, channel=6)) == ""
