import numpy as np
import pytest
import torch

import dlens
from dlens.measures import SinkValues
from tests.unchecked import unchecked

PROMPTS = [list(range(8, 20)), list(range(30, 37))]


@pytest.mark.parametrize("name", ["ar", "diffusion"])
def test_values_of_sinks_equal_what_was_captured(name: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    record = dlens.trace(model).capture("pattern", "v").measure(SinkValues(margin=1)).forward(PROMPTS)
    data = record.measures["sink_values"].sel(step=0)
    for layer in (0, 7, 15):
        sinks, others = [], []
        for row in range(2):
            real = ~record.is_pad[row]
            pattern = record["pattern"][layer, row].double()[:, real][..., real]
            mass = pattern.mean(0).sum(0)
            norm = record["v"][layer, row][real].double().norm(dim=-1).mean(-1)
            rest = (mass.sum() - mass) / (len(mass) - 1)
            sinks += norm[mass > rest + 1].tolist()
            others += norm[mass <= rest + 1].tolist()
        at = data.sel(layer=layer)
        total = at[["n_sinks", "n", "sink_norm", "other_norm"]]
        if "noise" in total.dims:
            total = total.isel(noise=0)
        assert (int(total["n_sinks"]), int(total["n"])) == (len(sinks), len(others))
        np.testing.assert_allclose(total["other_norm"], np.mean(others), rtol=1e-5)
        if sinks:
            np.testing.assert_allclose(total["sink_norm"], np.mean(sinks), rtol=1e-5)
    assert int(data["n_sinks"].sum()) > 0


def test_cached_decoding_counts_each_position_once(ar: dlens.Model) -> None:
    record = dlens.trace(ar).measure(SinkValues(margin=1)).generate(PROMPTS[:1], 3)
    data = record.measures["sink_values"]
    counted = (data["n_sinks"] + data["n"]).values
    assert counted[0].tolist() == [12] * 16 and (counted[1:] == 1).all()
    assert np.isfinite(data["other_norm"].sel(step=0)).all() and not torch.isnan(torch.tensor(counted)).any()


def test_margin_must_be_positive() -> None:
    with unchecked(), pytest.raises(ValueError, match="margin=0; expected a number above 0"):
        SinkValues(margin=0)
