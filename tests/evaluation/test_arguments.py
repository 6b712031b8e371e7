"""Arguments of `lm_eval --model dlens`: each says what `dlens.load`, a verb, a sampler or a bound is given."""

from __future__ import annotations

from typing import Any

import pytest

import dlens
from dlens import samplers
from dlens.evaluation import arguments
from dlens.evaluation.arguments import read_arguments
from dlens.evaluation.likelihood import Bound
from dlens.findings.scores.decoding import Decoding
from tests.refusing import assert_three_parts


@pytest.fixture
def loads(diffusion: dlens.Model, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `dlens.load` was called with, which gives the diffusion model here."""
    calls: list[Any] = []

    def load(name: str, **given: Any) -> dlens.Model:
        calls.append((name, given))
        return diffusion

    monkeypatch.setattr(arguments, "load", load)
    return calls


def test_a_model_alone(loads: list[Any]) -> None:
    chain, bound, decoding = read_arguments({"pretrained": "trio/diffusion"})
    assert loads == [("trio/diffusion", {})]
    assert (chain.ops, bound, decoding) == ((), Bound(), Decoding(batch_size=8))
    assert read_arguments({"model": "trio/ar"}) and loads[-1][0] == "trio/ar"


def test_what_is_loaded(loads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    given = {"family": "llada", "dtype": "bfloat16", "trust_remote_code": True, "revision": "main"}
    read_arguments({"pretrained": "some/model", "device": "cpu", "max_batch_size": 8, **given})
    read_arguments({"pretrained": "some/model", "device": "cuda:0"})
    read_arguments({"pretrained": "some/model", "device": "cpu", "device_map": "auto"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    read_arguments({"pretrained": "some/model", "device": "cuda:0"})
    placed = [{"device_map": "cpu"} | given, {}, {"device_map": "auto"}, {"device_map": "cuda:0"}]
    assert loads == [("some/model", each) for each in placed]


def test_what_is_changed(loads: list[Any]) -> None:
    def words(**given: Any) -> list[str]:
        return [op.words() for op in read_arguments({"pretrained": "m", **given})[0].ops]

    assert words(skip="3-4-5") == ["skip layers 3, 4, 5"] and words(skip=3) == ["skip layers 3"]
    assert words(skip=3, part="attn") == ["skip the attn of layers 3"]
    assert words(skip="0-1", ablate_outlier=7)[1] == words(ablate_outlier=7)[0]
    assert "7" in words(ablate_outlier=7)[0] and words(ablate_outlier=False) == []
    assert len(words(ablate_outlier=True)) == 1


def test_how_it_answers(loads: list[Any]) -> None:
    def read(**given: Any) -> tuple[Bound, Decoding]:
        return read_arguments({"pretrained": "m", **given})[1:]

    assert read(draws=16, guidance=1.5)[0] == Bound(16, 1.5) and read(check_greedy=True)[0].check_greedy
    assert read(steps=8, block_length=16)[1].sampler == samplers.LLaDA(steps=8, block_length=16)
    assert read(guidance=1.5)[1].sampler == samplers.LLaDA(guidance=1.5)
    assert read(sampler="Dream", algorithm="entropy", guidance=1.0)[1].sampler == samplers.Dream(algorithm="entropy")
    assert read(sampler="Threshold")[1].sampler == samplers.Threshold()
    assert read(sampler="BlockDiffusion", block_length=8)[1].sampler == samplers.BlockDiffusion(8)
    assert read(batch_size="16")[1].batch_size == 16  # as the command line of lm-eval hands it over
    assert read(batch_size=3, seed=4, max_new_tokens=5)[1] == Decoding(None, 5, batch_size=3, seed=4)


@pytest.mark.parametrize(
    ("given", "came"),
    [
        ({"pretrained": "m", "skipp": 3}, "argument 'skipp'"),
        ({}, "pretrained=None"),
        ({"pretrained": "m", "batch_size": "auto"}, "batch_size='auto'"),
        ({"pretrained": "m", "skip": "3,4"}, "skip='3,4'"),
        ({"pretrained": "m", "skip": "3-x"}, "skip='3-x'"),
        ({"pretrained": "m", "part": "attn"}, "part='attn'"),
        ({"pretrained": "m", "draws": 0}, "draws=0"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_model_is_loaded(
    given: dict[str, Any], came: str, loads: list[Any]
) -> None:
    with pytest.raises(ValueError) as caught:
        read_arguments(given)
    assert_three_parts(str(caught.value), came)
    assert loads == []


def test_samplers_refuse_settings_of_others(loads: list[Any]) -> None:
    for given in ({"sampler": "LLaDA", "threshold": 0.9}, {"sampler": "llada"}):
        with pytest.raises(
            ValueError, match="threshold=0.9 with the sampler LLaDA; expected|sampler='llada'; expected"
        ):
            read_arguments({"pretrained": "m", **given})
