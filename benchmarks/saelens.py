"""Whether an autoencoder computes the same in dlens and in SAELens, whoever wrote it: `make bench-saelens`.

Both read the same folders, in an environment of its own that has SAELens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import dlens
from benchmarks.rows import Row, publish

__all__ = ["READ", "WRITTEN", "largest", "main"]

READ, WRITTEN = "SAELens writes, dlens reads", "dlens writes, SAELens reads"

_D_MODEL, _FEATURES, _K, _ROWS = 192, 1024, 32, 2048
_SITE = "blocks.8.hook_resid_post"
_UNIT, _BUDGET = "x 1e-6", 10.0

_CASES: Mapping[str, Mapping[str, Any]] = {
    "standard": {"architecture": "standard"},
    "topk": {"architecture": "topk", "k": _K},
    "topk, by the length of its directions": {"architecture": "topk", "k": _K, "rescale_acts_by_decoder_norm": True},
    "jumprelu": {"architecture": "jumprelu"},
    "topk, not centred": {"architecture": "topk", "k": _K, "apply_b_dec_to_input": False},
    "topk, layer_norm": {"architecture": "topk", "k": _K, "normalize_activations": "layer_norm"},
    "jumprelu, constant_norm_rescale": {
        "architecture": "jumprelu",
        "normalize_activations": "constant_norm_rescale",
    },
}


def main(json: Path | None = None, threads: int = 1) -> None:
    """Compare and print.

    Args:
        json: where to write the same as JSON.
        threads: of torch.
    """
    torch.set_num_threads(threads)
    rows = [row for name, settings in _CASES.items() for row in _compared(name, settings)]
    publish([*rows, *_shipped()], json, "benchmarks.saelens", threads=threads)


@torch.no_grad()
def _compared(name: str, settings: Mapping[str, Any]) -> Iterator[Row]:
    with TemporaryDirectory() as folder:
        theirs, first, second = _random(settings), Path(folder) / "a", Path(folder) / "b"
        theirs.save_model(first)
        ours = dlens.load_sae(first)
        yield from _rows(name, READ, ours, theirs)
        ours.save(second)
        yield from _rows(name, WRITTEN, ours, _loaded(second))


def _shipped() -> Iterator[Row]:
    sae = dlens.load_sae("trio/diffusion")
    with TemporaryDirectory() as folder:
        sae.save(folder)
        yield from _rows("the one that ships", WRITTEN, sae, _loaded(Path(folder)))


@torch.no_grad()
def _rows(name: str, model: str, ours: dlens.SparseAutoencoder, theirs: Any) -> Iterator[Row]:
    x = torch.randn(_ROWS, ours.d_model, generator=torch.Generator().manual_seed(1)) * 2
    found = {"features": (ours.encode(x), theirs.encode(x)), "reconstruction": (ours.reconstruct(x), theirs(x))}
    for what, (own, other) in found.items():
        yield Row(f"{name}: {what}", model, largest(own, other) * 1e6, _BUDGET, unit=_UNIT)


def largest(ours: Float[Tensor, "row column"], theirs: Float[Tensor, "row column"]) -> float:
    """The largest difference of two numbers, relative to the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max())


def _random(settings: Mapping[str, Any]) -> Any:
    """One of SAELens's own, for inference, with random numbers for weights."""
    from sae_lens import SAE  # pyright: ignore[reportMissingImports]

    metadata = {"model_name": "trio/diffusion", "hook_name": _SITE}
    sae = SAE.from_dict({"d_in": _D_MODEL, "d_sae": _FEATURES, "metadata": metadata} | dict(settings))
    draw = torch.Generator().manual_seed(0)
    for name, weight in sae.named_parameters():
        drawn = (
            torch.rand(weight.shape, generator=draw)
            if name == "threshold"
            else torch.randn(weight.shape, generator=draw)
        )
        weight.data.copy_(drawn)
    return sae


def _loaded(folder: Path) -> Any:
    from sae_lens import SAE  # pyright: ignore[reportMissingImports]

    return SAE.load_from_disk(folder)


if __name__ == "__main__":
    import tyro

    tyro.cli(main)
