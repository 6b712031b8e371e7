"""A model's own final norm and unembedding, handed to measures once they are proved to give its logits."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dlens.errors import VerificationError
from dlens.measures.base.readout import Readout
from dlens.models.family import hidden_of
from dlens.models.model import Model
from dlens.tracing.planning.measured import measures_of
from dlens.tracing.planning.plan import Plan

__all__ = ["readout_for", "readout_of"]

# Two ways to the same logits differ by rounding at most.
_TOLERANCE = 1e-5
_PROOF_TOKENS = 8


def readout_for(model: Model, plan: Plan) -> Readout | None:
    """The readout where a measure of the plan asks for it."""
    wanted = any(measure.reads_tokens for measure in measures_of(plan).values())
    return readout_of(model) if wanted else None


def readout_of(model: Model) -> Readout:
    """How a model reads tokens off its stream, proved on one small forward of its own.

    Raises:
        VerificationError: its head does more than to normalise and unembed.
    """
    unembed = partial(_unembed, model)
    # Proved at every run: a forward of a few tokens takes no longer than to tell whether anything changed.
    with torch.no_grad():
        _prove(model, unembed)
    diffusion = model.family.objective == "diffusion"
    return Readout(
        unembed=unembed,
        vocab_size=model.vocab_size,
        shift=model.family.shift if diffusion else 0,
        mask_token_id=model.family.mask_token_id if diffusion else None,
    )


def _unembed(model: Model, h: Tensor) -> Tensor:
    layout = model.layout
    normed = h if layout.norm is None else model.module.get_submodule(layout.norm)(h)
    if layout.head is None:
        logits = nn.functional.linear(normed.to(model.device), model.embed.weight)  # pyright: ignore
    else:
        logits = model.module.get_submodule(layout.head)(normed)
    cap = getattr(model.config, "final_logit_softcapping", None)
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    return logits.to(h.device)


def _prove(model: Model, unembed: Any) -> None:
    ids = (torch.arange(_PROOF_TOKENS, device=model.device) % model.vocab_size)[None]
    streams: list[Tensor] = []
    handle = model.blocks[-1].register_forward_hook(lambda _m, _a, out: streams.append(hidden_of(out).clone()))
    try:
        logits = model.module(**model.family.inputs(ids, None)).logits.double()
    finally:
        handle.remove()
    again = unembed(streams[-1]).to(logits)
    error = (again - logits).abs().max() / logits.abs().max()
    if not error <= max(_TOLERANCE, torch.finfo(model.dtype).eps):
        raise VerificationError(
            f"norm and head of {model.name} give logits that differ from its own by {float(error):.1%} of the largest; "
            f"expected the same, as {model.layout.norm!r} and {model.layout.head or model.layout.embed!r} should be "
            f"all that follows the last block; leave out the measures that read tokens off the stream"
        )
