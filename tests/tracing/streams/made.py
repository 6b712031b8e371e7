"""Rows made by hand."""

import torch

from dlens.tracing.streams.places import Places
from dlens.tracing.streams.shard import Mark, Part

NAME = "blocks.3.hook_resid_post"


def places(*prompts: int) -> Places:
    """Places of some prompts, each column another number."""
    numbers = torch.tensor(prompts, dtype=torch.int32)
    noise = torch.full(numbers.shape, 0.5, dtype=torch.float64)
    return Places(numbers, numbers + 10, numbers + 20, numbers + 30, numbers % 3, noise)


def part(*prompts: int) -> Part:
    """A forward's rows of 8 bytes, each filled with the number of its prompt."""
    values = torch.tensor(prompts, dtype=torch.bfloat16)[:, None].expand(-1, 4)
    return Part(Mark(0, 1), places(*prompts), {NAME: values.contiguous()})
