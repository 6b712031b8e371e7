"""Where a channel stands out is what a measured run says."""

from __future__ import annotations

import dlens
from dlens.findings.effects.residence import residence

TEXTS = ["Once upon a time there was a fox", "def f(x):\n    return"]


def test_where_a_channel_lives_in_a_denoising_run(diffusion: dlens.Model) -> None:
    where = residence(dlens.trace(diffusion), 5, TEXTS, max_new_tokens=4)
    outliers = dlens.Outliers(top=diffusion.d_model)
    record = dlens.trace(diffusion).measure(outliers).generate(TEXTS, 4, progress=False)
    expected = record.measures["outliers"]["steps_led"].sel(channel=5)
    assert where["steps_led"].values.tolist() == expected.values.tolist()
    assert where["energy_share_by_noise"].dims == ("noise", "layer")
    assert ((where["energy_share"] > 0) & (where["energy_share"] < 1)).all()


def test_an_autoregressive_run_has_no_noise(ar: dlens.Model) -> None:
    where = residence(dlens.trace(ar), 5, TEXTS, max_new_tokens=3, seed=2)
    record = dlens.trace(ar).measure(dlens.Outliers(top=ar.d_model)).generate(TEXTS, 3, seed=2, progress=False)
    share = dlens.measures.pool(record.measures["outliers"], "energy_share", ["step", "state"]).sel(channel=5)
    assert where["energy_share"].values.tolist() == share.values.tolist()
    assert "energy_share_by_noise" not in where
    assert [where.attrs[name] for name in ("channel", "n_prompts", "new_tokens", "seed")] == [5, 2, 3, 2]
