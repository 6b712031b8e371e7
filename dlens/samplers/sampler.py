"""What a sampler is: a pure loop that fills the masks of a canvas through a forward callable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.checks import check_fields

__all__ = ["Columns", "Denoiser", "Draw", "Forward", "Sampler", "Tokens"]

Columns = Int[Tensor, " column"] | Int[Tensor, "batch column"]
"""Columns of a canvas: the same in every row, or each row's own."""

Draw = Callable[[Sequence[int]], Tensor]
"""Gives float64 numbers uniform in [0, 1) of a shape, on the canvas's device."""


@runtime_checkable
class Forward(Protocol):
    """One step of the model.

    Returns the logits [batch, position, vocab] aligned so that entry [b, p] predicts the token at [b, p] (whatever
    the family's shift), in the model's dtype. With `columns`, the places that the sampler reads at this step (those of
    its block), the logits of these alone come back, in their order: [batch, column, vocab]. Without a cache the model
    computes the whole canvas all the same; a cache computes these columns and whatever else it finds worth it.
    With `unconditional`, a second canvas of the same
    shape, both run as one batch and the pair (conditional, unconditional) comes back stacked
    along a new first axis. Each call is one step. The sampler neither edits what it gets nor
    edits a canvas that it has handed over.

    Examples:
        >>> import torch
        >>> def forward(canvas, unconditional=None, columns=None):
        ...     logits = torch.zeros(*canvas.shape, 10)
        ...     return logits if columns is None else logits[:, columns]
        >>> canvas = torch.zeros(1, 4, dtype=torch.long)
        >>> isinstance(forward, Forward), forward(canvas).shape, forward(canvas, columns=torch.tensor([2, 3])).shape
        (True, torch.Size([1, 4, 10]), torch.Size([1, 2, 10]))
    """

    def __call__(
        self, canvas: TokenIds, unconditional: TokenIds | None = None, columns: Columns | None = None
    ) -> Tensor: ...


@dataclass(frozen=True)
class Tokens:
    """The token ids a sampler must know, and where the rows of its canvas begin.

    Args:
        mask: the mask token.
        eos: end of sequence, None where the model has none.
        ends: further tokens that end a turn (LLaDA's EoT).
        starts: column of each row's first real token; empty where nothing is padded.

    Examples:
        >>> Tokens(mask=7, eos=0).ends
        ()
    """

    mask: int
    eos: int | None = None
    ends: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "give ids, such as model.family.mask_token_id and model.eos_token_id")


@dataclass(frozen=True)
class Sampler(ABC):
    """How tokens are decoded.

    Examples:
        >>> from dlens.samplers import Autoregressive, LLaDA
        >>> isinstance(LLaDA(), Sampler), Autoregressive().planned_steps(16), LLaDA(steps=8).planned_steps(16)
        (True, 16, 8)
    """

    @abstractmethod
    def planned_steps(self, max_new_tokens: int, infill: int = 0) -> int:
        """Number of steps of a run, the most there can be where it may end early.

        Args:
            max_new_tokens: number of positions after the prompt.
            infill: the most masks that any prompt of the batch holds.

        Raises:
            ValueError: the settings do not fit the number of tokens.
        """


@dataclass(frozen=True)
class Denoiser(Sampler):
    """A sampler that fills the masks of a canvas.

    Examples:
        A sampler of one's own: every mask at once, each by a draw from the model's distribution.

        >>> import dlens
        >>> class AtOnce(Denoiser):
        ...     def planned_steps(self, max_new_tokens, infill=0):
        ...         return 1
        ...     def decode(self, forward, canvas, generated, new_tokens, tokens, draw):
        ...         logits = forward(canvas).double()
        ...         logits[..., tokens.mask] = -float("inf")
        ...         scores = logits - (-draw(logits.shape).log()).log()  # Gumbel noise
        ...         return canvas.where(~generated, scores.argmax(-1))
        >>> record = dlens.trace("trio/diffusion").generate("Once upon a time", 4, sampler=AtOnce())
        >>> record.n_steps, record.tokens.shape
        (1, torch.Size([1, 8]))
    """

    def filled_up(self, lengths: Sequence[int], new_tokens: int) -> tuple[int, ...]:
        """How many places each row gets beyond its new tokens, for a model whose canvas blocks are decoded whole.

        They are decoded with the others and cut afterwards.

        Args:
            lengths: tokens of each prompt.
            new_tokens: number of positions after the prompt.
        """
        return (0,) * len(lengths)

    @abstractmethod
    def decode(
        self,
        forward: Forward,
        canvas: TokenIds,
        generated: TokenMask,
        new_tokens: int,
        tokens: Tokens,
        draw: Draw,
    ) -> TokenIds:
        """Fill the canvas.

        Args:
            forward: one step of the model.
            canvas: prompts, left-padded, then `new_tokens` masks; not changed. A row may have more masks on the
                right than are to be filled, where a model wants whole blocks.
            generated: which positions are to be filled: the last `new_tokens` of each row, and
                when infilling the masks that the prompt held.
            new_tokens: number of positions after the prompt.
            tokens: special token ids.
            draw: source of uniform random numbers.

        Returns:
            The filled canvas.

        Raises:
            ValueError: the settings do not fit the canvas or the tokens; nothing was computed.
        """
