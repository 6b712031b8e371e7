"""Settings that fit each other."""

import pytest

import dlens
from dlens import Recipe
from tests.unchecked import unchecked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "gtpq", "bits": 3}, r"method='gtpq'; expected one of rtn, gptq.*"),
        ({}, r"bits=None with method='gptq'; expected 2 to 8; give bits=3"),
        ({"bits": 0}, r"bits=0 with method='gptq'; expected 2 to 8"),
        ({"bits": 16}, r"bits=16 with"),
        ({"bits": 3.5}, r"bits 3.5; expected a whole number"),
        ({"bits": True}, r"bits True; expected a whole number"),
        ({"bits": 3, "sparsity": 0.5}, r"sparsity= with method='gptq', which rounds.*first prune, then round"),
        ({"bits": 3, "allocation": "owl"}, r"allocation= with method='gptq'"),
        ({"bits": 3, "group": 0}, r"group=0; expected at least 1"),
        ({"method": "wanda"}, r"sparsity None; expected a share of weights that become zero, above 0 and below 1"),
        ({"method": "wanda", "sparsity": 1}, r"sparsity 1.0; expected a share"),
        ({"method": "wanda", "sparsity": 0}, r"sparsity 0.0; expected a share"),
        ({"method": "wanda", "sparsity": float("nan")}, r"sparsity=nan; expected a finite number"),
        ({"method": "wanda", "sparsity": "half"}, r"sparsity='half'; expected a number"),
        ({"method": "wanda", "sparsity": 0.5, "bits": 3}, r"bits=, group= or symmetric= with method='wanda'"),
        ({"method": "wanda", "sparsity": 0.5, "allocation": "early"}, r"allocation='early'; expected a share for each"),
        (
            {"method": "wanda", "sparsity": 0.5, "allocation": 3},
            r"allocation=3; expected one of uniform, early-sparser",
        ),
        ({"method": "wanda", "allocation": [0.5, 1.5]}, r"allocation 1.5; expected a share"),
        ({"method": "wanda", "sparsity": 0.5, "half_range": 0.1}, r"half_range=0.1 with allocation='uniform'"),
        ({"method": "wanda", "sparsity": 0.5, "allocation": "owl", "half_range": 0}, r"half_range=0 with"),
        ({"bits": 3, "calibration": "noisy"}, r"calibration='noisy'; expected one of clean, masked"),
        ({"bits": 3, "symmetric": "no"}, r"symmetric='no'; expected True or False"),
        ({"bits": 3, "rows": 0}, r"rows=0; expected at least 1"),
        ({"bits": 3, "repeats": None}, r"repeats None; expected a whole number"),
        ({"bits": 3, "seed": -1}, r"seed=-1; expected 0 to"),
        ({"bits": 3, "embed": True}, r"embed=True with method='gptq', which looks at the inputs"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, said: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=said):
        Recipe(**settings)


def test_what_was_left_open_is_filled_in(ar: dlens.Model, diffusion: dlens.Model) -> None:
    assert Recipe(bits=3).of(ar).calibration == "clean"
    recipe = Recipe(method="wanda", sparsity=0.5, allocation="owl").of(diffusion)
    assert (recipe.calibration, recipe.half_range) == ("masked", 0.08)
    assert Recipe(method="wanda", allocation=[0.25, 0.75]).sparsity == 0.5
    with pytest.raises(ValueError, match=r"calibration='masked' on trio/ar, which is autoregressive.*'clean'"):
        Recipe(bits=3, calibration="masked").of(ar)
    with pytest.raises(ValueError, match=r"allocation of 2 shares on trio/ar, which has 16 layers"):
        Recipe(method="wanda", allocation=[0.25, 0.75]).of(ar)
