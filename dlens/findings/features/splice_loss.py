"""What a model loses when its stream goes through a sparse autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dlens.checks import check_fields
from dlens.features.autoencoder import SparseAutoencoder
from dlens.findings.scores.batches import token_rows
from dlens.findings.scores.canvases import Canvases, text_canvases
from dlens.findings.scores.estimate import Estimate, mean_of
from dlens.findings.scores.loss import losses_of
from dlens.ops.splice import site_of
from dlens.tracing.chain import Trace, trace
from dlens.tracing.probes.calibration import calibration_texts

__all__ = ["SpliceLoss", "splice_loss"]


@final
@dataclass(frozen=True)
class SpliceLoss:
    """The loss of texts with and without an autoencoder in the stream, in nats a token.

    Args:
        plain: without it.
        spliced: with what it reconstructs in place of the stream, without its error.
        ablated: with the mean of the shipped text in place of the stream.
        change: spliced minus plain, paired by text.
        estimator: which loss it is.

    Examples:
        >>> import dlens
        >>> texts = ["Once upon a time there was a girl", "The dog ran to the red house"]
        >>> found = dlens.splice_loss("trio/diffusion", dlens.load_sae("trio/diffusion"), texts)
        >>> found.change.n, found.plain.value < found.spliced.value < found.ablated.value, 0 < found.recovered < 1
        (2, True, True)
    """

    plain: Estimate
    spliced: Estimate
    ablated: Estimate
    change: Estimate
    estimator: str

    def __post_init__(self) -> None:
        check_fields(self, "let dlens.splice_loss make it", Estimate)

    @property
    def recovered(self) -> float:
        """1 where splicing costs nothing, 0 where it costs as much as the mean in place of the stream."""
        lost = self.ablated.value - self.plain.value
        return (self.ablated.value - self.spliced.value) / lost if lost else float("nan")


def splice_loss(
    model: Any,
    sae: SparseAutoencoder,
    texts: Any = None,
    *,
    draws: int = 4,
    batch_size: int = 8,
    seed: int = 0,
) -> SpliceLoss:
    """The change in loss when a model's stream goes through an autoencoder, at its own site.

    Masked denoising of a diffusion model, with the shift of its family (the code of DLM-Scope, arXiv 2602.05859, has
    none, so its numbers for Dream are others), or next-token loss; see `dlens.findings.scores.loss.text_loss`. All
    losses are of the same masks.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        sae: the autoencoder, which knows its site.
        texts: anything `Trace.forward` takes; the shipped calibration text by default.
        draws: how many times each text is masked (diffusion only).
        batch_size: rows a forward.
        seed: of the masks.

    Returns:
        The losses, each the mean over texts of their losses a token, with 95 % intervals over texts.

    Raises:
        ValueError: an autoencoder of another width, or one that does not know its site.

    Examples:
        >>> import dlens
        >>> sae = dlens.load_sae("trio/diffusion")
        >>> found = dlens.splice_loss("trio/diffusion", sae, ["Once upon a time there was a girl"] * 2, draws=1)
        >>> found.estimator
        'masked-denoising cross-entropy divided by the mask rate, 1 draws a text'
    """
    base = model if isinstance(model, Trace) else trace(model)
    point, layer = site_of(sae, None, None)
    chains = {
        "plain": base,
        "spliced": base.splice(sae, error=False),
        "ablated": base.ablate(layer, value="mean", at=point),
    }
    parts = _parts(base, calibration_texts() if texts is None else texts, draws, seed)
    found = {
        name: np.array([each.value for each in losses_of(chain, parts, batch_size, mixed=True)])
        for name, chain in chains.items()
    }
    means = {name: mean_of(values, "nats a token") for name, values in found.items()}
    change = mean_of(found["spliced"] - found["plain"], "nats a token")
    return SpliceLoss(**means, change=change, estimator=parts[0].estimator)


def _parts(base: Trace, texts: Any, draws: int, seed: int) -> list[Canvases]:
    """The canvases of each text that anything predicts, each text with masks of its own."""
    rows = token_rows(base.model, texts)
    long = [row for row in rows if len(row) > base.model.family.shift]
    return [text_canvases(base.model, [row], draws, seed + place) for place, row in enumerate(long or rows)]
