"""What is asked is named by all that its answer depends on, and refused where it cannot run."""

from dataclasses import replace
from typing import Any

import pytest

import dlens
from dlens.findings.scores.decoding import Decoding
from dlens.sweeps.asks import Ask, Prompts, Solve, Texts
from dlens.sweeps.variant import Variant

TASK = dlens.tasks.get("trio-math")
SOLVE = Solve(TASK, TASK.problems(2), Decoding(max_new_tokens=8))
CHANGES: dict[str, Any] = {
    "another task": replace(SOLVE, of=dlens.tasks.get("trio-code")),
    "other problems": replace(SOLVE, problems=TASK.problems(2, seed=1)),
    "longer": replace(SOLVE, decoding=Decoding(max_new_tokens=9)),
    "another sampler": replace(SOLVE, decoding=Decoding(dlens.samplers.LLaDA(steps=4), 8)),
    "other batches": replace(SOLVE, decoding=Decoding(max_new_tokens=8, batch_size=1)),
    "another seed": replace(SOLVE, decoding=Decoding(max_new_tokens=8, seed=1)),
}


@pytest.fixture(scope="module")
def variant(diffusion: dlens.Model) -> Variant:
    return Variant(dlens.trace(diffusion))


def _depends(ask: Ask, variant: Variant) -> Any:
    return ask.depends(variant, ask.read(variant.trace.model))


def _check(ask: Ask, variant: Variant) -> None:
    ask.check(variant, ask.read(variant.trace.model))


@pytest.mark.parametrize("case", CHANGES)
def test_an_answer_depends_on_it(variant: Variant, case: str) -> None:
    assert _depends(SOLVE, variant) == _depends(SOLVE, variant) != _depends(CHANGES[case], variant)


def test_a_variant_decodes_in_its_own_way(variant: Variant) -> None:
    own = replace(variant, sampler=dlens.samplers.LLaDA(steps=4))
    assert _depends(SOLVE, own) == _depends(CHANGES["another sampler"], variant)


def test_the_others_depend_on_what_they_hold(variant: Variant) -> None:
    prompts = Prompts(["Once"], Decoding(max_new_tokens=8))
    assert _depends(prompts, variant) != _depends(replace(prompts, prompts=["Two"]), variant)
    texts = Texts(("Once upon",), 2, 8, 0)
    for changed in (replace(texts, texts=("Two by",)), replace(texts, draws=3), replace(texts, batch_size=1)):
        assert _depends(texts, variant) == _depends(texts, variant) != _depends(changed, variant)


def test_what_cannot_run_is_found_without_running(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(variant.trace), "generate", lambda *_, **__: pytest.fail("it computes"))
    _check(SOLVE, variant)
    late = Variant(variant.trace.skip([3], steps=[8]))
    for ask in (SOLVE, Prompts(["Once"], Decoding(max_new_tokens=8))):
        with pytest.raises((ValueError, IndexError)):
            _check(ask, late)
    with pytest.raises(ValueError, match="1200 in all; expected at most 512"):
        _check(Texts(("Once " * 600,), 1, 8, 0), variant)


def test_a_model_without_a_tokenizer_continues_tokens(diffusion: dlens.Model) -> None:
    prompts, silent = Prompts([[5, 6, 7], [8, 9]], Decoding(max_new_tokens=4)), replace(diffusion, tokenizer=None)
    found, told = (prompts.answer(Variant(dlens.trace(model))) for model in (silent, diffusion))
    assert found["texts"] == ["", ""] != told["texts"]
    assert found["values"] == told["values"]
