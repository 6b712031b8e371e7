from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.features.feature_steps import OVERLAPS, overlap
from tests.reference import shallow
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

SITE = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def run(diffusion: dlens.Model) -> tuple[dlens.Record, dlens.SparseAutoencoder]:
    model = shallow(diffusion, 4)
    w = torch.randn(192, 20, generator=torch.Generator().manual_seed(0))
    sae = dlens.SparseAutoencoder(w, w.T.contiguous(), torch.zeros(20), torch.zeros(192), k=4, site=SITE)
    prompts = ["Once upon a time", "The dog"]
    return dlens.trace(model).capture("resid_post", layers=[2]).generate(prompts, 5), sae


def similar(a: np.ndarray, b: np.ndarray, kind: str) -> float:
    if kind == "cosine":
        return float(a @ b / np.sqrt((a @ a) * (b @ b)))
    if kind == "weighted":
        return float(np.minimum(a, b).sum() / np.maximum(a, b).sum())
    one, other = set(np.flatnonzero(a)), set(np.flatnonzero(b))
    return len(one & other) / len(one | other)


@pytest.mark.parametrize("kind", OVERLAPS)
def test_equals_loops_over_positions(run: Any, kind: str) -> None:
    record, sae = run
    data = dlens.feature_steps(record, sae, kind=kind)
    features = sae.encode(record[SITE]).numpy()
    canvas, mask = record.canvas.numpy(), int(record.canvas[0, 0, -1])
    places = [(b, i) for b, i in np.argwhere(canvas[0] == mask)]
    assert len(places) == 10 == data.attrs["n"]
    for s, t in np.ndindex(5, 5):
        expected = np.mean([similar(features[s, b, i], features[t, b, i], kind) for b, i in places])
        assert data["overlap"][s, t] == pytest.approx(expected, abs=1e-5)
    masked = {place: [canvas[t][place] == mask for t in range(5)] for place in places}
    for t in range(5):
        still = [p for p in places if t and masked[p][t] and masked[p][t - 1]]
        same = [similar(features[t][p], features[t - 1][p], kind) for p in still]
        np.testing.assert_allclose(data["stability"][t], np.mean(same) if same else np.nan, atol=1e-5)
        old = [(p, masked[p].index(False)) for p in places if False in masked[p] and masked[p].index(False) < t]
        moved = [1 - similar(features[t][p], features[first][p], kind) for p, first in old]
        np.testing.assert_allclose(data["drift"][t], np.mean(moved) if moved else np.nan, atol=1e-5)


def test_when_features_come_and_go(run: Any) -> None:
    record, sae = run
    data = dlens.feature_steps(record, sae)
    active, canvas = sae.encode(record[SITE]).numpy() > 0, record.canvas.numpy()
    mask = int(canvas[0, 0, -1])
    places = [(b, i) for b, i in np.argwhere(canvas[0] == mask)]
    for feature in range(20):
        lives = [[t for t in range(5) if active[t, b, i, feature]] for b, i in places]
        kept = [(life, place) for life, place in zip(lives, places, strict=True) if life]
        assert data["positions"][feature] == len(kept)
        assert data["rate"][feature] == pytest.approx(sum(map(len, lives)) / 50)
        for name, pick in {"first": min, "last": max}.items():
            expected = np.mean([pick(life) for life, _ in kept]) if kept else np.nan
            np.testing.assert_allclose(data[name][feature], expected)
        for name, wanted in {"masked": True, "decoded": False}.items():
            shares = []
            for life, (b, i) in kept:
                steps = [t for t in range(5) if (canvas[t, b, i] == mask) == wanted]
                shares += [len(set(life) & set(steps)) / len(steps)] if steps else []
            np.testing.assert_allclose(data[name][feature], np.mean(shares) if shares else np.nan)


def test_an_overlap_of_nothing_is_none() -> None:
    none, some = torch.zeros(3), torch.tensor([1.0, 0, 0])
    assert all(overlap(none, none, kind).isnan() for kind in OVERLAPS)
    assert [float(overlap(some, some, kind)) for kind in OVERLAPS] == [1, 1, 1]
    assert [float(overlap(some, none, kind)) for kind in OVERLAPS[:2]] == [0, 0]


def test_other_runs_are_refused(run: Any, diffusion: dlens.Model, ar: dlens.Model) -> None:
    record, sae = run
    small = dlens.trace(shallow(diffusion, 4))
    wrong: list[tuple[Any, Any, Any, str]] = [
        ("x", sae, "jaccard", "record='x'"),
        (dlens.trace(shallow(ar, 4)).capture(SITE).forward("Once"), sae, "jaccard", "record="),
        (record, "x", "jaccard", "sae='x'"),
        (record, sae, "dice", "kind='dice'"),
        (small.capture(SITE, steps=[0, 1]).generate("Once", 3), sae, "jaccard", f"{SITE} was captured at 2 of 3 steps"),
    ]
    for one, other, kind, came in wrong:
        with unchecked(), pytest.raises(ValueError) as caught:
            dlens.feature_steps(one, other, kind=kind)
        assert_three_parts(str(caught.value), came)
    with pytest.raises(KeyError):
        dlens.feature_steps(small.capture("resid_post", layers=1).generate("Once", 2), sae)
