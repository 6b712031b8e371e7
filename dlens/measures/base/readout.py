"""How a model reads tokens off its stream, as measures are told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

__all__ = ["Readout", "ReadsTokens"]

# Numbers of one array over the vocabulary that are held at a time: 32 MiB in float64.
_AT_A_TIME = 2**22


@dataclass(frozen=True)
class Readout:
    """The model's own final norm and unembedding.

    Args:
        unembed: from rows as they leave a block, before any final norm, to logits.
        vocab_size: how many logits a row gets.
        shift: the token at position i is predicted at i - shift. 0 for autoregressive models too: what
            they predict is not there yet, so that a position is the one that is read.
        mask_token_id: the mask, which no sampler ever takes; None without one.

    Examples:
        >>> readout = Readout(unembed=lambda h: h @ torch.eye(4), vocab_size=4, shift=1)
        >>> readout.log_probabilities(torch.zeros(1, 4)).exp().tolist()
        [[0.25, 0.25, 0.25, 0.25]]
        >>> masked = Readout(unembed=readout.unembed, vocab_size=4, mask_token_id=0)
        >>> masked.probabilities(torch.zeros(1, 4))[0, 0].item()
        0.0
        >>> wanted = torch.tensor([[False, True, True]])
        >>> [[each.tolist() for each in chunk] for chunk in readout.chunks(wanted, state=torch.tensor([[0, 1, 1]]))]
        [[[0, 0], [1, 2], [0, 1]]]
    """

    unembed: Callable[[Float[Tensor, "n d_model"]], Float[Tensor, "n vocab"]]
    vocab_size: int
    shift: int = 0
    mask_token_id: int | None = None

    def log_probabilities(self, h: Float[Tensor, "n d_model"]) -> Float64[Tensor, "n vocab"]:
        """The log-probabilities that rows of the stream give."""
        return self.unembed(h).double().log_softmax(-1)

    def probabilities(self, h: Float[Tensor, "n d_model"]) -> Float64[Tensor, "n vocab"]:
        """The probabilities of what a sampler may take: of all tokens but the mask."""
        logits = self.unembed(h).double()
        if self.mask_token_id is not None:
            logits[:, self.mask_token_id] = -torch.inf
        return logits.softmax(-1)

    def chunks(
        self, wanted: Bool[Tensor, "batch position"], state: Int[Tensor, "batch position"]
    ) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"]]]:
        """The wanted positions, so many at a time that their logits stay small.

        The first token of a row has nothing before it and is read where it stands, as samplers do.

        Args:
            wanted: the positions to predict.
            state: as in `Cells`; -1 is what nothing reads.

        Yields:
            Their rows, their columns, and the columns where they are read.
        """
        rows, columns = wanted.nonzero(as_tuple=True)
        before = (columns - self.shift).clamp(min=0)
        read = torch.where(state[rows, before] >= 0, before, columns)
        at_a_time = max(1, _AT_A_TIME // self.vocab_size)
        yield from zip(rows.split(at_a_time), columns.split(at_a_time), read.split(at_a_time), strict=True)


class ReadsTokens:
    """A measure that reads tokens off what leaves a block, with `visit.readout`; the first of its bases."""

    @property
    def points(self) -> tuple[str, ...]:
        return ("resid_post",)

    @property
    def reads_tokens(self) -> bool:
        return True
