"""What docs/circuits.md shows is what was measured; the measuring itself runs on two pairs."""

import json
import math
from pathlib import Path

import pytest

import dlens
from recipes.circuits import measure, steps
from recipes.circuits.tables import PAGE, TABLES, measured, written
from tests.findings.circuits.conftest import PAIRS, small


def test_the_page_has_the_tables_of_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page, measured()) == page
    assert all(f"<!-- {name} -->\n|" in page for name in TABLES)


def test_what_the_page_says_came_out() -> None:
    found = measured()
    for task in found["tasks"].values():
        shared, depth = task["overlap"], task["depth"]
        pair, other = shared["trio/ar and trio/ar-init"], shared["trio/diffusion and trio/ar-init"]
        ends = [shared[name]["high"] for name in ("trio/ar and trio/diffusion", "trio/diffusion and trio/ar-init")]
        itself = [shared[f"{name} and {name}"]["low"] for name in measure.MODELS]
        assert max(ends) < pair["low"] < pair["high"] < min(itself)
        assert other["low"] > 5 * shared["random"]
        assert depth["trio/ar-init"]["source"]["low"] > depth["trio/diffusion"]["source"]["high"]
        assert depth["trio/ar-init"]["source"]["value"] > depth["trio/ar"]["source"]["value"]
        ways = [own["200"] for own in task["faithfulness"].values()]
        assert all(way["top"]["value"] >= 0.88 > 0.01 > abs(way["random"]["value"]) for way in ways)
    for heads in found["heads"].values():
        for step in ("middle", "last"):
            flow = heads["flow"][step]
            assert flow["masked"]["low"] > flow["masked"]["keys"] and flow["prompt"]["high"] < flow["prompt"]["keys"]
        stable = heads["stability"]
        assert stable["above"] > 0.9 * stable["of"] and stable["others"] < 0.5 < stable["median"]


def test_what_the_page_says_of_later_steps() -> None:
    same = [cell["value"] for task in measured()["steps"].values() for cell in task["same"].values()]
    assert (round(min(same), 2), round(max(same), 2)) == (0.56, 0.84)
    for task in measured()["steps"].values():
        shared, work = task["overlap"], task["faithfulness"]
        for step in steps.SHOWN:
            diffusion, ar_init = (f"{name}, {step}" for name in measure.MODELS[1:])
            pair = shared[f"trio/ar and {ar_init}"]
            others = [shared[f"trio/ar and {diffusion}"], shared[f"{diffusion} and {ar_init}"]]
            itself = [shared[f"{name} and {name}"]["low"] for name in ("trio/ar", ar_init)]
            assert max(other["high"] for other in others) < pair["low"] < pair["high"] < min(itself)
            assert all(abs(own[step]["random"]["value"]) < 0.01 for own in work.values())
        for name in measure.MODELS[1:]:
            early, late = f"{name}, first", f"{name}, last"
            across = shared[f"{early} and {late}"]
            itself = [shared[f"{each} and {each}"] for each in (early, late)]
            assert all(one["low"] < across["value"] < one["high"] for one in itself)
            assert work[name]["last"]["first"]["value"] >= 0.97
            assert across["value"] < task["same"][name]["value"]
            clean, corrupted = (task["answers"][late][which] for which in ("clean", "corrupted"))
            assert clean["low"] > 0 > corrupted["high"]


def test_overlaps_leave_out_the_set_itself(ar: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MODELS", ("trio/ar",))
    pairs = dlens.pairs("trio-code", ar, n=6)
    circuits = [dlens.circuit(ar, pairs[place : place + 2], method="eap") for place in (0, 2, 4)]
    found = measure.overlaps({"trio/ar": circuits})
    alike = found["trio/ar and trio/ar"]
    others = [circuits[a].overlap(circuits[b], measure.TOP) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert math.isclose(alike["value"], sum(others) / 3) and alike["n"] == 3
    assert alike["low"] < alike["value"] < alike["high"]
    assert found["random"] < 0.1
    both = {f"trio/ar, {step}": own for step, own in {"first": circuits[:2], "last": circuits[1:]}.items()}
    moved = steps.same_pairs(both, "trio/ar")
    assert math.isclose(moved["value"], (others[0] + others[2]) / 2) and moved["n"] == 2
    depth = measure.depths(circuits)
    assert 0 <= depth["source"]["value"] < depth["target"]["value"] <= 1


def test_heads_are_measured_prompt_by_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PROMPTS", 2)
    monkeypatch.setattr(measure, "NEW", 4)
    monkeypatch.setattr(measure, "STEPS", {"first": 1})
    found = measure.heads_of("trio/diffusion")
    shares = found["flow"]["first"]
    assert math.isclose(sum(cell["value"] for cell in shares.values()), 1, rel_tol=1e-5)
    assert all(cell["low"] <= cell["value"] <= cell["high"] and cell["n"] == 2 for cell in shares.values())
    assert found["stability"]["of"] == 48 and len(found["stability"]["heads"]) == 6


def test_the_same_pairs_are_asked_at_every_step(
    ar: dlens.Model, diffusion: dlens.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"trio/ar": ar, "trio/diffusion": diffusion}
    changes = {"MODELS": tuple(models), "SETS": 1, "PAIRS": 1, "SHOWN": {"first": 0.0, "last": 1.0}}
    for name, value in changes.items():
        monkeypatch.setattr(steps, name, value)
    asked = steps.asked("trio-code", models)
    assert list(asked) == ["trio/ar", "trio/diffusion, first", "trio/diffusion, last"]
    prompts, first, last = asked.values()
    mask = diffusion.family.mask_token_id
    (prompt,), (early,), (late,), (at,) = prompts.clean, first.clean, last.clean, first.at
    assert early[: len(prompt)] == late[: len(prompt)] == prompt and early.count(mask) > late.count(mask) + 3
    assert late[at] == mask and prompts.words == first.words == last.words
    found = steps.answers(diffusion, first)
    assert found["clean"]["value"] > 0 > found["corrupted"]["value"]
    order = dlens.trace(diffusion).generate([list(early)], 0, infill=True).committed_at[0]
    before = int(((order >= 0) & (order < order[at])).sum())
    assert steps.turn(diffusion, first)["value"] == before / (early.count(mask) - 1)


def test_edges_are_asked_on_another_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SHOWN", {"first": 0.0})
    monkeypatch.setattr(steps, "TOP", 5)
    model = dlens.load(small())
    one, two = (dlens.circuit(model, part, method="eap") for part in (PAIRS[:1], PAIRS[1:]))
    found = steps.across({"a model, first": [one, two]}, "a model")["first"]
    top = one.top(5)
    expected = {"first": top, "random": top.random()}
    assert {of: cell["value"] for of, cell in found.items()} == {
        of: own.faithfulness(pairs=PAIRS[1:]).value for of, own in expected.items()
    }
    assert found["first"]["value"] != found["random"]["value"]


def test_parts_that_are_not_measured_anew_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "OUT", tmp_path / "circuits.json")
    measure.write({"tasks": 1, "steps": 2})
    measure.write({"tasks": 3})
    assert json.loads(measure.OUT.read_text()) == {"tasks": 3, "steps": 2}
