"""Find where a model keeps its parts, from one small forward of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import nn

from dlens.axes import POINTS, TokenIds
from dlens.errors import VerificationError
from dlens.models.family import Fill, Layout, Site
from dlens.models.identity import foreign_parts
from dlens.models.layout.calls import Call, Forward, undisturbed, watch
from dlens.models.layout.chain import Chain, Ends, find_chain, find_ends
from dlens.models.layout.config import n_heads, n_kv_heads, n_positions
from dlens.models.layout.halves import Halves, fills_of, find_halves, site_of, spelled
from dlens.models.layout.inside import Inside, find_inside
from dlens.models.layout.roles import Roles

__all__ = ["few_tokens", "find_layout"]

_TOKENS = 8
_PARALLEL = "this block runs attention and MLP side by side, so there is no stream between them"
_NORMED = "its norms follow the sums, so that the stream between the halves is another one after its norm"


@final
@dataclass(frozen=True)
class _Found:
    """What was found in one block.

    Args:
        length: of the tuple that it returns.
        sites, absent: its hook points.
        skips: the fills of both halves.
        reads, writes: its linear modules at the stream.
        sum_norms: the norms after its sums.
        order: how its halves follow each other, in words.
    """

    length: int | None
    sites: Mapping[str, Site]
    absent: Mapping[str, str]
    skips: tuple[tuple[Fill, ...], tuple[Fill, ...]] = ((), ())
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    sum_norms: tuple[str, ...] = ()
    order: str = ""


def find_layout(module: nn.Module, inputs: Callable[[TokenIds, None], dict[str, Any]], ids: TokenIds) -> Layout:
    """The layout of a model, by what its modules compute of a few tokens.

    Args:
        module: of the transformers library, in whatever state; it is left as it was.
        inputs: makes its arguments of token ids, as those of a Family.
        ids: one row of unlike tokens.

    Raises:
        VerificationError: no blocks, or no embedding, could be found.

    Examples:
        >>> import dlens
        >>> model = dlens.load("trio/ar")
        >>> layout = find_layout(model.module, model.family.inputs, few_tokens(model.module))
        >>> layout.blocks, layout.sites["resid_mid"].path, layout.sites["z"].path
        ('model.layers', 'post_attention_layernorm', 'self_attn.o_proj')
    """
    with undisturbed(module):
        forward = _watched(module, inputs(ids, None))
        chain = find_chain(module, forward)
        ends = find_ends(module, forward, chain)
        roles, config = Roles(), module.config.get_text_config()  # pyright: ignore
        settings = tuple(config.to_dict().values())
        found = [_of_block(config, settings, forward, block, roles) for block in chain.blocks]
    return _together(module, chain, ends, found)


def _watched(module: nn.Module, inputs: dict[str, Any]) -> Forward:
    try:
        return watch(module, inputs)
    except Exception as error:
        raise VerificationError(
            f"{type(module).__name__} gives no logits of a few tokens ({type(error).__name__}: {error}); expected a "
            f"language model that runs with {', '.join(inputs)}; load the class with the language-model head, or give "
            f"a Family with the right inputs"
        ) from error


def few_tokens(module: Any) -> TokenIds:
    """A row of unlike tokens, none of them one that the config names for a purpose."""
    config = module.config.get_text_config()
    named = [value for name, value in config.to_dict().items() if name.endswith("_token_id")]
    special = {token for value in named for token in (value if isinstance(value, list) else [value])}
    n_tokens = getattr(config, "vocab_size", None) or len(module.get_input_embeddings().weight)
    usable = [token for token in range(n_tokens) if token not in special]
    length = min(_TOKENS, n_positions(config) or _TOKENS)
    chosen = [usable[(7 * i + len(usable) // 3) % len(usable)] for i in range(length)]
    device = next((parameter.device for parameter in module.parameters() if not parameter.is_meta), None)
    return torch.tensor([chosen], device=device)


def _of_block(config: Any, settings: tuple[Any, ...], forward: Forward, block: Call, roles: Roles) -> _Found:
    halves = find_halves(forward, block, _numbers(config, settings, block.part))
    if isinstance(halves, str):
        return _Found(block.length, {}, dict.fromkeys(_inner(), halves))
    heads = n_heads(config)
    inside = find_inside(forward, block, halves, None if heads is None else (heads, n_kv_heads(config) or heads), roles)
    skips = fills_of(forward, block, halves)
    return _with_halves(block, halves, inside, skips)


def _with_halves(
    block: Call, halves: Halves, inside: Inside, skips: tuple[tuple[Fill, ...], tuple[Fill, ...]]
) -> _Found:
    sites = {"attn_out": site_of(block, halves.attn), "mlp_out": site_of(block, halves.mlp)}
    absent = dict(inside.absent)
    if halves.middle is not None:
        path = halves.middle.path.removeprefix(f"{block.path}.")
        first = halves.middle.first
        sites["resid_mid"] = Site(path, "input", spelled=Site("").spelled if first is None else spelled(first))
    else:
        absent["resid_mid"] = _PARALLEL if halves.order == "parallel" else _NORMED
    norms = () if halves.norms is None else tuple(norm.path.removeprefix(f"{block.path}.") for norm in halves.norms)
    return _Found(
        length=block.length,
        sites=sites | inside.sites,
        absent=absent,
        skips=skips,
        reads=inside.reads,
        writes=inside.writes,
        sum_norms=norms,
        order=halves.order,
    )


def _inner() -> tuple[str, ...]:
    """The points within a block that modules show."""
    return tuple(name for name, point in POINTS.items() if point.inner and not point.kernel and name != "result")


def _numbers(config: Any, settings: tuple[Any, ...], part: nn.Module) -> tuple[float, ...]:
    """The numbers that a config and the modules of a block hold, with those that are made of them."""
    held = [*settings, *(value for inner in part.modules() for value in vars(inner).values())]
    numbers = {float(value) for value in held if isinstance(value, float) and value not in (0.0, 1.0)}
    depth = getattr(config, "num_hidden_layers", None) or 1
    return tuple(sorted(numbers | {number / math.sqrt(depth) for number in numbers}))


def _together(module: nn.Module, chain: Chain, ends: Ends, found: Sequence[_Found]) -> Layout:
    """One layout of what was found in each block: the points that all have, at the places where most have them."""
    points = set.intersection(*(set(each.sites) for each in found))
    absent = {point: _why(module, chain, found, point) for point in _inner() if point not in points}
    layouts = [_layout(chain, ends, each, points, absent) for each in found]
    keys = [repr(layout) for layout in layouts]
    most = Counter(keys).most_common(1)[0][0]
    main = layouts[keys.index(most)]
    others = {index: layout for index, layout in enumerate(layouts) if keys[index] != most}
    return replace(main, others=others, because=_because(chain, ends, found, main))


def _why(module: nn.Module, chain: Chain, found: Sequence[_Found], point: str) -> str:
    index = next(index for index, each in enumerate(found) if point not in each.sites)
    reason = found[index].absent.get(point, "no module of it shows this")
    foreign = [path for path in foreign_parts(module) if path.startswith(f"{chain.path}.")]
    if foreign:
        reason = f"{reason} (what hooks into {', '.join(foreign[:3])} may be the cause)"
    if all(each.absent.get(point) == found[index].absent.get(point) for each in found):
        return reason
    return f"block {index} ({type(chain.blocks[index].part).__name__}): {reason}"


def _layout(chain: Chain, ends: Ends, found: _Found, points: set[str], absent: Mapping[str, str]) -> Layout:
    attn, mlp = found.skips
    return Layout(
        blocks=chain.path,
        embed=ends.embed,
        norm=ends.norm,
        head=ends.head,
        sites={name: site for name, site in found.sites.items() if name in points},
        attn_skip=attn,
        mlp_skip=mlp,
        block_tuple=found.length,
        absent=absent if ends.norm is not None else {**absent, "ln_final_scale": "no norm follows its last block"},
        reads=found.reads,
        writes=found.writes,
        sum_norms=found.sum_norms,
        width=None if ends.width == chain.first.shape[-1] else int(chain.first.shape[-1]),
    )


def _because(chain: Chain, ends: Ends, found: Sequence[_Found], layout: Layout) -> dict[str, str]:
    """Why each part was taken for what it is."""
    said = {
        "blocks": f"{len(chain.blocks)} modules that run once each, in order; each gets the very tensor that the one "
        f"before returned",
        "embed": "makes the first vectors of the token ids",
        "norm": "reads what the last block returned" if ends.norm else "no module norms what the last block returned",
        "head": "makes the logits" if ends.head else "no module makes the logits",
    }
    orders = Counter(each.order for each in found)
    for order in filter(None, orders):
        where = "in every block" if orders[order] == len(found) else f"in {orders[order]} of {len(found)} blocks"
        said[order] = f"{_SUMS[order]} ({where})"
    return said | {point: _BECAUSE[point] for point in layout.sites if point in _BECAUSE}


_SUMS = {
    "sequential": "resid_pre + attn_out is what another module reads, and that + mlp_out is what the block returns",
    "parallel": "resid_pre + attn_out + mlp_out is what the block returns",
    "normed sums": "a norm reads resid_pre + attn_out, another one the first norm's output + mlp_out",
}
_BECAUSE = {
    "ln1_scale": "a norm that reads resid_pre",
    "ln2_scale": "a norm that reads what is between the halves, or the second that reads resid_pre",
    "q": "a projection; changed at one position it changes z there alone",
    "k": "a projection; changed at one position it changes z elsewhere",
    "v": "a projection; z is linear in it",
    "z": "read by the linear module that makes attn_out",
    "mlp_pre": "a projection; changed at one neuron it changes mlp_post there alone, and not linearly",
    "mlp_post": "read by the linear module that makes mlp_out",
}
