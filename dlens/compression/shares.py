"""The share of zeros that each matrix gets."""

from __future__ import annotations

from collections.abc import Sequence

from dlens.compression.allocation import alpha_ratios, linear_ratios, owl_outliers, owl_ratios
from dlens.compression.matrices import Matrix
from dlens.compression.recipe import Recipe
from dlens.compression.spectra import alpha_peak, eigenvalues
from dlens.compression.treat import Work, inputs_of

__all__ = ["shares_by_layer", "shares_of"]


def shares_of(work: Work, matrices: Sequence[Matrix]) -> dict[Matrix, float]:
    """By matrix the share of zeros that the recipe asks for; nothing where it rounds."""
    recipe = work.recipe
    if recipe.sparsity is None:
        return {}
    if recipe.allocation == "owl":
        found = inputs_of(work, matrices)
        outliers = [owl_outliers(matrix.weight, found[matrix].norms) for matrix in matrices]
        return dict(zip(matrices, owl_ratios(outliers, recipe.sparsity, recipe.spread), strict=True))
    if recipe.allocation == "alpha":
        alphas = [alpha_peak(eigenvalues(matrix.weight, seed=recipe.seed))[0] for matrix in matrices]
        weights = [matrix.weight.numel() for matrix in matrices]
        return dict(zip(matrices, alpha_ratios(alphas, weights, recipe.sparsity, recipe.spread), strict=True))
    layers = shares_by_layer(recipe, work.model.n_layers)
    return {matrix: layers[matrix.layer or 0] for matrix in matrices}


def shares_by_layer(recipe: Recipe, n_layers: int) -> Sequence[float]:
    """The share of each layer, where all matrices of a block have one; empty where they have their own, or none.

    Raises:
        ValueError: one is outside 0 to 1.

    Examples:
        >>> shares_by_layer(Recipe(method="wanda", sparsity=0.5, allocation="late-sparser", half_range=0.25), 3)
        [0.25, 0.5, 0.75]
    """
    if recipe.sparsity is None or recipe.allocation in ("owl", "alpha"):
        return []
    if not isinstance(recipe.allocation, str):
        return recipe.allocation
    if recipe.allocation == "uniform":
        return [recipe.sparsity] * n_layers
    return linear_ratios(recipe.sparsity, n_layers, recipe.spread, early=recipe.allocation == "early-sparser")
