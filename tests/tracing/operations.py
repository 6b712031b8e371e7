"""Every operation against hand-written PyTorch hooks, for any architecture whose module names are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import dlens

IDS = torch.tensor([[3, 14, 15, 9, 26, 5, 35, 8], [2, 7, 18, 28, 18, 28, 45, 90]])


@dataclass(frozen=True)
class Names:
    """Where an architecture keeps its parts, in words of its own code."""

    blocks: str
    attention: str
    middle_norm: str
    mlp: str


LLAMA = Names("model.layers", "self_attn", "post_attention_layernorm", "mlp")
LLADA = Names("model.transformer.blocks", "attn_out", "ff_norm", "ff_out")


def first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def like(out: Any, value: Tensor) -> Any:
    return (value, *out[1:]) if isinstance(out, tuple) else value


@contextmanager
def hooked(*pairs: tuple[nn.Module, Callable[..., Any]], pre: bool = False) -> Iterator[None]:
    register = [m.register_forward_pre_hook if pre else m.register_forward_hook for m, _ in pairs]
    handles = [add(hook) for add, (_, hook) in zip(register, pairs, strict=True)]
    yield
    for handle in handles:
        handle.remove()


def check_every_operation(model: dlens.Model, plain: nn.Module, names: Names, **inputs: Any) -> None:
    """Compare each operation on `model` with hooks on `plain`, a module of equal weights, bit for bit.

    Args:
        inputs: what the architecture's forward wants beside `input_ids`.
    """
    blocks: Any = plain.get_submodule(names.blocks)
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    trace = dlens.trace(model)

    def run() -> Tensor:
        with torch.no_grad():
            return plain(input_ids=IDS, **inputs).logits

    def same(chain: dlens.Trace, expected: Tensor) -> None:
        assert torch.equal(chain.capture("logits").forward(IDS)["logits"], expected), str(chain)

    def part(layer: int, name: str) -> nn.Module:
        return blocks[layer].get_submodule(name)

    clean = run()
    same(trace, clean)
    same(trace.capture("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "embed"), clean)

    def identity(_module: Any, args: Any, out: Any) -> Any:
        return like(out, args[0])

    with hooked((blocks[0], identity), (blocks[-1], identity)):
        skipped = run()
    same(trace.skip([0, -1]), skipped)
    assert not torch.equal(skipped, clean)

    def zero(_module: Any, _args: Any, out: Any) -> Any:
        return like(out, torch.zeros_like(first(out)))

    for half, name in (("attn", names.attention), ("mlp", names.mlp)):
        with hooked((part(1, name), zero)):
            same(trace.skip([1], part=half), run())  # type: ignore[arg-type]

    original = list(blocks)
    for place, block in enumerate((original[2], original[1], original[0])):
        blocks[place] = block
    same(trace.swap(0, 2), run())
    for place, block in enumerate(original):
        blocks[place] = block

    again: list[Any] = []

    def twice(module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        if again:
            return None
        again.append(True)
        return like(out, first(module(first(out), *args[1:], **kwargs)))

    handle = blocks[1].register_forward_hook(twice, with_kwargs=True)
    same(trace.repeat(1), run())
    handle.remove()

    def steered(_module: Any, _args: Any, out: Any) -> Any:
        return like(out, first(out) + 3.0 * vector)

    for at, name in (("attn_out", names.attention), ("mlp_out", names.mlp), ("resid_post", "")):
        with hooked((part(1, name), steered)):
            same(trace.steer(vector, layers=1, scale=3.0, at=at), run())
    with hooked((blocks[1], lambda _m, args: (args[0] + 3.0 * vector, *args[1:])), pre=True):
        same(trace.steer(vector, layers=1, scale=3.0, at="resid_pre"), run())

    seen: dict[str, Tensor] = {}

    def keep(key: str, value: Callable[[Any, Any], Tensor]) -> Callable[..., None]:
        return lambda _m, args, out: seen.__setitem__(key, value(args, out).clone())

    with hooked(
        (part(1, names.middle_norm), keep("resid_mid", lambda args, _out: args[0])),
        (part(1, names.attention), keep("attn_out", lambda _args, out: first(out))),
        (part(1, names.mlp), keep("mlp_out", lambda _args, out: first(out))),
        (blocks[1], keep("resid_post", lambda _args, out: first(out))),
        (blocks[1], keep("resid_pre", lambda args, _out: args[0])),
    ):
        run()
    record = trace.capture(*seen, layers=[1]).forward(IDS)
    for point, value in seen.items():
        assert torch.equal(record[point][0], value), point

    middle = seen["resid_mid"] + vector

    def new_block(_module: Any, _args: Any, out: Any) -> Any:
        return like(out, middle + seen["new_mlp"])

    with hooked((part(1, names.middle_norm), lambda _m, _args: (middle,)), pre=True):
        with hooked((part(1, names.mlp), keep("new_mlp", lambda _args, out: first(out))), (blocks[1], new_block)):
            same(trace.steer(vector, layers=1, at="resid_mid"), run())

    def ablated(_module: Any, _args: Any, out: Any) -> Any:
        value = first(out).clone()
        value[..., 5] = 0
        return like(out, value)

    with hooked(*((block, ablated) for block in list(blocks)[:-1])):
        all_but_last = range(model.n_layers - 1)
        same(trace.ablate_outlier(channel=5), run())
        same(trace.ablate(all_but_last, 5), run())
        same(trace.hook("resid_post", lambda value, hook: _zeroed(value), layers=all_but_last), run())

    other = trace.skip([0]).capture("resid_post", "logits").forward(IDS)
    same(trace.patch(other, layers=2), other["logits"])
    same(trace.patch(other, layers=[0, 1], at="resid_post"), other["logits"])
    measured = trace.measure(dlens.Cosine(), dlens.Outliers()).forward(IDS).measures
    expected = torch.cosine_similarity(seen["resid_pre"].double(), seen["resid_post"].double(), dim=-1).mean()
    assert abs(float(measured["cosine"]["cosine"].isel(layer=1).mean()) - float(expected)) < 1e-6


def _zeroed(value: Tensor) -> Tensor:
    value[..., 5] = 0
    return value
