"""Which matrices are treated, and which are named instead."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2MoeConfig

import dlens
from dlens.compression.matrices import Matrix, head_and_embed, matrices_of
from tests.whole.architectures import CONFIGS, SIZE, build

LLAMA = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
OWN = {
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "pythia": ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_every_linear_matrix_of_a_block_is_found_and_no_other_weight_is_left(name: str) -> None:
    model = dlens.load(build(CONFIGS[name][0]), verify=False)
    found, left_out = matrices_of(model)
    assert left_out == {}
    assert [matrix.name for matrix in found if matrix.layer == 2] == OWN.get(name, LLAMA)
    taken = {matrix.part.weight for matrix in found}
    assert all(value.ndim < 2 for value in model.blocks.parameters() if value not in taken)
    for matrix in found:
        probe = torch.randn(3, matrix.weight.shape[1])
        expected = (
            probe @ matrix.weight.T + matrix.part.bias if matrix.part.bias is not None else probe @ matrix.weight.T
        )
        assert torch.allclose(matrix.part(probe), expected, atol=1e-5)


def test_experts_in_one_tensor_are_named() -> None:
    config = Qwen2MoeConfig(
        **SIZE,
        num_key_value_heads=2,
        num_experts=3,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    )
    model = dlens.load(AutoModelForCausalLM.from_config(config).eval(), verify=False)
    _, left_out = matrices_of(model)
    experts = {name: why for name, why in left_out.items() if "experts" in name and name.startswith("layer 1 ")}
    assert len(experts) == 2 and all(why.startswith("no linear module: (3, ") for why in experts.values())


def test_what_is_packed_or_shared_is_named() -> None:
    module = build(CONFIGS["llama"][0])
    model = dlens.load(module, verify=False)
    module.model.layers[2].mlp.up_proj.weight = module.model.layers[1].mlp.up_proj.weight
    packed = module.model.layers[0].mlp.up_proj
    packed.weight = nn.Parameter(packed.weight.mul(9).to(torch.int8), requires_grad=False)
    short = module.model.layers[1].mlp.down_proj
    short.weight = nn.Parameter(short.weight.data.to(torch.float8_e4m3fn))
    found, left_out = matrices_of(model)
    assert left_out == {
        "layer 0 mlp.up_proj": "quantised or packed in a Linear",
        "layer 1 mlp.down_proj": "quantised or packed in float8_e4m3fn",
        "layer 2 mlp.up_proj": "the same weights as layer 1 mlp.up_proj",
    }
    assert len(found) == 4 * 7 - 3


def test_weights_are_written_whichever_way_they_lie() -> None:
    for part in (build(CONFIGS["gpt2"][0]).transformer.h[0].mlp.c_fc, nn.Linear(32, 128)):
        matrix = Matrix(0, "x", part)
        new = torch.randn(128, 32)
        matrix.write(new)
        assert torch.allclose(part(torch.eye(32)) - part.bias, new.T, atol=1e-6)


def test_head_and_embedding_are_found_where_they_are_two(ar: dlens.Model) -> None:
    module = build(CONFIGS["llama"][0])
    model = dlens.load(module, verify=False)
    head, embed = head_and_embed(model, True, True)
    assert [matrix.part for matrix in head + embed] == [module.lm_head, module.model.embed_tokens]
    assert head_and_embed(model, False, False) == ([], [])
    with pytest.raises(ValueError, match=r"head=True on trio/ar, whose unembedding is the embedding; expected a"):
        head_and_embed(ar, True, False)
    with pytest.raises(ValueError, match=r"embed=True on trio/ar, whose embedding is the unembedding too; expected"):
        head_and_embed(ar, False, True)
