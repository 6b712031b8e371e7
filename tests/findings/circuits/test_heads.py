from typing import Any

import numpy as np
import pytest
import torch

import dlens
from dlens.findings.circuits.heads import attention_flow, pattern_stability
from tests.refusing import WRONG, assert_three_parts
from tests.unchecked import unchecked

PROMPTS = ["Once upon a time there was a fox", "Once upon"]


@pytest.fixture(scope="module")
def record(diffusion: dlens.Model) -> dlens.Record:
    return dlens.trace(diffusion).capture("pattern", layers=[2, 9]).generate(PROMPTS, 4)


def test_flow_is_the_mean_of_sums_over_keys(record: dlens.Record) -> None:
    found = attention_flow(record)
    mask = int(record.canvas[0, 0, -1])
    for step, layer, head in ((0, 2, 1), (2, 9, 0)):
        shares = []
        for row in range(2):
            real = [p for p in range(record.tokens.shape[1]) if not record.is_pad[row, p]]
            prompt = [p for p in real if record.is_prompt[row, p]]
            masked = [p for p in real if record.canvas[step, row, p] == mask]
            pattern = record[f"blocks.{layer}.attn.hook_pattern"][step, row, head]
            shares.append(np.mean([sum(float(pattern[q, k]) for k in prompt) for q in masked]))
        at = found.sel(step=step, layer=layer, head=head, state="masked", source="prompt")
        np.testing.assert_allclose(at["share"], np.mean(shares), rtol=1e-5)
        assert at["low"] < at["share"] < at["high"]
    whole = found["share"].sel(state="prompt").sum("source")
    np.testing.assert_allclose(whole, 1, atol=1e-5)
    assert np.isnan(found["share"].sel(step=0, state="decoded")).all()
    np.testing.assert_allclose(found["keys"].sum("source"), 1)


def test_stability_is_the_cosine_of_two_steps(record: dlens.Record) -> None:
    found = pattern_stability(record)
    pattern = record["blocks.9.attn.hook_pattern"].double().flatten(3)  # [step, batch, head, pair]
    cosine = torch.nn.functional.cosine_similarity(pattern[:-1], pattern[1:], dim=-1)
    np.testing.assert_allclose(found["stability"].sel(layer=9), cosine.mean((0, 1)), rtol=1e-9)
    pairs = [torch.nn.functional.cosine_similarity(pattern[:-1, :, 0], pattern[1:, :, h], dim=-1) for h in (1, 2)]
    np.testing.assert_allclose(found["others"].sel(layer=9, head=0), torch.stack(pairs).mean(), rtol=1e-9)
    assert bool((found["low"] <= found["stability"]).all())


def test_a_head_that_never_moves_is_stable(record: dlens.Record) -> None:
    kept = record.captured["pattern"]
    still = kept.values.clone()
    still[:, :, :, 0] = still[:1, :, :, 0]
    kept, before = type(kept)(still, kept.dims, kept.layers, kept.steps, kept.positions), record.captured["pattern"]
    record.captured["pattern"] = kept  # pyright: ignore
    try:
        np.testing.assert_allclose(pattern_stability(record)["stability"].sel(head=0), 1)
    finally:
        record.captured["pattern"] = before  # pyright: ignore


def test_other_records_say_what_to_run(ar: dlens.Model, diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match="decoding run that holds pattern; expected a denoising run with the patterns"):
        attention_flow(dlens.trace(ar).capture("pattern").generate("Once", 2))
    with pytest.raises(ValueError, match="holds z; expected"):
        pattern_stability(dlens.trace(diffusion).capture("z").generate("Once", 2))
    with pytest.raises(ValueError, match=r"patterns of steps \[0\] alone; expected two steps"):
        pattern_stability(dlens.trace(diffusion).capture("pattern", steps=[0]).generate("Once", 2))


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_is_no_record_is_refused(wrong: Any) -> None:
    for read in (dlens.attention_flow, dlens.pattern_stability):
        with unchecked(), pytest.raises(ValueError) as caught:
            read(wrong)
        assert_three_parts(str(caught.value), "record=")
