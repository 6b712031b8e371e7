"""Where a blockwise sampler works: which columns of the canvas belong to which block."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from dlens.axes import TokenMask

__all__ = ["block_columns", "infilled", "resolve_block", "resolve_steps"]

USUAL_BLOCK = 32


def resolve_block(block_length: int | None, max_new_tokens: int) -> int:
    """The block length of a run.

    None gives 32, or the number of new tokens where that is smaller, or all of them in one block
    where 32 does not divide them.

    Raises:
        ValueError: the length does not divide the number of new tokens.

    Examples:
        >>> resolve_block(None, 64), resolve_block(None, 24), resolve_block(None, 50)
        (32, 24, 50)
    """
    if block_length is None:
        usual = min(USUAL_BLOCK, max_new_tokens)
        return usual if usual and max_new_tokens % usual == 0 else max_new_tokens
    if max_new_tokens % block_length:
        raise ValueError(
            f"block_length={block_length} with max_new_tokens={max_new_tokens}; expected a block length "
            f"that divides the number of new tokens; use one of {_divisors(max_new_tokens)}, or "
            f"max_new_tokens={-(-max_new_tokens // block_length) * block_length}"
        )
    return block_length


def resolve_steps(steps: int | None, blocks: int, tokens: int) -> int:
    """The number of steps of a run in blocks; None is one step a token.

    Raises:
        ValueError: more steps than tokens, or steps that do not divide among the blocks.

    Examples:
        >>> resolve_steps(None, 2, 64), resolve_steps(16, 2, 64)
        (64, 16)
    """
    if steps is None:
        return tokens
    if steps > tokens:
        raise ValueError(
            f"steps={steps} for {tokens} tokens; expected at most one step a token; "
            f"give steps={tokens} or fewer, or more tokens"
        )
    if steps % blocks:
        raise ValueError(
            f"steps={steps} in {blocks} blocks; expected a multiple of the number of blocks, as each takes "
            f"equally many steps; give steps={-(-steps // blocks) * blocks} or another block_length"
        )
    return steps


def infilled(generated: TokenMask, new_tokens: int) -> int:
    """The most positions to be filled inside any prompt of the batch."""
    prompt = generated[:, : generated.shape[1] - new_tokens]
    return int(prompt.sum(dim=1).max()) if prompt.numel() else 0


def block_columns(generated: TokenMask, new_tokens: int, block_length: int) -> list[Int[Tensor, " column"]]:
    """The columns of each block, left to right.

    Columns before the new tokens that some row wants filled belong to the first block; without
    new tokens they are the only one.
    """
    width = generated.shape[1]
    start = width - new_tokens
    inside = generated[:, :start].any(dim=0).nonzero().squeeze(1)
    after = list(torch.arange(start, width, device=generated.device).split(block_length)) if new_tokens else []
    if not after:
        return [inside]
    return [torch.cat([inside, after[0]]), *after[1:]]


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)
