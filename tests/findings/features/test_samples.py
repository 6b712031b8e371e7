from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.features.samples import samples_of
from tests.reference import shallow
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked

PROMPTS = ["Once upon a time", "The dog"]


@pytest.fixture(scope="module")
def run(diffusion: dlens.Model) -> dlens.Record:
    return dlens.trace(shallow(diffusion, 3)).capture("resid_post", layers=[0, 2]).generate(PROMPTS, 3)


def states(record: dlens.Record) -> dict[str, Any]:
    """Per step, row and position, by the words of `tokens=`."""
    assert record.canvas is not None
    masked = record.canvas == record.canvas[0, 0, -1]
    real, prompt = (~record.is_pad).expand_as(masked), record.is_prompt.expand_as(masked)
    last = torch.zeros_like(real)
    last[..., -1] = True
    return {
        "all": real,
        "prompt": prompt,
        "generated": real & ~prompt,
        "masked": masked & real,
        "decoded": real & ~masked & ~prompt,
        "last": last,
    }


@pytest.mark.parametrize("tokens", ["all", "prompt", "generated", "masked", "decoded", "last", "chosen"])
def test_a_label_a_prompt_reads_the_mean_of_the_positions_named(run: dlens.Record, tokens: str) -> None:
    chosen = torch.zeros_like(run.is_pad)
    chosen[:, 4:6] = True
    where = states(run).get(tokens, chosen.expand(3, -1, -1))
    found = samples_of(run, ["a", "b"], "resid_post", chosen if tokens == "chosen" else tokens, None, False)
    assert found.values.shape == (3, 2, 2, 192) and (found.steps, found.layers) == ((0, 1, 2), (0, 2))
    for step, layer, row in np.ndindex(3, 2, 2):
        own = where[step, row]
        assert bool(found.there[step, row]) == bool(own.any())
        if own.any():
            expected = run["resid_post"][step, layer, row, own].mean(0)
            torch.testing.assert_close(found.values[step, layer, row], expected)
    assert found.labels.tolist() == [0, 1] and found.group.tolist() == [0, 1] and found.has_steps


def test_what_a_cached_step_did_not_compute_is_left_out(run: dlens.Record) -> None:
    kept = run.captured["resid_post"]
    values = kept.values.clone()
    values[1, :, 0, -1] = torch.nan
    record = replace(run, captured={"resid_post": replace(kept, values=values)})
    found = samples_of(record, ["a", "b"], "resid_post", "generated", None, False)
    torch.testing.assert_close(found.values[1, 1, 0], kept.values[1, 1, 0, -3:-1].mean(0))
    torch.testing.assert_close(found.values[0, 1, 0], kept.values[0, 1, 0, -3:].mean(0))
    last = samples_of(record, ["a", "b"], "resid_post", "last", None, False)
    assert last.there.tolist() == [[True, True], [False, True], [True, True]]


def test_a_label_a_position_reads_it(run: dlens.Record) -> None:
    labels = np.full(run.tokens.shape, None, dtype=object)
    labels[0, -3:], labels[1, -2] = ["x", "y", "y"], "x"
    found = samples_of(run, labels, "resid_post", "generated", None, False)
    assert found.classes is not None and found.classes.tolist() == ["x", "y"]
    assert found.labels.tolist() == [0, 1, 1, 0] and found.group.tolist() == [0, 0, 0, 1]
    grouped = samples_of(run, labels, "resid_post", "generated", ["z", "a"], False)
    assert grouped.group.tolist() == [1, 1, 1, 0]
    expected = torch.cat([run["resid_post"][:, :, 0, -3:], run["resid_post"][:, :, 1, -2:-1]], 2)
    assert torch.equal(found.values, expected) and bool(found.there.all())
    vectors, own, group = found.at(1, 1)
    assert np.array_equal(vectors, expected[1, 1]) and own.tolist() == [0, 1, 1, 0] and group.tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("new", [None, 3])
def test_a_stream_is_read_as_a_record_is(diffusion: dlens.Model, tmp_path: Path, new: int | None) -> None:
    trace = dlens.trace(shallow(diffusion, 3)).capture("resid_post", layers=[0, 2])
    record = trace.forward(PROMPTS) if new is None else trace.generate(PROMPTS, new)
    # A file for each forward.
    kept = trace.stream(PROMPTS, tmp_path / "kept", max_new_tokens=new, shard_bytes=1, batch_size=1)
    for tokens in ("all",) if new is None else ("all", "masked", "decoded"):
        chosen = kept if tokens == "all" else kept.select(states=tokens)
        found = samples_of(chosen, ["a", "b"], "resid_post", "all", None, False)
        expected = samples_of(record, ["a", "b"], "resid_post", tokens, None, False)
        assert (found.has_steps, found.layers) == (expected.has_steps, expected.layers)
        place = [expected.steps.index(step) for step in found.steps]
        assert len(place) == int(expected.there.any(1).sum())
        assert torch.equal(found.there, expected.there[place]) and found.group.tolist() == [0, 1]
        torch.testing.assert_close(found.values, expected.values[place], atol=1e-4, rtol=1e-4)
    one = samples_of(kept.select(layers=2), ["a", "b"], "resid_post", "all", None, False)
    assert one.layers == (2,) and one.values.shape[1] == 1


def test_of_a_stream_each_prompt_has_one_label(ar: dlens.Model, tmp_path: Path) -> None:
    trace = dlens.trace(shallow(ar, 2)).capture("resid_post", layers=1)
    kept = trace.stream(PROMPTS, tmp_path / "kept", max_new_tokens=2)
    expected = samples_of(trace.generate(PROMPTS, 2), [0, 1], "resid_post", "all", None, False)
    found = samples_of(kept, [0, 1], "resid_post", "all", None, False)
    assert not found.has_steps and found.group.tolist() == [0, 1]
    assert samples_of(kept, [0, 1], "resid_post", "all", ["b", "a"], False).group.tolist() == [1, 0]
    torch.testing.assert_close(found.values, expected.values, atol=1e-4, rtol=1e-4)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("labels of shape (3,)", {"labels": [0, 1, 2]}),
        ("labels of shape (2, 2)", {"labels": [[0, 1], [1, 0]]}),
        ("tokens='prompt'", {"tokens": "prompt"}),
        ("point='z'", {"at": "z"}),
        ("groups=['x']", {"groups": ["x"]}),
    ]
    for came, given in wrong:
        asked: dict[str, Any] = {"labels": [0, 1], "at": "resid_post", "tokens": "all", "groups": None} | given
        with unchecked(), pytest.raises(ValueError) as caught:
            samples_of(kept, numbers=False, **asked)
        assert_three_parts(str(caught.value), came)
    heads = dlens.trace(shallow(ar, 2)).capture("z", layers=1).stream(PROMPTS, tmp_path / "z")
    with pytest.raises(ValueError, match="at='z'; expected a hook point of the stream; capture"):
        samples_of(heads, [0, 1], "z", "all", None, False)


def test_vectors_come_with_labels_and_groups() -> None:
    x = torch.randn(3, 5, 4)
    found = samples_of(x, [1.0, np.nan, 3, 4, 5], "resid_post", "all", ["b", "b", "a", "a", "b"], True)
    assert torch.equal(found.values, x[None, :, [0, 2, 3, 4]]) and found.labels.tolist() == [1, 3, 4, 5]
    assert found.group.tolist() == [1, 0, 0, 1] and not found.has_steps and found.classes is None
    assert samples_of(x[0].numpy(), [True, False] * 2 + [True], "", "", None, False).labels.tolist() == [1, 0, 1, 0, 1]


def test_one_layer_by_its_full_name(diffusion: dlens.Model) -> None:
    record = dlens.trace(shallow(diffusion, 3)).capture("blocks.1.hook_resid_post").forward(PROMPTS)
    found = samples_of(record, [0, 1], "blocks.1.hook_resid_post", "all", None, False)
    assert found.layers == (1,) and found.values.shape == (1, 1, 2, 192)


def test_decoding_has_no_last_position(ar: dlens.Model) -> None:
    record = dlens.trace(shallow(ar, 3)).capture("resid_post", layers=1).generate("Once upon a time", 3)
    labels = np.arange(7)[None] % 2
    found = samples_of(record, labels, "resid_post", "all", None, False)
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert torch.equal(found.values[0, 0], record["resid_post"][0, 0])


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("labels=", {"labels": 3}),
    ("labels=", {"labels": ["x", "y"], "numbers": True}),
    ("labels=['x']", {"labels": ["x", "x"]}),
    ("labels=[]", {"labels": [None, None]}),
    ("labels=[3.0]", {"labels": [3, None], "numbers": True}),
    ("labels=[inf, 1]", {"labels": [np.inf, 1], "numbers": True}),
    ("labels of shape (3,)", {"labels": [0, 1, 2]}),
    ("labels of shape (2, 3)", {"labels": np.zeros((2, 3))}),
    ("tokens='early'", {"tokens": "early"}),
    ("tokens=[2, 3]", {"tokens": torch.ones(2, 3, dtype=torch.bool)}),
    ("groups=[0]", {"groups": [0]}),
    ("source=", {"source": "x"}),
    ("source=", {"source": torch.zeros(4)}),
    ("labels of shape (2,)", {"source": torch.zeros(4, 3)}),
    ("groups=[0]", {"source": torch.zeros(2, 3), "groups": [0]}),
]


@pytest.mark.parametrize(("came", "given"), WRONG)
def test_what_does_not_fit_is_refused(run: dlens.Record, came: str, given: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"source": run, "labels": [0, 1], "at": "resid_post", "tokens": "all"} | given
    with unchecked(), pytest.raises(ValueError) as caught:
        samples_of(**{"groups": None, "numbers": False} | asked)
    assert_three_parts(str(caught.value), came)


def test_points_and_states_that_are_not_there_are_refused(diffusion: dlens.Model) -> None:
    record = dlens.trace(shallow(diffusion, 3)).capture("z", layers=1).forward(PROMPTS)
    for at, tokens, came in (("z", "all", "at='z'"),):
        with pytest.raises(ValueError) as caught:
            samples_of(record, [0, 1], at, tokens, None, False)
        assert_three_parts(str(caught.value), came)
    plain = dlens.trace(shallow(diffusion, 3)).capture("resid_post").forward(PROMPTS)
    with pytest.raises(ValueError, match="tokens='masked'; expected other positions"):
        samples_of(plain, [0, 1], "resid_post", "masked", None, False)
    with pytest.raises(KeyError):
        samples_of(plain, [0, 1], "attn_out", "all", None, False)
