"""How much each layer keeps of a text through two views of it: DiME, infoNCE and LiDAR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.checks import quoted, refuse, several
from dlens.findings.scores.batches import length_batches, rng, token_rows
from dlens.measures.geometry.matrix_entropy import entropy_of
from dlens.ops.base.given import as_count, as_index, as_number, as_seed
from dlens.ops.base.scope import Scope
from dlens.tracing.chain import Trace, trace
from dlens.tracing.planning.inputs import as_batch, refuse_too_long
from dlens.tracing.probes.calibration import calibration_texts

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["dime", "info_nce", "lidar", "view_metrics"]

Rows = Float[Tensor, "text d_model"]
# Added to the scatter within texts, so that it can be inverted; LiDAR's own.
_DELTA = 1e-4


def dime(a: Rows, b: Rows, permutations: int = 10, seed: int = 0) -> float:
    """How much less entropy two views have together than with their pairs broken: the difference of matrix entropies.

    mean over random permutations P of S(A o P B P^T) - S(A o B), with A and B the cosines between the texts of a view,
    o the product of entries and S the matrix entropy of order 1 (Skean et al., arXiv 2301.08164, and 2502.02013).

    Examples:
        >>> rows = torch.eye(4) + 0.5
        >>> abs(dime(torch.ones(4, 4), rows)) < 1e-9, dime(rows, rows) >= 0
        (True, True)
    """
    first, second = _cosines(a), _cosines(b)
    generator = rng(seed)
    orders = [torch.randperm(len(a), generator=generator) for _ in range(permutations)]
    broken = [_entropy(first * second[order][:, order]) for order in orders]
    return float(torch.stack(broken).mean() - _entropy(first * second))


def info_nce(a: Rows, b: Rows, temperature: float = 0.1) -> float:
    """How hard it is to find a text's other view among all views: cross-entropy over the 2 N - 1 others, in nats.

    The scores are cosines / temperature; both views of each text are asked for (Chen et al., arXiv 2002.05709,
    equation 1, as 2502.02013 uses it).

    Examples:
        >>> round(info_nce(torch.eye(2), torch.eye(2)), 6) < round(info_nce(torch.eye(2), torch.eye(2).flip(0)), 6)
        True
    """
    z = torch.nn.functional.normalize(torch.cat([a, b]).double(), dim=-1)
    scores = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    other = (torch.arange(len(z)) + len(a)) % len(z)
    return float(torch.nn.functional.cross_entropy(scores, other))


def lidar(views: Float[Tensor, "view text d_model"], delta: float = _DELTA) -> float:
    """In how many directions texts differ more than their views do: LiDAR (Thilak et al., arXiv 2312.04000).

    exp of the entropy of the eigenvalues of W^(-1/2) B W^(-1/2), with B the scatter of the means of texts and W that of
    views around them, plus delta; rows scaled to length 1.

    Examples:
        >>> lidar(torch.eye(3).expand(2, 3, 3)) > 1.9
        True
    """
    z = torch.nn.functional.normalize(views.double(), dim=-1)
    means = z.mean(0)
    between = means - means.mean(0)
    within = (z - means).flatten(0, 1)
    values, vectors = torch.linalg.eigh(within.T @ within / len(within))
    whiten = vectors / (values.clamp(min=0) + delta).sqrt() @ vectors.T
    spread = whiten @ (between.T @ between / len(between)) @ whiten
    return float(entropy_of(torch.linalg.eigvalsh(spread).clamp(min=0)).exp())


def view_metrics(
    model: Any,
    texts: Any = None,
    *,
    views: Sequence[Any] | None = None,
    noise: tuple[float, float] = (0.05, 0.5),
    n_views: int = 2,
    permutations: int = 10,
    temperature: float = 0.1,
    batch_size: int = 16,
    seed: int = 0,
) -> xr.Dataset:
    """DiME, infoNCE and LiDAR of each layer, of the mean over positions of resid_post.

    Views of a text are maskings of it: each masks a share of its tokens that is drawn evenly between the ends of
    `noise`. DiME and infoNCE take the first two, LiDAR all (Layer by Layer, arXiv 2502.02013, section 3).

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        texts: anything `Trace.forward` takes, two texts or more; the shipped calibration text by default.
        views: in the place of texts the views themselves, at least two lists of as many texts, for models that have no
            masks, or for other changes than masks.
        noise: shares of masked tokens.
        n_views: maskings of each text.
        permutations: of DiME.
        temperature: of infoNCE.
        batch_size: texts a forward.
        seed: of masks and permutations.

    Returns:
        Over layer: "dime" in nats, "info_nce" in nats, "lidar", a number of directions.

    Raises:
        ValueError: one view or one text, views of unlike numbers of texts, views and texts, or an autoregressive model
            without views; before anything is computed.

    Examples:
        >>> import dlens
        >>> texts = ["Once upon a time there was a girl", "The dog ran to the house", "Tom has two red apples"]
        >>> data = dlens.view_metrics("trio/diffusion", texts)
        >>> data["dime"].dims, data["lidar"].size
        (('layer',), 16)
    """
    import xarray as xr

    base = model if isinstance(model, Trace) else trace(model)
    _check(permutations, temperature, n_views)
    as_count(batch_size, "batch_size")
    as_seed(seed)
    given = _given(base, texts, views) if views is not None else _masked(base, texts, noise, n_views, seed)
    _check_rows(base, given)
    pooled = torch.stack([_pooled(base, rows, batch_size) for rows in given])
    layers = range(base.target.n_layers)
    found = {
        "dime": [dime(pooled[0, :, layer], pooled[1, :, layer], permutations, seed) for layer in layers],
        "info_nce": [info_nce(pooled[0, :, layer], pooled[1, :, layer], temperature) for layer in layers],
        "lidar": [lidar(pooled[:, :, layer]) for layer in layers],
    }
    return xr.Dataset(
        {name: ("layer", values) for name, values in found.items()},
        {"layer": list(layers)},
        {
            "estimator": f"DiME with {permutations} permutations; infoNCE at temperature {temperature:g}; LiDAR with "
            f"delta {_DELTA:g}; rows of length 1, in float64",
            "pooling": "mean over the positions of a text",
            "positions": "all but padding",
            "views": "given" if views is not None else f"{n_views} maskings, noise {noise[0]:g} to {noise[1]:g}",
            "point": "resid_post",
            "channels_left_out": [],
            "model": base.model.name,
            "seed": seed,
            "n": pooled.shape[1],
        },
    )


def _cosines(rows: Rows) -> Float[Tensor, "text text_b"]:
    z = torch.nn.functional.normalize(rows.double(), dim=-1)
    return z @ z.T


def _entropy(k: Float[Tensor, "text text_b"]) -> Float[Tensor, ""]:
    return entropy_of(torch.linalg.eigvalsh(k).clamp(min=0))


def _check(permutations: int, temperature: float, n_views: int) -> None:
    if as_index(permutations, "permutations") < 1:
        refuse("permutations", permutations, "at least 1", "give for example 10")
    if as_number(temperature, "temperature") <= 0:
        refuse("temperature", temperature, "a number above 0", "give for example 0.1")
    if as_index(n_views, "n_views") < 2:
        refuse("n_views", n_views, "at least 2, as views are compared", "give for example 2")


def _check_rows(base: Trace, views: list[list[list[int]]]) -> None:
    """Refuse what a later forward would be refused for, and what has nothing to compare."""
    if len(views[0]) < 2:
        raise ValueError(
            f"got {len(views[0])} text; expected at least two, as views of a text are told from those of others; pass "
            f"more texts"
        )
    for rows in views:
        refuse_too_long(base.model, as_batch(base.model, rows), 0)


def _given(base: Trace, texts: Any, views: Any) -> list[list[list[int]]]:
    if texts is not None:
        refuse("views", views, "either texts or views of them", "pass views=[texts, the same texts changed] alone")
    if not several(views) or len(views) < 2:
        refuse("views", views, "at least two lists of texts", "pass [texts, the same texts changed]")
    found = [token_rows(base.model, view) for view in views]
    if len({len(rows) for rows in found}) > 1:
        raise ValueError(
            f"views of {', '.join(str(len(rows)) for rows in found)} texts; expected as many in each, text by text; "
            f"pass lists of equal length"
        )
    return found


def _masked(base: Trace, texts: Any, noise: Any, n_views: int, seed: int) -> list[list[list[int]]]:
    mask = base.model.family.mask_token_id
    if not base.target.has_noise or mask is None:
        raise ValueError(
            f"maskings of {base.model.name}, which is autoregressive; expected a diffusion model, or views=; pass "
            f"views=[texts, the same texts changed]"
        )
    span = Scope(noise=noise).noise
    if span is None:
        raise ValueError(f"noise={quoted(noise)}; expected shares of masked tokens; give for example (0.05, 0.5)")
    rows, generator = token_rows(base.model, calibration_texts() if texts is None else texts), rng(seed)
    return [[_one_masking(row, span, mask, generator) for row in rows] for _ in range(n_views)]


def _one_masking(row: list[int], noise: tuple[float, float], mask: int, generator: torch.Generator) -> list[int]:
    share = noise[0] + (noise[1] - noise[0]) * torch.rand((), generator=generator).item()
    inputs = torch.tensor(row)
    inputs[torch.randperm(len(row), generator=generator)[: max(1, round(share * len(row)))]] = mask
    return inputs.tolist()


def _pooled(base: Trace, rows: Sequence[list[int]], batch_size: int) -> Float[Tensor, "text layer d_model"]:
    chain, found = base.capture("resid_post"), {}
    for part in length_batches(base.model, rows, batch_size):
        record = chain.forward([rows[number] for number in part])
        real = (~record.is_pad).double()
        means = torch.einsum("lbpd,bp->bld", record["resid_post"].double(), real / real.sum(-1, keepdim=True))
        found |= dict(zip(part, means, strict=True))
    return torch.stack([found[number] for number in range(len(rows))])
