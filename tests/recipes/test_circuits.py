"""What docs/circuits.md shows is what was measured; the measuring itself runs on two pairs."""

import math

import pytest

import dlens
from recipes.circuits import measure
from recipes.circuits.tables import PAGE, TABLES, measured, written


def test_the_page_has_the_tables_of_what_was_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page, measured()) == page
    assert all(f"<!-- {name} -->\n|" in page for name in TABLES)


def test_overlaps_leave_out_the_set_itself(ar: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MODELS", ("trio/ar",))
    pairs = dlens.pairs("trio-code", ar, n=4)
    circuits = [dlens.circuit(ar, pairs[place : place + 2], method="eap") for place in (0, 2)]
    found = measure.overlaps({"trio/ar": circuits})
    alike = found["trio/ar and trio/ar"]
    assert alike["value"] == circuits[0].overlap(circuits[1], measure.TOP) and alike["n"] == 2
    assert found["random"] < 0.1
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
