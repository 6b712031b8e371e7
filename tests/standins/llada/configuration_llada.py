"""Config of a small model with the contracts of LLaDA's remote code."""

from transformers import PretrainedConfig


class LLaDAConfig(PretrainedConfig):
    """Like the published one it has LLaDA's own names, and no `use_cache`."""

    model_type = "llada"

    def __init__(
        self,
        d_model=32,
        n_heads=4,
        n_kv_heads=2,
        n_layers=4,
        mlp_hidden_size=48,
        rope_theta=10000.0,
        max_sequence_length=64,
        vocab_size=100,
        weight_tying=False,
        block_type="llama",
        block_group_size=1,
        hides_padding=True,
        **kwargs,
    ):
        self.d_model = d_model
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.n_layers = n_layers
        self.mlp_hidden_size = mlp_hidden_size
        self.rope_theta = rope_theta
        self.max_sequence_length = max_sequence_length
        self.vocab_size = vocab_size
        self.weight_tying = weight_tying
        self.block_type = block_type
        self.block_group_size = block_group_size
        self.hides_padding = hides_padding
        super().__init__(**kwargs)

    @property
    def effective_n_kv_heads(self):
        return self.n_kv_heads
