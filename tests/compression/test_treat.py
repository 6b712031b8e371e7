"""Block by block, against the same written out with whole forwards."""

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaMLP

import dlens
from dlens.compression.methods.gptq import gptq
from dlens.compression.methods.method import Ask, Inputs
from dlens.compression.methods.sparsegpt import sparsegpt
from tests.compression.by_hand import compressed_by_hand
from tests.compression.test_matrices import LLAMA
from tests.whole.architectures import CONFIGS, build

IDS = torch.randint(3, 90, (4, 12), generator=torch.Generator().manual_seed(0))
ORDERED = [LLAMA[:3], LLAMA[3:4], LLAMA[4:6], LLAMA[6:]]


def wanda(part: nn.Module, seen: Tensor) -> Tensor:
    scores = part.weight.abs() * (seen.reshape(-1, seen.shape[-1]).T.norm(dim=1) ** 2 / len(seen)).sqrt()
    order = scores.argsort(dim=1, stable=True)[:, : seen.shape[-1] // 2]
    return part.weight.scatter(1, order, 0)


def hessian_of(seen: Tensor) -> Inputs:
    rows = seen.reshape(-1, seen.shape[-1])
    square = rows.T @ rows / len(seen)
    return Inputs(square.diagonal(), square)


class Gated(LlamaMLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gemma3", "qwen3"])
def test_wanda_takes_a_block_at_once(name: str) -> None:
    module = build(CONFIGS[name][0])
    small = dlens.compress(dlens.load(module, verify=False), "wanda", sparsity=0.5, texts=IDS.tolist(), length=12)
    compressed_by_hand(module, "model.layers", [LLAMA], IDS, wanda)
    for (key, new), old in zip(small.module.state_dict().items(), module.state_dict().values(), strict=True):
        assert torch.equal(new, old), key


@pytest.mark.parametrize("method", ["gptq", "sparsegpt"])
def test_methods_that_make_up_for_errors_take_the_matrices_of_a_block_in_order(method: str) -> None:
    module = build(CONFIGS["llama"][0])
    settings = {"gptq": {"bits": 3, "group": 16}, "sparsegpt": {"sparsity": 0.5}}[method]
    small = dlens.compress(dlens.load(module, verify=False), method, **settings, texts=IDS.tolist(), length=12)
    change = {"gptq": gptq, "sparsegpt": sparsegpt}[method]

    def changed(part: nn.Module, seen: Tensor) -> Tensor:
        return change(part.weight, hessian_of(seen), Ask(**settings))

    compressed_by_hand(module, "model.layers", ORDERED, IDS, changed)
    for (key, new), old in zip(small.module.state_dict().items(), module.state_dict().values(), strict=True):
        assert torch.allclose(new, old, rtol=0, atol=1e-5), key


def test_the_head_is_changed_on_what_it_gets() -> None:
    module = build(CONFIGS["llama"][0])
    small = dlens.compress(dlens.load(module, verify=False), "wanda", sparsity=0.5, texts=IDS.tolist(), head=True)
    row = small.compression.treated[-1]
    assert (row.layer, row.matrix, row.zeros) == (None, "lm_head", 0.5)
    rounded = dlens.compress(dlens.load(module, verify=False), "rtn", bits=2, head=True, embed=True)
    assert [(row.matrix, row.levels) for row in rounded.compression.treated[-2:]] == [
        ("lm_head", 4),
        ("model.embed_tokens", 4),
    ]


def test_a_matrix_that_never_runs_is_named() -> None:
    module = build(CONFIGS["llama"][0])
    module.model.layers[1].mlp.__class__ = Gated
    model = dlens.load(module, verify=False)
    small = dlens.compress(model, "gptq", bits=4, texts=IDS.tolist())
    assert small.compression.left_out == {"layer 1 mlp.up_proj": "it never ran on the calibration text"}
    assert len(small.compression.treated) == 27 and "1 left out (layer 1 mlp.up_proj)" in repr(small.compression)
    with pytest.raises(ValueError, match=r"layer 1 mlp\.up_proj never runs on the calibration text"):
        dlens.compress(model, "wanda", sparsity=0.5, allocation="owl", texts=IDS.tolist())


def test_what_changed_is_measured() -> None:
    module = build(CONFIGS["llama"][0])
    model = dlens.load(module, verify=False)
    small = dlens.compress(model, "gptq", bits=3, texts=IDS.tolist(), length=12)
    row = small.compression.treated[0]
    seen: list[Tensor] = []
    handle = module.model.layers[0].self_attn.q_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        module(input_ids=IDS, use_cache=False)
    handle.remove()
    old, new = (part.model.layers[0].self_attn.q_proj.weight.detach() for part in (module, small.module))
    assert row.change == pytest.approx(float((new - old).norm() / old.norm()))
    assert row.output_change == pytest.approx(
        float((seen[0] @ (new - old).T).norm() / (seen[0] @ old.T).norm()), rel=1e-4
    )
    assert row.levels == max(len(values.unique()) for values in new) <= 8
