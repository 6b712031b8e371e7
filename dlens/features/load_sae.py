"""Load a sparse autoencoder: a folder in any of the known forms, or the one that ships with dlens."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from dlens.axes import respell
from dlens.checks import as_path
from dlens.features import dictionary_learning, saelens, sparsify
from dlens.features.autoencoder import SparseAutoencoder

__all__ = ["SHIPPED", "load_sae"]

SHIPPED = MappingProxyType({"trio/diffusion": Path(__file__).parent / "trio" / "diffusion"})
"""Model -> the folder of its autoencoder."""

_READERS = (
    (saelens, saelens.read_saelens),
    (sparsify, sparsify.read_sparsify),
    (dictionary_learning, dictionary_learning.read_dictionary_learning),
)


def load_sae(source: Any) -> SparseAutoencoder:
    """Load a sparse autoencoder.

    Args:
        source: "trio/diffusion" for the one that ships with dlens, or a folder: of SAELens (cfg.json and
            sae_weights.safetensors), of sparsify (cfg.json and sae.safetensors), or of dictionary_learning, in which
            DLM-Scope's are published (config.json and ae.pt).

    Returns:
        The autoencoder, in float32 and on the CPU.

    Raises:
        ValueError: no such folder, an autoencoder of another kind, or a damaged file.

    Examples:
        >>> import dlens
        >>> dlens.load_sae("trio/diffusion")
        SparseAutoencoder(1024 features, topk 32 of blocks.8.hook_resid_post)
    """
    name = str(source)
    if name.startswith("trio/"):
        if name not in SHIPPED:
            raise ValueError(
                f"no autoencoder of {name!r} ships with dlens; expected {', '.join(SHIPPED)}; {respell(name, SHIPPED)}"
            )
        return saelens.read_saelens(SHIPPED[name])
    folder = as_path(source, "source").expanduser()
    for form, read in _READERS:
        if (folder / form.CONFIG).is_file() and (folder / form.WEIGHTS).is_file():
            return read(folder)
    forms = ", or ".join(f"{form.CONFIG} and {form.WEIGHTS}" for form, _ in _READERS)
    held = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
    raise ValueError(
        f"{folder} ({held or 'empty'}); expected a folder with {forms}; download it first, or "
        f"name the folder further inside"
    )
