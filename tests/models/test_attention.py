"""Attention computed step by step against the library's own functions and PyTorch's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import GptOssConfig

import dlens
from dlens.models.attention import _TAKEN, AttentionCall, Kernels, _interface, attend
from tests.whole.architectures import CONFIGS, GQA, build
from tests.whole.operations import IDS

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
POINTS = ["rot_q", "rot_k", "attn_scores", "pattern"]


def unchanged(point: str, value: Tensor) -> Tensor:
    return value


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def call(dtype: torch.dtype = torch.float32, **changes: Any) -> AttentionCall:
    """Four heads on two of keys, three queries at the end of five keys; the last two rows of the mask are padded."""
    mask = torch.ones(3, 5, dtype=torch.bool).tril(2).expand(2, 1, 3, 5).clone()
    mask[1, ..., :2] = False
    facts: dict[str, Any] = {
        "q": normal(2, 4, 3, 8, seed=1, dtype=dtype),
        "k": normal(2, 2, 5, 8, seed=2, dtype=dtype),
        "v": normal(2, 2, 5, 8, seed=3, dtype=dtype),
        "mask": torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min),
        "causal": False,
        "scale": 0.3,
    }
    return AttentionCall(**(facts | changes))


def own(family: str, asked: AttentionCall, **told: Any) -> tuple[Tensor, Tensor]:
    """What the library's own eager function of a family gives."""
    eager = import_module(f"transformers.models.{family}.modeling_{family}").eager_attention_forward
    module: Any = SimpleNamespace(num_key_value_groups=2, training=False, sinks=asked.sinks, head_dim=8)
    mixed, weights = eager(module, asked.q, asked.k, asked.v, asked.mask, scaling=asked.scale, dropout=0.0, **told)
    return mixed.transpose(1, 2), weights


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gpt_oss"])
def test_it_is_the_librarys_eager_function_to_the_bit(family: str, dtype: torch.dtype) -> None:
    told: dict[str, Any] = {"gemma2": {"softcap": 0.5}, "gpt_oss": {}}.get(family, {})
    sinks = {"sinks": normal(4, seed=5, dtype=dtype)} if family == "gpt_oss" else {}
    asked = call(dtype, **told, **sinks)
    mixed, pattern = attend(asked, 2, unchanged)
    expected, weights = own(family, asked, **told)
    assert torch.equal(pattern, weights) and torch.equal(mixed, expected)
    assert pattern.dtype == mixed.dtype == dtype


def test_sinks_take_a_share_and_caps_bound_scores() -> None:
    plain, sunk = (attend(call(sinks=sinks), 2, unchanged)[1].sum(-1) for sinks in (None, torch.zeros(4)))
    assert torch.allclose(plain, torch.ones(2, 4, 3)) and (sunk < 0.95).all()
    asked = call(softcap=0.5, mask=None)
    assert asked.scores(100 * asked.q, asked.k).abs().max() <= 0.5


KERNELS: dict[str, dict[str, Any]] = {
    "bool mask": {"attn_mask": torch.ones(3, 5, dtype=torch.bool).tril(2)},
    "float mask": {"attn_mask": normal(2, 1, 3, 5, seed=7)},
    "causal from the first key": {"is_causal": True},
    "scale": {"scale": 0.9},
    "nothing hidden": {},
}


@pytest.mark.parametrize("case", KERNELS)
def test_it_is_pytorchs_attention_up_to_rounding(case: str) -> None:
    told = KERNELS[case]
    q, k, v = normal(2, 4, 3, 8), normal(2, 4, 5, 8, seed=1), normal(2, 4, 5, 6, seed=2)
    asked = AttentionCall(q, k, v, told.get("attn_mask"), told.get("is_causal", False), told.get("scale", 8**-0.5))
    assert torch.allclose(attend(asked, 4, unchanged)[0], scaled_dot_product_attention(q, k, v, **told), atol=1e-6)


@pytest.mark.parametrize("repeated", [False, True])
def test_keys_are_visited_once_for_each_head_of_theirs(repeated: bool) -> None:
    seen: dict[str, Tensor] = {}
    asked = call()
    if repeated:  # as code does that repeats them itself
        k, v = (repeat(x, "b kv p d -> b (kv group) p d", group=2) for x in (asked.k, asked.v))
        mixed = attend(call(k=k, v=v), 2, lambda point, value: seen.setdefault(point, value))[0]
    else:
        mixed = attend(asked, 2, lambda point, value: seen.setdefault(point, value))[0]
    assert list(seen) == POINTS
    assert torch.equal(seen["rot_q"], rearrange(asked.q, "b head p d -> b p head d"))
    # The queries are the newest three positions: earlier keys are in a cache.
    assert torch.equal(seen["rot_k"], rearrange(asked.k[:, :, 2:], "b head p d -> b p head d"))
    assert torch.equal(mixed, attend(asked, 2, unchanged)[0])


def writing(point: str, change: Callable[[Tensor], Tensor]) -> Callable[[str, Tensor], Tensor]:
    return lambda at, value: change(value) if at == point else value


def test_written_values_are_those_that_are_used() -> None:
    asked = call()
    doubled = attend(asked, 2, writing("rot_q", lambda q: 2 * q))
    assert torch.equal(doubled[0], attend(call(q=2 * asked.q), 2, unchanged)[0])
    newer = asked.k.clone()
    newer[:, 1, 2:] = 0
    one = torch.tensor([1.0, 0.0])[:, None]
    keys = attend(asked, 2, writing("rot_k", lambda k: k * one))
    assert torch.equal(keys[0], attend(call(k=newer), 2, unchanged)[0])
    scores, bias = normal(2, 4, 3, 5, seed=9), torch.tensor([-2.0, 0, 0, 1, 0])
    mixed, pattern = attend(asked, 2, writing("attn_scores", lambda old: scores))
    assert torch.equal(pattern, scores.softmax(-1)) and torch.equal(mixed, asked.mixed(scores.softmax(-1)))
    moved = attend(asked, 2, writing("attn_scores", lambda old: old + bias))[1]
    assert torch.equal(moved, (asked.scores(asked.q, asked.k) + bias).softmax(-1))
    flat = torch.full((2, 4, 3, 5), 0.2)
    mixed, returned = attend(asked, 2, writing("pattern", lambda old: flat))
    assert returned is flat
    assert torch.allclose(mixed, repeat(asked.v.mean(2), "b kv d -> b (kv two) q d", two=2, q=3), atol=1e-6)


@pytest.mark.parametrize("sinks", [None, torch.zeros(4)])
def test_queries_left_without_a_key_take_nothing(sinks: Tensor | None) -> None:
    asked = call(sinks=sinks)
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    hidden[1] = True
    hidden[2, 4] = True
    mixed, pattern = attend(asked, 2, writing("attn_scores", lambda old: old.masked_fill(hidden, -torch.inf)))
    assert pattern[:, :, 1].abs().max() == 0 and mixed[:, :, 1].abs().max() == 0
    plain = attend(asked, 2, unchanged)[1]
    assert torch.equal(pattern[:, :, 0], plain[:, :, 0])
    if sinks is None:
        rest = plain[:, :, 2, :4] / plain[:, :, 2, :4].sum(-1, keepdim=True)
        assert torch.allclose(pattern[:, :, 2, :4], rest, atol=1e-6) and pattern[:, :, 2, 4].abs().max() == 0


def test_queries_that_the_mask_alone_leaves_without_a_key_are_as_in_eager() -> None:
    asked = call(mask=torch.full((2, 1, 3, 5), torch.finfo(torch.float32).min))
    pattern = attend(asked, 2, writing("attn_scores", lambda old: old.clone()))[1]
    assert torch.equal(pattern, own("llama", asked)[1])


TOLD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"position_bias": torch.ones(1), "alibi": 3}, "got arguments alibi, position_bias"),
    "dropout": ({"dropout": 0.1}, "got dropout"),
    "window": ({"sliding_window": 4}, "got arguments sliding_window"),
    "mask": ({"attention_mask": torch.ones(2, 5)}, "got a 2-d mask"),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_would_change_the_attention_is_refused_by_name(case: str) -> None:
    told, words = TOLD[case]
    asked = call()
    with pytest.raises(ValueError, match=f"attention of Linear {words}; expected what can be computed step by step"):
        _interface(nn.Linear(1, 1), asked.q, asked.k, asked.v, **({"attention_mask": None} | told))


def test_a_window_that_no_mask_holds_is_let_through_where_it_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, part = call(mask=None), nn.Linear(1, 1)
    monkeypatch.setitem(_TAKEN, part, lambda found: attend(found, 2, unchanged))
    plain = _interface(part, asked.q, asked.k, asked.v, None)[1]
    assert torch.equal(_interface(part, asked.q, asked.k, asked.v, None, sliding_window=5)[1], plain)
    masked = _interface(part, asked.q, asked.k, asked.v, call().mask, sliding_window=4, scaling=0.3)[1]
    assert torch.equal(masked, attend(call(), 2, unchanged)[1])


def configs(module: nn.Module) -> list[Any]:
    return [vars(part).get("config") for part in module.modules()]


def logits(module: Any, **told: Any) -> Tensor:
    with torch.no_grad():
        return module(IDS, use_cache=False, **told).logits


@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_taken_over_give_what_eager_gives_whatever_they_were_loaded_with(
    kernel: str, dtype: torch.dtype
) -> None:
    module, eager = (build(copy.deepcopy(CONFIGS["qwen3"][0])).to(dtype) for _ in range(2))
    module.set_attn_implementation(kernel)
    eager.set_attn_implementation("eager")
    model, before = dlens.load(module, verify=False), configs(module)
    visited: list[tuple[int, str]] = []
    kernels = Kernels(model, lambda block, point, value: visited.append((block, point)) or value)
    with kernels.open():
        kernels.choose(range(4))
        assert torch.equal(logits(module), logits(eager))
        assert visited == [(block, point) for block in range(4) for point in POINTS]
        visited.clear()
        kernels.choose([2])
        logits(module)
        assert visited == [(2, point) for point in POINTS]
        taken = [now is not then for now, then in zip(configs(module), before, strict=True)]
        blocks = [name.startswith("model.layers.2.") for name, _ in module.named_modules()]
        assert any(taken) and not any(now and not inside for now, inside in zip(taken, blocks, strict=True))
    assert all(now is then for now, then in zip(configs(module), before, strict=True))
    assert module.config._attn_implementation == kernel


def test_sinks_of_a_model_are_in_its_patterns() -> None:
    config = GptOssConfig(
        **GQA | SHALLOW, num_local_experts=4, num_experts_per_tok=2, sliding_window=4, rope_parameters=ROPE
    )
    module = build(config)
    with torch.no_grad():
        expected = module(IDS, use_cache=False, output_attentions=True)
    record = dlens.trace(module).capture("pattern", "logits").forward(IDS)
    assert torch.equal(record["pattern"], torch.stack(expected.attentions))
    assert torch.equal(record["logits"], expected.logits)
    assert (record["pattern"].sum(-1) < 0.99).all()


SHALLOW = {"num_hidden_layers": 2}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def test_the_model_is_as_it_was_after_an_error() -> None:
    module = build(copy.deepcopy(CONFIGS["qwen2"][0]))
    model, before, plain = dlens.load(module, verify=False), configs(module), logits(module)

    def broken(block: int, point: str, value: Tensor) -> Tensor:
        raise RuntimeError("broken")

    kernels = Kernels(model, broken)
    with pytest.raises(RuntimeError, match="broken"), kernels.open():
        kernels.choose([1, 3])
        logits(module)
    assert all(now is then for now, then in zip(configs(module), before, strict=True))
    assert not any(block._forward_pre_hooks for block in model.blocks)
    assert torch.equal(logits(module), plain)


def direct(chosen: list[int], run: Callable[[Kernels, Any], Any]) -> list[str]:
    """The points visited while something runs beside a model whose first block was entered."""
    module, seen = build(copy.deepcopy(CONFIGS["qwen2"][0])), []
    kernels = Kernels(dlens.load(module, verify=False), lambda block, point, value: seen.append(point) or value)
    with kernels.open():
        kernels.choose(chosen)
        kernels._now = 1
        run(kernels, module)
    return seen


def test_direct_calls_are_met_in_chosen_blocks_alone() -> None:
    q = normal(1, 2, 3, 8)

    def plain(kernels: Kernels, module: Any) -> None:
        assert torch.allclose(scaled_dot_product_attention(q, q, q), attend(asked, 2, unchanged)[0], atol=1e-6)

    asked = AttentionCall(q, q, q, None, False, 8**-0.5)
    assert direct([1], plain) == POINTS and direct([0, 2], plain) == []


def test_direct_calls_that_are_left_alone_may_be_of_any_kind() -> None:
    empty = torch.zeros(1, 2, 3, 0)  # what a half that is skipped leaves of the heads
    assert direct([2], lambda kernels, module: scaled_dot_product_attention(empty, empty, empty)) == []
    q = normal(1, 2, 3, 8)
    assert direct([2], lambda kernels, module: scaled_dot_product_attention(q, q, q, dropout_p=0.5)) == []
    with pytest.raises(ValueError, match="got dropout_p=0.5; expected none"):
        direct([1], lambda kernels, module: scaled_dot_product_attention(q, q, q, dropout_p=0.5))
