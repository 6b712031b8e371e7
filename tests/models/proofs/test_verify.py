"""Each check of a loaded model fails where it should, and leaves no mark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

import dlens
from dlens.models.families.decoder import MASKED, MASKED_SHIFTED, llama_like
from dlens.models.family import Family, Layout, Site
from dlens.models.proofs.verify import VerificationError, check_blocks, check_finite
from tests.models.conftest import SIZE, build
from tests.standins import save_llada


def ar_with(layout: Layout) -> Family:
    return Family(name="ar", objective="autoregressive", shift=1, layout=layout)


def test_every_native_layout_passes(native: Any) -> None:
    model = dlens.load(native)
    assert model.honours_padding and model.family.name == "autoregressive"


def test_verification_leaves_no_mark() -> None:
    module = build("qwen2").train()
    module.model.layers[1].eval()
    flags = [part.training for part in module.modules()]
    state, random = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    dlens.load(module)
    assert [part.training for part in module.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    for part in module.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks and "forward" not in vars(part)
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_module_without_head() -> None:
    with pytest.raises(VerificationError, match="Qwen2Model gives no logits of .*; expected .*; load the class"):
        dlens.load(transformers.Qwen2Model(build("qwen2").config))


def test_a_block_without_the_named_part() -> None:
    layout = replace(llama_like(), sites={"mlp_out": Site("feed_forward")})
    with pytest.raises(VerificationError, match=r"block 0 \(Qwen2DecoderLayer\) has no 'feed_forward'; expected"):
        dlens.load(build("qwen2"), family=ar_with(layout))


def test_another_number_of_blocks_than_the_config_says() -> None:
    module = build("qwen2")
    module.model.layers = nn.ModuleList(list(module.model.layers)[:3])
    with pytest.raises(VerificationError, match="has 3 blocks .*; expected 4, as its config says"):
        dlens.load(module)


def test_another_width_than_the_config_says() -> None:
    module = build("qwen2")
    module.config.hidden_size = 64
    with pytest.raises(VerificationError, match="has 32 channels .*; expected 64"):
        dlens.load(module)


def test_a_causal_model_in_a_bidirectional_family() -> None:
    with pytest.raises(VerificationError, match="is causal: .* does not move .*; expected bidirectional"):
        dlens.load(build("qwen2"), family=replace(MASKED, mask_token_id=99))


def test_a_bidirectional_model_in_a_causal_family() -> None:
    with pytest.raises(VerificationError, match="is bidirectional: .*; expected causal"):
        dlens.load(build("qwen2", is_causal=False), family="autoregressive")


def test_one_bidirectional_block_in_half_precision_is_seen() -> None:
    module = build("qwen2").to(torch.bfloat16)
    module.model.layers[-1].self_attn.is_causal = False
    with pytest.raises(VerificationError, match="is bidirectional"):
        dlens.load(module)


def test_experts_whose_rounding_other_tokens_move_are_causal() -> None:
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    module = transformers.MixtralForCausalLM(config).eval()
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        assert not torch.equal(*(module(read).logits[:, 0] for read in (ids, ids[:, :1].expand_as(ids))))
    assert dlens.load(module).family.causal
    config.is_causal = False
    with pytest.raises(VerificationError, match="is bidirectional"):
        dlens.load(transformers.MixtralForCausalLM(config).eval(), family="autoregressive")


def test_a_weight_that_is_not_finite() -> None:
    module = build("qwen2")
    module.model.layers[2].mlp.up_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(VerificationError, match=r"model.layers.2.mlp.up_proj.weight of .* is not finite; expected"):
        dlens.load(module)


def test_weights_whose_sum_is_too_large_are_finite() -> None:
    module = build("qwen2")
    module.lm_head.weight.data[:8] = 0
    module.lm_head.weight.data[:2, 0] = 3e38
    assert not module.lm_head.weight.sum().isfinite()
    check_finite(dlens.load(module, verify=False))
    module.lm_head.weight.data[0, 1], module.lm_head.weight.data[0, 2] = torch.inf, -torch.inf
    with pytest.raises(VerificationError, match="lm_head.weight of .* is not finite"):
        check_finite(dlens.load(module, verify=False))


def test_an_output_that_is_not_finite() -> None:
    module = build("qwen2")
    module.lm_head.weight.data.fill_(3e38)
    with pytest.raises(VerificationError, match="the output of a forward of .* is not finite"):
        dlens.load(module)


@pytest.mark.parametrize("mask", [None, 100, -1])
def test_a_mask_token_outside_the_embedding(mask: int | None) -> None:
    with pytest.raises(VerificationError, match=f"mask token {mask} of .*; expected one of its 100 tokens"):
        dlens.load(build("qwen2", is_causal=False), family=replace(MASKED, mask_token_id=mask))


def test_a_mask_token_that_the_tokenizer_does_not_know(diffusion: dlens.Model) -> None:
    with pytest.raises(VerificationError, match=r"mask token 7 of .*; expected a token .* own mask token is 1"):
        dlens.load(diffusion.module, tokenizer=diffusion.tokenizer, family=replace(MASKED, mask_token_id=7))


def test_the_wrong_shift(diffusion: dlens.Model, ar_init: dlens.Model) -> None:
    for model, family in ((diffusion, MASKED_SHIFTED), (ar_init, MASKED)):
        with pytest.raises(
            VerificationError, match=f"with shift {family.shift} and at .*; expected shift {family.shift}"
        ):
            dlens.load(model.module, tokenizer=model.tokenizer, family=family)


def test_a_random_model_passes_with_either_shift(diffusion: dlens.Model) -> None:
    config = transformers.Qwen2Config(vocab_size=4096, hidden_size=32, intermediate_size=32, num_hidden_layers=2)
    config.update({"num_attention_heads": 2, "num_key_value_heads": 2, "is_causal": False})
    module = transformers.Qwen2ForCausalLM(config)
    for family in (MASKED, MASKED_SHIFTED):
        loaded = dlens.load(module, tokenizer=diffusion.tokenizer, family=replace(family, mask_token_id=1))
        assert loaded.family.shift == family.shift


def test_code_that_ignores_the_padding_mask_is_found_out(tmp_path: Path, llada: dlens.Model) -> None:
    deaf = dlens.load(save_llada(tmp_path, hides_padding=False), trust_remote_code=True)
    assert not deaf.honours_padding
    assert llada.honours_padding


def test_a_module_that_cannot_run_the_proofs_says_so() -> None:
    module = build("qwen2")

    def only_of_sixteen(module: nn.Module, args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[-1] != 16:
            raise RuntimeError("sizes differ")

    module.register_forward_pre_hook(only_of_sixteen, with_kwargs=True)
    with pytest.raises(VerificationError, match=r"gives no logits of a few tokens \(RuntimeError: sizes differ\); exp"):
        dlens.load(module)
    with pytest.raises(VerificationError, match="cannot be proved: RuntimeError, sizes differ; expected .*verify"):
        dlens.load(module, layout=llama_like())
    unproved = dlens.load(module, layout=llama_like(), verify=False)
    assert dlens.trace(unproved).forward(torch.arange(16)[None]).n_steps == 1


def test_a_context_shorter_than_the_proofs() -> None:
    assert dlens.load(build("gpt2", n_positions=6)).n_positions == 6


def test_a_hook_of_somebody_is_named_before_the_layout_is_blamed() -> None:
    module = build("qwen2")
    module.model.layers[2].register_forward_hook(lambda _m, _a, out: out * 2)
    with pytest.raises(VerificationError, match=r"; or remove what hooks into model.layers.2, which may be the cause"):
        dlens.load(module, layout=llama_like())
    assert "what hooks into model.layers.2 may be the cause" in dlens.load(module).layout.absent["attn_out"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scaled_residuals_are_seen_in_every_type(dtype: torch.dtype) -> None:
    scales = {"residual_multiplier": 0.22, "embedding_multiplier": 12.0}
    torch.manual_seed(0)
    config = transformers.GraniteConfig(**SIZE | {"initializer_range": 0.02}, **scales)
    module = transformers.AutoModelForCausalLM.from_config(config).eval().to(dtype)
    with pytest.raises(VerificationError, match=r"resid_pre \+ attn_out is not resid_mid; expected .*scales its"):
        dlens.load(module, layout=llama_like())
    layout = dlens.load(module).layout
    assert layout.sites["attn_out"].scale == layout.sites["mlp_out"].scale == 0.22


def test_attention_that_is_not_causal_between_blocks_is_refused() -> None:
    masked = replace(MASKED, mask_token_id=99, block_length=4)
    module = build("qwen3", is_causal=False)
    for part in module.modules():
        if "is_causal" in vars(part):
            part.is_causal = False
    model = dlens.load(module, family=masked)
    assert model.family.block_length == 4
    # Code that ignores the mask it is given sees everything; a causal mask sees too little.
    for inputs, found in (
        (lambda ids, mask: {"input_ids": ids}, "of the second canvas block move the first one"),
        (
            lambda ids, mask: {"input_ids": ids, "attention_mask": torch.ones(8 + 4, 8 + 4).tril().bool()[None, None]},
            "within canvas block do not move the first one",
        ),
    ):
        expected = f"{found} .*; expected attention that is full within blocks of 4"
        with torch.no_grad(), pytest.raises(VerificationError, match=expected):
            check_blocks(replace(model, family=replace(model.family, inputs=inputs)))


def test_a_context_of_one_block_is_looked_at_inside() -> None:
    module = build("qwen3", is_causal=False, max_position_embeddings=8)
    for part in module.modules():
        if "is_causal" in vars(part):
            part.is_causal = False
    assert dlens.load(module, family=replace(MASKED, mask_token_id=99, block_length=8)).n_positions == 8


def test_sliding_windows_are_refused_where_blocks_are_asked_for() -> None:
    with pytest.raises(VerificationError, match="sliding windows, which a mask by canvas blocks would open; expected"):
        dlens.load(build("gemma3"), family=replace(MASKED, mask_token_id=99, block_length=4))
