from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.scores.loss import text_loss
from tests.reference import shallow
from tests.refusing import refused
from tests.unchecked import unchecked

PROMPTS = ["Once upon a time", "The dog ran", "One day"]


@pytest.fixture(scope="module")
def model(diffusion: dlens.Model) -> dlens.Model:
    return shallow(diffusion, 4)


def test_both_are_compared_with_the_model_as_it_is(model: dlens.Model) -> None:
    vector = torch.randn(192, generator=torch.Generator().manual_seed(0))
    schedule = dlens.plan_steering([0.0, 1.0, 1.0], alpha=8.0)
    found = dlens.steering(model, vector, 2, schedule, PROMPTS, len, max_new_tokens=3, draws=2, seed=1)
    trace = dlens.trace(model)
    chains = {
        "plain": trace,
        "constant": trace.steer(vector, 2, 8.0),
        "scheduled": trace.steer(vector, 2, 24.0, steps=1),
    }
    losses = {}
    for name, chain in chains.items():
        record = chain.generate(PROMPTS, 3, seed=1)
        assert list(found.texts[name]) == record.text
        assert found.strength[name].value == pytest.approx(np.mean([len(text) for text in record.text]))
        rows = [row[~pad].tolist() for row, pad in zip(record.tokens, record.is_pad, strict=True)]
        losses[name] = [text_loss(trace, [row], draws=2, seed=1 + n).value for n, row in enumerate(rows)]
        assert found.fluency[name].value == pytest.approx(np.mean(losses[name]), rel=1e-5)
    assert found.texts["plain"] != found.texts["constant"] != found.texts["scheduled"]
    costs = np.array(losses["scheduled"]) - np.array(losses["constant"])
    assert found.costlier.value == pytest.approx(costs.mean(), abs=1e-4) and found.costlier.n == 3
    assert found.estimator.startswith("masked-denoising cross-entropy")
    assert found.schedule is schedule and found.stronger.n == 3


def test_an_autoregressive_model_is_steered_by_its_steps(ar: dlens.Model) -> None:
    schedule = dlens.plan_steering([1.0, 1.0], alpha=1.0)
    found = dlens.steering(shallow(ar, 3), np.ones(192), 1, schedule, ["Once upon"], lambda text: 0.0, max_new_tokens=2)
    assert found.estimator == "next-token cross-entropy" and found.strength["constant"].value == 0


def test_what_does_not_fit_is_refused_before_anything_runs(model: dlens.Model) -> None:
    schedule = dlens.plan_steering([1.0, 1.0, 1.0])
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"schedule": [1.0] * 3}, "schedule="),
        ({"strength": "happy"}, "strength='happy'"),
        ({"max_new_tokens": 4}, "scale has 3 numbers for a run of 4 planned steps"),
        ({"vector": torch.zeros(5)}, "the steering vector has shape (5,)"),
        ({"at": "resid"}, "at='resid'"),
        ({"draws": 0}, "draws=0"),
        ({"batch_size": "many"}, "batch_size 'many'"),
    ]
    for given, came in wrong:
        asked: dict[str, Any] = {"vector": torch.zeros(192), "layers": 2, "schedule": schedule, "strength": len}
        with unchecked(), refused(model, ValueError, came):
            dlens.steering(model, prompts=PROMPTS, **asked | {"max_new_tokens": 3} | given)
    silent = replace(model, tokenizer=None)
    with refused(silent, ValueError, "has no tokenizer"):
        dlens.steering(silent, torch.zeros(192), 2, schedule, [[5, 6, 7]], len, max_new_tokens=3)


def test_a_score_that_is_no_number_is_refused(model: dlens.Model) -> None:
    schedule = dlens.plan_steering([1.0, 1.0])
    with pytest.raises(ValueError, match="strength of a text='x'; expected a number"):
        dlens.steering(model, torch.zeros(192), 2, schedule, PROMPTS[:1], lambda text: "x", max_new_tokens=2)
