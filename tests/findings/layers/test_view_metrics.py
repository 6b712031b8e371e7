import math
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.layers.view_metrics import dime, info_nce, lidar
from tests.reference import shallow
from tests.refusing import refused
from tests.unchecked import unchecked

RNG = np.random.default_rng(0)
A = RNG.normal(size=(6, 4))
B = A + 0.3 * RNG.normal(size=(6, 4))
TEXTS = ["Once upon a time there was a girl", "The dog ran to the house", "Tom has two red apples"]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def entropy(k: np.ndarray) -> float:
    p = np.linalg.eigvalsh(k / np.trace(k))
    p = p[p > 1e-15]
    return float(-(p * np.log(p)).sum())


def test_dime_equals_loops_over_permutations() -> None:
    one, other = unit(A) @ unit(A).T, unit(B) @ unit(B).T
    generator, broken = torch.Generator().manual_seed(3), []
    for _ in range(5):
        order = torch.randperm(6, generator=generator).numpy()
        broken.append(entropy(one * other[np.ix_(order, order)]))
    expected = np.mean(broken) - entropy(one * other)
    assert dime(torch.tensor(A), torch.tensor(B), 5, seed=3) == pytest.approx(expected, rel=1e-9)
    assert expected > 0


def test_info_nce_equals_loops_over_views() -> None:
    z = unit(np.concatenate([A, B]))
    losses = []
    for i in range(12):
        scores = {j: z[i] @ z[j] / 0.1 for j in range(12) if j != i}
        losses.append(math.log(sum(map(math.exp, scores.values()))) - scores[(i + 6) % 12])
    assert info_nce(torch.tensor(A), torch.tensor(B)) == pytest.approx(np.mean(losses), rel=1e-9)
    warm = info_nce(torch.tensor(A), torch.tensor(B), 10.0)
    assert warm == pytest.approx(math.log(11), rel=0.05)


def test_lidar_equals_loops_over_texts() -> None:
    views = unit(np.stack([A, B, B + 0.1 * A[::-1]]))
    means, within, between = views.mean(0), np.zeros((4, 4)), np.zeros((4, 4))
    for text in range(6):
        apart = means[text] - means.mean(0)
        between += np.outer(apart, apart) / 6
        for view in range(3):
            off = views[view, text] - means[text]
            within += np.outer(off, off) / 18
    values, vectors = np.linalg.eigh(within + 1e-4 * np.eye(4))
    whiten = vectors @ np.diag(values**-0.5) @ vectors.T
    expected = math.exp(entropy(whiten @ between @ whiten))
    assert lidar(torch.tensor(np.stack([A, B, B + 0.1 * A[::-1]]))) == pytest.approx(expected, rel=1e-6)


def pooled(model: dlens.Model, texts: Any) -> torch.Tensor:
    """The mean over positions of each text at each layer, text by text."""
    trace = dlens.trace(model).capture("resid_post")
    return torch.stack([trace.forward([text])["resid_post"][:, 0].double().mean(1) for text in texts])


def test_given_views_are_pooled_over_the_positions_of_each_text(ar: dlens.Model) -> None:
    model, others = shallow(ar, 3), ["Once upon a day", "A cat ran to the house", "Tom had two red apples"]
    data = dlens.view_metrics(model, views=[TEXTS, others], batch_size=2)
    a, b = pooled(model, TEXTS), pooled(model, others)
    for layer in range(3):
        assert data["dime"][layer] == pytest.approx(dime(a[:, layer], b[:, layer]), abs=1e-6)
        assert data["info_nce"][layer] == pytest.approx(info_nce(a[:, layer], b[:, layer]), rel=1e-4)
        assert data["lidar"][layer] == pytest.approx(lidar(torch.stack([a, b])[:, :, layer]), rel=1e-3)
    assert data.attrs["n"] == 3 and data.attrs["views"] == "given"


def test_views_are_maskings(diffusion: dlens.Model) -> None:
    model, generator = shallow(diffusion, 3), torch.Generator().manual_seed(2)
    views = []
    for _ in range(2):
        rows = []
        for text in TEXTS:
            ids = torch.tensor(model.tokenizer(text)["input_ids"])
            share = 0.2 + 0.4 * torch.rand((), generator=generator).item()
            ids[torch.randperm(len(ids), generator=generator)[: max(1, round(share * len(ids)))]] = 1
            rows.append(ids.tolist())
        views.append(rows)
    assert views[0] != views[1] and model.family.mask_token_id == 1
    found = dlens.view_metrics(model, TEXTS, noise=(0.2, 0.6), seed=2)
    expected = dlens.view_metrics(model, views=views, seed=2)
    for name in ("dime", "info_nce", "lidar"):
        np.testing.assert_allclose(found[name], expected[name])


def test_what_makes_no_sense_is_refused(diffusion: dlens.Model, ar: dlens.Model) -> None:
    model = shallow(diffusion, 3)
    views = {"texts": None, "views": [TEXTS, TEXTS[::-1]]}
    wrong: list[tuple[dict[str, Any], str]] = [
        (views | {"views": [TEXTS]}, "views="),
        (views | {"views": [TEXTS, TEXTS[:2]]}, "views of 3, 2 texts"),
        (views | {"views": "ab"}, "views='ab'"),
        (views | {"texts": TEXTS}, "views="),
        # What only the second view, or what is computed after all forwards, would stumble over.
        (views | {"views": [TEXTS, [*TEXTS[:2], [5] * 600]]}, "the longest prompt has 600 tokens"),
        (views | {"views": [TEXTS, [*TEXTS[:2], [9999]]]}, "prompt 2 holds token id 9999"),
        (views | {"seed": -1}, "seed=-1"),
        (views | {"seed": "x"}, "seed 'x'"),
        (views | {"views": [TEXTS[:1], TEXTS[:1]]}, "got 1 text"),
        ({"texts": TEXTS[:1]}, "got 1 text"),
        ({"texts": []}, "got no prompts"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": "x"}, "batch_size 'x'"),
        ({"noise": None}, "noise=None"),
        ({"noise": (0.5, 0.2)}, "noise="),
        ({"n_views": 1}, "n_views=1"),
        ({"permutations": 0}, "permutations=0"),
        ({"permutations": 2.5}, "permutations 2.5"),
        ({"temperature": 0}, "temperature=0"),
        ({"temperature": "x"}, "temperature"),
    ]
    for given, came in wrong:
        with unchecked(), refused(model, ValueError, came):
            dlens.view_metrics(model, **{"texts": TEXTS} | given)
    with refused(ar, ValueError, "maskings of trio/ar"):
        dlens.view_metrics(ar, TEXTS)
