"""Every operation against hand-written PyTorch hooks, for any architecture whose module names are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, final

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
    last_of_attention: str
    last_of_mlp: str


LAST = ("self_attn.o_proj", "mlp.down_proj")
LLAMA = Names("model.layers", "self_attn", "post_attention_layernorm", "mlp", *LAST)
LLADA = Names("model.transformer.blocks", "attn_out", "ff_norm", "ff_out", "attn_out", "ff_out")


def first(out: Any) -> Tensor:
    """The stream in what a module returned."""
    return out[0] if isinstance(out, tuple) else out


def like(out: Any, value: Tensor) -> Any:
    """A value in the form in which a module returned another."""
    return (value, *out[1:]) if isinstance(out, tuple) else value


@contextmanager
def hooked(*pairs: tuple[nn.Module, Callable[..., Any]], pre: bool = False) -> Iterator[None]:
    """Hooks on modules for as long as the body runs."""
    register = [m.register_forward_pre_hook if pre else m.register_forward_hook for m, _ in pairs]
    handles = [add(hook) for add, (_, hook) in zip(register, pairs, strict=True)]
    yield
    for handle in handles:
        handle.remove()


@final
class Pair:
    """A model under dlens and a plain module of equal weights, whose hooks say what dlens should compute.

    Args:
        model: what is traced.
        plain: a module that dlens never saw.
        names: where it keeps its parts.
        inputs: what its forward wants beside `input_ids`.
    """

    def __init__(self, model: dlens.Model, plain: nn.Module, names: Names, **inputs: Any) -> None:
        self.model, self.plain, self.names, self.inputs = model, plain, names, inputs
        self.trace = dlens.trace(model)
        self.blocks: Any = plain.get_submodule(names.blocks)
        self.vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))

    def run(self) -> Tensor:
        """The logits of the plain module, under whatever hooks stand on it."""
        with torch.no_grad():
            return self.plain(input_ids=IDS, **self.inputs).logits

    def same(self, chain: dlens.Trace, expected: Tensor) -> None:
        """A chain computes these logits, bit for bit."""
        assert torch.equal(chain.capture("logits").forward(IDS)["logits"], expected), str(chain)

    def part(self, layer: int, name: str) -> Any:
        """A part of a block; the block itself where the name is empty."""
        return self.blocks[layer].get_submodule(name)

    def values(self) -> dict[str, Tensor]:
        """What block 1 has at each of its points in a forward without operations."""
        seen: dict[str, Tensor] = {}
        names = self.names
        with hooked(
            (self.part(1, names.middle_norm), keep(seen, "resid_mid", lambda args, _out: args[0])),
            (self.part(1, names.attention), keep(seen, "attn_out", lambda _args, out: first(out))),
            (self.part(1, names.mlp), keep(seen, "mlp_out", lambda _args, out: first(out))),
            (self.blocks[1], keep(seen, "resid_post", lambda _args, out: first(out))),
            (self.blocks[1], keep(seen, "resid_pre", lambda args, _out: args[0])),
        ):
            self.run()
        return seen


def keep(seen: dict[str, Tensor], key: str, value: Callable[[Any, Any], Tensor]) -> Callable[..., None]:
    """A hook that puts a copy of a value aside."""
    return lambda _module, args, out: seen.__setitem__(key, value(args, out).clone())


def _identity(_module: Any, args: Any, out: Any) -> Any:
    return like(out, args[0])


def _zero(_module: Any, _args: Any, out: Any) -> Any:
    return like(out, torch.zeros_like(first(out)))


def reading(pair: Pair) -> None:
    clean = pair.run()
    pair.same(pair.trace, clean)
    pair.same(pair.trace.capture("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post", "embed"), clean)


def captures(pair: Pair) -> None:
    seen = pair.values()
    record = pair.trace.capture(*seen, layers=[1]).forward(IDS)
    for point, value in seen.items():
        assert torch.equal(record[point][0], value), point


def within_halves(pair: Pair) -> None:
    seen: dict[str, Tensor] = {}
    attention, mlp = pair.part(1, pair.names.last_of_attention), pair.part(1, pair.names.last_of_mlp)
    with hooked((attention, _of_args(seen, "z")), (mlp, _of_args(seen, "mlp_post")), pre=True):
        clean = pair.run()
    record = pair.trace.capture("z", "mlp_post", layers=[1]).capture("logits").forward(IDS)
    assert torch.equal(record["z"][0].flatten(-2), seen["z"])
    assert record["z"].shape[-2] == pair.model.n_heads and torch.equal(record["mlp_post"][0], seen["mlp_post"])
    assert torch.equal(record["logits"], clean)


def without_a_head_and_a_neuron(pair: Pair) -> None:
    def head(_module: Any, args: Any) -> Any:
        z = args[0].unflatten(-1, (pair.model.n_heads, -1)).clone()
        z[:, :, 1] = 0
        return z.flatten(-2), *args[1:]

    with hooked((pair.part(1, pair.names.last_of_attention), head), pre=True):
        pair.same(pair.trace.hook("blocks.1.attn.hook_z", _without(2, 1)), pair.run())
    with hooked(
        (pair.part(1, pair.names.last_of_mlp), lambda _m, args: (_zeroed(args[0].clone()), *args[1:])), pre=True
    ):
        pair.same(pair.trace.hook("blocks.1.mlp.hook_post", _without(-1, 5)), pair.run())


def _of_args(seen: dict[str, Tensor], key: str) -> Callable[..., None]:
    return lambda _module, args: seen.__setitem__(key, args[0].clone())


def _without(axis: int, index: int) -> Callable[[Tensor, Any], Tensor]:
    """A hook that sets one entry of an axis to zero, in the value of any point."""

    def fn(value: Tensor, hook: Any) -> Tensor:
        value.select(axis, index).zero_()
        return value

    return fn


def skip(pair: Pair) -> None:
    with hooked((pair.blocks[0], _identity), (pair.blocks[-1], _identity)):
        skipped = pair.run()
    pair.same(pair.trace.skip([0, -1]), skipped)
    assert not torch.equal(skipped, pair.run())


def skip_half(pair: Pair) -> None:
    halves: tuple[tuple[Literal["attn", "mlp"], str], ...] = (("attn", pair.names.attention), ("mlp", pair.names.mlp))
    for half, name in halves:
        with hooked((pair.part(1, name), _zero)):
            pair.same(pair.trace.skip([1], part=half), pair.run())


def swap(pair: Pair) -> None:
    original = list(pair.blocks)
    for place, block in enumerate((original[2], original[1], original[0])):
        pair.blocks[place] = block
    try:
        pair.same(pair.trace.swap(0, 2), pair.run())
    finally:
        for place, block in enumerate(original):
            pair.blocks[place] = block


def repeat(pair: Pair) -> None:
    again: list[Any] = []

    def twice(module: Any, args: Any, kwargs: Any, out: Any) -> Any:
        if again:
            return None
        again.append(True)
        return like(out, first(module(first(out), *args[1:], **kwargs)))

    handle = pair.blocks[1].register_forward_hook(twice, with_kwargs=True)
    pair.same(pair.trace.repeat(1), pair.run())
    handle.remove()


def steer(pair: Pair) -> None:
    def steered(_module: Any, _args: Any, out: Any) -> Any:
        return like(out, first(out) + 3.0 * pair.vector)

    for at, name in (("attn_out", pair.names.attention), ("mlp_out", pair.names.mlp), ("resid_post", "")):
        with hooked((pair.part(1, name), steered)):
            pair.same(pair.trace.steer(pair.vector, layers=1, scale=3.0, at=at), pair.run())
    with hooked((pair.blocks[1], lambda _m, args: (args[0] + 3.0 * pair.vector, *args[1:])), pre=True):
        pair.same(pair.trace.steer(pair.vector, layers=1, scale=3.0, at="resid_pre"), pair.run())


def steer_the_middle(pair: Pair) -> None:
    middle, new = pair.values()["resid_mid"] + pair.vector, dict[str, Tensor]()

    def new_block(_module: Any, _args: Any, out: Any) -> Any:
        return like(out, middle + new["mlp"])

    with hooked((pair.part(1, pair.names.middle_norm), lambda _m, _args: (middle,)), pre=True):
        with hooked(
            (pair.part(1, pair.names.mlp), keep(new, "mlp", lambda _args, out: first(out))),
            (pair.blocks[1], new_block),
        ):
            pair.same(pair.trace.steer(pair.vector, layers=1, at="resid_mid"), pair.run())


def splice(pair: Pair) -> None:
    w = torch.randn(pair.model.d_model, 20, generator=torch.Generator().manual_seed(1))
    sae = dlens.SparseAutoencoder(w, w.T.contiguous(), torch.zeros(20), torch.zeros(len(w)), k=3)

    def reconstructed(_module: Any, _args: Any, out: Any) -> Any:
        return like(out, sae.reconstruct(first(out)))

    with hooked((pair.blocks[1], reconstructed)):
        pair.same(pair.trace.splice(sae, 1, at="resid_post", error=False), pair.run())


def ablate(pair: Pair) -> None:
    def ablated(_module: Any, _args: Any, out: Any) -> Any:
        return like(out, _zeroed(first(out).clone()))

    all_but_last = range(pair.model.n_layers - 1)
    with hooked(*((block, ablated) for block in list(pair.blocks)[:-1])):
        expected = pair.run()
    pair.same(pair.trace.ablate_outlier(channel=5), expected)
    pair.same(pair.trace.ablate(all_but_last, 5), expected)
    pair.same(pair.trace.hook("resid_post", lambda value, hook: _zeroed(value), layers=all_but_last), expected)


def _zeroed(value: Tensor) -> Tensor:
    value[..., 5] = 0
    return value


def patch(pair: Pair) -> None:
    other = pair.trace.skip([0]).capture("resid_post", "logits").forward(IDS)
    pair.same(pair.trace.patch(other, layers=2), other["logits"])
    pair.same(pair.trace.patch(other, layers=[0, 1], at="resid_post"), other["logits"])


def measure(pair: Pair) -> None:
    seen = pair.values()
    measured = pair.trace.measure(dlens.Cosine(), dlens.Outliers()).forward(IDS).measures
    expected = torch.cosine_similarity(seen["resid_pre"].double(), seen["resid_post"].double(), dim=-1).mean()
    assert abs(float(measured["cosine"]["cosine"].isel(layer=1).mean()) - float(expected)) < 1e-6


CHECKS: dict[str, Callable[[Pair], None]] = {
    "reading": reading,
    "captures": captures,
    "within halves": within_halves,
    "without a head and a neuron": without_a_head_and_a_neuron,
    "skip": skip,
    "skip of a half": skip_half,
    "swap": swap,
    "repeat": repeat,
    "steer": steer,
    "steer the middle": steer_the_middle,
    "splice": splice,
    "ablate": ablate,
    "patch": patch,
    "measure": measure,
}
