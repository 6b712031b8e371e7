"""A planted outlier is found, and every row is what its change does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import dlens
from dlens.findings.scores.accuracy import score_task
from dlens.findings.scores.loss import text_loss
from tests.models.conftest import build

TEXTS = ["Once upon a time there was a fox", "def f(x):\n    return"]
CHANNEL = 9
OPTIONS: dict[str, Any] = {"n": 2, "seed": 3, "max_new_tokens": 4}


@pytest.fixture(scope="module")
def planted(ar: dlens.Model) -> dlens.Model:
    """The autoregressive model with a channel that every token makes large."""
    model = copy.deepcopy(ar)
    model.embed.weight.data[:, CHANNEL] = 40.0
    return model


@pytest.fixture(scope="module")
def found(planted: dlens.Model) -> dlens.Collapse:
    return dlens.collapse(planted, texts=TEXTS, n_random=2, prompts=TEXTS, **OPTIONS)


def test_the_outlier_is_found_where_it_lives(found: dlens.Collapse, planted: dlens.Model) -> None:
    entry = dlens.trace(planted).ablate_outlier().forward("Once").plan[0]
    assert (found.channel, found.share) == (CHANNEL, pytest.approx(entry["share"])) == (entry["channel"], found.share)
    assert found.where["peak_share"].sel(layer=0) == found.where["steps_led"].sel(layer=0) == 1
    assert found.layers == tuple(layer for layer in range(16) if found.where["peak_share"][layer] > 0.5)
    assert 0 in found.layers
    assert found.where.attrs["channel"] == CHANNEL


def test_each_row_is_what_its_change_does(found: dlens.Collapse, planted: dlens.Model) -> None:
    trace = dlens.trace(planted)
    rows = {effect.name: effect for effect in found.effects}
    changes = {
        "none": trace,
        "outlier to zero": trace.ablate_outlier(CHANNEL),
        "outlier to mean": trace.ablate_outlier(CHANNEL, value="mean"),
        "next channels to zero": trace.ablate(range(15), rows["next channels to zero"].channels),
    }
    for name, change in changes.items():
        scores = score_task(change, "trio-math", **OPTIONS)
        assert rows[name].examples == scores.texts
        assert rows[name].kept.after.correct == scores.correct
        assert rows[name].loss == text_loss(change, TEXTS, seed=3).value
    assert len({round(rows[name].loss, 3) for name in changes}) == 4


def test_rows_and_columns_are_those_of_a_copy(found: dlens.Collapse, planted: dlens.Model) -> None:
    rows = {effect.name: effect for effect in found.effects}
    for side, paths in (("rows", planted.layout.writes), ("columns", planted.layout.reads)):
        other = copy.deepcopy(planted)
        for block in other.blocks:
            for path in paths:
                weight: Any = block.get_submodule(path).weight
                view = weight.data if side == "rows" else weight.data.T
                view[CHANNEL] = 0
        assert rows[f"outlier's {side} to zero"].loss == text_loss(dlens.trace(other), TEXTS, seed=3).value
        assert rows[f"outlier's {side} to zero"].where == side


def test_the_model_is_what_it_was(planted: dlens.Model) -> None:
    before = {name: value.clone() for name, value in planted.module.state_dict().items()}
    dlens.collapse(planted, texts=TEXTS, n_random=0, prompts=["Once"], channel=3, **OPTIONS)
    assert all(torch.equal(value, before[name]) for name, value in planted.module.state_dict().items())


def test_controls_are_other_channels(found: dlens.Collapse) -> None:
    names = [effect.name for effect in found.effects]
    assert sum(name.startswith("random channel") for name in names) == 2
    random = [effect.channels for effect in found.effects if effect.name.startswith("random")]
    assert random[0] != random[1] and all(CHANNEL not in channels for channels in random)
    assert [row["name"] for row in found.table()] == names
    assert "hold" in found.notes[-1]


def test_the_largest_channel_of_early_blocks_has_rows_where_it_is_another(ar: dlens.Model) -> None:
    early, late = copy.deepcopy(ar), 2
    early.embed.weight.data[:, CHANNEL] = 20.0
    for place, block in enumerate(early.blocks):
        weight: Any = block.get_submodule(early.layout.writes[-1]).weight
        weight.data[CHANNEL] = 0
        if place == 5:
            weight.data[late] = 40.0
    options = {"texts": TEXTS, "n_random": 1, "prompts": ["Once"], **OPTIONS}
    found = dlens.collapse(early, **options)
    own = {effect.name: effect for effect in found.effects if effect.name.startswith("early outlier")}
    assert found.channel == late and [effect.channels for effect in own.values()] == [(CHANNEL,)] * 2
    zeroed = dlens.trace(early).ablate(range(15), [CHANNEL])
    assert own["early outlier to zero"].loss == text_loss(zeroed, TEXTS, seed=3).value
    assert own["early outlier to mean"].value == "mean"
    assert f"channel {CHANNEL} is the largest of the first third of the blocks" in " ".join(found.notes)
    named = dlens.collapse(early, channel=late, **options)
    assert not any(effect.name.startswith("early") for effect in named.effects)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "task 'maths'; expected one of", {"task": "maths"}),
        (ValueError, "n=1; expected at least 2 problems", {"n": 1}),
        (IndexError, "channel 192 of trio/ar; expected 0 to 191", {"channel": 192}),
        (ValueError, "n_random=-1; expected 0 to 191", {"n_random": -1}),
        (ValueError, "draws=0; expected at least 1", {"draws": 0}),
        (ValueError, "got texts of one token", {"texts": [[5]]}),
    ],
)
def test_it_is_refused_before_anything_is_computed(
    error: type[Exception], message: str, options: dict[str, Any], ar: dlens.Model
) -> None:
    calls: list[int] = []
    handle = ar.module.register_forward_pre_hook(lambda *_: calls.append(1))
    with pytest.raises(error, match=message):
        dlens.collapse(ar, **options)
    handle.remove()
    assert not calls


def test_shallow_and_broken_models_are_refused(ar: dlens.Model) -> None:
    shallow = dlens.load(build("llama", num_hidden_layers=2, vocab_size=ar.vocab_size), tokenizer=ar.tokenizer)
    with pytest.raises(ValueError, match="has 2 blocks; expected at least 3"):
        dlens.collapse(shallow)
    broken = copy.deepcopy(ar)
    broken.blocks[4].mlp.down_proj.weight.data[:] = float("nan")  # pyright: ignore
    with pytest.raises(ValueError, match="hold NaN, infinity or nothing but zeros"):
        dlens.collapse(broken)
