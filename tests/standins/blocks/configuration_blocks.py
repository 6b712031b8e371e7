"""Configs of small models with the contracts of block diffusion's remote code."""

from transformers import PretrainedConfig


class BlocksConfig(PretrainedConfig):
    def __init__(
        self,
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=3,
        first_k_dense_replace=1,
        partial_rotary_factor=1.0,
        rope_theta=10000.0,
        max_position_embeddings=64,
        mask_token_id=59,
        pad_token_id=58,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.num_experts = num_experts
        self.first_k_dense_replace = first_k_dense_replace
        self.partial_rotary_factor = partial_rotary_factor
        self.rope_theta = rope_theta
        self.max_position_embeddings = max_position_embeddings
        super().__init__(**kwargs)
        self.mask_token_id = mask_token_id
        self.pad_token_id = pad_token_id


class LLaDA2MoeConfig(BlocksConfig):
    model_type = "llada2_moe"

    def __init__(self, partial_rotary_factor=0.5, **kwargs):
        super().__init__(partial_rotary_factor=partial_rotary_factor, **kwargs)


class SDARConfig(BlocksConfig):
    model_type = "sdar"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class FastConfig(BlocksConfig):
    model_type = "Fast_dLLM_Qwen"

    def __init__(self, bd_size=4, **kwargs):
        self.bd_size = bd_size
        super().__init__(**kwargs)


class LLaDAMoEConfig(BlocksConfig):
    model_type = "lladamoe"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class RND1Config(BlocksConfig):
    model_type = "rnd1"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class BD3LMConfig(PretrainedConfig):
    model_type = "bd3lm"

    def __init__(
        self,
        block_size=4,
        vocab_size=60,
        model_length=48,
        hidden_dim=32,
        cond_dim=16,
        n_blocks=3,
        n_heads=4,
        adaln=True,
        time_conditioning=False,
        mask_token_id=59,
        pad_token_id=58,
        **kwargs,
    ):
        self.block_size = block_size
        self.vocab_size = vocab_size
        self.model_length = model_length
        self.hidden_dim = hidden_dim
        self.cond_dim = cond_dim
        self.n_blocks = n_blocks
        self.n_heads = n_heads
        self.adaln = adaln
        self.time_conditioning = time_conditioning
        super().__init__(**kwargs)
        self.mask_token_id = mask_token_id
        self.pad_token_id = pad_token_id


class MDLMConfig(BD3LMConfig):
    model_type = "mdlm"

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
