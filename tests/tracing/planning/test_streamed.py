"""What a stream keeps of a chain, and chains that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dlens
from dlens.tracing.planning.streamed import StreamedPoint, streamed
from tests.refusing import assert_three_parts

REFUSED: dict[str, tuple[str, Any]] = {
    "nothing": ("a trace without captures", lambda t: t.skip([3])),
    "measure": ("'measure cosine'", lambda t: t.capture("z").measure(dlens.Cosine())),
    "keys": ("'capture pattern'", lambda t: t.capture("pattern")),
    "mask": ("tokens= as 1 chosen positions", lambda t: t.capture("z", tokens=torch.ones(1, 1, dtype=torch.bool))),
    "steps": ("'capture z at steps 0'", lambda t: t.capture("z", steps=0).capture("q")),
    "tokens": ("'capture z'", lambda t: t.capture("z").capture("q", tokens=[0])),
}


def test_points_layers_and_positions(ar: dlens.Model) -> None:
    chain = dlens.trace(ar).skip([1]).capture("blocks.5.hook_resid_post", "embed", tokens=[0, -1])
    chain = chain.capture("resid_post", layers=[7, 3], tokens=[0, -1])
    kept = streamed(chain.ops, chain.target)
    assert kept.points == (StreamedPoint("resid_post", (3, 5, 7)), StreamedPoint("embed", ()))
    assert kept.tokens == (0, -1) and [op.selection() for op in kept.ops] == ["all"] * 4
    assert kept.points[0].axes == ("d_model",) and StreamedPoint("z", ()).axes == ("head", "d_head")


@pytest.mark.parametrize("case", REFUSED)
def test_chains_without_rows_of_one_table(ar: dlens.Model, case: str) -> None:
    came, chain = REFUSED[case]
    chain = chain(dlens.trace(ar))
    with pytest.raises(ValueError) as caught:
        streamed(chain.ops, chain.target)
    assert_three_parts(str(caught.value), came)
