"""One run at a time, and errors that come out of it with the name of their place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens import trace
from dlens.tracing import engine
from tests.refusing import STORY, Action, assert_three_parts
from tests.untouched import untouched

NAME = "blocks.5.hook_resid_post"


def test_an_error_inside_a_hook_names_it(ar: dlens.Model, diffusion: dlens.Model) -> None:
    def broken(value: torch.Tensor, hook: Any) -> None:
        raise KeyError(hook.layer)

    for model in (ar, diffusion):
        for run in (
            trace(model).hook(NAME, broken).forward,
            partial(trace(model).hook(NAME, broken).generate, max_new_tokens=2),
        ):
            with untouched(model), pytest.raises(KeyError) as caught:
                run(STORY)
            assert [note for note in caught.value.__notes__ if "broken" in note] == [
                f"in the hook {broken.__qualname__} at {NAME}, step 0, called as fn(value, hook)"
            ]


NESTED: dict[str, Action] = {
    "with operations": lambda m: trace(m).skip(3).forward(STORY),
    "without operations": lambda m: trace(m).forward(STORY),
    "a generation": lambda m: trace(m).generate(STORY, 2),
    "the module itself": lambda m: trace(dlens.load(m.module, verify=False)).skip(3).forward([5, 6]),
}


@pytest.mark.parametrize("case", NESTED)
def test_a_run_inside_a_run(diffusion: dlens.Model, case: str) -> None:
    swapped = trace(diffusion).swap(2, 5)
    chain = swapped.hook("blocks.4.hook_resid_post", lambda value, hook: NESTED[case](diffusion) and None)
    with untouched(diffusion), pytest.raises(RuntimeError) as caught:
        chain.forward(STORY)
    assert_three_parts(str(caught.value), "is running already")
    for outer in (swapped, trace(diffusion)):
        with untouched(diffusion), pytest.raises(RuntimeError) as caught:
            outer.generate(STORY, 2, on_step=lambda view: NESTED[case](diffusion))
        assert_three_parts(str(caught.value), "is running already")


@pytest.mark.parametrize("busy", [True, False])
def test_a_run_of_another_model_inside_a_run(diffusion: dlens.Model, ar: dlens.Model, busy: bool) -> None:
    inner = (trace(ar).skip([3]) if busy else trace(ar)).capture("logits")
    outer = trace(diffusion).swap(2, 5)
    seen: list[torch.Tensor] = []

    def run(*_: Any) -> None:
        seen.append(inner.forward(STORY)["logits"])

    with untouched(diffusion), untouched(ar):
        record = outer.hook("blocks.4.hook_resid_post", run).capture("logits").generate(STORY, 2, on_step=run)
    assert torch.equal(record["logits"], outer.capture("logits").generate(STORY, 2)["logits"])
    assert len(seen) == 4 and all(torch.equal(logits, inner.forward(STORY)["logits"]) for logits in seen)


def test_what_only_reads_around_blocks_opens_no_trace(diffusion: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = trace(diffusion).measure(dlens.Cosine(), dlens.CKA()).capture("resid_post", layers=[3])

    def runs() -> tuple[dlens.Record, dlens.Record]:
        return chain.forward(STORY), trace(diffusion).measure(dlens.Cosine()).generate(STORY, 8, progress=False)

    opened, opens = [], engine._trace
    monkeypatch.setattr(engine, "_trace", lambda *given: opened.append(1) or opens(*given))
    with untouched(diffusion):
        observed = runs()
    assert not opened
    monkeypatch.setattr(engine, "_observe", engine._trace)
    traced = runs()
    assert opened == [1, 1]
    for one, other in zip(observed, traced, strict=True):
        assert torch.equal(one.tokens, other.tokens) and one.measures.keys() == other.measures.keys()
        assert all(one.measures[key].identical(other.measures[key]) for key in one.measures)
    assert torch.equal(observed[0].captured["resid_post"].values, traced[0].captured["resid_post"].values)


def test_a_call_between_steps_is_refused_without_a_trace(diffusion: dlens.Model) -> None:
    chain, ids = trace(diffusion).measure(dlens.Cosine()), torch.tensor([[5, 6]])
    for call in (lambda ids: diffusion.module(ids), lambda ids: diffusion.module.forward(ids)):
        with untouched(diffusion), pytest.raises(RuntimeError) as caught:
            chain.generate(STORY, 2, progress=False, on_step=lambda view, call=call: call(ids) and None)
        assert_three_parts(str(caught.value), "the module was called between steps")


RUNS: dict[str, Callable[[dlens.Trace, Path], Any]] = {
    "a forward": lambda chain, folder: chain.forward(STORY),
    "a generation": lambda chain, folder: chain.generate(STORY, 4, progress=False),
    "a stream": lambda chain, folder: chain.stream([STORY], folder, progress=False),
}


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", ["ar", "diffusion"])
def test_a_call_within_a_forward_is_refused(
    kind: str, run: str, traced: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: dlens.Model = request.getfixturevalue(kind)
    chain = trace(model).capture("resid_post", layers=[5])
    chain = chain.ablate(9, [0]) if traced else chain
    calls = lambda ids: model.module(input_ids=ids), lambda ids: model.module.forward(input_ids=ids)
    for number, call in enumerate(calls):
        handles: list[Any] = []

        def hook(block: Any, args: Any, call: Any = call, handles: list[Any] = handles) -> None:
            handles.pop().remove()
            call(torch.tensor([[5, 6, 7]]))

        with untouched(model):
            handles.append(model.blocks[3].register_forward_pre_hook(hook))
            with pytest.raises(RuntimeError) as caught:
                RUNS[run](chain, tmp_path / str(number))
        assert_three_parts(str(caught.value), "the module was called")


class Direct(torch.nn.Module):
    """A part of a model whose calls go straight to its forward, without hooks."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)


def test_a_module_that_calls_no_hooks_is_told_of_its_steps(diffusion: dlens.Model, ar: dlens.Model) -> None:
    for model in (diffusion, ar):
        expected = trace(model).measure(dlens.Cosine()).generate(STORY, 4, progress=False)
        before = type(model.module)
        model.module.__class__ = type(before.__name__, (Direct, before), {})
        try:
            found = trace(model).measure(dlens.Cosine()).generate(STORY, 4, progress=False)
        finally:
            model.module.__class__ = before
        assert found.measures["cosine"].identical(expected.measures["cosine"])
