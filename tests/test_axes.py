"""Names of axes and points, and the word that a misspelt one resembles."""

from __future__ import annotations

from typing import Any

import pytest

import dlens
from dlens import trace
from dlens.axes import BLOCK_POINTS, ROOT_POINTS, SPELLINGS, PointName, hook_name, parse_point, respell
from tests.refusing import Action
from tests.unchecked import unchecked

RESPELT: dict[str, tuple[str, Action]] = {
    "misspelt point": ("did you mean 'resid_post'?", lambda m: trace(m).capture("resid_pots")),
    "misspelt place": ("did you mean 'resid_post'?", lambda m: trace(m).ablate(3, at="resid_pots")),
    "misspelt third": ("did you mean 'early'?", lambda m: trace(m).skip(3, steps="erly")),  # pyright: ignore
    "misspelt value": ("did you mean 'zero'?", lambda m: trace(m).ablate(3, value="zeros")),
    "misspelt tokens": ("did you mean 'masked'?", lambda m: trace(m).ablate(3, tokens="maskd")),
    "misspelt part": ("did you mean 'block'?", lambda m: trace(m).skip(3, part="blocks")),  # pyright: ignore
    "misspelt model": ("did you mean 'trio/diffusion'?", lambda m: dlens.load("trio/difusion")),
    "misspelt family": ("did you mean 'masked'?", lambda m: dlens.load("trio/ar", family="maskd")),
    "misspelt task": ("did you mean 'trio-code'?", lambda m: dlens.tasks.get("trio-cod")),
    "unlike any": ("check the spelling", lambda m: trace(m).capture("stream")),
}


@pytest.mark.parametrize("case", RESPELT)
def test_a_misspelt_word_is_named_right(diffusion: dlens.Model, case: str) -> None:
    fix, action = RESPELT[case]
    with unchecked(), pytest.raises((ValueError, IndexError)) as caught:
        action(diffusion)
    assert fix in str(caught.value)


@pytest.mark.parametrize("point", [*BLOCK_POINTS, *ROOT_POINTS])
def test_a_name_is_read_back(point: str) -> None:
    layer = 7 if point in BLOCK_POINTS else None
    assert parse_point(hook_name(point, layer)) == PointName(point, layer)
    assert parse_point(point) == PointName(point, None)


@pytest.mark.parametrize("name", SPELLINGS)
def test_other_short_forms_of_transformerlens(diffusion: dlens.Model, name: str) -> None:
    point = {"key": "k", "query": "q", "value": "v", "attn": "pattern", "attn_logits": "attn_scores"}.get(
        name, f"mlp_{name}"
    )
    assert parse_point(name) == PointName(point)
    assert trace(diffusion).capture(name, layers=[3]).ops == trace(diffusion).capture(point, layers=[3]).ops
    assert trace(diffusion).ablate(3, at=name).ops == trace(diffusion).ablate(3, at=point).ops
    assert trace(diffusion).hook(name, print).ops == trace(diffusion).hook(point, print).ops


def test_a_record_is_asked_in_other_short_forms_too(diffusion: dlens.Model) -> None:
    record = trace(diffusion).capture("post", layers=[3]).forward("Once upon a time")
    assert record["post"] is record["mlp_post"] and record.captured.keys() == {"mlp_post"}
    (patched,) = trace(diffusion).patch(record, at="post", layers=3).ops
    assert patched.to_json()["at"] == "mlp_post"


def test_every_short_form_of_transformerlens_has_its_point() -> None:
    assert set(SPELLINGS) == {"key", "query", "value", "attn", "attn_logits", "pre", "post"}


@pytest.mark.parametrize("name", ["", "blocks.3", "blocks.3.resid_post", "blocks.3.hook_embed", "hook_resid_post"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="unknown hook point .*; expected a short form .*; "):
        parse_point(name)


def test_only_a_close_word_is_offered() -> None:
    assert respell("resid_psot", BLOCK_POINTS) == "did you mean 'resid_post'?"
    assert respell("stream", BLOCK_POINTS) == respell(3, BLOCK_POINTS) == "check the spelling"


@pytest.mark.parametrize("name", [5, None, ("resid_post",)])
def test_a_hook_point_is_named_by_text(name: Any) -> None:
    with unchecked(), pytest.raises(ValueError, match="hook point .*; expected the name of one; write for example"):
        parse_point(name)


@pytest.mark.parametrize(
    ("name", "short"),
    [("hook_z", "z"), ("attn.hook_z", "z"), ("mlp.hook_post", "mlp_post"), ("hook_resid_post", "resid_post")],
)
def test_a_name_without_its_block_says_the_short_form(name: str, short: str) -> None:
    with pytest.raises(ValueError, match=f"unknown hook point '{name}'; .*; for all layers write '{short}'"):
        parse_point(name)
