"""What the models are trained for: the next token, or masked tokens; and the architecture they share."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

__all__ = ["RUNS", "Run", "build", "from_configuration", "loss_of", "masked"]

_MASK_TOKEN = 1
# LLaDA's training keeps the mask rate off zero, where a masked token would weigh without bound.
_LEAST_RATE = 1e-3
# Share of the rows whose questions are not masked.
_WHOLE_QUESTIONS = 0.5


@dataclass(frozen=True)
class Run:
    """One of the three models: all in which they differ.

    Args:
        family: what dlens calls the kind of model, as in config.json.
        diffusion: whether masked tokens are predicted, from both sides, or the next one, from before.
        shift: the logits at position i - shift predict the token at i.
        learning_rate: the highest.
        steps: of training, of 65,536 tokens each.
        starts_from: the run whose last weights it starts from; None is random.
    """

    family: str
    diffusion: bool
    shift: int
    learning_rate: float
    steps: int
    starts_from: str | None = None


RUNS = MappingProxyType(
    {
        "ar": Run("autoregressive", False, 1, 2e-3, 16384),
        "diffusion": Run("masked", True, 0, 2e-3, 16384),
        "ar-init": Run("masked-shifted", True, 1, 1e-3, 8192, starts_from="ar"),
    }
)


def _configuration(run: Run, vocab_size: int, layers: int) -> Any:
    """The configuration that goes to disk with the weights; plain transformers reads it."""
    from transformers import Qwen2Config

    own: dict[str, Any] = {"dlens_family": run.family}
    if run.diffusion:
        own |= {"is_causal": False, "mask_token_id": _MASK_TOKEN}
    return Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=layers,
        num_attention_heads=3,
        num_key_value_heads=3,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        **own,
    )


def build(run: Run, vocab_size: int, layers: int, seed: int) -> Any:
    """A model with random weights: the same for every run of a seed."""
    torch.manual_seed(seed)
    return from_configuration(_configuration(run, vocab_size, layers))


def from_configuration(config: Any) -> Any:
    """A model with random weights in float32, causal or not as its configuration says."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if not getattr(config, "is_causal", True):
        # The mask alone leaves SDPA causal where nothing is padded.
        for part in model.modules():
            if "is_causal" in vars(part):
                part.is_causal = False
    return model


def masked(
    tokens: Int[Tensor, "batch position"],
    question: Bool[Tensor, "batch position"],
    shift: int,
    noise: torch.Generator,
) -> tuple[Int[Tensor, "batch position"], Float[Tensor, "batch position"]]:
    """The tokens with some masked, and what the loss of each token weighs.

    Each row has a rate t, spread evenly over (0, 1) in the batch; each token is masked with probability
    p = (1 - 0.001) t + 0.001 and weighs 1/p if it is (LLaDA, arXiv 2502.09992, equation 3). In half of the
    rows the questions of problems are left whole, as LLaDA's fine-tuning leaves prompts (equation 5): a
    model that decodes an answer reads its question whole. With a shift the first token is never masked, as
    nothing predicts it.
    """
    rows, device = len(tokens), tokens.device
    start = torch.rand((), generator=noise, device=device)
    even = (torch.randperm(rows, generator=noise, device=device) + start) / rows
    rate = ((1 - _LEAST_RATE) * even + _LEAST_RATE)[:, None]
    chosen = torch.rand(tokens.shape, generator=noise, device=device) < rate
    whole = torch.rand((rows, 1), generator=noise, device=device) < _WHOLE_QUESTIONS
    chosen &= ~(question & whole)
    chosen[:, :shift] = False
    return torch.where(chosen, _MASK_TOKEN, tokens), chosen / rate


def loss_of(
    model: Any,
    shift: int,
    inputs: Int[Tensor, "batch position"],
    targets: Int[Tensor, "batch position"],
    weights: Float[Tensor, "batch position"],
) -> Tensor:
    """Mean over tokens of weight x cross-entropy: the logits at position i - shift against the token at i."""
    hidden = model.model(input_ids=inputs, use_cache=False).last_hidden_state
    logits = nn.functional.linear(hidden[:, : inputs.shape[1] - shift], model.lm_head.weight).float()
    losses = nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, shift:].flatten(), reduction="none")
    return (losses * weights[:, shift:].flatten()).mean()
