"""A study measures what it says, and goes on where it was interrupted."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens import tasks
from dlens.caches import Blocks, Dual
from dlens.findings.study.claims import claims
from dlens.findings.study.study import StudySettings, _threads, study
from dlens.models.source import TRIO_FOLDER
from dlens.workers.store import Store
from tests.reference import shallow
from tests.standins import save_dream, save_llada

CODE = tasks.get("trio-code")
SMALL = StudySettings(problems=2, texts=2, draws=1, answered=("whole", "apart"), deep=False)
ALL = replace(SMALL, answered=("whole", "apart", "early run", "no outlier", "no random", "no largest"), deep=True)


@pytest.fixture(scope="module")
def small(ar: dlens.Model) -> dlens.Model:
    """The first four blocks of the autoregressive model."""
    return shallow(ar, 4)


def harmless(hook: Any) -> Any:
    """A hook that is taken for one of dlens's own; with somebody else's nothing is remembered."""
    hook.__module__ = "dlens"
    return hook


def test_what_was_finished_is_not_computed_again(small: dlens.Model, tmp_path: Path) -> None:
    first = study([small], CODE, SMALL, store=Store(tmp_path))
    calls: list[int] = []
    handle = small.module.register_forward_pre_hook(harmless(lambda *_: calls.append(1)))
    again = study([small], CODE, SMALL, store=Store(tmp_path))
    # Only the channels' shares, which are kept with the model, are asked for again.
    assert not calls and again.reused > 0
    assert again.numbers()["models"] == first.numbers()["models"]
    study([small], CODE, SMALL, store=Store(tmp_path, fresh=True))
    handle.remove()
    assert calls


def test_an_interrupted_study_goes_on(small: dlens.Model, tmp_path: Path) -> None:
    whole = study([small], CODE, SMALL)
    left = 40

    def interrupt(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt

    handle = small.module.register_forward_pre_hook(harmless(interrupt))
    with pytest.raises(KeyboardInterrupt):
        study([small], CODE, SMALL, store=Store(tmp_path))
    handle.remove()
    finished = len(list(tmp_path.glob("*.json")))
    resumed = study([small], CODE, SMALL, store=Store(tmp_path))
    assert resumed.reused == finished > 0
    assert resumed.numbers()["models"] == whole.numbers()["models"]


def test_models_side_by_side_give_what_they_give_in_turn(
    small: dlens.Model, diffusion: dlens.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = [shallow(diffusion, 3), small]
    few = replace(SMALL, answered=("whole",))
    in_turn, threads = study(models, CODE, few), set[int]()
    handles = [
        model.module.register_forward_pre_hook(harmless(lambda *_: threads.add(threading.get_ident())))
        for model in models
    ]
    monkeypatch.setattr("dlens.findings.study.study._threads", lambda chains: 2)
    beside = study(models, CODE, few)
    for handle in handles:
        handle.remove()
    assert len(threads) == 2 and threading.get_ident() not in threads
    assert json.dumps(beside.numbers()) == json.dumps(in_turn.numbers())
    assert list(beside.models) == list(in_turn.models) == [model.name for model in models]


def test_only_models_that_share_nothing_divide_the_threads(
    ar: dlens.Model, diffusion: dlens.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    one, other = (dlens.trace(model) for model in (ar, diffusion))
    assert _threads([one, other]) == 7
    assert _threads([one, dlens.trace(replace(ar, name="the same module"))]) == 1
    with torch.autocast("cpu"):
        assert _threads([one, other]) == 1


def test_other_weights_are_another_question(small: dlens.Model, tmp_path: Path) -> None:
    study([small], CODE, SMALL, store=Store(tmp_path))
    weight = next(small.module.parameters())
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0, 0] += 1
        assert study([small], CODE, SMALL, store=Store(tmp_path)).reused == 0
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def _with_tokenizer(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TRIO_FOLDER / "ar" / name, folder / name)
    return folder


def test_models_of_other_kinds_and_depths_in_one_study(small: dlens.Model, tmp_path: Path) -> None:
    size = {"vocab_size": small.vocab_size, "mask_token_id": small.tokenizer.mask_token_id}
    llada = save_llada(tmp_path, n_layers=3, max_sequence_length=256, **size)
    dream = save_dream(tmp_path, num_hidden_layers=5, max_position_embeddings=256, **size)
    loaded = [dlens.load(str(_with_tokenizer(folder)), trust_remote_code=True) for folder in (llada, dream)]
    found = study([small, *loaded], CODE, ALL)
    assert [own.kind for own in found.models.values()] == ["ar", "diffusion", "ar-init"]
    assert [own.n_layers for own in found.models.values()] == [4, 3, 5]
    rows = claims(found)
    # Random weights solve nothing.
    assert all(cell.effect.why.endswith("; not measurable: baseline solves 0 of 2") for cell in rows[3].cells[1:])
    assert all(cell.effect.low <= cell.effect.value <= cell.effect.high for cell in rows[0].cells)


def test_a_real_model(smol: dlens.Model) -> None:
    found = study([shallow(smol, 6)], CODE, replace(SMALL, answered=("whole",)))
    [own] = found.models.values()
    assert own.kind == "ar" and own.n_layers == 6
    assert len(own.changes["apart"].layers) == 1 and len(own.reading.clean.cosine) == 2


def test_what_does_not_fit_is_refused_before_anything_is_computed(
    ar: dlens.Model, diffusion: dlens.Model, tmp_path: Path
) -> None:
    size = {"vocab_size": ar.vocab_size, "mask_token_id": ar.tokenizer.mask_token_id}
    folder = _with_tokenizer(save_llada(tmp_path, n_layers=2, **size))
    shallow = dlens.load(str(folder), trust_remote_code=True)
    calls: list[int] = []
    handles = [model.module.register_forward_pre_hook(lambda *_: calls.append(1)) for model in (ar, diffusion, shallow)]
    refused: list[tuple[str, list[Any], dict[str, Any]]] = [
        ("no model to study; expected at least one", [], {}),
        ("has 2 blocks; expected at least 3", [ar, shallow], {}),
        ("two models of the name trio/ar", [ar, ar], {}),
        ("has no tokenizer; expected one", [replace(ar, tokenizer=None)], {}),
        ("with a trace that has operations", [dlens.trace(ar).skip([3])], {}),
        ("n=1; expected at least 2 problems", [ar], {"settings": replace(SMALL, problems=1)}),
        ("2 kinds for 1 models", [ar], {"kinds": ["ar", "ar"]}),
        ("kind 'dllm'; expected one of diffusion, ar, ar-init", [ar], {"kinds": ["dllm"]}),
        (r"cache=Dual\(\) for models that are all autoreg", [ar], {"settings": replace(SMALL, cache=Dual())}),
        ("Blocks on a model in which every position", [ar, diffusion], {"settings": replace(SMALL, cache=Blocks())}),
        ("cache='require' on .*; expected 'auto'", [ar, diffusion], {"settings": replace(SMALL, cache="require")}),
    ]
    for message, models, options in refused:
        with pytest.raises(ValueError, match=message):
            study(models, CODE, **{"settings": SMALL} | options)
    for handle in handles:
        handle.remove()
    assert not calls


def test_activations_that_are_not_finite_are_said(small: dlens.Model) -> None:
    broken = dlens.trace(small).model
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
