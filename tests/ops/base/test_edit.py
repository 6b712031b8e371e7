"""Edits: where they write, in words and as data, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from dlens.ops.base.edit import Edit, Place
from dlens.ops.base.scope import Scope
from dlens.ops.base.target import Target
from tests.ops.targets import AR, DIFFUSION


@dataclass(frozen=True, kw_only=True)
class Double(Edit):
    """Values are doubled."""

    def edit(self, value: Tensor, place: Place) -> Tensor:
        return 2 * value

    def words(self) -> str:
        return f"double {self.where()}"

    def details(self) -> dict[str, Any]:
        return {"factor": 2}


WORDS = [
    (Double(), "double resid_post of all layers"),
    (Double(at="z", layers=(1, 3)), "double z of layers 1, 3"),
    (Double(at="logits", tokens="last"), "double logits on the last token"),
    (Double(tokens=(0, -1), scope=Scope("late")), "double resid_post of all layers on positions 0, -1 at steps late"),
    (Double(tokens=torch.eye(3, dtype=torch.bool)), "double resid_post of all layers on 3 chosen positions"),
]


@pytest.mark.parametrize(("op", "words"), WORDS, ids=[words for _, words in WORDS])
def test_where_it_writes_in_words(op: Double, words: str) -> None:
    assert op.words() == words


def test_where_it_writes_as_data() -> None:
    op = Double(at="mlp_out", layers=(2,), tokens="masked", scope=Scope(noise=(0, 0.5)))
    written = {"op": "double", "factor": 2, "at": "mlp_out", "layers": [2], "tokens": "masked tokens"}
    assert op.to_json() == written | {"noise": [0, 0.5]}
    assert Double(at="embed").to_json() == {"op": "double", "factor": 2, "at": "embed", "tokens": "all tokens"}


def test_what_the_model_lacks_is_refused() -> None:
    absent = Target("tiny", 4, 3, True, absent={"z": "no module of this architecture holds it"})
    with pytest.raises(ValueError, match="tiny has no z: no module .*; expected one of resid_pre"):
        Double(at="z").check(absent)
    with pytest.raises(ValueError, match="at='resid'; expected a hook point: embed, .*; check the spelling"):
        Double(at="resid").check(DIFFUSION)
    with pytest.raises(IndexError, match="layer 4 of tiny"):
        Double(layers=(4,)).check(DIFFUSION)
    with pytest.raises(ValueError, match="tokens='masked' on tiny-ar"):
        Double(tokens="masked").check(AR)
    Double(at="logits", layers=(99,)).check(DIFFUSION)
