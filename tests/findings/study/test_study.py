"""A study measures what it says, and goes on where it was interrupted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens import tasks
from dlens.findings.scores.canvases import text_canvases
from dlens.findings.scores.loss import text_loss
from dlens.findings.study import parts
from dlens.findings.study.changes import changes, runs_of_blocks
from dlens.findings.study.claims import claims
from dlens.findings.study.stored import Store
from dlens.findings.study.study import Settings, kind_of, study
from dlens.models.source import TRIO_FOLDER
from dlens.tracing.probes.outlier import channel_shares
from tests.standins import save_dream, save_llada

CODE = tasks.get("trio-code")
SMALL = Settings(problems=2, texts=2, draws=1, answered=("whole", "apart"), deep=False)
ALL = replace(SMALL, answered=("whole", "apart", "early run", "no outlier", "no random"), deep=True)


def test_a_reading_equals_what_captures_give(diffusion: dlens.Model) -> None:
    row = diffusion.tokenizer("Once upon a time there was a fox")["input_ids"]
    found = parts.reading(dlens.trace(diffusion), [row])
    record = dlens.trace(diffusion).capture("resid_pre", "resid_post").forward([row])
    pre, post = record["resid_pre"][:, 0].double(), record["resid_post"][:, 0].double()
    clean = found["noise"]["0"]
    cosine = torch.nn.functional.cosine_similarity(pre, post, dim=-1).mean(-1)
    assert clean["cosine"][0] == pytest.approx(cosine.tolist(), abs=1e-5)
    energy = post.square().sum(1)
    assert clean["share"][0] == pytest.approx((energy[:, found["channel"]] / energy.sum(-1)).tolist(), rel=1e-5)
    target = dlens.trace(diffusion).target
    assert int(channel_shares(diffusion, target).argmax()) == found["channel"]
    early = channel_shares(diffusion, target, n_blocks=5)
    assert early.argsort(descending=True)[:2].tolist() == found["early_channels"]
    for channel, name in zip(found["early_channels"], ("early_share", "early_next_share"), strict=True):
        assert clean[name][0] == pytest.approx((energy[:, channel] / energy.sum(-1)).tolist(), rel=1e-5)
    units = torch.nn.functional.normalize(post, dim=-1)
    similar = units @ units.mT
    distances = range(1, len(row))
    profile = torch.stack([similar.diagonal(d, 1, 2).mean(-1) for d in distances])
    far = torch.stack([profile[d - 1] for d in distances if 2 * d >= len(row)]).mean(0)
    assert clean["recency"][0] == pytest.approx((profile[0] - far).tolist(), abs=1e-5)
    assert clean["similarity"][0][: len(row) - 1] == pytest.approx(profile.mean(-1).tolist(), abs=1e-5)
    assert list(found["noise"]) == ["0", "0.25", "0.5", "0.75"]


def test_masks_and_other_positions_are_read_apart(diffusion: dlens.Model) -> None:
    row = diffusion.tokenizer("Once upon a time there was a fox in a wood")["input_ids"]
    half = parts.reading(dlens.trace(diffusion), [row])["noise"]["0.5"]
    n_masked = len(row) // 2
    columns = (half[name][0] for name in ("cosine", "cosine_masked", "cosine_unmasked"))
    for every, masked, other in zip(*columns, strict=True):
        assert every * len(row) == pytest.approx(masked * n_masked + other * (len(row) - n_masked))


def test_losses_are_those_of_each_text(ar: dlens.Model) -> None:
    texts = ["Once upon a time", "def f(x):\n    return x"]
    trace = dlens.trace(ar).skip([5])
    found = parts.losses(trace, [text_canvases(ar, [text]) for text in texts])
    assert 0 < found["flops_saved"] < 1 / 16
    assert found["losses"] == pytest.approx([text_loss(trace, [text]).value for text in texts])


def test_changes_skip_and_set_what_they_say(ar: dlens.Model) -> None:
    chain = dlens.trace(ar)
    found = changes(chain, parts.reading(chain, [[5, 6, 7, 8]]))
    apart = found["apart"].layers
    assert len(apart) == 3 and all(b - a > 1 for a, b in zip(apart, apart[1:], strict=False))
    assert found["early run"].layers == (2, 3, 4) and found["late run"].layers == (11, 12, 13)
    [outlier], [random] = found["no outlier"].channels, found["no random"].channels
    assert outlier != random and outlier not in found["no next"].channels
    record = found["no outlier"].applied(chain).capture("resid_post").forward("Once upon a time")
    assert not record["resid_post"][:-1, ..., outlier].any() and record["resid_post"][-1, ..., outlier].all()


@pytest.mark.parametrize("n_layers", range(3, 40))
def test_runs_of_blocks_fit_every_depth(n_layers: int) -> None:
    n = max(1, round(0.1875 * n_layers))
    early, late = runs_of_blocks(n_layers, n)
    assert len(early) == len(late) == n
    assert 0 <= early[0] and early[-1] < late[0] and late[-1] < n_layers
    assert n_layers == 3 or (early[0] > 0 and late[-1] < n_layers - 1)


def test_what_was_finished_is_not_computed_again(ar: dlens.Model, tmp_path: Path) -> None:
    first = study([ar], CODE, SMALL, store=Store(tmp_path))
    calls: list[int] = []
    handle = ar.module.register_forward_pre_hook(lambda *_: calls.append(1))
    again = study([ar], CODE, SMALL, store=Store(tmp_path))
    # Only the channels' shares, which are kept with the model, are asked for again.
    assert not calls and again.reused > 0
    assert again.numbers()["models"] == first.numbers()["models"]
    study([ar], CODE, SMALL, store=Store(tmp_path, fresh=True))
    handle.remove()
    assert calls


def test_an_interrupted_study_goes_on(ar: dlens.Model, tmp_path: Path) -> None:
    whole = study([ar], CODE, SMALL)
    left = 40

    def interrupt(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    handle = ar.module.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        study([ar], CODE, SMALL, store=Store(tmp_path))
    handle.remove()
    finished = len(list(tmp_path.glob("*.json")))
    resumed = study([ar], CODE, SMALL, store=Store(tmp_path))
    assert resumed.reused == finished > 0
    assert resumed.numbers()["models"] == whole.numbers()["models"]


def test_other_weights_are_another_question(ar: dlens.Model, tmp_path: Path) -> None:
    study([ar], CODE, SMALL, store=Store(tmp_path))
    weight = next(ar.module.parameters())
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0, 0] += 1
        assert study([ar], CODE, SMALL, store=Store(tmp_path)).reused == 0
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def _with_tokenizer(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TRIO_FOLDER / "ar" / name, folder / name)
    return folder


def test_models_of_other_kinds_and_depths_in_one_study(ar: dlens.Model, tmp_path: Path) -> None:
    size = {"vocab_size": ar.vocab_size, "mask_token_id": ar.tokenizer.mask_token_id}
    llada = save_llada(tmp_path, n_layers=3, max_sequence_length=256, **size)
    dream = save_dream(tmp_path, num_hidden_layers=5, max_position_embeddings=256, **size)
    loaded = [dlens.load(str(_with_tokenizer(folder)), trust_remote_code=True) for folder in (llada, dream)]
    found = study([ar, *loaded], CODE, ALL)
    assert [own["kind"] for own in found.models.values()] == ["ar", "diffusion", "ar-init"]
    assert [own["n_layers"] for own in found.models.values()] == [16, 3, 5]
    rows = claims(found)
    # Random weights solve nothing.
    assert all(cell.effect.why.endswith("; not measurable: baseline solves 0 of 2") for cell in rows[3].cells[1:])
    assert all(cell.effect.low <= cell.effect.value <= cell.effect.high for cell in rows[0].cells)


def test_a_real_model(smol: dlens.Model) -> None:
    found = study([smol], CODE, replace(SMALL, answered=("whole",)))
    [own] = found.models.values()
    assert own["kind"] == "ar" and own["n_layers"] == 30
    assert len(own["skipped"]["apart"]) == 6 and len(own["reading"]["noise"]["0"]["cosine"]) == 2


def test_what_does_not_fit_is_refused_before_anything_is_computed(ar: dlens.Model, tmp_path: Path) -> None:
    size = {"vocab_size": ar.vocab_size, "mask_token_id": ar.tokenizer.mask_token_id}
    folder = _with_tokenizer(save_llada(tmp_path, n_layers=2, **size))
    shallow = dlens.load(str(folder), trust_remote_code=True)
    calls: list[int] = []
    handles = [model.module.register_forward_pre_hook(lambda *_: calls.append(1)) for model in (ar, shallow)]
    refused: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("no model to study; expected at least one", [], {}),
        ("has 2 blocks; expected at least 3", [ar, shallow], {}),
        ("two models of the name trio/ar", [ar, ar], {}),
        ("has no tokenizer; expected one", [replace(ar, tokenizer=None)], {}),
        ("with a trace that has operations", [dlens.trace(ar).skip([3])], {}),
        ("n=1; expected at least 2 problems", [ar], {"settings": replace(SMALL, problems=1)}),
        ("2 kinds for 1 models", [ar], {"kinds": ["ar", "ar"]}),
        ("kind 'dllm'; expected one of diffusion, ar, ar-init", [ar], {"kinds": ["dllm"]}),
    ]
    for message, models, options in refused:
        with pytest.raises(ValueError, match=message):
            study(models, CODE, **{"settings": SMALL} | options)
    for handle in handles:
        handle.remove()
    assert not calls


def test_activations_that_are_not_finite_are_said(ar: dlens.Model) -> None:
    broken = dlens.trace(ar).model
    weight = broken.blocks[3].mlp.down_proj.weight  # pyright: ignore
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0] = float("nan")
        with pytest.raises(ValueError, match="activations of trio/ar hold NaN"):
            study([broken], CODE, SMALL)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def test_the_kind_goes_by_objective_and_shift(ar: dlens.Model, diffusion: dlens.Model, ar_init: dlens.Model) -> None:
    assert [kind_of(model.family) for model in (ar, diffusion, ar_init)] == ["ar", "diffusion", "ar-init"]
