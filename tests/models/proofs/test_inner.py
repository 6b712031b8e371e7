"""What a model turned out not to have within its halves is absent, with the reason."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import eager_attention_forward

import dlens
from dlens.axes import POINTS
from dlens.models.family import Layout, Site
from tests.models.conftest import build

KERNEL = [name for name, point in POINTS.items() if point.kernel]
SITES = {
    "attn_out": Site("o"),
    "q": Site("q", heads=True),
    "k": Site("k", heads=True),
    "v": Site("v", heads=True),
    "z": Site("o", "input", heads=True),
}


class Small(nn.Module):
    """A language model of one block of attention, written by hand."""

    def __init__(self, block: nn.Module, **config: Any) -> None:
        super().__init__()
        self.config = PretrainedConfig(vocab_size=100, hidden_size=8, pad_token_id=0, **config)
        self.embed, self.norm, self.head = nn.Embedding(100, 8), nn.LayerNorm(8), nn.Linear(8, 100)
        self.blocks = nn.ModuleList([block])

    def forward(self, input_ids: Tensor) -> Any:
        return SimpleNamespace(logits=self.head(self.norm(self.blocks[0](self.embed(input_ids)))))


class Direct(nn.Module):
    """Attention by PyTorch's function."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8, bias=False) for _ in range(4))

    def forward(self, hidden_states: Tensor) -> Tensor:
        q, k, v = (rearrange(part(hidden_states), "b p (h d) -> b h p d", h=2) for part in (self.q, self.k, self.v))
        mixed = rearrange(self.mix(q, k, v), "b h p d -> b p (h d)")
        return hidden_states + self.o(self.after(mixed, hidden_states))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, is_causal=True)

    def after(self, mixed: Tensor, hidden_states: Tensor) -> Tensor:
        return mixed


class ByItself(Direct):
    """Attention that no function is called for."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        hidden = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
        return (q @ k.mT).masked_fill(hidden, -torch.inf).softmax(-1) @ v


class Twice(Direct):
    """The difference of two attentions."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().mix(q, k, v) - super().mix(k, q, v)


class Gated(Direct):
    """Attention behind a gate that reads the stream."""

    def after(self, mixed: Tensor, hidden_states: Tensor) -> Tensor:
        return mixed * hidden_states.sigmoid()


class Mean(nn.Module):
    """A block without attention, which adds the mean of what came before."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states + hidden_states.cumsum(1) / torch.arange(1, hidden_states.shape[1] + 1)[:, None]


def just_ids(ids: Tensor, mask: Tensor | None) -> dict[str, Any]:
    return {"input_ids": ids}


def absent(block: nn.Module, **config: Any) -> dict[str, str]:
    torch.manual_seed(0)
    module = Small(block, **(config or {"num_attention_heads": 2}))
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    layout = Layout("blocks", "embed", "norm", "head", sites=SITES if len(list(block.children())) else {})
    family = dlens.Family(name="own", objective="autoregressive", shift=1, layout=layout, inputs=just_ids)
    return dict(dlens.load(module, family=family).layout.absent)


def test_a_block_that_calls_pytorchs_function_has_all_points() -> None:
    assert absent(Direct()) == {}


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            ByItself,
            "its block 0 calls no attention functions, .* it has no attention, or its code computes it by itself",
        ),
        (Mean, "its block 0 calls no attention functions, .* it has no attention, or its code"),
        (Twice, "its block 0 calls 2 attention functions, .* where one is expected"),
    ],
)
def test_a_block_without_a_function_of_its_own_has_no_pattern(block: Any, words: str) -> None:
    found = absent(block())
    assert list(found) == KERNEL
    assert all(re.search(words, reason) for reason in found.values())


@pytest.mark.parametrize(("block", "lacking"), [(Mean, {*KERNEL}), (Direct, {*KERNEL, "q", "k", "v", "z", "result"})])
def test_a_model_whose_config_says_nothing_of_heads_has_no_points_with_any(block: Any, lacking: set[str]) -> None:
    found = absent(block(), bos_token_id=1)
    assert set(found) == lacking
    for reason in found.values():
        assert reason.startswith("its config says nothing of heads (num_attention_heads)")


def test_attention_that_is_made_of_more_than_its_projections_has_no_queries_keys_and_values() -> None:
    found = absent(Gated())
    assert set(found) == {"q", "k", "v"}
    assert found["q"] == "its attention is not made of what these projections give alone"


def test_a_module_that_runs_twice_holds_no_point() -> None:
    class Again(Direct):
        def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.q(rearrange(q, "b h p d -> b p (h d)"))
            return super().mix(q, k, v)

    assert absent(Again()) == {"q": "its 'q' runs 2 times in a forward"}


def doubled(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float, **told: Any) -> Any:
    return eager_attention_forward(module, q, k, v, mask, 2 * scaling, **told)


def test_attention_that_gives_other_logits_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AttentionInterface._global_mapping, "doubled", doubled)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "doubled", ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    module = build("qwen2")
    module.set_attn_implementation("doubled")
    layout = dlens.load(module).layout
    assert dict(layout.absent) == dict.fromkeys(KERNEL, "its attention computed step by step gives other logits")
    assert "z" in layout.sites


def test_an_argument_that_nobody_knows_is_named() -> None:
    family = dlens.load(build("qwen2"), verify=False).family
    told = replace(family, inputs=lambda ids, mask: {**family.inputs(ids, mask), "position_bias": torch.ones(1)})
    reason = dlens.load(build("qwen2"), family=told).layout.absent["pattern"]
    assert reason.startswith("its attention cannot be computed step by step (the attention of Qwen2Attention got arg")
    assert "arguments position_bias; expected" in reason
