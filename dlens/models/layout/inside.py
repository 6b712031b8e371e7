"""What lies within the halves of a block: norms, projections to heads, the neurons of the MLP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

from torch import Tensor, nn

from dlens.models.family import Site
from dlens.models.layout.calls import Call, Forward
from dlens.models.layout.chain import is_norm
from dlens.models.layout.halves import Added, Halves, spelled
from dlens.models.layout.roles import Roles
from dlens.models.layout.sums import aligned, same

__all__ = ["Inside", "find_inside"]

_ATTENTION_ALONE = "no module of its own holds it: the block's attention is not made of projections to q, k and v alone"


@final
@dataclass
class Inside:
    """What was found within the halves of one block.

    Args:
        sites: hook point -> site.
        absent: hook point -> why it was not found.
        reads, writes: the linear modules that read the normed stream, and whose output a half adds.
    """

    sites: dict[str, Site] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


def find_inside(forward: Forward, block: Call, halves: Halves, heads: tuple[int, int] | None, roles: Roles) -> Inside:
    """Everything within the halves that modules show.

    Args:
        forward: what was seen.
        block: one of its calls.
        halves: of this block.
        heads: of queries, and of keys and values; None where the config says nothing of them.
        roles: what was found out of blocks before.
    """
    view, found = _View(forward, block, halves), Inside()
    _norms(view, found)
    _lasts(view, found, heads)
    attn, mlp = view.readers(view.attn_calls), view.readers(view.mlp_calls)
    # Where experts or the like make what a half adds, the modules that read the stream are not all linear ones.
    found.reads = tuple(view.path(call) for call in (*attn, *mlp)) if found.writes else ()
    _projections(view, found, attn, heads, roles)
    _neurons(view, found, mlp, roles)
    return found


@final
class _View:
    """One block: its streams, and the calls of each half."""

    def __init__(self, forward: Forward, block: Call, halves: Halves) -> None:
        pre = block.entered()
        assert pre is not None
        self.block, self.halves, self.pre = block, halves, pre
        self.calls = forward.within(block)
        attn_end = halves.attn.call.end
        self.attn_calls = [call for call in self.calls if call.end <= attn_end]
        self.mlp_calls = [call for call in self.calls if call.start > attn_end and call.end <= halves.mlp.call.end]
        middle = None if halves.middle is None else halves.middle.first
        self.middle = None if middle is None else aligned(middle, pre)
        if halves.norms is not None:
            self.middle = aligned(halves.norms[0].outs[0], pre)
        self.ln1, self.ln2 = self._norms()

    def path(self, call: Call) -> str:
        return call.path.removeprefix(f"{self.block.path}.")

    def _norms(self) -> tuple[Call | None, Call | None]:
        """The norm that attention reads, and the one that the MLP reads."""
        before = [call for call in self.calls if is_norm(call, self.pre)]
        if self.middle is None:
            return (*before, None, None)[:2]  # pyright: ignore
        after = (call for call in self.calls if self.middle is not None and is_norm(call, self.middle))
        return next(iter(before), None), next(after, None)

    def readers(self, calls: list[Call]) -> list[Call]:
        """The linear modules of a half that read the stream, as it is or normed."""
        normed = [_as(norm.outs[0], self.pre) for norm in (self.ln1, self.ln2) if norm is not None]
        streams = [*normed, *(value for value in (self.pre, self.middle) if value is not None)]
        found = [call for call in calls if is_linear(call.part) and _one(call) is not None]
        read = [call for call in found if any(same(_as(_one(call), self.pre), stream) for stream in streams)]
        return [call for call in read if not any(other.holds(call) for other in read)]

    def last(self, calls: list[Call], added: Added) -> Call | None:
        """The linear module that makes what a half adds, but for a norm that follows it."""
        goals = [added.value, *added.call.ins.values()]
        linear = [call for call in calls if is_linear(call.part) and 0 in call.outs]
        for call in reversed(linear):
            if any(same(_as(call.outs[0], self.pre), _as(goal, self.pre)) for goal in goals):
                return next((outer for outer in linear if outer.holds(call)), call)
        return None


def is_linear(part: nn.Module) -> bool:
    """Whether a module is a linear layer, by what it says of its width: those of PyTorch, quantised or adapted."""
    return getattr(part, "in_features", getattr(part, "nx", None)) is not None


def _one(call: Call) -> Tensor | None:
    """The one tensor that a module reads."""
    tensors = list(call.ins.values())
    return tensors[0] if len(tensors) == 1 else None


def _as(value: Tensor | None, stream: Tensor) -> Tensor | None:
    return None if value is None else aligned(value, stream)


def _norms(view: _View, found: Inside) -> None:
    if view.ln1 is None:
        found.absent["ln1_scale"] = "no norm reads what enters its blocks"
    else:
        found.sites["ln1_scale"] = _read_by(view, view.ln1)
    if view.ln2 is None:
        found.absent["ln2_scale"] = "no norm of its own stands before its MLP"
    else:
        found.sites["ln2_scale"] = _read_by(view, view.ln2)


def _read_by(view: _View, norm: Call) -> Site:
    return Site(view.path(norm), "input", spelled=spelled(norm.outs[0]))


def _lasts(view: _View, found: Inside, heads: tuple[int, int] | None) -> None:
    """`z` and `mlp_post`: what the last linear module of each half reads."""
    attn, mlp = view.last(view.attn_calls, view.halves.attn), view.last(view.mlp_calls, view.halves.mlp)
    z = None if attn is None else _one(attn)
    if attn is None or z is None or z.ndim != 3 or heads is None or z.shape[-1] % heads[0]:
        found.absent["z"] = "no linear module makes what its attention adds out of whole heads"
    else:
        found.sites["z"] = Site(view.path(attn), "input", heads=True)
    post = None if mlp is None else _one(mlp)
    if mlp is None or post is None:
        found.absent["mlp_post"] = "no linear module makes what its MLP adds"
    else:
        found.sites["mlp_post"] = Site(view.path(mlp), "input", spelled=spelled(post))
    found.writes = () if attn is None or mlp is None else (view.path(attn), view.path(mlp))


def _neurons(view: _View, found: Inside, readers: list[Call], roles: Roles) -> None:
    """`mlp_pre`: what a linear module gives to an activation."""
    last = None if "mlp_post" not in found.sites else view.last(view.mlp_calls, view.halves.mlp)
    index = None
    if last is not None and readers:
        index = roles.neurons(_around(view, [*readers, last]), readers, last)
    if index is None:
        found.absent["mlp_pre"] = "no linear module of its MLP gives its output to an activation as it is"
    else:
        found.sites["mlp_pre"] = Site(view.path(readers[index]), spelled=spelled(readers[index].outs[0]))


def _projections(view: _View, found: Inside, readers: list[Call], heads: tuple[int, int] | None, roles: Roles) -> None:
    """`q`, `k` and `v`: told apart by what changes where they are changed."""
    last = None if "z" not in found.sites else view.last(view.attn_calls, view.halves.attn)
    known = None
    if last is not None and heads is not None and readers:
        known = roles.projections(_around(view, [*readers, last]), readers, last, heads)
    if known is None:
        found.absent |= dict.fromkeys("qkv", _ATTENTION_ALONE)
        return
    # In the order in which they run, which is that of the sites.
    for role, (index, axes, part) in sorted(known.items(), key=lambda item: readers[item[1][0]].start):
        found.sites[role] = Site(view.path(readers[index]), heads=True, spelled=axes, part=part)


def _around(view: _View, calls: list[Call]) -> Call:
    """The innermost module within the block that holds all these calls; the block itself where there is none."""
    outer = [call for call in view.calls if all(call.holds(inner) for inner in calls)]
    return max(outer, key=lambda call: call.depth, default=view.block)
