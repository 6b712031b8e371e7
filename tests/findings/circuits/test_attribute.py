from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import dlens
from dlens.findings.circuits.contrasts import contrast_of, masked_draws
from tests.findings.circuits.conftest import CLEAN, CORRUPTED
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

METRIC = dlens.metrics.logit_difference([8, 9], [11, 12])
ONE = dlens.metrics.logit_difference(8, 11)


@pytest.mark.parametrize("method", ["patching", "attribution", "integrated"])
def test_pairs_of_unequal_length_count_as_they_do_alone(model: dlens.Model, method: Any) -> None:
    clean, corrupted = [CLEAN[0], [7, 8, 9]], [CORRUPTED[0], [7, 20, 9]]
    both = dlens.attribute(model, clean, corrupted, METRIC, method=method)
    metrics = [dlens.metrics.logit_difference(right, wrong) for right, wrong in ((8, 11), (9, 12))]
    alone = [
        dlens.attribute(model, [clean[row]], [corrupted[row]], metrics[row], method=method).by_pair.values[0]
        for row in range(2)
    ]
    np.testing.assert_allclose(both.by_pair.values[0], alone[0], atol=2e-5)
    np.testing.assert_allclose(both.by_pair.values[1, :, 3:], alone[1], atol=2e-5)
    assert np.isnan(both.by_pair.values[1, :, :3]).all()
    np.testing.assert_allclose(both.scores.values[:, :3], alone[0][:, :3], atol=2e-5)
    np.testing.assert_allclose(both.scores.values[:, 3:], (alone[0][:, 3:] + alone[1]) / 2, atol=2e-5)


def test_draws_of_masks_are_averaged(masked: dlens.Model) -> None:
    pairs = CLEAN, [row[::-1] for row in CLEAN]
    named: dict[str, Any] = {"metric": dlens.metrics.log_prob(8, tokens="masked"), "at": "z", "method": "attribution"}
    found = dlens.attribute(masked, *pairs, **named, noise=0.34, seeds=2)
    first = dlens.attribute(masked, *pairs, **named, noise=0.34)
    second = masked_draws(masked, contrast_of(masked, *pairs), 0.34, 2)[1]
    other = dlens.attribute(masked, second.clean, second.corrupted, **named)
    np.testing.assert_allclose(found.by_pair, (first.by_pair + other.by_pair) / 2)
    assert found.clean == pytest.approx((first.clean + other.clean) / 2)
    assert found.noise == 0.34 and found.seeds == 2 and ", 34% masked, 2 draws)" in str(found)


def test_operations_of_a_trace_hold_in_both_runs(model: dlens.Model) -> None:
    trace = dlens.trace(model).skip([2, 3])
    found = dlens.attribute(trace, CLEAN, CORRUPTED, METRIC, layers=[1])
    # What follows is skipped, so that only the last position reaches the logits.
    assert (found.by_pair.values[:, 0, :-1] == 0).all()
    np.testing.assert_allclose(found.by_pair.values[:, 0, -1], found.data["corrupted"] - found.data["clean"], atol=1e-6)
    assert found.plan[0]["op"] == "skip" and "; skip layers 2, 3; largest" in str(found)


def test_the_last_stream_carries_all_of_it(model: dlens.Model) -> None:
    found = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, layers=-1)
    np.testing.assert_allclose(found.by_pair.values[:, 0, -1], found.data["corrupted"] - found.data["clean"], atol=1e-6)
    assert found.scores.coords["layer"].values.tolist() == [3]


def test_three_axes_stay(model: dlens.Model) -> None:
    by = ("layer", "head", "position")
    split = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at="z", method="attribution", by=by)
    whole = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at="z", method="attribution")
    assert split.scores.dims == ("layer", "position", "head")
    np.testing.assert_allclose(split.scores.sum("position"), whole.scores, atol=1e-12)


def test_a_table_and_words(model: dlens.Model) -> None:
    found = dlens.attribute(model, CLEAN[:1], CORRUPTED[:1], ONE, method="attribution")
    rows = found.table()
    assert len(rows) == 24 and rows[8]["position"] == 2 and rows[8]["token"] == "15→31" and rows[8]["layer"] == 1
    assert rows[8]["score"] == found.scores.values[1, 2]
    top = max(rows, key=lambda row: abs(row["score"]))
    assert (
        str(found)
        == repr(found)
        == (
            f"Attribution of {model.name} at resid_post by layer and position, attribution (pairs: 1); metric "
            f"{found.clean:.3g} clean, {found.corrupted:.3g} corrupted; largest {top['score']:+.3g} at layer "
            f"{top['layer']}, position {top['position']}"
        )
    )
    heads = dlens.attribute(model, CLEAN, CORRUPTED, METRIC, at="k", method="attribution")
    assert sorted(heads.table()[0]) == ["kv_head", "layer", "model", "score"]
    assert heads.tokens == ("", "", "", "", "", "")


def test_it_is_written_and_read(model: dlens.Model, tmp_path: Any) -> None:
    clean, corrupted = [CLEAN[0], [7, 8, 9]], [CORRUPTED[0], [7, 20, 9]]
    found = dlens.attribute(dlens.trace(model).skip(2), clean, corrupted, METRIC, method="attribution", layers=[0, 3])
    again = dlens.Attribution.from_json(found.save(tmp_path / "found.json").read_text())
    assert again.data.identical(found.data) and again.to_json() == found.to_json() and str(again) == str(found)
    with pytest.raises(ValueError, match="is no attribution") as caught:
        dlens.Attribution.from_json("{}")
    assert_three_parts(str(caught.value), "'{}'")


@pytest.mark.parametrize(
    ("named", "came", "expected"),
    [
        ({"method": "ablation"}, "method='ablation'", "one of patching, attribution, integrated"),
        ({"metric": 3}, "metric=3", "f(logits, step) -> [batch]"),
        ({"steps": 0}, "steps=0", "at least 1"),
        ({"batch_size": 0}, "batch_size=0", "at least 1"),
        (
            {"at": "pattern", "by": ("layer", "head", "position", "position_b")},
            "patching pattern by layer, position, position_b, head is 25600 runs",
            "at most 4096",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(model: dlens.Model, named: dict[str, Any], came: str, expected: str) -> None:
    clean, corrupted = [list(range(3, 43))], [[*range(3, 42), 50]]
    with unchecked(), pytest.raises(ValueError, match=re.escape(f"{came}; expected {expected}")) as caught:
        dlens.attribute(model, clean, corrupted, **{"metric": ONE} | named)
    assert_three_parts(str(caught.value), came)


def test_many_neurons_are_not_patched(model: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlens.findings.circuits.attribute.MOST_CELLS", 95)
    with pytest.raises(ValueError, match="patching mlp_post by layer, neuron is 96 runs; expected at most 95"):
        dlens.attribute(model, [[5, 6]], [[5, 7]], ONE, at="mlp_post", layers=[0, 2])
