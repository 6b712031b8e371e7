"""What verbs share is seen through the verbs."""

from typing import Any

import pytest

import dlens
from dlens.tracing.adding import Adding
from tests.refusing import assert_three_parts


def test_every_verb_reads_places_as_the_others_do(ar: dlens.Model) -> None:
    trace = dlens.trace(ar)
    assert isinstance(trace, Adding)
    for chain in (trace.ablate(-1), trace.steer([0.0] * 192, -1), trace.capture("resid_post", layers=-1)):
        op: Any = chain.ops[0]
        assert op.layers == (15,)


def test_a_chain_is_a_value(ar: dlens.Model) -> None:
    trace = dlens.trace(ar)
    longer = trace.skip(3)
    assert trace.ops == () and len(longer.ops) == 1 and longer.model is trace.model


def test_operations_that_contradict_each_other_are_refused_at_once(ar: dlens.Model) -> None:
    with pytest.raises(ValueError) as caught:
        dlens.trace(ar).skip(3).capture("mlp_out", layers=3)
    assert "skip layers 3" in str(caught.value)


def test_layers_with_a_full_name_are_refused(ar: dlens.Model) -> None:
    with pytest.raises(ValueError) as caught:
        dlens.trace(ar).capture("blocks.3.hook_resid_post", layers=3)
    assert_three_parts(str(caught.value), "layers=3 with 'blocks.3.hook_resid_post'")
