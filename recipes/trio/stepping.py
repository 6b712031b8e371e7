"""One training step: forward, backward, update."""

from __future__ import annotations

from typing import Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from recipes.trio.batches import WIDTHS
from recipes.trio.objective import Run, loss_of, masked

__all__ = ["Stepper"]


@final
class Stepper:
    """Updates a model, one batch a call; a GPU computes in bfloat16, with weights in float32.

    Args:
        model: in float32.
        run: its objective.
        compile: compile the block, once for each width of batch; a sixteenth of the work of compiling the model.
    """

    def __init__(self, model: Any, run: Run, compile: bool) -> None:
        self._model, self._run = model, run
        self.optimizer = _optimizer(model)
        if compile:
            torch._dynamo.config.recompile_limit = len(model.model.layers) * len(set(WIDTHS))
            for layer in model.model.layers:
                layer.compile(dynamic=False)

    def __call__(
        self,
        tokens: Int[Tensor, "batch position"],
        question: Bool[Tensor, "batch position"],
        noise: torch.Generator,
        rate: float,
    ) -> Tensor:
        """Take a step at a learning rate; the loss before it, in nats a token."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        inputs, weights = tokens, torch.ones_like(tokens, dtype=torch.float32)
        if self._run.diffusion:
            inputs, weights = masked(tokens, question, self._run.shift, noise)
        self.optimizer.zero_grad()
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
            loss = loss_of(self._model, self._run.shift, inputs, tokens, weights)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
