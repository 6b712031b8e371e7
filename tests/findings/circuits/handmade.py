"""A model of two blocks whose every weight is written by hand."""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

LARGE = 4e3


def handmade() -> Any:
    """What channel 0 says is copied to 1 by the second head of block 0, to 2 by the first of block 1, and read there.

    A large constant in the last channel keeps norms from mattering; queries and keys are 0, so that every position
    takes the mean of those before it; both blocks share one head of values.
    """
    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=4, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=8, tie_word_embeddings=False,
    )  # fmt: skip
    module: Any = LlamaForCausalLM(config).double().eval()
    module.generation_config.eos_token_id = None
    for parameter in module.parameters():
        parameter.data.zero_()
    for name, parameter in module.named_parameters():
        if "norm" in name:
            parameter.data.fill_(LARGE / 4)  # the root of the mean square of a row whose one entry of 16 is large
    table = module.model.embed_tokens.weight.data
    table[:, -1], table[2, 0], table[4, 0] = LARGE, 1, -1
    for layer, head in enumerate((1, 0)):
        attention = module.model.layers[layer].self_attn
        attention.v_proj.weight.data[0, layer] = 1
        attention.o_proj.weight.data[layer + 1, head * 8] = 1
    unembed = module.lm_head.weight.data
    unembed[5, 2], unembed[6, 2] = 1, -1
    return module
