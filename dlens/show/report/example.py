"""A denoising run to explore on the page of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlens.html import rendered
from dlens.measures import TopTokens
from dlens.tracing.chain import Trace

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["example"]

_PROMPT = "Once upon a time there was a little fox"
_NEW_TOKENS = 32
_CHOICES = 3


def example(chains: Sequence[Trace], seed: int) -> Markup | None:
    """How the first diffusion model of a report denoises a short text, step by step, in a widget without a kernel.

    Args:
        chains: the models.
        seed: of the run.

    Returns:
        None where no model denoises.
    """
    from dlens.widgets.denoising import Denoising

    chain = next((own for own in chains if own.model.family.objective == "diffusion"), None)
    if chain is None:
        return None
    watched = chain.measure(TopTokens(k=_CHOICES, layers=[-1]))
    record = watched.generate(_PROMPT, _NEW_TOKENS, seed=seed, progress=False)
    part = Denoising(record).html_alone()
    return rendered("show/report/example.html.j2", model=chain.model.name, n=_NEW_TOKENS, part=part)
