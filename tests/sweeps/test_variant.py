"""What a sweep tries, and grids of it."""

from typing import Any

import pytest
import torch

import dlens
from dlens.sweeps.variant import Variant, as_variants
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked


def test_a_grid_has_every_combination_once() -> None:
    cells = dlens.grid(
        "trio/diffusion",
        layers=[[], [3], [3, 4]],
        parts=["block", "attn"],
        steps=[None, "early"],
        samplers=[dlens.samplers.LLaDA(steps=4), dlens.samplers.LLaDA(steps=8)],
    )
    assert len(cells) == (1 + 2 * 2 * 2) * 2 and len({(str(cell), str(cell.labels)) for cell in cells}) == len(cells)
    assert list(cells[0].labels) == ["layers", "parts", "steps", "samplers"]
    assert (cells[0].plan, cells[0].labels["layers"], cells[0].labels["parts"]) == ("", "", "")
    last = cells[-1]
    assert str(last) == "trio/diffusion, skip the attn of layers 3, 4 at steps early"
    assert last.labels["layers"] == "3, 4" and last.labels["steps"] == "early"
    assert last.sampler == dlens.samplers.LLaDA(steps=8)


def test_a_grid_over_a_trace_keeps_its_operations() -> None:
    [cell] = dlens.grid(dlens.trace("trio/ar").skip([1]), layers=[[3]])
    assert cell.plan == "skip layers 1; skip layers 3" and dict(cell.labels) == {}
    assert cell.baseline.trace.ops == () and cell.baseline.plan == ""


def test_a_compressed_model_runs_the_same_operations() -> None:
    model = dlens.load("trio/ar")
    recipe = dlens.Recipe(method="rtn", bits=3, group=64)
    [cell] = dlens.grid(model, layers=[[3]], compressions=[recipe])
    by_hand = dlens.trace(dlens.compress(model, method="rtn", bits=3, group=64)).skip([3]).capture("logits")
    found = cell.ready().capture("logits").forward("Once upon a time")["logits"]
    assert torch.equal(found, by_hand.forward("Once upon a time")["logits"])
    assert cell.plan == "rtn, 3 bits, group 64; skip layers 3"
    # The last compressed copy of a model is kept, and one alone.
    assert cell.ready().model is cell.ready().model
    assert len(model.memo["a compressed copy"][1]) == 1


def test_traces_models_and_names_are_variants() -> None:
    model = dlens.load("trio/ar")
    found = as_variants([model, dlens.trace(model).skip([1]), Variant(dlens.trace(model)), "trio/ar"])
    assert [each.plan for each in found] == ["", "skip layers 1", "", ""]
    assert [str(each) for each in as_variants("trio/ar")] == ["trio/ar, as it is"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trace", "trio/ar"),
        ("sampler", "llada"),
        ("cache", "dual"),
        ("compression", 3),
        ("labels", ["a"]),
        ("labels", {1: 2}),
    ],
    ids=str,
)
def test_fields_that_are_none(field: str, value: Any) -> None:
    given: dict[str, Any] = {"trace": dlens.trace("trio/ar")} | {field: value}
    with unchecked(), pytest.raises(ValueError) as caught:
        Variant(**given)
    assert_three_parts(str(caught.value), f"{field}=")


@pytest.mark.parametrize("axis", ["layers", "parts", "steps", "noise", "samplers", "caches", "compressions"])
@pytest.mark.parametrize("value", [[], 3, "block"], ids=str)
def test_an_axis_is_several_values(axis: str, value: Any) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        dlens.grid("trio/ar", **{axis: value})
    assert_three_parts(str(caught.value), f"{axis}=")


def test_nothing_to_try_is_refused() -> None:
    with pytest.raises(ValueError) as caught:
        as_variants([])
    assert_three_parts(str(caught.value), "no trace")
