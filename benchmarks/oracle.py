"""The same compression by llmcompressor, which works on one torch module in place and in float32."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

__all__ = ["compressed", "matrices"]

Rows = Sequence[Int[Tensor, "batch position"]]


def matrices(module: nn.Module, blocks: str) -> dict[str, nn.Linear]:
    """The linear modules of all blocks, by their names below the module."""
    found = module.get_submodule(blocks).named_modules(prefix=blocks)
    return {name: part for name, part in found if isinstance(part, nn.Linear)}


def compressed(
    module: nn.Module, blocks: str, method: str, batches: Rows, settings: Mapping[str, Any], **how: Any
) -> nn.Module:
    """A copy of a module whose blocks' matrices llmcompressor has compressed.

    Args:
        module: a PreTrainedModel; it stays as it is.
        blocks: the name of the list of its blocks.
        method: "wanda", "magnitude", "sparsegpt" or "gptq".
        batches: token ids to calibrate with, forward by forward.
        settings: `sparsity` of a pruning method; `bits` and `group` of "gptq".
        how: further arguments of `oneshot`, such as `propagate_error=False`.

    Returns:
        The copy, with plain linear modules.
    """
    from loguru import logger  # pyright: ignore[reportMissingImports]

    logger.disable("llmcompressor")
    worked, result = copy.deepcopy(module), copy.deepcopy(module)
    if method == "magnitude":
        _magnitude(worked, blocks, **settings)
    else:
        _oneshot(worked, blocks, batches, _modifier(method, worked, blocks, **settings), **how)
    done = matrices(worked, blocks)
    with torch.no_grad():
        for name, part in matrices(result, blocks).items():
            part.weight.copy_(done[name].weight)
    return result


def _oneshot(module: nn.Module, blocks: str, batches: Rows, modifier: Any, **how: Any) -> None:
    from llmcompressor import oneshot  # pyright: ignore[reportMissingImports]
    from torch.utils.data import DataLoader

    rows: Any = [{"input_ids": ids} for ids in batches]
    oneshot(
        model=module,
        recipe=modifier,
        dataset=DataLoader(rows, batch_size=None),
        # It asks for a tokenizer, and never calls it: the rows are token ids.
        processor=object(),
        sequential_targets=[_block_class(module, blocks)],
        trust_remote_code_model=True,
        **how,
    )


def _modifier(method: str, module: nn.Module, blocks: str, **settings: Any) -> Any:
    from llmcompressor.modifiers.gptq import GPTQModifier  # pyright: ignore[reportMissingImports]
    from llmcompressor.modifiers.pruning import (  # pyright: ignore[reportMissingImports]
        SparseGPTModifier,
        WandaPruningModifier,
    )

    if method == "gptq":
        bits, group = settings["bits"], settings["group"]
        weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": group}
        names = list(matrices(module, blocks))
        return GPTQModifier(config_groups={"all": {"targets": names, "weights": weights}})
    kind = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[method]
    return kind(sparsity=settings["sparsity"], targets=[_block_class(module, blocks)])


def _magnitude(module: nn.Module, blocks: str, sparsity: float) -> None:
    """Its modifier is made for training: the masks are applied where an optimiser has made a step."""
    from llmcompressor.core import Event, EventType, State  # pyright: ignore[reportMissingImports]
    from llmcompressor.modifiers.pruning import MagnitudePruningModifier  # pyright: ignore[reportMissingImports]

    names, state = list(matrices(module, blocks)), State(model=module)
    modifier = MagnitudePruningModifier(targets=names, init_sparsity=sparsity, final_sparsity=sparsity, start=0, end=1)
    modifier.initialize(state)
    modifier.update_event(state, Event(type_=EventType.OPTIM_POST_STEP))
    modifier.finalize(state)


def _block_class(module: nn.Module, blocks: str) -> str:
    return type(module.get_submodule(blocks)[0]).__name__  # pyright: ignore[reportIndexIssue]
