"""Results that somebody makes by hand of the wrong things are refused in words, and not when they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import xarray as xr

import dlens
from dlens.findings.circuits.attribute import Attribution
from dlens.findings.effects.collapse import Collapse, Effect
from dlens.findings.effects.disruption import Disruption
from dlens.findings.effects.phases import Phases
from dlens.findings.effects.retention import Retention
from dlens.findings.effects.robustness import Cell, Robustness
from dlens.findings.scores.accuracy import Scores
from dlens.findings.scores.estimate import Curve, Estimate
from dlens.models.compression import Compression, Treated
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked

ESTIMATE = Estimate(0.5, 0.25, 0.75, beside=(("other", Estimate(0.5, 0.25, 0.75)),))
CURVE = Curve(np.array([0.5, 0.75]), np.array([0.25, 0.5]), np.array([0.75, 1.0]), n=8)
DATA = xr.Dataset({"score": (("pair", "layer"), [[0.5, 1.0]]), "clean": ("pair", [1.0]), "corrupted": ("pair", [0.5])})
SCORES = Scores("trio-code", (), (), (), (), 0.5, None, None, (), (), ())
KEPT = Retention(
    *("trio/ar", "trio-code", 12, 0, ({"op": "skip", "words": "skip layers 3"},)),
    *(0.5, 0.25, 0.5, 0.2, 0.9, 0.5, "score", 0.1, 0.1, 0.9, SCORES, SCORES, ("a note",)),
)
TREATED = Treated(3, "mlp.up_proj", 12, 8, None, 0.0, 0.0, 0.1, 0.2)
SETTINGS = {"method": "rtn", "bits": 3, "group": 64, "symmetric": True, "sparsity": None, "allocation": "uniform"}
COMPRESSION = Compression("trio/ar", SETTINGS, (TREATED,), {"head": "not asked"}, 0.9, 1.0)
RECIPE = dlens.Recipe(method="rtn", bits=3)
CELL = Cell("ar", COMPRESSION, 0, KEPT, 2.5, ESTIMATE)
EFFECT = Effect("none", (3,), "activations", "zero", 0.5, KEPT, 2.5, 0.0, 0.5, 0.5, 0.0, ("text",))
MADE: list[Any] = [
    ESTIMATE,
    CURVE,
    KEPT,
    TREATED,
    COMPRESSION,
    CELL,
    Robustness("trio-code", (RECIPE,), (CELL,)),
    EFFECT,
    Collapse("trio/ar", "trio-code", 12, 0, 3, 0.5, DATA, (1, 2), (EFFECT,), ("a note",)),
    Disruption("trio/ar", (), 16, DATA, 2, 0, ("a note",)),
    Phases("trio/ar", (5,), {"early": KEPT}, ("a note",)),
    Attribution("trio/ar", "resid_post", "patching", DATA, ("a", "b"), None, 1, ()),
    dlens.Profile("trio/ar", "ar", "autoregressive", 2, 8, "clean", 1, 4, 0, (), {"cosine": DATA}, ("a note",)),
    dlens.SkipPlan((3,), "cosine", (0.5,), (3,), (), "trio/ar", ()),
]
# A word, and two numbers, of which dlens makes a message alone.
OPEN = {("Effect", "where"), ("Estimate", "extremes")}


def fits(name: str, wrong: Any) -> bool:
    """Whether what is wrong elsewhere is nothing wrong in a field."""
    kinds: dict[str, Callable[[Any], bool]] = {
        "str": lambda value: isinstance(value, str),
        "float": lambda value: isinstance(value, float),
        "Mapping": lambda value: isinstance(value, dict),
        "None": lambda value: value is None,
    }
    return any(kind in name and of(wrong) for kind, of in kinds.items())


@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
def test_a_field_of_another_kind_is_refused(made: Any) -> None:
    assert replace(made) is not made
    looked = 0
    for each in fields(made):
        if (type(made).__name__, each.name) in OPEN:
            continue
        for wrong in WRONG.values():
            if fits(str(each.type).partition("tuple[")[0], wrong):
                continue
            looked += 1
            with unchecked(), pytest.raises(ValueError) as caught:
                replace(made, **{each.name: wrong})
            assert_three_parts(str(caught.value), f"{each.name}=")
    assert looked >= 4 * (len(fields(made)) - 1)
