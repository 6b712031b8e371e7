import logging

import pytest
import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from dlens.samplers import Autoregressive


def tiny() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config).eval()
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.7, top_p=0.8, top_k=2, pad_token_id=0)
    return model


def generate(model: Qwen2ForCausalLM, sampler: Autoregressive, rows: int = 1) -> torch.Tensor:
    ids = torch.tensor([[3, 4, 5]]).repeat(rows, 1)
    mask = torch.ones_like(ids)
    arguments = sampler.generate_arguments()
    return model.generate(ids, attention_mask=mask, max_new_tokens=sampler.planned_steps(6), **arguments)


def test_temperature_0_is_greedy_whatever_the_checkpoint_says(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny()
    expected = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        for _ in range(6):
            best = model(expected).logits[:, -1].argmax(dim=-1, keepdim=True)
            expected = torch.cat([expected, best], dim=1)
    with caplog.at_level(logging.WARNING, logger="transformers"):
        assert torch.equal(generate(model, Autoregressive()), expected)
    assert not caplog.records


def test_sampling_ignores_what_the_checkpoint_says() -> None:
    model = tiny()
    torch.manual_seed(0)
    drawn = generate(model, Autoregressive(temperature=1.0), rows=4000)[:, 3]
    with torch.no_grad():
        p = model(torch.tensor([[3, 4, 5]])).logits[0, -1].softmax(dim=-1)
    assert torch.allclose(torch.bincount(drawn, minlength=50) / 4000, p, atol=0.02)
    torch.manual_seed(0)
    few = generate(model, Autoregressive(temperature=1.0, top_k=3), rows=200)[:, 3]
    assert set(few.tolist()) == set(p.topk(3).indices.tolist())


def test_values_that_mean_nothing_are_refused() -> None:
    for settings, message in (
        ({"temperature": -1.0}, "temperature=-1.0; expected 0 or more; 0 takes"),
        ({"top_p": 1.5}, "top_p=1.5; expected more than 0 and at most 1; it is"),
        ({"top_k": 0}, "top_k=0; expected 1 or more; None is all"),
    ):
        with pytest.raises(ValueError, match=message):
            Autoregressive(**settings)
    with pytest.raises(ValueError, match="2 masks inside a prompt .*; expected none.*; use a diffusion model"):
        Autoregressive().planned_steps(6, infill=2)
