"""Errors and warnings of dlens' own: what they are kinds of, and what they carry."""

from __future__ import annotations

import pytest

import dlens
from dlens import errors


def test_each_is_a_kind_of_what_callers_catch_and_stands_in_the_face() -> None:
    kinds = {"VerificationError": ValueError, "NeverFired": RuntimeError, "Cancelled": RuntimeError}
    kinds |= {"UnfiredWarning": UserWarning, "UnprovedWarning": UserWarning}
    assert sorted(kinds) == sorted(errors.__all__)
    for name, kind in kinds.items():
        assert issubclass(getattr(errors, name), kind) and getattr(dlens, name) is getattr(errors, name)


def test_an_operation_that_never_fired_is_named_and_its_run_kept(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion).skip([3], noise=(0.5, 1.0)).ablate(4, tokens="decoded").capture("logits")
    with pytest.raises(dlens.NeverFired, match="'skip layers 3 at noise 0.5 to 1' found nothing to act on") as caught:
        trace.forward("Once upon a time")
    assert [words.split(" at ")[0] for words in caught.value.ops][0] == "skip layers 3"
    assert len(caught.value.ops) == 2 and caught.value.record["logits"].shape == (1, 4, 4096)
