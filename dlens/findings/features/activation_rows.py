"""Activations of texts as rows to train on: which noise, and which positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.axes import POINTS, parse_point
from dlens.checks import quoted, refuse, require_word
from dlens.findings.scores.batches import length_batches, rng, token_rows
from dlens.ops.base.given import as_index
from dlens.ops.base.scope import Scope
from dlens.tracing.chain import Trace, trace
from dlens.tracing.probes.calibration import calibration_texts

__all__ = ["Which", "activation_rows"]

Which = Literal["masked", "visible", "all"]
_NOISE = (0.05, 0.5)


def activation_rows(
    model: Any,
    texts: Any = None,
    site: str = "blocks.8.hook_resid_post",
    *,
    tokens: Which | None = None,
    noise: tuple[float, float] | None = _NOISE,
    draws: int = 1,
    batch_size: int = 16,
    seed: int = 0,
) -> Float[Tensor, "row d_model"]:
    """The values of a hook point at positions of texts, as rows.

    Each draw of a text masks a share of its tokens that is drawn evenly between the ends of `noise`, never the first
    token. The policies of DLM-Scope (arXiv 2602.05859) are `tokens="masked"`, `"visible"` and `"all"`, and
    `noise=None`, which is clean text; its noise is (0.05, 0.5).

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        texts: anything `Trace.forward` takes; the shipped calibration text by default.
        site: the full name of a hook point of the stream.
        tokens: which positions; "masked" where texts are masked, else "all".
        noise: shares of masked tokens; None, and for autoregressive models, is clean text.
        draws: how many times each text is masked.
        batch_size: texts a forward.
        seed: of the masks.

    Returns:
        Rows in float32, text by text.

    Raises:
        ValueError: no such hook point, or masked positions of clean text.

    Examples:
        >>> import dlens
        >>> rows = dlens.activation_rows("trio/diffusion", ["Once upon a time there was a girl"], noise=(0.4, 0.5))
        >>> rows.shape
        torch.Size([4, 192])
        >>> dlens.activation_rows("trio/ar", ["Once upon a time"], "blocks.3.hook_resid_post").shape
        torch.Size([4, 192])
    """
    base = model if isinstance(model, Trace) else trace(model)
    place = _place(base, site)
    mask = base.model.family.mask_token_id if base.target.has_noise else None
    noise = None if mask is None else Scope(noise=noise).noise
    which = tokens if tokens is not None else "all" if noise is None else "masked"
    require_word("tokens", which, get_args(Which))
    if which == "masked" and noise is None:
        refuse("tokens", which, "'visible' or 'all', as the text is clean", "pass noise=(0.05, 0.5), or leave it out")
    if as_index(draws, "draws") < 1:
        refuse("draws", draws, "at least 1, how many times each text is masked", "write draws=1")
    rows = token_rows(base.model, calibration_texts() if texts is None else texts)
    canvases = [row for _ in range(draws if noise else 1) for row in rows]
    generator = rng(seed)
    masks = [_mask(len(row), noise, generator) for row in canvases]
    return _read(base, canvases, masks, _Reading(*place, which, as_index(batch_size, "batch_size")))


@dataclass(frozen=True)
class _Reading:
    """What is read of a forward."""

    point: str
    layer: int
    which: Which
    batch_size: int


def _place(base: Trace, site: str) -> tuple[str, int]:
    found = parse_point(site)
    if found.layer is None or not POINTS[found.point].in_stream:
        raise ValueError(
            f"site={quoted(site)}; expected the full name of a hook point of the stream; write for example "
            f"'blocks.8.hook_resid_post'"
        )
    base.target.require_point(found.point)
    return found.point, base.target.layer(found.layer)


def _mask(length: int, noise: tuple[float, float] | None, generator: torch.Generator) -> Bool[Tensor, " position"]:
    """Which tokens of a text are masked: all but the first may be."""
    masked = torch.zeros(length, dtype=torch.bool)
    if noise is not None:
        share = noise[0] + (noise[1] - noise[0]) * torch.rand((), generator=generator).item()
        count = min(length - 1, max(1, round(share * length)))
        masked[torch.randperm(length - 1, generator=generator)[:count] + 1] = True
    return masked


def _read(base: Trace, rows: Sequence[list[int]], masks: Sequence[Tensor], how: _Reading) -> Tensor:
    chain, deeper = base.capture(how.point, layers=how.layer), range(how.layer + 1, base.target.n_layers)
    if not base.ops and deeper:
        # Nothing reads what comes after.
        chain = chain.skip(deeper)
    found = {}
    for part in length_batches(base.model, rows, how.batch_size):
        values = chain.forward([_hidden(base, rows[number], masks[number]) for number in part])[how.point][0]
        for own, number in zip(values, part, strict=True):
            masked = masks[number]
            chosen = {"masked": masked, "visible": ~masked, "all": torch.ones_like(masked)}[how.which]
            found[number] = own[len(own) - len(masked) :][chosen].float()
    return torch.cat([found[number] for number in range(len(rows))])


def _hidden(base: Trace, row: list[int], masked: Bool[Tensor, " position"]) -> list[int]:
    """A text with its masks."""
    return torch.where(masked, base.model.family.mask_token_id or 0, torch.tensor(row)).tolist()
