"""What holds for every composition of operations: the model is left as it was, and order is free across places."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import dlens
from tests.reference import fresh
from tests.untouched import untouched

N_LAYERS, D_MODEL, NEW = 16, 192, 3
ROWS = [[5, 71, 300, 8, 44, 1210], [640, 9, 77, 20]]
POINTS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
EXPECTED = (ValueError, IndexError, MemoryError, ZeroDivisionError, dlens.NeverFired)

FEW = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
Verb = tuple[str, tuple[Any, ...], dict[str, Any]]


def leave(value: Tensor, hook: Any) -> None:
    return None


def double(value: Tensor, hook: Any) -> Tensor:
    return value * 2


def in_place(value: Tensor, hook: Any) -> None:
    value[..., 0] = 1.5


def fail(value: Tensor, hook: Any) -> None:
    raise ZeroDivisionError(hook.name)


def narrow(value: Tensor, hook: Any) -> Tensor:
    return value[..., 1:]


def vectors(seed: int) -> Tensor:
    return torch.randn(D_MODEL, generator=torch.Generator().manual_seed(seed))


layer = st.integers(0, N_LAYERS - 1)
layers = st.lists(layer, min_size=1, max_size=4, unique=True)
intervals = st.sampled_from([None, None, (0.0, 0.4), (0.3, 0.7), (0.5, 1.0), (0.0, 1.0)])
tokens = st.sampled_from(["all", "all", "prompt", "decoded", "last", "masked", slice(1, 3), [0, -1], [9]])
steps = st.one_of(
    st.none(), st.integers(-NEW, NEW), st.just(slice(1, None)), st.just("late"), st.lists(st.integers(0, NEW - 1))
)


@st.composite
def scopes(draw: st.DrawFn, has_noise: bool, one_step: bool) -> dict[str, Any]:
    return {"steps": None if one_step else draw(steps), "noise": draw(intervals) if has_noise else None}


@st.composite
def structures(draw: st.DrawFn, scope: dict[str, Any]) -> Verb:
    """A skip, a swap or a repeat."""
    kind = draw(st.sampled_from(["skip", "swap", "repeat"]))
    if kind == "skip":
        return kind, (draw(layers),), {"part": draw(st.sampled_from(["block", "attn", "mlp"]))} | scope
    if kind == "swap":
        return kind, (draw(layer), draw(layer)), scope
    return kind, (draw(layer), draw(st.integers(2, 3))), scope


@st.composite
def edits(draw: st.DrawFn, scope: dict[str, Any], has_noise: bool) -> Verb:
    """An ablation, a steering vector or a hook."""
    kind = draw(st.sampled_from(["ablate", "steer", "hook"]))
    chosen = draw(tokens)
    scope = scope | {"tokens": "all" if chosen == "masked" and not has_noise else chosen}
    at = draw(st.sampled_from(POINTS))
    if kind == "ablate":
        channels = draw(st.lists(st.integers(0, D_MODEL - 1), min_size=1, max_size=3))
        return kind, (draw(layers), channels, draw(st.sampled_from(["zero", 3.0]))), scope | {"at": at}
    if kind == "steer":
        return kind, (vectors(draw(st.integers(0, 3))), draw(layers), 5.0), scope | {"at": at}
    name = draw(st.sampled_from([f"blocks.{draw(layer)}.hook_{at}", at, "embed", "logits"]))
    return kind, (name, draw(st.sampled_from([leave, double, in_place, fail, narrow]))), scope


@st.composite
def chains(draw: st.DrawFn, has_noise: bool, one_step: bool) -> list[Verb]:
    """Up to five operations, some of which may not fit each other or the run."""
    chain: list[Verb] = []
    for _ in range(draw(st.integers(1, 5))):
        scope = draw(scopes(has_noise, one_step))
        chain.append(draw(st.one_of(structures(scope), edits(scope, has_noise), st.just(reading(scope)))))
    return chain


def reading(scope: dict[str, Any]) -> Verb:
    return "capture", ("resid_post", "logits"), {"steps": scope["steps"]}


def built(model: dlens.Model, chain: list[Verb]) -> dlens.Trace:
    """The trace of those verbs that the trace takes."""
    trace = dlens.trace(model)
    for verb, arguments, scope in chain:
        try:
            trace = getattr(trace, verb)(*arguments, **scope)
        except (ValueError, IndexError):
            continue
    return trace


def prompts(model: dlens.Model, one_step: bool) -> list[list[int]]:
    """Rows of unequal length; in a forward of a diffusion model unequal shares of them are masked."""
    mask = model.family.mask_token_id
    if mask is None or not one_step:
        return ROWS
    return [[mask if i % 2 else token for i, token in enumerate(ROWS[0])], [ROWS[1][0], mask, mask, mask]]


def run(trace: dlens.Trace, one_step: bool) -> dlens.Record | None:
    """The record of a run, also of one that found nothing to do; None of one that raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dlens.UnfiredWarning)
        try:
            rows = prompts(trace.model, one_step)
            return trace.forward(rows) if one_step else trace.generate(rows, NEW, progress=False)
        except EXPECTED as error:
            return error.record if isinstance(error, dlens.NeverFired) else None


@pytest.mark.parametrize("one_step", [True, False], ids=["forward", "generate"])
@pytest.mark.parametrize("name", ["diffusion", "ar"])
def test_every_run_leaves_the_model_as_it_was(name: str, one_step: bool, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    outcomes: list[bool] = []

    @settings(max_examples=25, **FEW)
    @given(chain=chains(has_noise=name == "diffusion", one_step=one_step))
    def check(chain: list[Verb]) -> None:
        with untouched(model):
            outcomes.append(run(built(model, chain), one_step) is not None)

    check()
    assert any(outcomes) and not all(outcomes)


@pytest.mark.parametrize("name", ["diffusion", "ar"])
def test_operations_at_different_places_commute(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    has_noise = name == "diffusion"

    @st.composite
    def apart(draw: st.DrawFn) -> list[Verb]:
        """One operation at each of a few places."""
        places = draw(st.lists(layer, min_size=3, max_size=6, unique=True))
        noise = {"noise": draw(intervals) if has_noise else None}
        chain: list[Verb] = [("skip", ([places[0]],), noise), ("swap", tuple(places[1:3]), {})]
        for number, place in enumerate(places[3:]):
            at = {"at": draw(st.sampled_from(POINTS))}
            steer: Verb = ("steer", (vectors(number), [place], 5.0), at | noise)
            ablate: Verb = ("ablate", ([place], [number, 7], 2.0), at | noise)
            chain.append(draw(st.sampled_from([steer, ablate, ("repeat", (place, 2), {})])))
        return chain

    @settings(max_examples=15, **FEW)
    @given(chain=apart(), data=st.data())
    def check(chain: list[Verb], data: st.DataObject) -> None:
        shuffled = data.draw(st.permutations(chain))
        ordered, other = (run(built(model, c).capture("logits"), True) for c in (chain, shuffled))
        assert ordered is not None and other is not None
        assert len(ordered.plan) == len(chain) + 1
        assert torch.equal(ordered["logits"], other["logits"])

    check()


@pytest.mark.parametrize("name", ["diffusion", "ar", "ar_init"])
def test_an_empty_trace_is_the_plain_model(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    module = fresh(model.module)

    @settings(max_examples=15, **FEW)
    @given(rows=st.lists(st.lists(st.integers(0, 4095), min_size=5, max_size=5), min_size=1, max_size=3))
    def check(rows: list[list[int]]) -> None:
        with torch.no_grad():
            expected = module(input_ids=torch.tensor(rows), use_cache=False).logits
        assert torch.equal(dlens.trace(model).capture("logits").forward(rows)["logits"], expected)
        seen: list[Tensor] = []
        handle = model.module.register_forward_hook(lambda _m, _a, out: seen.append(out.logits))
        dlens.trace(model).forward(rows)
        handle.remove()
        assert torch.equal(seen[0], expected)

    check()


@settings(max_examples=8, **FEW)
@given(chain=chains(has_noise=True, one_step=True))
def test_unwrapping_leaves_nothing_behind(diffusion: dlens.Model, chain: list[Verb]) -> None:
    module: Any = fresh(diffusion.module)
    own = module.model.layers[3].mlp
    original = own.forward

    def mine(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    own.forward = mine
    before = {name: sorted(vars(part)) for name, part in module.named_modules()}
    model = dlens.load(module, tokenizer=diffusion.tokenizer)
    run(built(model, chain), True)
    model.unwrap()
    assert {name: sorted(vars(part)) for name, part in module.named_modules()} == before
    assert own.forward is mine
    model.unwrap()
    run(built(model, chain), True)
