"""A small deterministic network and sources of draws for the sampler tests."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dlens.samplers import Denoiser, Tokens

VOCAB, MASK, PAD, EOS, TURN = 23, 22, 21, 20, 19
TOKENS = Tokens(mask=MASK, eos=EOS, ends=(TURN,))
WIDTH, REACH = 12, 200


class Network:
    """Logits of each row from its own tokens alone, so that a batch computes what each row computes by itself.

    It keeps what it was given and what it gave, with copies, to see later whether either was edited.
    """

    def __init__(self, seed: int = 0, pads: Sequence[int] = (0,), dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.embed = torch.randn(VOCAB, WIDTH, generator=generator)
        self.mix = torch.randn(2 * REACH + 1, generator=generator) / 2
        self.place = torch.randn(REACH, WIDTH, generator=generator)
        self.head = torch.randn(WIDTH, VOCAB, generator=generator) * 2
        self.pads, self.dtype = pads, dtype
        self.canvases: list[tuple[Tensor, Tensor]] = []
        self.unconditional: list[Tensor | None] = []
        self.outputs: list[tuple[Tensor, Tensor]] = []

    def __call__(self, canvas: Tensor, unconditional: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
        self.canvases.append((canvas, canvas.clone()))
        self.unconditional.append(unconditional)
        logits = at(self.run(canvas), columns)
        if unconditional is not None:
            logits = torch.stack([logits, at(self.run(unconditional), columns)])
        self.outputs.append((logits, logits.clone()))
        return logits

    def run(self, canvas: Tensor) -> Tensor:
        logits = torch.zeros(*canvas.shape, VOCAB, dtype=self.dtype)
        for row, pad in enumerate(self.pads):
            logits[row, pad:] = self.row(canvas[row, pad:]).to(self.dtype)
        return logits

    def row(self, ids: Tensor) -> Tensor:
        there = torch.arange(len(ids))
        mixed = self.mix[there[:, None] - there + REACH] @ self.embed[ids] / len(ids) ** 0.5
        return torch.tanh(self.embed[ids] + mixed + self.place[: len(ids)]) @ self.head

    @property
    def calls(self) -> int:
        return len(self.canvases)


def at(logits: Tensor, columns: Tensor | None) -> Tensor:
    """The logits of the columns that a sampler reads."""
    if columns is None or columns.ndim == 1:
        return logits if columns is None else logits[:, columns]
    return torch.stack([row[own] for row, own in zip(logits, columns, strict=True)])


class Draws:
    """Uniform numbers from a stream of its own for each row, so that a row draws the same in any batch."""

    def __init__(self, rows: Sequence[int] = (0,), seed: int = 0) -> None:
        self.streams = [torch.Generator().manual_seed(1000 * seed + row) for row in rows]
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, shape: Sequence[int]) -> Tensor:
        self.shapes.append(tuple(shape))
        assert shape[0] == len(self.streams)
        return torch.stack([torch.rand(tuple(shape[1:]), generator=g, dtype=torch.float64) for g in self.streams])


def make_canvas(prompts: Sequence[Sequence[int]], new: int) -> tuple[Tensor, Tensor, list[int]]:
    """Left-padded canvas, which positions are to be filled, and the padding of each row."""
    width = max(map(len, prompts))
    pads = [width - len(prompt) for prompt in prompts]
    rows = [[PAD] * pad + list(prompt) + [MASK] * new for pad, prompt in zip(pads, prompts, strict=True)]
    canvas = torch.tensor(rows)
    return canvas, canvas == MASK, pads


def decode(
    sampler: Denoiser, prompts: Sequence[Sequence[int]], new: int, seed: int = 0, rows: Sequence[int] | None = None
) -> tuple[Tensor, Network, Draws]:
    """Run a sampler on the network; `rows` says which streams of draws the prompts get."""
    canvas, generated, pads = make_canvas(prompts, new)
    network, draws = Network(seed, pads), Draws(range(len(prompts)) if rows is None else rows, seed)
    return sampler.decode(network, canvas, generated, new, TOKENS, draws), network, draws


def prompt(length: int, seed: int = 0) -> list[int]:
    """A prompt of ordinary tokens."""
    return torch.randint(0, TURN, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


class BlockNetwork(Network):
    """The same, where a token sees its own canvas block and those before it."""

    def __init__(self, seed: int = 0, pads: Sequence[int] = (0,), block: int = 4) -> None:
        super().__init__(seed, pads)
        self.block = block

    def row(self, ids: Tensor) -> Tensor:
        parts = [super(BlockNetwork, self).row(ids[: end + self.block])[end:] for end in range(0, len(ids), self.block)]
        return torch.cat(parts)


def decode_blocks(
    sampler: Denoiser, prompts: Sequence[Sequence[int]], new: int, seed: int = 0, rows: Sequence[int] | None = None
) -> tuple[list[list[int]], BlockNetwork, Draws]:
    """Run a sampler of canvas blocks on a block-causal network, its canvas filled up; each row without padding, cut."""
    block: int = sampler.block_length  # type: ignore[attr-defined]
    lengths = [len(ids) for ids in prompts]
    beyond = sampler.filled_up(lengths, new)
    canvas, _, pads = make_canvas(prompts, new + max(beyond))
    generated = canvas == MASK
    for row, more in enumerate(beyond):
        generated[row, max(lengths) + new + more :] = False
    network, draws = BlockNetwork(seed, pads, block), Draws(range(len(prompts)) if rows is None else rows, seed)
    tokens = replace(TOKENS, starts=tuple(pads))
    out = sampler.decode(network, canvas, generated, new, tokens, draws)
    assert torch.equal(out[~generated], canvas[~generated])
    return [out[row, pad : max(lengths) + new].tolist() for row, pad in enumerate(pads)], network, draws
