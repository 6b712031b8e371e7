"""Which matrices of a model are compressed, and which are left out and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import nn

from dlens.compression.methods.method import Weight
from dlens.models.layout.matrices import is_linear, linear_weight, matrices_in, unreadable
from dlens.models.model import Model

__all__ = ["Matrix", "head_and_embed", "matrices_of"]


@final
@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix of a model.

    Args:
        layer: of its block; None outside of blocks.
        name: its path below the block, or below the module.
        part: the module that holds it.
    """

    layer: int | None
    name: str
    part: nn.Module

    @property
    def weight(self) -> Weight:
        """A view of the weights, whichever way they are stored."""
        found = linear_weight(self.part)
        assert found is not None
        return found

    @property
    def label(self) -> str:
        """Its name within the model."""
        return self.name if self.layer is None else f"layer {self.layer} {self.name}"

    def write(self, new: Weight) -> None:
        """Put new weights in place of the old ones."""
        self.weight.copy_(new)


def matrices_of(model: Model) -> tuple[list[Matrix], dict[str, str]]:
    """The linear matrices of all blocks, and the other weights of two axes or more with the reason they are left out.

    Examples:
        >>> import dlens
        >>> found, left_out = matrices_of(dlens.load("trio/ar"))
        >>> len(found), found[0].label, left_out
        (112, 'layer 0 self_attn.q_proj', {})
    """
    found: list[Matrix] = []
    left_out: dict[str, str] = {}
    seen: dict[int, str] = {}
    for layer, block in enumerate(model.blocks):
        for held in matrices_in(block):
            matrix = Matrix(layer, held.path, held.part)
            if held.why:
                left_out[matrix.label] = held.why
            elif (first := seen.setdefault(_place(held.part), matrix.label)) != matrix.label:
                left_out[matrix.label] = f"the same weights as {first}"
            else:
                found.append(matrix)
    return found, left_out


def head_and_embed(model: Model, head: bool, embed: bool) -> tuple[list[Matrix], list[Matrix]]:
    """The unembedding and the embedding, where they are asked for.

    Raises:
        ValueError: the head is no linear module of its own.
    """
    found: tuple[list[Matrix], list[Matrix]] = ([], [])
    path = model.layout.head
    part = None if path is None else model.module.get_submodule(path)
    tied = part is None or _place(part) == _place(model.embed)
    if head:
        if part is None or tied or not is_linear(part) or unreadable(part):
            raise ValueError(
                f"head=True on {model.name}, whose unembedding is {'the embedding' if tied else type(part).__name__}; "
                f"expected a linear module of its own; leave head out"
            )
        found[0].append(Matrix(None, str(path), part))
    if embed:
        if tied or linear_weight(model.embed) is None:
            raise ValueError(
                f"embed=True on {model.name}, whose embedding is {'the unembedding too' if tied else 'no table'}; "
                f"expected a table of its own; leave embed out"
            )
        found[1].append(Matrix(None, model.layout.embed, model.embed))
    return found


def _place(part: nn.Module) -> int:
    """Where the weights of a module lie."""
    weight = getattr(part, "weight", None)
    return 0 if weight is None else weight.data_ptr()
