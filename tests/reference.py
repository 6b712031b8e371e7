"""Hand-written references in plain PyTorch, that traced runs are compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import dlens


def fresh(module: nn.Module) -> Any:
    """A copy of a native transformers model built from its config and weights, free of any wrapper."""
    from transformers.initialization import no_init_weights

    plain: Any = module
    config = copy.deepcopy(plain.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with no_init_weights():  # every weight is loaded
        built: Any = type(plain)(config).eval()
    built.load_state_dict(plain.state_dict())
    built.generation_config = copy.deepcopy(plain.generation_config)
    if not getattr(config, "is_causal", True):
        for part in built.modules():
            if "is_causal" in vars(part):
                part.is_causal = False
    return built


def rebuilt(module: nn.Module, order: Sequence[int]) -> Any:
    """A model whose blocks are those of `module` in another order, left out or doubled."""
    built = fresh(module)
    own = list(built.model.layers)
    layers = [copy.deepcopy(own[i]) if i in order[:place] else own[i] for place, i in enumerate(order)]
    for place, layer in enumerate(layers):
        layer.self_attn.layer_idx = place
    built.model.layers = nn.ModuleList(layers)
    built.config.num_hidden_layers = len(layers)
    built.config.layer_types = ["full_attention"] * len(layers)
    return built


def shallow(model: dlens.Model, n_layers: int) -> dlens.Model:
    """The first blocks of a model as a model of its own, of the same name."""
    cut = dlens.load(rebuilt(model.module, range(n_layers)), tokenizer=model.tokenizer)
    return replace(cut, name=model.name)


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of prompts of unequal length."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def positions(mask: Tensor) -> Tensor:
    """Position ids of a left-padded batch."""
    return (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)


@contextmanager
def block_outputs(module: Any) -> Iterator[list[Tensor]]:
    """Collect the output of every block, call after call."""
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(
            lambda _m, _a, out: seen.append((out[0] if isinstance(out, tuple) else out).clone())
        )
        for layer in module.model.layers
    ]
    yield seen
    for hook in hooks:
        hook.remove()


@contextmanager
def edited(module: Any, edit: Callable[[int, int, Tensor, Tensor, Tensor], Tensor | None]) -> Iterator[None]:
    """Let `edit(step, layer, input, output, token_ids)` replace the output of every block; None leaves it."""
    state: dict[str, Any] = {"step": -1}

    def begin(_module: Any, args: Any, kwargs: Any) -> None:
        state["step"] += 1
        state["ids"] = kwargs["input_ids"] if "input_ids" in kwargs else args[0]

    def after(layer: int) -> Any:
        def hook(_module: Any, args: Any, kwargs: Any, out: Tensor) -> Tensor | None:
            hidden = args[0] if args else kwargs["hidden_states"]
            return edit(state["step"], layer, hidden, out, state["ids"])

        return hook

    handles = [module.register_forward_pre_hook(begin, with_kwargs=True)]
    for number, layer in enumerate(module.model.layers):
        handles.append(layer.register_forward_hook(after(number), with_kwargs=True))
    yield
    for handle in handles:
        handle.remove()
