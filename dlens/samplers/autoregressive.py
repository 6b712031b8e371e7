"""Autoregressive decoding: one token after the other, through transformers' own `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from dlens.checks import plain_fields
from dlens.samplers.checks import Number, require_at_least, require_between, require_given, require_whole
from dlens.samplers.sampler import Sampler

__all__ = ["Autoregressive"]


@final
@dataclass(frozen=True)
class Autoregressive(Sampler):
    """One token a step, left to right, with transformers' `generate`.

    Args:
        temperature: 0 takes the likeliest token; above, a draw from softmax(logits / T).
        top_p: draw from the smallest set of likeliest tokens with this mass; None is all.
        top_k: draw from the k likeliest tokens; None is all.

    Examples:
        >>> Autoregressive(temperature=0.7, top_p=0.9).generate_arguments()
        {'do_sample': True, 'temperature': 0.7, 'top_p': 0.9, 'top_k': None}
    """

    temperature: Number = 0.0
    top_p: Number | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        require_given("temperature", self.temperature, "0 takes the likeliest token")
        require_at_least("temperature", self.temperature, 0, "0 takes the likeliest token")
        require_between("top_p", self.top_p, 0, 1, "it is a probability mass, None is all")
        require_whole("top_k", self.top_k, 1, "None is all tokens")
        plain_fields(self)

    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        if infill:
            raise ValueError(
                f"{infill} masks inside a prompt for autoregressive decoding; expected none, as it only appends; "
                f"use a diffusion model, or take the masks out of the prompt"
            )
        return max_new_tokens

    def generate_arguments(self) -> dict[str, Any]:
        """Keyword arguments for `generate` that say all of how a token is chosen.

        They override the temperature, top_p and top_k that a checkpoint's generation config
        brings; at temperature 0 each is None, which is neutral and raises no warning.
        """
        if self.temperature == 0:
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
