"""The two halves of a block: what each adds to the stream, and which of its modules do the work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor

from dlens.models.family import Fill, Site, Zeros
from dlens.models.layout.calls import Call, Forward
from dlens.models.layout.chain import is_norm
from dlens.models.layout.sums import adds_up, aligned, same, scale_between

__all__ = ["Added", "Halves", "fills_of", "find_halves", "site_of", "spelled"]

Order = Literal["sequential", "parallel", "normed sums"]


@final
@dataclass(frozen=True)
class Added:
    """What a half adds to the stream.

    Args:
        call: the module that returns it: of those that do the last of the outermost.
        index: at which place of its tuple.
        scale: what it is multiplied by before.
    """

    call: Call
    index: int = 0
    scale: float = 1.0

    @property
    def value(self) -> Tensor:
        """What the module returned."""
        return self.call.outs[self.index]


@final
@dataclass(frozen=True)
class Halves:
    """How a block adds to the stream.

    Args:
        order: one half after the other, both of the same stream, or one after the other with a norm after each sum.
        attn, mlp: what each half adds.
        middle: the first module that reads the stream between them; None where nothing does.
        norms: the norms after each sum, where the order says so.
    """

    order: Order
    attn: Added
    mlp: Added
    middle: Call | None = None
    norms: tuple[Call, Call] | None = None


def find_halves(forward: Forward, block: Call, known: tuple[float, ...]) -> Halves | str:
    """The two values that a block adds to its stream, or why there are none.

    Args:
        forward: what was seen.
        block: one of its calls.
        known: numbers that the config and the block hold, which may scale what is added.
    """
    pre, post = block.entered(), block.outs[0]
    assert pre is not None
    calls = forward.within(block)
    outputs = list(_outputs(calls, pre))
    # To the bit first: where numbers have few bits, a wrong factor can hide in their rounding.
    for how in (_How((), True), _How(known, True), _How((), False), _How(known, False)):
        found = _sequential(calls, outputs, pre, post, how) or _normed(calls, outputs, pre, post, how)
        found = found or (None if how.exact else _parallel(outputs, pre, post))
        if found is not None:
            return found
        if any(adds_up((pre, value), post, how.exact) for _, _, value in outputs):
            return "it is one sub-layer, whose output is added to the stream"
    return "no two of its modules' outputs add up, with what enters it, to what leaves it"


Output = tuple[Call, int, Tensor]


@final
@dataclass(frozen=True)
class _How:
    """How sums are looked for: with factors that are known, and to the bit or up to rounding."""

    known: tuple[float, ...]
    exact: bool


def _outputs(calls: tuple[Call, ...], pre: Tensor) -> Iterator[Output]:
    """Every value of the stream's size that a module returned, each once: from the last of the outermost that did."""
    found: list[Output] = []
    for call in calls:
        for index, value in call.outs.items():
            whole = aligned(value, pre)
            if whole is None or same(whole, pre):
                continue
            twin = next((i for i, (_, _, other) in enumerate(found) if same(other, whole)), None)
            if twin is None:
                found.append((call, index, whole))
            elif call.depth <= found[twin][0].depth:
                found[twin] = (call, index, whole)
    yield from found


def _middles(calls: tuple[Call, ...], pre: Tensor, post: Tensor) -> Iterator[tuple[Call, Tensor]]:
    """Every other value of the stream's size that a module reads first, by the first of the outermost that does."""
    seen: list[Tensor] = [pre, post]
    for call in calls:
        whole = None if call.first is None else aligned(call.first, pre)
        if whole is not None and not any(same(whole, other) for other in seen):
            seen.append(whole)
            yield call, whole


def _sequential(calls: tuple[Call, ...], outputs: list[Output], pre: Tensor, post: Tensor, how: _How) -> Halves | None:
    for call, mid in _middles(calls, pre, post):
        attn = _added(outputs, pre, mid, how, before=call.start)
        mlp = attn and _added(outputs, mid, post, how, after=attn.call.end)
        if attn and mlp:
            return Halves("sequential", attn, mlp, call)
    return None


def _added(
    outputs: list[Output],
    before_sum: Tensor,
    after_sum: Tensor,
    how: _How,
    before: int | None = None,
    after: int = -1,
) -> Added | None:
    """The output that was added to get from one value to another, of those returned within a time."""
    for call, index, value in outputs:
        if call.start <= after or (before is not None and call.end >= before):
            continue
        if adds_up((before_sum, value), after_sum, how.exact):
            return Added(call, index)
        if how.known:
            scale = scale_between(before_sum, value, after_sum, how.known, how.exact)
            if scale is not None:
                return Added(call, index, scale)
    return None


def _parallel(outputs: list[Output], pre: Tensor, post: Tensor) -> Halves | None:
    for first, (one, i, attn) in enumerate(outputs):
        for two, j, mlp in outputs[first + 1 :]:
            if one.end < two.start and adds_up((pre, attn, mlp), post):
                return Halves("parallel", Added(one, i), Added(two, j))
    return None


def _normed(calls: tuple[Call, ...], outputs: list[Output], pre: Tensor, post: Tensor, how: _How) -> Halves | None:
    """Sums that a norm reads before anything else does, as in the first transformers."""
    for first in calls:
        attn = _read_sum(first, outputs, pre, how)
        if attn is None:
            continue
        mid = aligned(first.outs[0], pre)
        assert mid is not None
        for last in calls:
            left = aligned(last.outs[0], pre) if last.start > first.end and 0 in last.outs else None
            mlp = _read_sum(last, outputs, mid, how, after=first.end) if same(left, post) else None
            if mlp is not None:
                return Halves("normed sums", attn, mlp, norms=(first, last))
    return None


def _read_sum(norm: Call, outputs: list[Output], base: Tensor, how: _How, after: int = -1) -> Added | None:
    """What was added to a stream to get what a norm reads; None where the module is no norm of such a sum."""
    tensors = list(norm.ins.values())
    total = aligned(tensors[0], base) if len(tensors) == 1 else None
    if total is None or same(total, base) or not is_norm(norm, total):
        return None
    return _added(outputs, base, total, how, before=norm.start, after=after)


def site_of(block: Call, added: Added) -> Site:
    """Where what a half adds is read."""
    path = _below(block, added.call)
    return Site(path, index=added.index, scale=added.scale, spelled=spelled(added.value))


def spelled(value: Tensor) -> str:
    """The axes of what a module has: rows and positions apart, or joined to one."""
    return "(batch position) d_model" if value.ndim == 2 else Site("").spelled


def _below(block: Call, call: Call) -> str:
    return call.path.removeprefix(f"{block.path}.")


def fills_of(forward: Forward, block: Call, halves: Halves) -> tuple[tuple[Fill, ...], tuple[Fill, ...]]:
    """The modules of each half that need not run where it is skipped, with what stands in for their outputs."""
    pre = block.entered()
    assert pre is not None
    streams = [pre] if halves.middle is None or halves.middle.first is None else [pre, halves.middle.first]
    if halves.norms is not None:
        streams += [norm.ins[key] for norm in halves.norms for key in norm.ins]
    calls = [c for c in forward.within(block) if not any(_norms(c, stream, pre) for stream in streams)]
    attn = _outermost(calls, block.start, halves.attn.call.end)
    mlp = _outermost(calls, max(halves.attn.call.end, _end(halves.norms)), halves.mlp.call.end)
    return tuple(_fill(block, c, pre) for c in attn), tuple(_fill(block, c, pre) for c in mlp)


def _end(norms: tuple[Call, Call] | None) -> int:
    return -1 if norms is None else norms[0].end


def _norms(call: Call, stream: Tensor, pre: Tensor) -> bool:
    whole = aligned(stream, pre)
    return whole is not None and is_norm(call, whole)


def _outermost(calls: list[Call], start: int, end: int) -> list[Call]:
    """Modules with weights that ran within a time and lie in no other that did, as far as zeros can stand in."""
    here = [call for call in calls if call.start > start and call.end <= end]
    outermost = [call for call in here if not any(other.holds(call) for other in here)]
    return [call for call in outermost if any(True for _ in call.part.parameters()) and _tensors(call) is not None]


def _tensors(call: Call) -> int | None:
    """The place of the one tensor of channels that a module returned; None where it returned something else."""
    found = [index for index, value in call.outs.items() if value.is_floating_point()]
    return found[0] if found and found[0] == 0 and call.outs[0].ndim in (2, 3) else None


def _fill(block: Call, call: Call, pre: Tensor) -> Fill:
    value = call.outs[0]
    width = None if value.shape[-1] == pre.shape[-1] else int(value.shape[-1])
    return Fill(_below(block, call), Zeros(length=call.length, width=width, flat=value.ndim == 2))
