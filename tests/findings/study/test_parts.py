"""Parts are what captures and the public functions give."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import dlens
from dlens import tasks
from dlens.caches import Dual
from dlens.findings.effects.disruption import disruption
from dlens.findings.effects.phases import phases
from dlens.findings.scores.accuracy import score_task
from dlens.findings.scores.canvases import text_canvases
from dlens.findings.scores.loss import text_loss
from dlens.findings.study import parts
from dlens.samplers import LLaDA
from dlens.tracing.probes.outlier import channel_shares
from tests.reference import shallow

CODE = tasks.get("trio-code")


def test_a_reading_equals_what_captures_give(diffusion: dlens.Model) -> None:
    row = diffusion.tokenizer("Once upon a time there was a fox")["input_ids"]
    found = parts.reading(dlens.trace(diffusion), [row])
    record = dlens.trace(diffusion).capture("resid_pre", "resid_post").forward([row])
    pre, post = record["resid_pre"][:, 0].double(), record["resid_post"][:, 0].double()
    clean = found.clean
    cosine = torch.nn.functional.cosine_similarity(pre, post, dim=-1).mean(-1)
    assert clean.cosine[0] == pytest.approx(cosine.tolist(), abs=1e-5)
    energy = post.square().sum(1)
    assert clean.share[0] == pytest.approx((energy[:, found.channel] / energy.sum(-1)).tolist(), rel=1e-5)
    target = dlens.trace(diffusion).target
    assert int(channel_shares(diffusion, target).argmax()) == found.channel
    early = channel_shares(diffusion, target, n_blocks=5)
    assert early.argsort(descending=True)[:2].tolist() == list(found.early_channels)
    for channel, shares in zip(found.early_channels, (clean.early_share, clean.early_next_share), strict=True):
        assert shares[0] == pytest.approx((energy[:, channel] / energy.sum(-1)).tolist(), rel=1e-5)
    units = torch.nn.functional.normalize(post, dim=-1)
    similar = units @ units.mT
    distances = range(1, len(row))
    profile = torch.stack([similar.diagonal(d, 1, 2).mean(-1) for d in distances])
    far = torch.stack([profile[d - 1] for d in distances if 2 * d >= len(row)]).mean(0)
    assert clean.recency[0] == pytest.approx((profile[0] - far).tolist(), abs=1e-5)
    assert clean.similarity[0][: len(row) - 1] == pytest.approx(profile.mean(-1).tolist(), abs=1e-5)
    assert list(found.noise) == [0, 0.25, 0.5, 0.75]


def test_masks_and_other_positions_are_read_apart(diffusion: dlens.Model) -> None:
    row = diffusion.tokenizer("Once upon a time there was a fox in a wood")["input_ids"]
    half = parts.reading(dlens.trace(diffusion), [row]).noise[0.5]
    n_masked = len(row) // 2
    columns = (own[0] for own in (half.cosine, half.cosine_masked, half.cosine_unmasked))
    for every, masked, other in zip(*columns, strict=True):
        assert every * len(row) == pytest.approx(masked * n_masked + other * (len(row) - n_masked))


def test_losses_are_those_of_each_text(ar: dlens.Model) -> None:
    texts = ["Once upon a time", "def f(x):\n    return x"]
    trace = dlens.trace(ar).skip([5])
    found = parts.losses(trace, [text_canvases(ar, [text]) for text in texts])
    assert 0 < found.flops_saved < 1 / 16
    # Both texts in one forward, and each in its own: products of other sizes are rounded otherwise.
    assert list(found.losses) == pytest.approx([text_loss(trace, [text]).value for text in texts], rel=2e-5)


def test_answers_are_those_of_score_task(diffusion: dlens.Model) -> None:
    trace = dlens.trace(diffusion)
    found = parts.answers(trace, CODE, CODE.problems(2, 5), seed=5)
    scores = score_task(trace, CODE, 2, 5, sampler=LLaDA(steps=16, block_length=32), progress=False)
    assert found.correct == scores.correct
    assert found.examples == tuple(text[:200] for text in scores.texts) and found.notes == scores.notes


def test_a_cache_is_that_of_answers_and_canvases(diffusion: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []
    generate = dlens.Trace.generate

    def watched(trace: dlens.Trace, *given: Any, **settings: Any) -> dlens.Record:
        used.append(settings["cache"])
        return generate(trace, *given, **settings)

    monkeypatch.setattr(dlens.Trace, "generate", watched)
    model, problems = shallow(diffusion, 3), CODE.problems(2, 5)
    trace, recipe = dlens.trace(model), dlens.Recipe(method="magnitude", sparsity=0.5)
    parts.answers(trace, CODE, problems, 5, Dual())
    parts.disrupted(trace, [1], [list(range(5, 29))], 5, Dual())
    parts.compressed(trace, recipe, CODE, problems, [text_canvases(model, ["Once upon a time"])], 5, Dual())
    assert used == [Dual()] * len(used) and len(used) >= 3


def test_disruption_is_that_of_deciding_positions(ar: dlens.Model) -> None:
    rows = [list(range(5, 35)), list(range(40, 70))]
    found = parts.disrupted(dlens.trace(ar), [5], rows, seed=1)
    prompts = [row[:24] for row in rows]
    data = disruption(ar, [5], prompts, max_new_tokens=32, seed=1).data.sel(positions="deciding")
    assert found.cosine.tolist() == data["cosine"].values.tolist() and found.n == 2
    assert found.at(0.5).low.tolist() == data["low"].sel(fraction=0.5).values.tolist()


def test_thirds_are_those_of_phases(ar: dlens.Model) -> None:
    found = parts.thirds(dlens.trace(ar), (5,), CODE, 2)
    whole = phases(ar, [5], CODE, 2, progress=False)
    assert {name: own.after for name, own in found.kept.items()} == {
        name: own.after.correct for name, own in whole.thirds.items()
    }
    assert all(own.before == whole.thirds["early"].before.correct for own in found.kept.values())
    assert found.notes == whole.notes


def test_a_compressed_model_answers_and_reads_the_same(diffusion: dlens.Model) -> None:
    model, texts = shallow(diffusion, 3), ["Once upon a time", "def f(x):\n    return x"]
    problems, canvases = CODE.problems(2, 0), [text_canvases(diffusion, [text]) for text in texts]
    recipe = dlens.Recipe(method="magnitude", sparsity=0.5)
    found = parts.compressed(dlens.trace(model), recipe, CODE, problems, canvases)
    alone = dlens.trace(dlens.compress(model, "magnitude", sparsity=0.5))
    assert found.correct == parts.answers(alone, CODE, problems).correct
    assert found.losses == parts.losses(alone, canvases).losses != parts.losses(dlens.trace(model), canvases).losses
    assert (found.words, found.left_out) == ("magnitude, 50 % zeros, uniform", ())
    spectra = parts.spectra(dlens.trace(model)).alpha
    assert spectra.tolist() == dlens.spectral_alpha(model)["alpha"].values.tolist() and spectra.shape == (3, 7)
