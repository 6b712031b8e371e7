"""Proof that the hook points of a layout are where the residual stream says they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn

from dlens.axes import POINTS, Logits, TokenIds
from dlens.errors import VerificationError
from dlens.models.family import Layout, Site, hidden_in, hidden_of
from dlens.models.identity import structure
from dlens.models.model import Model

__all__ = [
    "QKV",
    "Seen",
    "as_built",
    "check_sites",
    "form",
    "inner_widths",
    "observe",
    "point_widths",
    "same_rows",
    "shared_by_rows",
    "undecided",
    "widths",
    "without",
]

_POINTS = ("attn_out", "resid_mid", "mlp_out")
# How often a sum may be rounded otherwise than the model rounds it.
_ROUNDINGS = 4
# What the last projection of a half reads -> what it adds to the stream: the one decides the other.
_LAST = {"z": "attn_out", "mlp_post": "mlp_out"}
QKV = ("q", "k", "v")
# The points at which the second and the third of three texts have what the first one has.
_SHARED = (tuple(_LAST), QKV)
_OPTIONAL = tuple(name for name, point in POINTS.items() if point.where in ("attn", "mlp") and not point.in_stream)


@final
class Seen:
    """What one forward showed.

    Args:
        positions: of a row.

    Attributes:
        values: (layer, point) -> what was there.
        counts: (layer, path) -> how often a module ran.
        forms: (layer, path) -> the lengths of the tuples that a module returned, None for a bare value.
        logits: of every row.
    """

    def __init__(self, positions: int) -> None:
        self.values: dict[tuple[int, str], Any] = {}
        self.counts: Counter[tuple[int, str]] = Counter()
        self.forms: defaultdict[tuple[int, str], set[int | None]] = defaultdict(set)
        self.positions = positions
        self.logits: Logits = torch.empty(0, 0, 0)

    def keep(self, layer: int, point: str, site: Site, value: Any) -> None:
        """Put a value aside, with the axes of the stream where the module joins them."""
        # A copy, as some blocks add in place.
        value = value.clone() if isinstance(value, Tensor) else value
        split = not site.heads and (site.flat or site.scale != 1)
        self.values[layer, point] = site.split(value, positions=self.positions) if split else value


def as_built(layout: Layout, module: nn.Module) -> Layout:
    """The layout without the points of modules that a block of this model lacks, such as the MLP of a block of experts.

    Only for what lies within a half: the parts that the stream is made of must all be there.
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    depth = len(list(modules.get(layout.blocks) or ()))  # pyright: ignore
    absent = {}
    for index in range(depth):
        for point, site in layout.at(index).sites.items():
            if point in _OPTIONAL and f"{layout.blocks}.{index}.{site.path}" not in modules:
                absent.setdefault(point, f"its block {index} has no {site.path!r}")
    return without(layout.changed(_with_result), absent)


def _with_result(layout: Layout) -> Layout:
    """What each head adds is made of z, by the module that reads it."""
    sites = dict(layout.sites)
    return replace(layout, sites=sites | ({"result": Site(sites["z"].path)} if "z" in sites else {}))


def without(layout: Layout, absent: Mapping[str, str]) -> Layout:
    """The layout without points that turned out not to be there, and why."""
    gone = {*absent, *(("result",) if "z" in absent else ())}

    def change(own: Layout) -> Layout:
        sites = {point: site for point, site in own.sites.items() if point not in gone}
        return replace(own, sites=sites, absent={**own.absent, **absent})

    return layout.changed(change)


def check_sites(model: Model, seen: Seen) -> None:
    """Each block and hook site runs once a forward, returns what the layout says, and the stream adds up.

    Args:
        model: what was loaded.
        seen: one row of unlike tokens, at every point.

    Raises:
        VerificationError: a module ran more or less than once, a block returns something else, or
            pre + attn_out is not mid, or mid + mlp_out is not post.
    """
    for (layer, place), count in seen.counts.items():
        sites = model.layout.at(layer).sites.items()
        must = {site.path for point, site in sites if point not in _OPTIONAL or point in _LAST} | {""}
        if count != 1 and place in must:
            raise VerificationError(
                f"{place or 'block'!r} of block {layer} of {model.name} ran {count} times in one forward; expected "
                f"once; give a Family whose Layout names a module that runs once"
            )
    for layer in range(model.n_layers):
        _check_block_value(model, layer, seen.values[layer, "block"])
        _check_sum(model, layer, seen.values)
    _kept_widths(model)["all"] = widths(seen)


def inner_widths(model: Model) -> dict[tuple[int, str], int]:
    """(layer, point) -> the width of what a module within a half has there; seen when the model was proved.

    A model that was loaded unproved runs one forward of a single token when this is first asked.
    """
    kept = _kept_widths(model)
    if not kept:
        with model.lock, torch.no_grad():
            kept["all"] = widths(observe(model, torch.zeros(1, 1, dtype=torch.long, device=model.device)))
    return kept["all"]


def point_widths(model: Model, seen: bool = True) -> dict[str, tuple[int, ...]]:
    """Hook point within a half -> the size of its last axis at each layer.

    Args:
        model: what was loaded.
        seen: only what was seen by now, so that nothing runs: empty for a model that was not proved.
    """
    kept = _kept_widths(model).get("all", {}) if seen else inner_widths(model)
    found: dict[str, tuple[int, ...]] = {}
    for point in {at for _, at in kept}:
        axis = POINTS[point].head_axis
        n_heads = {None: 1, "head": model.n_heads, "kv_head": model.n_kv_heads}[axis]
        found[point] = tuple(kept.get((layer, point), 0) // n_heads for layer in range(model.n_layers))
    for point, like in (("rot_q", "q"), ("rot_k", "k")):
        if like in found:
            found[point] = found[like]
    return found


def _kept_widths(model: Model) -> dict[str, dict[tuple[int, str], int]]:
    return model.kept("inner widths", structure(model.module))


def widths(seen: Seen) -> dict[tuple[int, str], int]:
    """(layer, point) -> the width of what a module within a half has there."""
    return {(layer, at): int(value.shape[-1]) for (layer, at), value in seen.values.items() if at in _OPTIONAL}


def shared_by_rows(model: Model, ids: TokenIds) -> Seen:
    """Three texts in one forward: one as it is, and the same tokens in another order twice.

    The second has what the first one has where each half reads last (`z`, `mlp_post`), the third has its queries, keys
    and values.

    Args:
        model: what was loaded.
        ids: one row of unlike tokens.
    """
    rows = torch.cat([ids, *[ids.flip(-1)] * len(_SHARED)])
    return observe(model, rows, {"block", "z", *_LAST.values()}, _SHARED)


def undecided(model: Model, seen: Seen, shared: Seen) -> dict[str, str]:
    """`z` and `mlp_post` where they do not decide all that their half adds: two texts that share them get the same.

    Args:
        model: what was loaded.
        seen: one row of unlike tokens, at every point.
        shared: of `shared_by_rows`.

    Returns:
        Hook point -> what is wrong with it.
    """
    found: dict[str, str] = {}
    points = tuple(point for point in model.layout.sites if point in _LAST)
    for (_, point), wide in widths(seen).items():
        if point in points and model.layout.sites[point].heads and wide % model.n_heads:
            found[point] = f"{point} of {model.name} is not as wide as {model.n_heads} heads"
    for point in points:
        for layer in range(model.n_layers):
            added = shared.values.get((layer, _LAST[point]))
            if added is not None and not same_rows(added, shared.values[layer, "block"], 1):
                path = model.layout.at(layer).sites[point].path
                found.setdefault(
                    point,
                    f"with one {point} ({path!r}) for two texts, block {layer} of {model.name} adds another "
                    f"{_LAST[point]} to each",
                )
    return found


def same_rows(added: Tensor, block: Any, row: int) -> bool:
    """Whether a row of `shared_by_rows` is the first one, up to the rounding of a block."""
    rows, whole = (value.reshape(1 + len(_SHARED), -1) for value in (added, hidden_of(block)))
    tolerance = 16 * torch.finfo(added.dtype).eps * float(whole[[0, row]].abs().max())
    return bool(((rows[row] - rows[0]).abs() <= tolerance).all())


def observe(
    model: Model, ids: TokenIds, points: Collection[str] | None = None, shared: Sequence[Collection[str]] = ()
) -> Seen:
    """What one forward shows under plain hooks.

    Args:
        model: whose module runs.
        ids: tokens to run.
        points: where to look; None is everywhere, the modules that stand in for halves among it.
        shared: for each row but the first, the points at which it gets what the first one has.
    """
    seen, handles = Seen(ids.shape[-1]), []
    try:
        for layer, block in enumerate(model.blocks):
            layout = model.layout.at(layer)
            sites = {"resid_pre": Site("", "input"), "block": Site(""), **layout.sites, **_sums(layout)}
            watched = {point: site for point, site in sites.items() if points is None or point in points}
            fills = () if points is not None else (*layout.attn_skip, *layout.mlp_skip)
            for path in dict.fromkeys(place.path for place in (*watched.values(), *fills)):
                here = {point: site for point, site in watched.items() if site.path == path}
                handles += _watch(block.get_submodule(path), path, layer, here, seen)
            # What a row shares is put there after it was looked at.
            for row, names in enumerate(shared, start=1):
                for site in (sites[name] for name in names if name in sites):
                    handles.append(_share(block.get_submodule(site.path), site, row, len(ids), ids.numel()))
        seen.logits = model.module(**model.family.inputs(ids, None)).logits
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _sums(layout: Layout) -> dict[str, Site]:
    """What the norms that follow the sums of a block read and give."""
    places = {"sum_1": "input", "normed_1": "output", "sum_2": "input"}
    if not layout.sum_norms:
        return {}
    first, second = layout.sum_norms
    paths = {"sum_1": first, "normed_1": first, "sum_2": second}
    return {name: Site(paths[name], end) for name, end in places.items()}  # pyright: ignore


def _share(part: nn.Module, site: Site, row: int, rows: int, tokens: int) -> Any:
    """Give a row the value that the first one has at a site."""

    def shared(value: Tensor) -> Tensor:
        if len(value) not in (rows, tokens):  # of no rows that can be told apart
            return value[:1].expand_as(value).contiguous()
        value = value.clone(memory_format=torch.contiguous_format)
        of_rows = value.view(rows, -1)
        of_rows[row] = of_rows[0]
        return value

    if site.end == "input":
        return part.register_forward_pre_hook(lambda _m, args: (shared(args[0]), *args[1:]))
    return part.register_forward_hook(lambda _m, _a, out: shared(out))  # pyright: ignore


def _watch(part: nn.Module, path: str, layer: int, points: dict[str, Site], seen: Seen) -> list[Any]:
    """Count the calls of a module and keep its values at these points."""
    seen.counts[layer, path] = 0
    entering = {point: site for point, site in points.items() if site.end == "input"}
    leaving = {point: site for point, site in points.items() if site.end == "output"}

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A part of a half may be given the tokens of all rows as one list.
        first = hidden_in(args, kwargs) if not path else args[0] if args else next(iter(kwargs.values()))
        for point, site in entering.items():
            seen.keep(layer, point, site, first)

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.counts[layer, path] += 1
        seen.forms[layer, path].add(form(output))
        for point, site in leaving.items():
            whole = point == "block" or not isinstance(output, tuple)
            seen.keep(layer, point, site, output if whole else output[site.index])

    handles: list[Any] = [part.register_forward_hook(after)]
    return [part.register_forward_pre_hook(before, with_kwargs=True), *handles] if entering else handles


def form(value: Any) -> int | None:
    """The length of a tuple; None for a bare value."""
    return len(value) if isinstance(value, tuple) else None


def _check_block_value(model: Model, layer: int, value: Any) -> None:
    expected = model.layout.at(layer).block_tuple
    length = form(value)
    if length != expected or (length is None and not isinstance(value, Tensor)):
        came = type(value).__name__ if length is None else f"a tuple of {length}"
        wanted = "a tensor" if expected is None else f"a tuple of {expected}"
        raise VerificationError(
            f"block {layer} of {model.name} returns {came}; expected {wanted}, as the layout says; "
            f"give a Family whose Layout has block_tuple={length}"
        )


def _check_sum(model: Model, layer: int, values: dict[tuple[int, str], Any]) -> None:
    """The halves add up to the stream, as far as the layout names them."""
    post = hidden_of(values[layer, "block"])
    if model.layout.at(layer).sum_norms:
        return _check_normed_sums(model, layer, values)
    found = (values.get((layer, point)) for point in ("resid_pre", *_POINTS))
    # What enters a block of a model split over devices may still be on the device before.
    pre, attn, mid, mlp = (None if value is None else value.to(post.device) for value in found)
    for point, value in zip(("resid_pre", *_POINTS), (pre, attn, mid, mlp), strict=True):
        if value is not None and value.shape != post.shape:
            raise VerificationError(
                f"{point} of block {layer} of {model.name} has shape {list(value.shape)}; expected {list(post.shape)}, "
                f"as what leaves the block has; give a Family whose Layout names another module for it"
            )
    if mid is not None and attn is not None:
        _check_equal(model, layer, {"resid_pre": pre, "attn_out": attn}, "resid_mid", mid)
    if mlp is not None and mid is not None:
        _check_equal(model, layer, {"resid_mid": mid, "mlp_out": mlp}, "resid_post", post)
    if mlp is not None and attn is not None and mid is None:
        _check_equal(model, layer, {"resid_pre": pre, "attn_out": attn, "mlp_out": mlp}, "resid_post", post)


def _check_normed_sums(model: Model, layer: int, values: dict[tuple[int, str], Any]) -> None:
    """The halves add up to what the norms after the sums read."""
    names = ("resid_pre", "attn_out", "sum_1", "normed_1", "mlp_out", "sum_2")
    pre, attn, one, normed, mlp, two = (
        values[layer, name].to(hidden_of(values[layer, "block"]).device) for name in names
    )
    _check_equal(model, layer, {"resid_pre": pre, "attn_out": attn}, "what the first norm reads", one)
    _check_equal(model, layer, {"the first norm": normed, "mlp_out": mlp}, "what the second norm reads", two)


def _check_equal(model: Model, layer: int, parts: dict[str, Any], right: str, stream: Tensor) -> None:
    """What is added gives the stream, number by number: a large channel must not hide a wrong scale of the others."""
    total, size = sum(parts.values()), sum(value.abs() for value in (*parts.values(), stream))
    tolerance = _ROUNDINGS * torch.finfo(stream.dtype).eps
    if bool(((total - stream).abs() > tolerance * size).any()):
        raise VerificationError(
            f"in block {layer} of {model.name} {' + '.join(parts)} is not {right}; expected them to be equal up "
            f"to rounding; the layout names the wrong modules, or the model scales its residuals: give a Family with a "
            f"Layout"
        )
