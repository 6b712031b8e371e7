"""The blocks of a model, which hand the stream on to each other, and what stands before and after them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from dlens.errors import VerificationError
from dlens.models.layout.calls import Call, Forward
from dlens.models.layout.sums import aligned, same

__all__ = ["Chain", "Ends", "find_chain", "find_ends", "is_norm"]


@final
@dataclass(frozen=True)
class Chain:
    """The list of blocks.

    Args:
        path: of the list.
        blocks: one call each, in their order.
    """

    path: str
    blocks: tuple[Call, ...]

    @property
    def first(self) -> Tensor:
        """The stream that enters block 0."""
        stream = self.blocks[0].entered()
        assert stream is not None
        return stream

    @property
    def last(self) -> Tensor:
        """The stream that leaves the last block."""
        return self.blocks[-1].outs[0]


@final
@dataclass(frozen=True)
class Ends:
    """What stands before and after the blocks.

    Args:
        embed: path of the token embedding.
        width: of the vectors that it makes.
        norm: path of the final norm; None where the head reads the stream as it is.
        head: path of what makes the logits; None where no module does.
    """

    embed: str
    width: int
    norm: str | None
    head: str | None


def find_chain(module: nn.Module, forward: Forward) -> Chain:
    """The longest list of modules that run once each and hand one tensor on; of several, one that ends in the logits.

    Args:
        module: what was run.
        forward: what it showed.

    Raises:
        VerificationError: there is none; says of the longest list why it is none.
    """
    found: list[Chain] = []
    reasons: list[tuple[int, str]] = []
    for path, part in module.named_modules():
        if isinstance(part, nn.ModuleList) and len(part):
            blocks, reason = _in_order(part, path, forward)
            if reason is None:
                found.append(Chain(path, blocks))
            else:
                reasons.append((len(part), reason))
    if len(found) > 1:
        found = _ending_in_logits(module, forward, found)
    if found:
        return max(found, key=lambda chain: len(chain.blocks))
    _, why = max(reasons, key=lambda reason: reason[0], default=(0, "it holds no list of modules"))
    raise VerificationError(
        f"{type(module).__name__} has no blocks that dlens can find: {why}; expected a ModuleList whose members run "
        f"once each and hand a tensor of [batch, position, d_model] on to the next; give a Family with a Layout"
    )


def _ending_in_logits(module: nn.Module, forward: Forward, found: list[Chain]) -> list[Chain]:
    """The chains from whose last block tensors are handed on, module by module, to the logits."""
    ending = [chain for chain in found if _leads(chain, forward)]
    if not ending:
        raise VerificationError(
            f"{type(module).__name__} has several lists of blocks ({', '.join(chain.path for chain in found)}), and of "
            f"none of them is seen that it ends in the logits; expected one that does; give a Family with a Layout"
        )
    return ending


def _leads(chain: Chain, forward: Forward) -> bool:
    reached = [chain.last]
    for call in forward.calls:
        inside = any(block.holds(call) for block in chain.blocks)
        if not inside and any(same(value, one) for value in call.ins.values() for one in reached):
            reached += call.outs.values()
    return any(same(one, forward.logits) for one in reached)


def _in_order(part: nn.ModuleList, path: str, forward: Forward) -> tuple[tuple[Call, ...], str | None]:
    """The calls of a list's members, and why they are no chain of blocks, or None."""
    blocks: list[Call] = []
    for index, member in enumerate(part):
        calls = [call for call in forward.calls if call.part is member]
        if len(calls) != 1:
            return (), f"{path}.{index} runs {len(calls)} times in one forward"
        blocks += calls
    for index, call in enumerate(blocks):
        if (reason := _no_block(call, forward)) is not None:
            return (), f"{path}.{index} {reason}"
    for index, (call, after) in enumerate(zip(blocks, blocks[1:], strict=False)):
        if not (same(call.outs[0], after.entered()) and call.end < after.start):
            return (), f"what leaves {path}.{index} is not what enters {path}.{index + 1}"
    return tuple(blocks), None


def _no_block(call: Call, forward: Forward) -> str | None:
    """Why a call is none of a block: it takes or gives no stream."""
    entered, left = call.entered(), call.outs.get(0)
    for value, does in ((entered, "takes"), (left, "returns")):
        if value is None:
            return f"{does} no tensor first"
        if value.shape[:-1] != forward.ids.shape or not value.is_floating_point():
            return f"{does} a tensor of shape {list(value.shape)}"
    assert entered is not None and left is not None
    return None if entered.shape == left.shape else "changes the width of the stream"


def find_ends(module: nn.Module, forward: Forward, chain: Chain) -> Ends:
    """What reads the tokens first, and what reads the stream that leaves the last block.

    Raises:
        VerificationError: nothing reads the token ids.
    """
    after = [call for call in forward.calls if call.start > chain.blocks[-1].end]
    norm = next((call for call in after if is_norm(call, chain.last)), None)
    normed = chain.last if norm is None else norm.outs[0]
    heads = [call for call in after if _gives(call, forward.logits)]
    head = next((call for call in heads if any(same(value, normed) for value in call.ins.values())), None)
    head = head or next(iter(heads), None)
    embed = _embedding(module, forward)
    return Ends(embed.path, int(embed.outs[0].shape[-1]), norm and norm.path, head and head.path)


def _gives(call: Call, logits: Tensor) -> bool:
    """Whether a call returns something of the logits' shape; what a model does to them after that is its own."""
    return 0 in call.outs and call.outs[0].shape == logits.shape


def _embedding(module: nn.Module, forward: Forward) -> Call:
    """The first innermost module that makes vectors of the token ids, or the one that the model calls so."""
    found = [call for call in forward.calls if call.path and _reads_ids(call, forward)]
    own = next((call for call in found if call.part is _named(module)), None)
    innermost = (call for call in found if not any(call.holds(other) for other in found))
    chosen = own or next(innermost, None)
    if chosen is None:
        raise VerificationError(
            f"{type(module).__name__} has no embedding that dlens can find; expected a module that takes the token ids "
            f"and gives a vector of each; give a Family with a Layout"
        )
    return chosen


def _named(module: nn.Module) -> nn.Module | None:
    from transformers import PreTrainedModel

    try:
        return module.get_input_embeddings() if isinstance(module, PreTrainedModel) else None
    except (NotImplementedError, AttributeError):
        return None


def _reads_ids(call: Call, forward: Forward) -> bool:
    reads = any(same(value, forward.ids) for value in call.ins.values())
    return reads and any(value.is_floating_point() and value.ndim == 3 for value in call.outs.values())


def is_norm(call: Call, stream: Tensor) -> bool:
    """Whether a call norms the stream: it reads that alone, gives something else of its shape, and has no matrix."""
    tensors = list(call.ins.values())
    if len(tensors) != 1 or call.length is not None:
        return False
    entered, left = aligned(tensors[0], stream), aligned(call.outs[0], stream) if 0 in call.outs else None
    if left is None or not same(entered, stream) or same(left, stream):
        return False
    return not any(weight.ndim > 1 for weight in _weights(call.part))


def _weights(part: nn.Module) -> Iterator[Tensor]:
    yield from part.parameters()
