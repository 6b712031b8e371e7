from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import dlens
from dlens.measures import Features
from tests.features.published import autoencoder
from tests.measures.runs import SPANS, Run, assert_close, observe, random_run
from tests.reference import shallow
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

SPAN = replace(SPANS[0], d_model=6)


def two_pass(run: Run, sae: dlens.SparseAutoencoder, layer: int) -> dict[str, np.ndarray]:
    """Every number from all positions of its cell at once, cell by cell."""
    x = run.resid_post[:, layer].double().numpy()
    features, back = (call(run.resid_post[:, layer]).double().numpy() for call in (sae.encode, sae.reconstruct))
    steps = np.broadcast_to(np.arange(len(x))[:, None, None], run.cell.shape)
    places = {"": (steps, len(x))} | ({"_by_noise": (run.cell // 3, 10)} if run.span.has_noise else {})
    found: dict[str, np.ndarray] = {}
    for ending, (place, count) in places.items():
        for name, size in {"rate": (10,), "mean": (10,), "active": (), "explained_variance": (), "n": ()}.items():
            found[name + ending] = np.full((count, 3, *size), np.nan)
        for at, state in np.ndindex(count, 3):
            inside = (place == at) & (run.cell >= 0) & (run.cell % 3 == state)
            found[f"n{ending}"][at, state] = inside.sum()
            if inside.any():
                own, f = x[inside], features[inside]
                found[f"rate{ending}"][at, state], found[f"mean{ending}"][at, state] = (f > 0).mean(0), f.mean(0)
                found[f"active{ending}"][at, state] = (f > 0).sum(-1).mean()
                spread = ((own - own.mean(0)) ** 2).sum()
                if inside.sum() > 1:
                    error = ((own - back[inside]) ** 2).sum()
                    found[f"explained_variance{ending}"][at, state] = 1 - error / spread
    return found


@pytest.mark.parametrize("span", [SPAN, replace(SPAN, has_noise=False)])
@pytest.mark.parametrize("layer", [0, -1, 2])
def test_equals_two_passes(span: dlens.measures.Span, layer: int) -> None:
    run, sae = random_run(span), autoencoder()
    for layers in (None, 3):
        data = observe(Features(sae=sae, layer=layer, at="resid_post"), run, layers=layers)
        expected = two_pass(run, sae, layer)
        assert set(data.data_vars) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(data[name].values, values, atol=1e-5, rtol=1e-5)
    assert data["rate"].dims == ("step", "state", "feature") and data.attrs["layer"] == layer % 4


def test_a_run_in_parts_and_runs_that_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Features(sae=autoencoder(), layer=1, at="resid_post")
    runs = [random_run(SPAN, seed=seed) for seed in range(2)]
    a, b = (observe(measure, run, sums=True) for run in runs)
    whole = measure.result(measure.merge(a, b), SPAN)
    both = replace(
        runs[0],
        resid_post=torch.cat([run.resid_post for run in runs], 2),
        cell=np.concatenate([run.cell for run in runs], 1),
    )
    for name, values in two_pass(both, autoencoder(), 1).items():
        np.testing.assert_allclose(whole[name].values, values, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr("dlens.measures.features._AT_A_TIME", 30)
    xr.testing.assert_allclose(observe(measure, runs[0]), measure.result(a, SPAN))


def test_in_a_denoising_run_and_in_one_with_a_cache(diffusion: dlens.Model, ar: dlens.Model) -> None:
    sae = dlens.load_sae("trio/diffusion")
    record = dlens.trace(diffusion).measure(Features(sae=sae)).capture(str(sae.site)).generate("Once upon a time", 4)
    data, values = record.measures["features"], record[str(sae.site)]
    assert data["n"].sel(state="masked").values.tolist() == [4, 3, 2, 1] and data.attrs["n"] == 4 * 8
    prompt = sae.encode(values[2, 0, :4])
    assert_close(data["rate"].sel(step=2, state="prompt"), (prompt > 0).float().mean(0))
    assert_close(data["mean"].sel(step=2, state="prompt"), prompt.mean(0))
    decoded = dlens.trace(shallow(ar, 3)).measure(Features(sae=sae, layer=2)).generate("Once upon a time", 3)
    found = decoded.measures["features"]
    assert found["n"].sum("state").values.tolist() == [4, 1, 1] and "rate_by_noise" not in found


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="at=None; expected a point of the stream"):
        Features(sae=autoencoder())
    with pytest.raises(ValueError, match="layer=None; expected the place that the autoencoder reads"):
        Features(sae=autoencoder(), at="resid_post")
    wrong: dict[str, Any] = {"sae": "x", "at": "z", "layer": "first"}
    for name, value in wrong.items():
        with unchecked(), pytest.raises(ValueError) as caught:
            Features(**{"sae": autoencoder(site="blocks.1.hook_resid_post")} | {name: value})
        assert_three_parts(str(caught.value), f"{name}={value!r}")
    with pytest.raises(IndexError) as error:
        Features(sae=autoencoder(), at="resid_post", layer=4).start(SPAN)
    assert_three_parts(str(error.value), "layer=4")
    with pytest.raises(ValueError) as caught:
        Features(sae=autoencoder(), at="resid_post", layer=0).start(SPANS[0])
    assert_three_parts(str(caught.value), "an autoencoder of 6 channels on a stream of 10")
