"""Gradients against finite differences in float64, at every point and through every operation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import dlens
from dlens.axes import POINTS, hook_name
from tests.whole.architectures import CONFIGS, build
from tests.whole.operations import IDS

WRITABLE = [name for name, point in POINTS.items() if point.writable and name != "logits"]
STEP = 1e-6


def widened(self: Any, hidden_states: Tensor) -> Tensor:
    """The library's root-mean-square norm without its detour through float32."""
    scale = torch.rsqrt(hidden_states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * hidden_states * scale


@pytest.fixture
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dlens.Model:
    module = build(copy.deepcopy(CONFIGS["qwen2"][0])).double()
    monkeypatch.setattr(type(module.model.norm), "forward", widened)
    family = getattr(request, "param", "autoregressive")
    if family != "autoregressive":
        module.config.mask_token_id, module.config.is_causal = 1, False
        for part in module.modules():
            if "is_causal" in vars(part):
                part.is_causal = False
    return dlens.load(module, family=family)


def metric(logits: Tensor, step: Any) -> Tensor:
    """Every position counts, by a weight of its own."""
    weights = torch.linspace(-1, 1, logits.shape[1] * 5, dtype=logits.dtype).reshape(logits.shape[1], 5)
    return (logits[..., 3:8].tanh() * weights).sum((1, 2))


def check(trace: dlens.Trace, point: str, layer: int | None, ids: Any = IDS) -> None:
    """The slope along a random direction is the gradient's."""
    record = trace.gradient(point, of=metric).forward(ids)
    gradient = record.gradients[point] if layer is None else record.gradients[point][layer]
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    if point == "attn_scores":  # hidden keys lie at the smallest number, where no step is seen
        direction = direction.tril()
    name = hook_name(point, layer)

    def moved(sign: float) -> Tensor:
        shifted = trace.hook(name, lambda value, hook: value + sign * STEP * direction)
        return shifted.gradient("embed", of=metric).forward(ids).metric

    slope = (moved(1) - moved(-1)) / (2 * STEP)
    along = (gradient * direction).flatten(1).sum(-1)
    assert along.abs().min() > 1e-6
    assert torch.allclose(along, slope, rtol=1e-6, atol=1e-9)
    assert torch.allclose(record.metric, trace.gradient("embed", of=metric).forward(ids).metric, rtol=1e-9)


@pytest.mark.parametrize("point", WRITABLE)
def test_gradients_are_slopes(model: dlens.Model, point: str) -> None:
    check(dlens.trace(model), point, 1 if POINTS[point].in_block else None)


@pytest.mark.parametrize("model", ["masked", "masked-shifted"], indirect=True)
@pytest.mark.parametrize("point", ["z", "resid_post"])
def test_gradients_of_diffusion_models_are_slopes(model: dlens.Model, point: str) -> None:
    masked = IDS.clone()
    masked[:, 4:] = 1
    check(dlens.trace(model), point, 1, masked)


OPERATIONS = {
    "skip": lambda trace: trace.skip(2),
    "swap": lambda trace: trace.swap(2, 3),
    "repeat": lambda trace: trace.repeat(2),
    "steer": lambda trace: trace.steer(torch.ones(32), layers=2),
    "ablate": lambda trace: trace.ablate(2, [3, 5], at="mlp_post"),
    "patch": lambda trace: trace.patch(trace.capture("z").forward(IDS.flip(-1)), layers=2, at="z", heads=1),
    "knockout": lambda trace: trace.knockout(2, source=[0], target=[5, 6]),
    "half": lambda trace: trace.skip(2, part="attn"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_slopes_through_operations(model: dlens.Model, name: str) -> None:
    check(OPERATIONS[name](dlens.trace(model)), "resid_post", 1)


def test_a_replaced_value_has_no_gradient(model: dlens.Model) -> None:
    trace = dlens.trace(model).gradient("mlp_post", of=metric, layers=1).ablate(1, [3], at="mlp_post")
    gradient = trace.forward(IDS).gradients["mlp_post"][0]
    assert gradient[..., 3].abs().max() == 0 and gradient[..., 4].abs().min() > 0
    whole = dlens.trace(model).gradient("resid_post", of=metric, layers=1).ablate(2).forward(IDS)
    assert whole.gradients["resid_post"].abs().max() == 0


@pytest.mark.parametrize("model", ["masked"], indirect=True)
def test_nothing_flows_through_a_block_where_a_row_skips_it(model: dlens.Model) -> None:
    masked = IDS.clone()
    masked[0, 1:], masked[1, 6:] = 1, 1
    trace = dlens.trace(model).gradient("resid_pre", "resid_post", of=metric, layers=1).skip(1, noise=(0.5, 1))
    found = trace.forward(masked).gradients
    before, after = found["resid_pre"][0], found["resid_post"][0]
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
    with pytest.raises(ValueError, match="z of layer 1 does not exist where its block is skipped"):
        dlens.trace(model).skip(1).gradient("z", of=metric)


def test_what_is_skipped_passes_the_gradient_on(model: dlens.Model) -> None:
    record = dlens.trace(model).skip(2).gradient("resid_pre", "resid_post", of=metric, layers=2).forward(IDS)
    assert torch.equal(record.gradients["resid_pre"], record.gradients["resid_post"])


def test_a_hand_written_backward_gives_the_same_to_the_bit() -> None:
    module = build(CONFIGS["qwen2"][0])
    held: list[Tensor] = []
    handle = module.model.layers[1].register_forward_hook(lambda part, args, out: held.append(out) or out.retain_grad())
    metric(module(IDS, use_cache=False).logits, None).sum().backward()
    handle.remove()
    module.zero_grad()
    record = dlens.trace(module).gradient("resid_post", of=metric, layers=1).forward(IDS)
    assert torch.equal(record.gradients["resid_post"][0], held[0].grad)


@pytest.mark.parametrize("cache", ["require", "off"])
def test_decoding_takes_each_step_alone(model: dlens.Model, cache: Any) -> None:
    trace = dlens.trace(model).gradient("resid_post", "k", of=dlens.metrics.log_prob(7), layers=1)
    record = trace.generate(IDS, 3, cache=cache)
    assert record.metric.shape == (3, 2)
    for step in range(3):
        alone = trace.forward(record.tokens[:, : 8 + step])
        new = slice(None, 8) if step == 0 else slice(7 + step, 8 + step)
        assert torch.allclose(record.metric[step], alone.metric)
        for point in ("resid_post", "k"):
            expected = alone.gradients[point][:, :, new]
            assert torch.allclose(record.gradients[point][:, :, new], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("model", ["masked", "masked-shifted"], indirect=True)
def test_denoising_takes_each_canvas_alone(model: dlens.Model) -> None:
    trace = dlens.trace(model).gradient("z", of=dlens.metrics.log_prob(7, tokens="masked"), layers=1)
    record = trace.generate(IDS[:, :4], 4)
    for step, canvas in enumerate(record.canvas):
        alone = trace.forward(canvas)
        assert torch.equal(record.metric[step], alone.metric)
        assert torch.equal(record.gradients["z"][step], alone.gradients["z"])


def test_weights_and_grad_mode_stay_as_they_were(model: dlens.Model) -> None:
    some = model.module.get_parameter("model.norm.weight")
    some.requires_grad_(False)
    before, wanting = model.fingerprint(), [p.requires_grad for p in model.module.parameters()]

    def wrong(logits: Tensor, step: Any) -> Tensor:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        dlens.trace(model).gradient("z", of=wrong).forward(IDS)
    dlens.trace(model).gradient("z", of=metric).generate(IDS, 2)
    assert [p.requires_grad for p in model.module.parameters()] == wanting and torch.is_grad_enabled()
    assert model.fingerprint() == before and all(p.grad is None for p in model.module.parameters())


def test_a_run_with_gradients_is_the_plain_one() -> None:
    module = build(CONFIGS["qwen2"][0])
    plain = dlens.trace(module).capture("logits").generate(IDS, 3)
    record = dlens.trace(module).capture("logits").gradient("resid_post", "z", of=metric).generate(IDS, 3)
    assert torch.equal(record["logits"], plain["logits"]) and torch.equal(record.tokens, plain.tokens)
    assert not record["logits"].requires_grad


def test_two_metrics_and_wrong_shapes_are_refused(model: dlens.Model) -> None:
    trace = dlens.trace(model).gradient("z", of=metric)
    with pytest.raises(ValueError, match="gradients of two metrics; expected one"):
        trace.gradient("q", of=lambda logits, step: logits[:, 0, 0]).forward(IDS)
    with pytest.raises(ValueError, match=r"the metric gave shape \(\) at step 0; expected \[2\], one number a row"):
        dlens.trace(model).gradient("z", of=lambda logits, step: logits.sum()).forward(IDS)
    with pytest.raises(ValueError, match="gradient at ln1_scale, which is computed beside the forward"):
        dlens.trace(model).gradient("ln1_scale", of=metric)


def test_gradients_are_saved_with_the_record(model: dlens.Model, tmp_path: Any) -> None:
    record = dlens.trace(model).gradient("z", "blocks.2.hook_resid_post", of=metric).forward(IDS)
    record.save(tmp_path / "record")
    again = dlens.load_record(tmp_path / "record")
    assert torch.equal(again.metric, record.metric) and list(again.gradients) == list(record.gradients)
    assert torch.equal(again.gradients["blocks.2.attn.hook_z"], record.gradients["z"][2])
