"""Which linear module of a half is which: told by running part of a block again with its output changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from dlens.models.family import Site
from dlens.models.layout.calls import Call
from dlens.models.layout.sums import same

__all__ = ["Roles"]

# How queries, keys and values of one projection may lie beside each other.
_FUSED = ("batch position (part head d_head)", "batch position (head part d_head)")
Change = Callable[[Tensor], Tensor]


@final
class Roles:
    """What the linear modules of a half are to each other; asked once of blocks that are built alike."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def projections(
        self, around: Call, readers: Sequence[Call], last: Call, heads: tuple[int, int]
    ) -> dict[str, tuple[int, str, int]] | None:
        """Queries, keys and values: q, k or v -> index of the reader, its axes, and which part of it.

        Args:
            around: the module that holds the others, and runs again.
            readers: the linear modules that read the stream.
            last: the one that reads z.
            heads: of queries, and of keys and values.
        """

        def find() -> Any:
            if len(readers) == 3:
                return _three(around, readers, last, heads)
            fused = len(readers) == 1 and heads[0] == heads[1]
            return _fused(around, readers[0], last, heads[0]) if fused else None

        return self._once("projections", around, readers, last, find)

    def neurons(self, around: Call, readers: Sequence[Call], last: Call) -> int | None:
        """The index of the reader that an activation reads: neuron by neuron, and not linearly, into `last`."""
        return self._once("neurons", around, readers, last, lambda: _neurons(around, readers, last))

    def _once(self, what: str, around: Call, readers: Sequence[Call], last: Call, find: Callable[[], Any]) -> Any:
        paths = [call.path.removeprefix(around.path) for call in (*readers, last)]
        key = (what, type(around.part), *paths, *(call.outs[0].shape[-1] for call in readers))
        if key not in self._known:
            try:
                self._known[key] = find()
            except Exception:  # a module that does not run again by itself tells nothing
                self._known[key] = None
        return self._known[key]


def _three(
    around: Call, readers: Sequence[Call], last: Call, heads: tuple[int, int]
) -> dict[str, tuple[int, str, int]] | None:
    """Three projections: values, of which z is a sum; queries, which move their own position alone; and keys."""
    plain, roles = _again(around, last), dict[str, int]()
    for index, call in enumerate(readers):
        role = _role(plain, around, last, call.part, lambda change: change)
        if role is None or role in roles:
            return None
        roles[role] = index
    n_heads = {"q": heads[0], "k": heads[1], "v": heads[1]}
    widths = {role: readers[index].outs[0].shape[-1] / n_heads[role] for role, index in roles.items()}
    if widths["q"] != widths["k"] or not all(width.is_integer() for width in widths.values()):
        return None
    return {role: (roles[role], Site("").spelled, 0) for role in "qkv"}


def _fused(around: Call, reader: Call, last: Call, n_heads: int) -> dict[str, tuple[int, str, int]] | None:
    """One projection, cut the way that makes its parts queries, keys and values."""
    made = reader.outs[0]
    if made.ndim != 3 or made.shape[-1] % (3 * n_heads):
        return None
    plain = _again(around, last)
    for axes in _FUSED:
        sites = [Site("", heads=True, spelled=axes, part=part) for part in range(3)]
        if [_role(plain, around, last, reader.part, _within(site, n_heads)) for site in sites] == ["q", "k", "v"]:
            return {role: (0, axes, part) for part, role in enumerate("qkv")}
    return None


def _within(site: Site, n_heads: int) -> Callable[[Change], Change]:
    """From a change of one part of a projection's output, that of all of it."""
    return lambda change: lambda whole: site.join(change(site.split(whole, n_heads)), whole)


def _role(plain: Tensor, around: Call, last: Call, part: nn.Module, at: Callable[[Change], Change]) -> str | None:
    """What a projection is to attention."""
    if _linear(plain, _again(around, last, part, at(lambda value: 2 * value)), 2):
        return "v"
    middle = plain.shape[1] // 2
    moved = (_again(around, last, part, at(lambda value: _moved(value, middle))) != plain).flatten(2).any(-1)[0]
    if not bool(moved.any()):
        return None
    return "q" if moved.nonzero().flatten().tolist() == [middle] else "k"


def _moved(value: Tensor, position: int) -> Tensor:
    value = value.clone()
    row = value[:, position]
    value[:, position] = row.flip(-1) + row.std() + row.roll(1, -1)
    return value


def _neurons(around: Call, readers: Sequence[Call], last: Call) -> int | None:
    plain = _again(around, last)
    width = plain.shape[-1]
    alone = [
        i
        for i, call in enumerate(readers)
        if call.outs[0].shape[-1] == width and _each_alone(plain, around, last, call)
    ]
    if len(readers) == 1:
        return alone[0] if alone else None
    bent = [i for i in alone if not all(_times(plain, around, last, readers[i], factor) for factor in (2, -1))]
    return bent[0] if len(bent) == 1 else None


def _each_alone(plain: Tensor, around: Call, last: Call, call: Call) -> bool:
    """Whether one channel of a module's output moves the same channel before the last module, and no other."""

    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., 1] += value.abs().max()
        return value

    moved = (_again(around, last, call.part, change) != plain).flatten(0, -2).any(0)
    return moved.nonzero().flatten().tolist() == [1]


def _times(plain: Tensor, around: Call, last: Call, call: Call, factor: int) -> bool:
    return _linear(plain, _again(around, last, call.part, lambda value: factor * value), factor)


def _linear(plain: Tensor, changed: Tensor, factor: int) -> bool:
    """Whether a value is so many times what it was, up to rounding."""
    near = torch.allclose(changed, factor * plain, rtol=1e-2, atol=1e-3 * float(plain.abs().max()))
    return near and not same(plain, changed)


def _again(around: Call, last: Call, part: nn.Module | None = None, change: Change | None = None) -> Tensor:
    """What the last linear module reads when a module runs again, with another's output changed."""
    seen: list[Tensor] = []
    handles: list[Any] = [last.part.register_forward_pre_hook(lambda _m, args: seen.append(args[0].detach().clone()))]
    if part is not None and change is not None:
        handles.append(part.register_forward_hook(lambda _m, _a, out: change(out)))  # pyright: ignore
    try:
        run: Any = around.part
        run(*around.args, **around.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen[0]
