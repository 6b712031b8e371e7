"""What each part of a model adds to the difference of two logits, and which tokens it raises, read off the stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from dlens.errors import VerificationError
from dlens.findings.scores.batches import batched, token_rows
from dlens.metrics import MetricStep, Where, as_token_ids, chosen_positions
from dlens.models.inner import norm_scale
from dlens.models.model import Model
from dlens.models.proofs.sites import inner_widths
from dlens.ops.base.given import as_index
from dlens.tracing.chain import Trace, trace

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["logit_attribution", "part_lens"]

_POINTS = ("attn_out", "mlp_out")
# As a share of the sum of all parts' sizes: two ways to one number differ by rounding at most.
_TOLERANCE = 1e-4
_NO_HEADS = "none: what all heads add together passes a norm before it is added, so that no head has a share of its own"


def logit_attribution(
    model: Any, prompts: Any, right: Any, wrong: Any, tokens: Where = "last", *, batch_size: int = 8
) -> xr.Dataset:
    """Each part's share of how much larger the logit of one token is than that of another (direct logit attribution).

    The last stream is a sum: what enters the first block, what attention adds, as a sum over heads and a bias, and what
    each MLP adds. The final norm divides all of it by one number, its scale, and the unembedding is linear. So a part c
    has the share norm(c) . (W_U[:, right] - W_U[:, wrong]) / scale, with the norm's weight and, in a LayerNorm, its
    centring applied to c alone. All shares add up to the difference of the model's own logits, which is checked; where
    a model caps its logits, of those before.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        prompts: anything `Trace.forward` takes.
        right, wrong: token ids: one, or one for each prompt.
        tokens: the positions that are averaged over, as in `dlens.metrics.logit_difference`.
        batch_size: prompts a forward; what every head adds is held in memory, layers x positions x heads x d_model.

    Returns:
        Over prompt: "embed", what enters block 0; over prompt and layer: "attn" and "mlp", what each half adds, and
        "attn_bias"; over prompt, layer and head: "heads". "bias", of the final norm and the unembedding; "total", the
        sum of "embed", "attn", "mlp" and "bias", the difference itself. Where a norm follows attention before its sum
        is added (Gemma 2 and 3) no head has a share of its own: "heads" and "attn_bias" are left out, as `attrs` say.

    Raises:
        ValueError: token ids or positions that the prompts lack.
        VerificationError: the shares do not add up, as something else is added to the stream or follows it.

    Examples:
        >>> import dlens
        >>> found = dlens.logit_attribution("trio/ar", ["Once upon a time", "The dog"], right=301, wrong=302)
        >>> found["heads"].dims, found["heads"].shape
        (('prompt', 'layer', 'head'), (2, 16, 3))
        >>> parts = found["embed"] + found["attn"].sum("layer") + found["mlp"].sum("layer") + found["bias"]
        >>> bool(abs(parts - found["total"]).max() < 1e-4)
        True
    """
    import xarray as xr

    chain = model if isinstance(model, Trace) else trace(model)
    rows = token_rows(chain.model, prompts)
    ids = torch.stack([_one_each(right, "right", len(rows)), _one_each(wrong, "wrong", len(rows))])
    weights = _weights(chain, rows, tokens)
    found = []
    for part in batched(range(len(rows)), batch_size):
        own = slice(part[0], part[-1] + 1)
        with chain.model.lock, torch.no_grad():
            found.append(_shares(chain, rows[own], weights[own], ids[:, own]))
    names = [name for name in found[0] if all(name in own for own in found)]
    values = {name: torch.cat([own[name] for own in found]).numpy() for name in names}
    dims = ("prompt", "layer", "head")
    return xr.Dataset(
        {name: (dims[: value.ndim], value) for name, value in values.items()},
        {"prompt": range(len(rows)), "layer": range(chain.model.n_layers)},
        {
            "estimator": "norm(part) . (W_U[:, right] - W_U[:, wrong]) / final norm's scale, the norm's weight and "
            "centring applied to the part alone",
            "pooling": "mean over the positions that are read",
            "heads": "each by itself" if "heads" in values else _NO_HEADS,
            "n": len(rows),
        },
    )


def part_lens(model: Any, prompts: Any, k: int = 5, tokens: Where = "last", *, batch_size: int = 8) -> xr.Dataset:
    """The tokens whose logits each head and each MLP raises most: the logit lens of what it adds alone.

    What a part adds to a logit is as in `logit_attribution`: norm(part) . W_U / the final norm's scale, so that the
    parts, with the bias of norm and unembedding, add up to the logits of the run.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        prompts: anything `Trace.forward` takes.
        k: how many tokens.
        tokens: the positions that are averaged over, as in `dlens.metrics.logit_difference`.
        batch_size: prompts a forward.

    Returns:
        Over prompt, rank and, for "mlp" and "heads", layer and head: "embed", "mlp" and "heads", token ids, the one
        that is raised most first; "embed_logit", "mlp_logit" and "heads_logit", by how much. Without "heads" where a
        norm follows attention.

    Raises:
        ValueError: more tokens than there are, or positions that the prompts lack.

    Examples:
        >>> import dlens
        >>> found = dlens.part_lens("trio/ar", "Once upon a", k=3)
        >>> found["heads"].dims, found["mlp_logit"].shape
        (('prompt', 'layer', 'head', 'rank'), (1, 16, 3))
        >>> bool((found["mlp_logit"].diff("rank") <= 0).all())
        True
    """
    import xarray as xr

    chain = model if isinstance(model, Trace) else trace(model)
    if not 1 <= as_index(k, "k") <= chain.model.vocab_size:
        raise ValueError(f"k={k} tokens; expected 1 to {chain.model.vocab_size}, as the model has; give fewer")
    rows = token_rows(chain.model, prompts)
    weights = _weights(chain, rows, tokens)
    found = []
    for part in batched(range(len(rows)), batch_size):
        own = slice(part[0], part[-1] + 1)
        with chain.model.lock, torch.no_grad():
            found.append(_raised(chain, rows[own], weights[own], k))
    dims = {"embed": (), "mlp": ("layer",), "heads": ("layer", "head")}
    variables = {
        f"{name}{ending}": (("prompt", *dims[name], "rank"), torch.cat([own[name][at] for own in found]).numpy())
        for name in found[0]
        for at, ending in ((0, "_logit"), (1, ""))
    }
    return xr.Dataset(
        variables,
        {"prompt": range(len(rows)), "layer": range(chain.model.n_layers), "rank": range(k)},
        {"estimator": "norm(part) . W_U / final norm's scale", "pooling": "mean over the positions that are read"},
    )


def _raised(
    chain: Trace, rows: list[list[int]], weights: Float[Tensor, "batch position"], k: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Name -> how much the k tokens that each part raises most are raised, and which these are."""
    points = (*_POINTS, *(("result",) if "result" not in chain.target.absent else ()))
    record = chain.capture("blocks.0.hook_resid_pre", "ln_final_scale", *points).forward(rows)
    weights = weights[:, weights.shape[-1] - record.tokens.shape[-1] :]
    at = weights.nonzero(as_tuple=True)
    reading = _reading(chain.model, record["ln_final_scale"][at], torch.zeros(2, len(at[0]), dtype=torch.long))

    def top(part: Float[Tensor, "n ... d_model"]) -> tuple[Tensor, Tensor]:
        read = reading.gained(part) / reading.scale[:, None]
        read = _averaged(read, weights[at].to(read), at[0].to(read.device), len(rows))
        values, ids = (read @ reading.unembed.double().T).topk(k)
        return values.reshape(len(rows), *part.shape[1:-1], k).cpu(), ids.reshape(len(rows), *part.shape[1:-1], k).cpu()

    def by_layer(point: str) -> tuple[Tensor, Tensor]:
        found = [top(value[at]) for value in record[point]]
        return torch.stack([own[0] for own in found], 1), torch.stack([own[1] for own in found], 1)

    raised = {"embed": top(record["blocks.0.hook_resid_pre"][at]), "mlp": by_layer("mlp_out")}
    if "result" not in points or _head_bias(chain.model, record["result"][:, *at], record["attn_out"][:, *at]) is None:
        return raised
    return raised | {"heads": by_layer("result")}


def _one_each(ids: Any, what: str, rows: int) -> Int[Tensor, " batch"]:
    found = as_token_ids(ids, what)
    if len(found) not in (1, rows):
        raise ValueError(
            f"{what} holds {len(found)} token ids for {rows} prompts; expected one, or one for each; pass as many"
        )
    return found.expand(rows)


@dataclass(frozen=True)
class _Reading:
    """How a model reads logits, and the difference of two, off a part of its stream.

    Args:
        norm: the final norm.
        unembed: [vocab, d_model].
        directions: [n, d_model], of the unembedding, for each position that is read.
        scale: [n, 1], what the norm divides by there.
        offset: [n], what the unembedding adds.
    """

    norm: nn.Module
    unembed: Float[Tensor, "vocab d_model"]
    directions: Float[Tensor, "n d_model"]
    scale: Float[Tensor, "n 1"]
    offset: Float[Tensor, " n"]

    def share(self, part: Float[Tensor, "n ... d_model"]) -> Float[Tensor, "n ..."]:
        """What a part adds to the difference."""
        shares = torch.einsum("nkd,nd->nk", self.gained(part), self.directions) / self.scale
        return shares.reshape(part.shape[:-1]).cpu()

    def gained(self, part: Float[Tensor, "n ... d_model"]) -> Float[Tensor, "n parts d_model"]:
        """A part as it leaves the final norm, but for the division by the scale."""
        flat = rearrange(part.to(self.directions.device), "n ... d_model -> 1 (n ...) d_model")
        gained = (self.norm(flat) - self._nothing(flat)).double() * norm_scale(self.norm, self.norm, flat).double()
        return gained.reshape(len(part), -1, part.shape[-1])

    def bias(self, like: Float[Tensor, "n d_model"]) -> Float[Tensor, " n"]:
        """What is added whatever stands in the stream."""
        nothing = self._nothing(like.to(self.directions.device)[None])[0].double()
        return (self.directions @ nothing[0] + self.offset).cpu()

    def _nothing(self, like: Tensor) -> Tensor:
        """What the norm makes of nothing: its bias."""
        return self.norm(torch.zeros_like(like[:, :1]))


def _weights(chain: Trace, rows: list[list[int]], tokens: Where) -> Float[Tensor, "batch position"]:
    """How much each column counts, where it is read."""
    model, width = chain.model, max(map(len, rows))
    real = torch.tensor([[place >= width - len(row) for place in range(width)] for row in rows])
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    diffusion = chain.target.has_noise
    masked = (ids == model.family.mask_token_id) & real if diffusion else torch.zeros_like(real)
    chosen = chosen_positions(tokens, MetricStep(0, ids, real, masked, None), torch.zeros(*ids.shape, 1))
    if diffusion and model.family.shift:
        # A token is predicted one position earlier; the first of a row, where it stands.
        first = real & (real.long().cumsum(-1) == 1)
        chosen = (chosen & first) + (chosen & ~first).roll(-1, dims=-1).double()
    return chosen.double() / chosen.sum(-1, keepdim=True).clamp(min=1)


def _shares(
    chain: Trace, rows: list[list[int]], weights: Float[Tensor, "batch position"], ids: Int[Tensor, "2 batch"]
) -> dict[str, Tensor]:
    """Name -> the share of each part, of each prompt."""
    points = (*_POINTS, *(("result",) if "result" not in chain.target.absent else ()))
    kept = chain.capture("blocks.0.hook_resid_pre", "ln_final_scale", "logits", *points)
    record = kept.forward(rows)
    weights = weights[:, weights.shape[-1] - record.tokens.shape[-1] :]
    at = weights.nonzero(as_tuple=True)
    reading = _reading(chain.model, record["ln_final_scale"][at], ids[:, at[0]])
    embed = record["blocks.0.hook_resid_pre"][at]
    adds = {
        name: rearrange(record[point][:, *at], "l n d -> n l d")
        for name, point in zip(("attn", "mlp"), _POINTS, strict=True)
    }
    found = {"embed": reading.share(embed), **{name: reading.share(part) for name, part in adds.items()}}
    found["bias"] = reading.bias(embed)
    found["total"] = found["embed"] + found["attn"].sum(-1) + found["mlp"].sum(-1) + found["bias"]
    _prove(chain.model, found, record["logits"][at], ids[:, at[0]])
    if "result" in points:
        heads = record["result"][:, *at]
        bias = _head_bias(chain.model, heads, record["attn_out"][:, *at])
        if bias is not None:
            found["heads"] = reading.share(rearrange(heads, "l n h d -> n l h d"))
            found["attn_bias"] = reading.share(rearrange(bias, "l n d -> n l d"))
    return {name: _averaged(value, weights[at], at[0], len(rows)) for name, value in found.items()}


def _averaged(value: Tensor, weights: Tensor, row: Tensor, n_rows: int) -> Tensor:
    weighed = value * weights.reshape(-1, *[1] * (value.ndim - 1))
    return torch.zeros(n_rows, *value.shape[1:], dtype=value.dtype).index_add_(0, row, weighed)


def _head_bias(
    model: Model, heads: Float[Tensor, "layer n head d_model"], added: Float[Tensor, "layer n d_model"]
) -> Float[Tensor, "layer n d_model"] | None:
    """What the projection after attention adds beside the heads; None where both are not what attention adds."""
    widths = inner_widths(model)
    biases = []
    for layer, block in enumerate(model.blocks):
        path = model.layout.at(layer).sites["result"].path
        nothing = torch.zeros(1, 1, widths[layer, "z"], dtype=model.dtype, device=model.device)
        biases.append(block.get_submodule(path)(nothing)[0, 0].to(heads))
    bias = torch.stack(biases)[:, None].expand_as(added)
    error = (heads.sum(2) + bias - added).abs().max() / added.abs().max()
    return None if error > max(1e-3, 8 * torch.finfo(added.dtype).eps) else bias


def _reading(model: Model, scale: Tensor, ids: Int[Tensor, "2 n"]) -> _Reading:
    layout = model.layout
    assert layout.norm is not None  # its scale was captured
    head: Any = model.embed if layout.head is None else model.module.get_submodule(layout.head)
    weight, bias = head.weight, getattr(head, "bias", None)
    right, wrong = ids.to(weight.device)
    offset = torch.zeros(len(right)) if bias is None else bias[right].double() - bias[wrong].double()
    return _Reading(
        norm=model.module.get_submodule(layout.norm),
        unembed=weight,
        directions=weight[right].double() - weight[wrong].double(),
        scale=scale.double().to(weight.device),
        offset=offset.double().to(weight.device),
    )


def _prove(model: Model, found: Mapping[str, Tensor], logits: Float[Tensor, "n vocab"], ids: Tensor) -> None:
    """The shares add up to the difference of the model's own logits."""
    cap = getattr(model.config, "final_logit_softcapping", None)
    right, wrong = (logits.gather(-1, own[:, None])[:, 0].double() for own in ids)
    if cap is not None:
        right, wrong = (cap * torch.atanh(own / cap) for own in (right, wrong))
    size = sum(found[name].abs().reshape(len(logits), -1).sum(-1) for name in ("embed", "attn", "mlp", "bias"))
    error = float(((found["total"] - (right - wrong)).abs() / size).max())
    if not error <= max(_TOLERANCE, torch.finfo(model.dtype).eps):
        raise VerificationError(
            f"the parts of {model.name} add up to a difference of logits that is {error:.1%} of their sizes away from "
            f"its own; expected the same, as the stream is what enters block 0 and what halves of blocks add, and norm "
            f"and head are all that follows; leave out operations that write the stream"
        )
