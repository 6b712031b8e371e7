import json

import numpy as np
import pytest
import torch
import xarray as xr

import dlens
from dlens.findings.layers.profile import MASK_RATES, Profile, Running, profile
from dlens.measures import Cosine, Outliers
from tests.refusing import refused
from tests.unchecked import unchecked

TEXTS = ["Once upon a time there was a fox", "Question: 3 + 4?\nAnswer:", "def f(x):\n    return"]


def residuals(model: dlens.Model, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    record = dlens.trace(model).capture("resid_pre", "resid_post").forward(ids)
    return record["resid_pre"][:, 0].double(), record["resid_post"][:, 0].double()


def test_clean_profile_equals_the_residuals_of_each_text_alone(ar: dlens.Model) -> None:
    rows = [ar.tokenizer(text)["input_ids"] for text in TEXTS]
    pairs = [residuals(ar, row) for row in rows]
    cosine = torch.cat([torch.cosine_similarity(pre, post, dim=-1) for pre, post in pairs], dim=1).mean(1)
    post = torch.cat([post for _, post in pairs], dim=1)
    share = post.square().sum(1) / post.square().sum((1, 2))[:, None]
    table = profile(ar, TEXTS, inputs="clean").table()
    np.testing.assert_allclose([row["cosine"] for row in table], cosine, atol=1e-5)
    np.testing.assert_allclose([row["top_share"] for row in table], share.amax(-1), atol=1e-5)
    assert [row["top_channel"] for row in table] == share.argmax(-1).tolist()


def test_the_batch_size_changes_nothing(diffusion: dlens.Model) -> None:
    one, all_at_once = (profile(diffusion, TEXTS, batch_size=size) for size in (1, 64))
    for key in one.measures:
        for variable in one.measures[key].data_vars:
            a, b = (p.measures[key][variable].values for p in (one, all_at_once))
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_masked_reads_every_rate(diffusion: dlens.Model) -> None:
    data = profile(diffusion, ["one two three four five six seven eight nine ten"], rates=[0.0, 0.5, 1.0])
    n = data.measures["cosine"]["n"].isel(step=0, layer=0)
    positions = data.n_tokens
    masked = positions // 2
    assert n.sel(state="prompt").values[0] == positions
    assert n.sel(state="masked").values[-1] == positions
    assert int(n.sel(state="masked").sum()) == masked + positions
    assert int(n.sum()) == 3 * positions


def test_the_seed_chooses_the_masks(diffusion: dlens.Model) -> None:
    first, same, other = (profile(diffusion, TEXTS, rates=[0.5], seed=seed).to_json() for seed in (0, 0, 1))
    assert first == same
    assert json.loads(first)["measures"] != json.loads(other)["measures"]


def test_an_autoregressive_model_reads_clean_text(ar: dlens.Model) -> None:
    masked, clean = profile(ar, TEXTS), profile(ar, TEXTS, inputs="clean")
    assert masked.measures["cosine"].identical(clean.measures["cosine"])
    assert "no mask token" in masked.notes[0]


def test_trajectory_measures_the_decoding_run(diffusion: dlens.Model) -> None:
    data = profile(diffusion, TEXTS[:2], "trajectory", max_new_tokens=4, batch_size=1)
    n = data.measures["cosine"]["n"].isel(layer=0)
    assert n.sizes["step"] == 4
    # Two prompts with 4 new tokens each: 4, 3, 2 and 1 masks a prompt.
    np.testing.assert_array_equal(n.sel(state="masked").sum("noise"), [8, 6, 4, 2])


def test_a_trace_is_profiled_with_its_operations(ar: dlens.Model) -> None:
    data = profile(dlens.trace(ar).skip([3]), TEXTS[:1])
    assert np.isnan(data.table()[3]["cosine"])
    assert [entry["op"] for entry in data.plan] == ["skip"]


def test_json_keeps_everything(diffusion: dlens.Model) -> None:
    data = profile(dlens.trace(diffusion).skip([2]), TEXTS[:1])
    again = Profile.from_json(data.to_json())
    assert again.table()[5] == data.table()[5]
    assert all(again.measures[key].identical(data.measures[key]) for key in data.measures)
    assert {**vars(again), "measures": None} == {**vars(data), "measures": None}


def test_measures_are_in_the_form_of_xarray(ar: dlens.Model) -> None:
    data = profile(ar, TEXTS[:1], measures=[Cosine()])
    entry = json.loads(data.to_json())["measures"]["cosine"]
    assert xr.Dataset.from_dict(entry)["n"].equals(data.measures["cosine"]["n"])
    assert entry["data_vars"]["cosine"]["dtype"] == "float64" and entry["coords"]["state"]["dtype"] == "<U7"


def test_a_profile_of_the_version_before(ar: dlens.Model) -> None:
    data = profile(dlens.trace(ar).skip([2]), TEXTS[:1], measures=[Cosine()])
    entry = json.loads(data.to_json())
    own = entry["measures"]["cosine"]
    # It named the variables so, and kept neither the sizes nor attributes of arrays.
    bare = {}
    for name, there in (("coords", "coords"), ("variables", "data_vars")):
        bare[name] = {key: {k: array[k] for k in ("dims", "dtype", "data")} for key, array in own[there].items()}
    entry["measures"]["cosine"] = {"attrs": own["attrs"], **bare}
    again = Profile.from_json(json.dumps(entry))
    assert again.measures["cosine"].identical(data.measures["cosine"])
    assert again.measures["cosine"]["n"].dtype == data.measures["cosine"]["n"].dtype


def test_a_file_holds_the_profile(ar: dlens.Model, tmp_path) -> None:
    data = profile(ar, TEXTS[:1])
    path = data.save(tmp_path / "deep" / "profile.json")
    assert Profile.from_json(path.read_text()).measures["cosine"].identical(data.measures["cosine"])


def test_shipped_text_and_rates_are_the_default(diffusion: dlens.Model) -> None:
    assert profile(diffusion, inputs="clean", measures=[Cosine()]).n_prompts == 24
    data = profile(diffusion, TEXTS[:1], measures=[Cosine()])
    assert set(data.measures) == {"cosine"}
    assert all(f"{rate:.0%}" in data.notes[0] for rate in MASK_RATES)


def test_wrong_arguments_are_refused(ar: dlens.Model) -> None:
    with pytest.raises(ValueError, match="inputs='noisy'; expected one of masked, clean, trajectory"):
        profile(ar, TEXTS, inputs="noisy")
    with pytest.raises(ValueError, match="rates holds 1.5; expected shares from 0 to 1"):
        profile(ar, TEXTS, rates=[1.5])
    with pytest.raises(ValueError, match="batch_size=0; expected at least 1"):
        profile(ar, TEXTS, batch_size=0)


def test_running_sums_over_runs_equal_one_run(ar: dlens.Model) -> None:
    running = Running(measure=Outliers())
    traced = dlens.trace(ar).measure(running)
    for text in TEXTS:
        record = traced.forward(text)
    together = dlens.trace(ar).measure(Outliers()).forward(TEXTS).measures["outliers"]
    for variable in together.data_vars:
        np.testing.assert_allclose(record.measures["outliers"][variable], together[variable], atol=2e-5)


def test_one_measure_needs_no_list(ar: dlens.Model) -> None:
    with unchecked():
        alone = dlens.profile(ar, ["Once"], measures=dlens.Norms())  # pyright: ignore
    assert list(alone.measures) == ["norms"]
    for wrong in ("cosine", [5], 5, []):
        with unchecked(), refused(ar, ValueError, f"measures={wrong!r}"):
            dlens.profile(ar, ["Once"], measures=wrong)
    with unchecked(), refused(ar, ValueError, "rates='0.5'"):
        dlens.profile(ar, ["Once"], rates="0.5")


def test_what_has_no_masks_is_not_said_to_read_masked_text() -> None:
    assert str(profile("trio/ar", ["Once upon a time"])).startswith("Profile of trio/ar on clean inputs (prompts: 1)")
    assert "on masked inputs" in str(profile("trio/diffusion", ["Once upon a time"]))
