"""Run the blocks of a model one after another on the same text, as they are at that moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from dlens.axes import Resid, TokenIds
from dlens.compression.matrices import Matrix
from dlens.compression.methods.method import Inputs
from dlens.models.family import hidden_in, hidden_of
from dlens.models.model import Model

__all__ = ["Means", "Readers", "Stream", "begin", "by_input", "observed", "pass_block", "placed"]

# How far blocks run one by one may be from the model run whole, as a share of the norm, by the size of a rounding.
_ROUNDINGS = 64


@final
@dataclass(frozen=True)
class _Call:
    """What a block was called with beside the stream."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self, block: nn.Module, hidden: Resid, device: torch.device | None) -> Resid:
        args, kwargs = self.args, dict(self.kwargs)
        if device is not None:
            hidden, args, kwargs = tree_map_only(Tensor, lambda value: value.to(device), (hidden, args, kwargs))
        if "hidden_states" in kwargs:
            return hidden_of(block(*args, **kwargs | {"hidden_states": hidden}))
        return hidden_of(block(hidden, *args, **kwargs))


@final
@dataclass(eq=False)
class Stream:
    """What flows into the next block, by batch.

    Args:
        model: whose blocks run.
        hidden: the stream as it is now.
        calls: by batch and block, what else it is called with.
        device: where blocks compute; None is where they are.
    """

    model: Model
    hidden: list[Resid]
    calls: list[list[_Call]]
    device: torch.device | None

    def run(self, batch: int, layer: int) -> Resid:
        """What a block makes of a batch."""
        return self.calls[batch][layer].run(self.model.blocks[layer], self.hidden[batch], self.device)


@final
@dataclass(frozen=True, eq=False)
class Readers:
    """Matrices of a block that read the same tensor.

    Args:
        matrices: in the order in which they run.
        once: whether they run once a forward.
    """

    matrices: tuple[Matrix, ...]
    once: bool = True


class _Enough(Exception):
    """What was looked for has been seen; the rest of the forward would be for nothing."""


def begin(model: Model, rows: TokenIds, batch_size: int, device: torch.device | None) -> Stream:
    """The stream as it enters the first block, and what every block is called with.

    No block computes: each hands on what it got. That they compute the same one by one as in the whole model is
    then shown on one row.

    Raises:
        ValueError: they do not.
    """
    stream = Stream(model, [], [], device)
    for ids in rows.split(batch_size):
        hidden, calls = _caught(model, ids.to(model.device))
        stream.hidden.append(hidden)
        stream.calls.append(calls)
    _prove(model, rows[:1].to(model.device), device)
    return stream


def _caught(model: Model, ids: TokenIds) -> tuple[Resid, list[_Call]]:
    first: list[Resid] = []
    calls: list[_Call] = []

    def handed_on(*args: Any, **kwargs: Any) -> Any:
        hidden = hidden_in(args, kwargs)
        first[:] = first or [hidden]
        calls.append(_Call(args[1:], kwargs))
        return model.layout.at(len(calls) - 1).pack(hidden)

    def enough(*_: Any) -> None:
        raise _Enough

    with ExitStack() as stack:
        for block in model.blocks:
            stack.enter_context(_replaced(block, handed_on))
        handle = _norm(model).register_forward_pre_hook(enough)
        stack.callback(handle.remove)
        with _stopped():
            model.module(**model.family.inputs(ids, None))
    return first[0], calls


def _norm(model: Model) -> nn.Module:
    """What reads the stream after the last block."""
    if model.layout.norm is None:
        raise ValueError(
            f"{model.name} has no norm after its last block; expected one, at which a run of the blocks ends; "
            f"compress it with 'rtn' or 'magnitude', which need no texts"
        )
    return model.module.get_submodule(model.layout.norm)


@contextmanager
def _replaced(block: nn.Module, forward: Any) -> Iterator[None]:
    held = vars(block).get("forward")
    vars(block)["forward"] = forward
    try:
        yield
    finally:
        vars(block).pop("forward")
        if held is not None:
            vars(block)["forward"] = held


@contextmanager
def _stopped() -> Iterator[None]:
    try:
        yield
    except _Enough:
        return


def _prove(model: Model, ids: TokenIds, device: torch.device | None) -> None:
    """Blocks one by one give what the final norm gets in the model run whole."""
    whole: list[Resid] = []
    norm = _norm(model)
    handle = norm.register_forward_pre_hook(lambda part, args: whole.append(args[0]))
    try:
        model.module(**model.family.inputs(ids, None))
    finally:
        handle.remove()
    hidden, calls = _caught(model, ids)
    stream = Stream(model, [hidden], [calls], device)
    for layer in range(model.n_layers):
        with placed(model.blocks[layer], device):
            pass_block(stream, layer)
    found, expected = stream.hidden[0].float(), whole[0].float()
    far = float((found - expected).norm() / expected.norm())
    if not far <= _ROUNDINGS * torch.finfo(model.dtype).eps:
        raise ValueError(
            f"the blocks of {model.name} run one by one differ from the model run whole by {far:.2g} of its stream; "
            f"expected blocks that depend on the stream and the tokens alone; compress it with 'rtn' or 'magnitude', "
            f"which run nothing"
        )


@contextmanager
def placed(block: nn.Module, device: torch.device | None) -> Iterator[None]:
    """A block is elsewhere for a while."""
    home = next(block.parameters()).device
    if device is not None:
        block.to(device)
    try:
        yield
    finally:
        if device is not None:
            block.to(home)


def pass_block(stream: Stream, layer: int) -> None:
    """The stream flows through a block."""
    home = stream.hidden[0].device
    for batch in range(len(stream.hidden)):
        stream.hidden[batch] = stream.run(batch, layer).to(home)


def by_input(stream: Stream, layer: int, matrices: Sequence[Matrix]) -> list[Readers]:
    """The matrices of a block that run, in order, those together that read the same tensor: q, k and v; o; ..."""
    tensors: dict[tuple[Any, ...], list[Matrix]] = {}
    times: Counter[Matrix] = Counter()
    held: list[Tensor] = []

    def seen(matrix: Matrix, value: Tensor) -> None:
        held.append(value)  # so that its place in memory is not given to another one
        times[matrix] += 1
        if times[matrix] == 1:
            tensors.setdefault((value.data_ptr(), value.shape, value._version), []).append(matrix)

    with _watched(matrices, seen):
        stream.run(0, layer)
    found = []
    for group in tensors.values():
        once = tuple(matrix for matrix in group if times[matrix] == 1)
        found += [Readers(once)] if once else []
        found += [Readers((matrix,), once=False) for matrix in group if times[matrix] > 1]
    return found


@contextmanager
def _watched(matrices: Sequence[Matrix], seen: Any) -> Iterator[None]:
    def hook(matrix: Matrix) -> Any:
        return lambda part, args: seen(matrix, args[0])

    with ExitStack() as stack:
        for matrix in matrices:
            stack.callback(matrix.part.register_forward_pre_hook(hook(matrix)).remove)
        yield


@final
@dataclass(eq=False)
class Means:
    """Means over the inputs of a matrix, by rows, as Wanda's and GPTQ's code keep them."""

    hessian: bool
    n: int = 0
    square: Any = field(default=0.0)

    def add(self, value: Float[Tensor, "*batch d_in"]) -> None:
        rows = len(value) if value.ndim > 2 else 1
        vectors = value.reshape(-1, value.shape[-1]).float()
        new = vectors.T @ vectors if self.hessian else torch.linalg.vector_norm(vectors.T, dim=1) ** 2
        self.n += rows
        self.square = self.square * ((self.n - rows) / self.n) + new / self.n

    def inputs(self) -> Inputs:
        return Inputs(self.square.diagonal(), self.square) if self.hessian else Inputs(self.square)


def observed(stream: Stream, layer: int, readers: Sequence[Readers], hessian: bool) -> list[Inputs | None]:
    """What each group of matrices gets from the stream as it is now; None where nothing comes.

    The forward of a block ends when all of them have run.
    """
    first = [group.matrices[0] for group in readers]
    means = {matrix: Means(hessian) for matrix in first}
    short = all(group.once for group in readers)

    def seen(matrix: Matrix, value: Tensor) -> None:
        means[matrix].add(value)
        if short and matrix is first[-1]:
            raise _Enough

    with _watched(first, seen):
        for batch in range(len(stream.hidden)):
            with _stopped():
                stream.run(batch, layer)
    return [means[matrix].inputs() if means[matrix].n else None for matrix in first]
