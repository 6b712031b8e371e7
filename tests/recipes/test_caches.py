"""What docs/caches.md shows of the trio is what was measured; the measuring itself runs on two problems."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens.caches import Dual
from dlens.samplers import LLaDA
from recipes.caches import measure
from recipes.caches.streams import moved
from recipes.caches.tables import CACHED, PAGE, TABLES, less, measured, still, written
from tests.reference import shallow


def test_the_page_has_the_tables_of_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page, measured()) == page
    assert all(f"<!-- {name} -->\n|" in page for name in TABLES)


def test_what_the_page_says_of_answers_came_out() -> None:
    found = measured()
    for model, own in found["answers"].items():
        for cache in CACHED:
            assert 0.09 < 1 - own[cache]["skip"]["flops"] / own[cache]["as it is"]["flops"] < 0.115
            assert round(still(found, model, cache).value, 2) >= 0.97
            both = less(found, model, cache)
            assert both.low < 0 < both.high or (model, cache) == ("trio/diffusion", "Adaptive")
    least = less(found, "trio/diffusion", "Adaptive")
    assert [round(100 * end) for end in (least.value, least.low, least.high)] == [-11, -19, -2]


def test_what_the_page_says_of_streams_came_out() -> None:
    for own in measured()["streams"].values():
        moved_by_skip, drift = 1 - own["none"]["skip"]["value"][-1], own["none"]["drift"]
        for cache in CACHED:
            alone, both = own[cache]["layer"], own[cache]["skipped"]
            assert 1 - alone["value"][-1] < moved_by_skip / 3
            assert alone["low"][-1] < both["high"][-1] and both["low"][-1] < alone["high"][-1]
            cached = own[cache]["drift"]["value"]
            assert all(low < value < high for low, value, high in zip(drift["low"], cached, drift["high"], strict=True))
        for cache in ("Prefix", "Dual", "Delayed"):
            prompt, decoded, masked = own[cache]["kept"]["value"]
            assert prompt > decoded > (masked or 0) and (masked is not None) == (cache == "Dual")
        assert own["Dual"]["step"]["value"] == sorted(own["Dual"]["step"]["value"], reverse=True)


def test_measuring_gives_what_the_tables_read(
    diffusion: dlens.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"PROBLEMS": {"trio/diffusion": 2}, "NEW": 8, "BLOCK": 4, "STEPS": 4, "PROMPTS": 2}
    for name, value in (few | {"SKIPPED": 1, "OUT": tmp_path / "answers.json"}).items():
        monkeypatch.setattr(measure, name, value)
    model = shallow(diffusion, 3)
    monkeypatch.setattr(measure.dlens, "load", lambda name: model)
    measure.main(models=("trio/diffusion",), threads=torch.get_num_threads())
    found, shipped = json.loads(measure.OUT.read_text()), measured()
    assert list(found) == list(shipped)
    for part, models in shipped.items():
        assert set(found[part]) == {"trio/diffusion"} and list(models) == list(measure.MODELS)
        assert keys_of(found[part]["trio/diffusion"]) == keys_of(models["trio/diffusion"])
    for what in ("as it is", "skip"):
        assert len(found["answers"]["trio/diffusion"]["Dual"][what]["solved"]) == 2
    for cache, own in found["streams"]["trio/diffusion"].items():
        assert all(len(curve["value"]) == {"step": 2}.get(what, 3) for what, curve in own.items()), cache


def keys_of(numbers: dict[str, Any]) -> list[str]:
    """The names in it, two deep."""
    return [f"{name} {key}" for name, own in numbers.items() for key in (own if isinstance(own, dict) else [""])]


def test_streams_are_compared_on_the_same_canvases(ar_init: dlens.Model) -> None:
    """Where logits are shifted by one, the place before a mask decides it."""
    model, sampler, ids = shallow(ar_init, 3), LLaDA(block_length=2), [[5, 6, 7], [8, 9, 10]]
    trace = dlens.trace(model).capture("resid_post")
    # The first step computes all, so that in one block of two steps a run with the cache has the same canvases.
    plain, cached = (trace.generate(ids, 2, sampler=sampler, cache=cache) for cache in ("auto", Dual()))
    assert plain.canvas is not None and torch.equal(plain.canvas, cached.canvas)
    found = moved(model, [1], ids, 2, sampler, {"none": "auto", "Dual": Dual()})

    def cosine(step: int, layer: int, row: int, one: torch.Tensor, other: torch.Tensor) -> float:
        places = [p - 1 for p in (3, 4) if plain.canvas[step, row, p] == model.family.mask_token_id]
        pairs = [(one[step, layer, row, place], other[step, layer, row, place]) for place in places]
        return sum(float(a @ b / (a.norm() * b.norm())) for a, b in pairs) / len(pairs)

    skipped = torch.stack([trace.skip([1]).forward(canvas)["resid_post"] for canvas in plain.canvas])
    for name, what, one in (("Dual", "layer", cached["resid_post"]), ("none", "skip", skipped)):
        # Of three places two decide at the first step and one at the second.
        each = [
            [[cosine(step, layer, row, one, plain["resid_post"]) for step in (0, 1)] for row in (0, 1)]
            for layer in range(3)
        ]
        expected = [sum((2 * first + second) / 3 for first, second in rows) / 2 for rows in each]
        assert found[name][what]["value"] == pytest.approx(expected, abs=2e-5)
        if name == "Dual":
            last = sum(rows[row][1] for rows in each for row in (0, 1)) / 6
            assert found[name]["step"]["value"] == pytest.approx([1, last], abs=2e-5)
    prompt, decoded, masked = found["Dual"]["kept"]["value"]
    assert prompt < 1 and decoded is masked is None, "the one block is computed at every step"
