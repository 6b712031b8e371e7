"""Compress the matrices of a model, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange

from dlens.axes import TokenIds
from dlens.compression.blockwise import Means, Readers, Stream, begin, by_input, observed, pass_block, placed
from dlens.compression.matrices import Matrix, head_and_embed
from dlens.compression.methods.method import Ask, Inputs, Kept, Weight
from dlens.compression.protect import kept_weights
from dlens.compression.recipe import Recipe
from dlens.models.compression import Treated
from dlens.models.model import Model
from dlens.tracing.progress import quiet

__all__ = ["Work", "inputs_of", "treat"]


@final
@dataclass(frozen=True, eq=False)
class Work:
    """What is to be done.

    Args:
        model: a copy, which is changed.
        recipe: how.
        rows: of tokens; None where nothing is read.
        device: where blocks compute; None is where they are.
        batch_size: rows a forward.
        progress: show a bar over layers.
    """

    model: Model
    recipe: Recipe
    rows: TokenIds | None
    device: torch.device | None
    batch_size: int
    progress: bool

    def stream(self) -> Stream | None:
        """The stream as it enters the first block."""
        return None if self.rows is None else begin(self.model, self.rows, self.batch_size, self.device)

    def layers(self) -> Iterator[int]:
        """The layers, with a bar."""
        from tqdm.auto import tqdm

        return iter(
            tqdm(range(self.model.n_layers), "compress", unit="layer", leave=False, disable=quiet(self.progress))
        )


def inputs_of(work: Work, matrices: Sequence[Matrix]) -> dict[Matrix, Inputs]:
    """What every matrix gets in the model as it is; nothing changes.

    Raises:
        ValueError: one gets nothing.
    """
    stream, found = work.stream(), {}
    assert stream is not None
    for layer in work.layers():
        with placed(work.model.blocks[layer], work.device):
            readers = by_input(stream, layer, _of_layer(matrices, layer))
            for group, inputs in zip(readers, observed(stream, layer, readers, hessian=False), strict=True):
                found |= dict.fromkeys(group.matrices, inputs)
            pass_block(stream, layer)
    idle = [matrix.label for matrix in matrices if found.get(matrix) is None]
    if idle:
        raise ValueError(
            f"{idle[0]} never runs on the calibration text; expected inputs for every matrix; give more text, or "
            f"another allocation"
        )
    return found


def treat(
    work: Work, matrices: Sequence[Matrix], shares: Mapping[Matrix, float], left_out: dict[str, str]
) -> list[Treated]:
    """Compress the matrices; those that never ran are added to `left_out`."""
    found: list[Treated] = []
    reads = work.recipe.how.needs != "nothing"
    stream = work.stream() if reads else None
    for layer in work.layers():
        own = _of_layer(matrices, layer)
        with placed(work.model.blocks[layer], work.device):
            if stream is None:
                found += [_change(work, matrix, None, shares) for matrix in own]
                continue
            found += _block(work, stream, layer, own, shares, left_out)
            pass_block(stream, layer)
    head, embed = head_and_embed(work.model, work.recipe.head, work.recipe.embed)
    found += [_change(work, matrix, _last_inputs(work, stream), shares) for matrix in head]
    return found + [_change(work, matrix, None, shares) for matrix in embed]


def _of_layer(matrices: Sequence[Matrix], layer: int) -> list[Matrix]:
    return [matrix for matrix in matrices if matrix.layer == layer]


def _block(
    work: Work,
    stream: Stream,
    layer: int,
    own: Sequence[Matrix],
    shares: Mapping[Matrix, float],
    left_out: dict[str, str],
) -> list[Treated]:
    """Compress a block: all matrices on what they get now, or each group on what those before it leave."""
    how, found = work.recipe.how, []
    readers = by_input(stream, layer, own)
    ran = {matrix for group in readers for matrix in group.matrices}
    left_out |= {matrix.label: "it never ran on the calibration text" for matrix in own if matrix not in ran}
    for groups in [[group] for group in readers] if how.ordered else [readers]:
        for group, inputs in _seen(stream, layer, groups, how.needs == "hessian"):
            found += [_change(work, matrix, inputs, shares) for matrix in group.matrices]
    return found


def _seen(
    stream: Stream, layer: int, groups: Sequence[Readers], hessian: bool
) -> Iterator[tuple[Readers, Inputs | None]]:
    return zip(groups, observed(stream, layer, groups, hessian), strict=True)


def _last_inputs(work: Work, stream: Stream | None) -> Inputs | None:
    """What the unembedding gets: the stream after the last block, normed."""
    if stream is None:
        return None
    path = work.model.layout.norm
    assert path is not None  # blocks were run one by one, which needs one
    norm = work.model.module.get_submodule(path)
    hessian = work.recipe.how.needs == "hessian"
    means = Means(hessian)
    for hidden in stream.hidden:
        means.add(norm(hidden))
    return means.inputs()


def _change(work: Work, matrix: Matrix, inputs: Inputs | None, shares: Mapping[Matrix, float]) -> Treated:
    recipe, old = work.recipe, matrix.weight.clone()
    kept = kept_weights(work.model, recipe, matrix)
    share = shares.get(matrix, recipe.sparsity)
    ask = Ask(recipe.bits, recipe.group, recipe.symmetric, share or 0.0, recipe.act_order, kept)
    matrix.write(recipe.how.change(old, inputs, ask))
    new = matrix.weight
    return Treated(
        layer=matrix.layer,
        matrix=matrix.name,
        weights=new.numel(),
        levels=None if recipe.bits is None else _levels(new, recipe.group, kept),
        asked=share,
        zeros=float((new == 0).float().mean()),
        kept=0.0 if kept is None else float(kept.float().mean()),
        change=float((new - old).float().norm() / old.float().norm()),
        output_change=_output_change(old.float(), new.float(), inputs),
    )


def _levels(weight: Weight, group: int | None, kept: Kept | None) -> int:
    """The most distinct values of a group of a row, those that stay left out."""
    columns = group or weight.shape[1]
    apart = weight if kept is None else weight.masked_fill(kept, torch.inf)
    values = rearrange(apart, "d_out (group column) -> (d_out group) column", column=columns).sort(-1).values
    distinct = (values[:, 1:] != values[:, :-1]).sum(-1) + 1 - values[:, -1].isinf().long()
    return int(distinct.max())


def _output_change(old: Weight, new: Weight, inputs: Inputs | None) -> float | None:
    if inputs is None or inputs.hessian is None:
        return None
    squares = (((part @ inputs.hessian) * part).sum() for part in (new - old, old))
    return float((next(squares) / next(squares)).sqrt())
