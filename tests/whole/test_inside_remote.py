"""What lies within a block of remote code with LLaDA's and Dream's contracts, against plain hooks and by hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import rms_norm

import dlens
from dlens.axes import POINTS, hook_name
from tests.standins import build_remote, save_dream, save_llada
from tests.whole.operations import IDS

HEADS, KV_HEADS, D_HEAD, LAYER = 4, 2, 8, 2
POINTS_INSIDE = ("q", "k", "v", "rot_q", "rot_k", "attn_scores", "pattern", "z", "result", "mlp_pre", "mlp_post")
# Module below a block -> the point that its output is, and the point that its input is.
LLADA = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "ff_proj": "mlp_pre"}, {"attn_out": "z", "ff_out": "mlp_post"}
DREAM = (
    {"self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "mlp.gate_proj": "mlp_pre"},
    {"self_attn.o_proj": "z", "mlp.down_proj": "mlp_post"},
)


@dataclass(frozen=True)
class Remote:
    """A model under dlens, the same weights plain, and what its code is called with."""

    model: dlens.Model
    module: Any
    inputs: dict[str, Any]
    outputs_at: dict[str, str]
    inputs_at: dict[str, str]

    @property
    def blocks(self) -> Any:
        """The blocks of the plain module."""
        return self.module.get_submodule(self.model.layout.blocks)

    @property
    def project(self) -> Any:
        """The last projection of attention in the plain module."""
        path = next(path for path, point in self.inputs_at.items() if point == "z")
        return self.blocks[LAYER].get_submodule(path)

    def logits(self, ids: Tensor = IDS) -> Tensor:
        """Of the plain module."""
        with torch.no_grad():
            return self.module(ids, **self.inputs).logits

    def hooked(self) -> dict[str, Tensor]:
        """Values at a block by plain hooks, heads apart."""
        found: dict[str, Tensor] = {}
        handles = []
        for path, point in self.outputs_at.items():
            handles.append(
                self.blocks[LAYER]
                .get_submodule(path)
                .register_forward_hook(lambda part, args, out, point=point: found.update({point: out}))
            )
        for path, point in self.inputs_at.items():
            handles.append(
                self.blocks[LAYER]
                .get_submodule(path)
                .register_forward_pre_hook(lambda part, args, point=point: found.update({point: args[0]}))
            )
        self.logits()
        for handle in handles:
            handle.remove()
        widths = {"q": HEADS, "k": KV_HEADS, "v": KV_HEADS, "z": HEADS}
        return {point: apart(value, widths[point]) if point in widths else value for point, value in found.items()}


def apart(value: Tensor, heads: int) -> Tensor:
    return rearrange(value, "batch position (head d_head) -> batch position head d_head", head=heads)


@pytest.fixture(
    scope="module",
    params=[(save_llada, LLADA, {"use_cache": False}), (save_dream, DREAM, {"attention_mask": "full"})],
    ids=["llada", "dream"],
)
def remote(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Remote:
    """Each of the two in turn."""
    save, paths, inputs = request.param
    folder = save(tmp_path_factory.mktemp("remote"))
    return Remote(dlens.load(str(folder), trust_remote_code=True), build_remote(folder), inputs, *paths)


def turned(value: Tensor) -> Tensor:
    """Heads rotated by their positions, in words of our own."""
    rates = 10000.0 ** (-torch.arange(0, D_HEAD, 2).float() / D_HEAD)
    angles = torch.arange(value.shape[1]).float()[:, None, None] * rates
    one, two = value.chunk(2, -1)
    return torch.cat([one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()], -1)


def test_values_are_those_of_plain_hooks_and_of_the_formula(remote: Remote) -> None:
    found = remote.hooked()
    record = dlens.trace(remote.model).capture(*POINTS_INSIDE, layers=[LAYER]).forward(IDS)
    assert set(found) == {"q", "k", "v", "z", "mlp_pre", "mlp_post"}
    for point in ("q", "k", "v"):
        assert torch.equal(record[point][0], found[point]), point
    q, k = turned(found["q"]), turned(found["k"])
    every = repeat(k, "b p kv d -> b p (kv two) d", two=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, every) / D_HEAD**0.5
    by_hand = {"rot_q": q, "rot_k": k, "attn_scores": scores, "pattern": scores.softmax(-1)}
    every = repeat(found["v"], "b p kv d -> b p (kv two) d", two=2)
    by_hand["z"] = torch.einsum("bhqk,bkhd->bqhd", by_hand["pattern"], every)
    for point, expected in by_hand.items():
        assert torch.allclose(record[point][0], expected, atol=1e-5), point
    for point in ("z", "mlp_pre", "mlp_post"):
        assert torch.allclose(record[point][0], found[point], atol=1e-5), point
    whole = remote.project(rearrange(found["z"], "b p h d -> b p (h d)"))
    assert torch.allclose(record["result"][0].sum(2), whole, atol=1e-5)


def test_what_modules_show_is_read_to_the_bit_beside_the_models_own_kernel(remote: Remote) -> None:
    found = remote.hooked()
    record = dlens.trace(remote.model).capture(*found, layers=[LAYER]).capture("logits").forward(IDS)
    for point, expected in found.items():
        assert torch.equal(record[point][0], expected), point
    assert torch.equal(record["logits"], remote.logits())


def test_padded_keys_are_in_no_pattern(remote: Remote) -> None:
    trace = dlens.trace(remote.model).capture("pattern", "rot_k")
    together = trace.forward([IDS[0].tolist(), IDS[1, :5].tolist()])
    alone = trace.forward(IDS[1:, :5])
    assert together["pattern"][:, 1, :, 3:, :3].abs().max() == 0
    assert torch.allclose(together["pattern"][:, 1, :, 3:, 3:], alone["pattern"][:, 0], atol=1e-5)


def test_a_written_pattern_is_the_one_that_mixes(remote: Remote) -> None:
    uniform = torch.full((2, HEADS, 8, 8), 1 / 8)
    trace = dlens.trace(remote.model).capture("v", "z", layers=LAYER).capture("logits")
    written = trace.hook(hook_name("pattern", LAYER), lambda value, hook: uniform).forward(IDS)
    mean = repeat(written["v"][0].mean(1), "b kv d -> b p (kv two) d", two=2, p=8)
    assert torch.allclose(written["z"][0], mean, atol=1e-6)
    handle = remote.project.register_forward_pre_hook(lambda part, args: (rearrange(mean, "b p h d -> b p (h d)"),))
    expected = remote.logits()
    handle.remove()
    assert torch.allclose(written["logits"], expected, atol=1e-4)


def test_a_head_without_attention_is_its_columns_zeroed(remote: Remote) -> None:
    trace = dlens.trace(remote.model).capture("logits")
    weight = remote.project.weight
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[:, D_HEAD : 3 * D_HEAD] = 0
    expected = remote.logits()
    with torch.no_grad():
        weight.copy_(kept)
    for point in ("pattern", "z", "result"):
        record = trace.ablate(LAYER, at=point, heads=[1, 2]).forward(IDS)
        assert torch.allclose(record["logits"], expected, atol=1e-4), point


def test_knockout_hides_keys_and_shares_out_the_rest(remote: Remote) -> None:
    trace = dlens.trace(remote.model).capture("pattern", layers=LAYER)
    clean, found = (
        t.forward(IDS)["pattern"][0] for t in (trace, trace.knockout(LAYER, source=[0, 1], target=[5], heads=[3]))
    )
    rest = clean[:, 3, 5].clone()
    rest[:, :2] = 0
    assert torch.allclose(found[:, 3, 5], rest / rest.sum(-1, keepdim=True), atol=1e-6)
    others = torch.ones(HEADS, 8, dtype=torch.bool)
    others[3, 5] = False
    assert torch.equal(found[:, others], clean[:, others])
    mask = remote.model.family.mask_token_id
    assert mask is not None
    denoised = dlens.trace(remote.model).knockout(source="masked", target="prompt").capture("pattern")
    record = denoised.generate(IDS[:, :4], 4)
    assert record["pattern"][0, :, :, :, :4, 4:].abs().max() == 0
    assert record["pattern"][0, :, :, :, 4:, 4:].abs().min() > 0


@pytest.mark.parametrize("part", ["attn", "mlp"])
def test_halves_are_skipped_beside_attention_that_is_visited(remote: Remote, part: Any) -> None:
    plain = dlens.trace(remote.model).skip([1], part=part).capture("resid_post", "logits").forward(IDS)
    looked = dlens.trace(remote.model).skip([1], part=part).capture("pattern", layers=LAYER)
    record = looked.capture("resid_post", "logits").forward(IDS)
    assert torch.equal(record["resid_post"][:2], plain["resid_post"][:2])
    assert torch.allclose(record["logits"], plain["logits"], atol=1e-4)
    steps = dlens.trace(remote.model).skip([1], part=part, steps=[0]).capture("pattern", layers=[1], steps=[1])
    assert torch.allclose(steps.generate(IDS[:, :4], 2)["pattern"].sum(-1), torch.ones(1, 2, HEADS, 6))


STEP = 1e-6


def metric(logits: Tensor, step: Any) -> Tensor:
    weights = torch.linspace(-1, 1, logits.shape[1] * 5, dtype=logits.dtype).reshape(logits.shape[1], 5)
    return (logits[..., 3:8].tanh() * weights).sum((1, 2))


@pytest.fixture(scope="module", params=[save_llada, save_dream], ids=["llada", "dream"])
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dlens.Model:
    """Each in float64, where its code goes through float32 too."""
    folder: Path = request.param(tmp_path_factory.mktemp("wide"))
    model = dlens.load(str(folder), trust_remote_code=True, dtype="float64")
    for part in model.module.modules():
        if "RMSNorm" in type(part).__name__:
            part.forward = lambda x, part=part: part.weight * rms_norm(x, x.shape[-1:], eps=1e-5)
        if type(part).__name__ == "RotaryEmbedding":
            part.forward = lambda q, k: tuple(
                rearrange(turned(x.transpose(1, 2)), "b p h d -> b h p d") for x in (q, k)
            )
    return model


@pytest.mark.parametrize("point", ["q", "rot_k", "attn_scores", "pattern", "z", "result", "mlp_pre"])
def test_gradients_are_slopes(wide: dlens.Model, point: str) -> None:
    trace, name = dlens.trace(wide), hook_name(point, 1)
    gradient = trace.gradient(name, of=metric).forward(IDS).gradients[name]
    direction = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def moved(sign: float) -> Tensor:
        shifted = trace.hook(name, lambda value, hook: value + sign * STEP * direction)
        return shifted.gradient("logits", of=metric).forward(IDS).metric

    along = (gradient * direction).flatten(1).sum(-1)
    slope = (moved(1) - moved(-1)) / (2 * STEP)
    assert along.abs().min() > 1e-6 and torch.allclose(along, slope, rtol=1e-6, atol=1e-9)


def test_nothing_else_of_the_table_is_missing(remote: Remote) -> None:
    inside = {name for name, point in POINTS.items() if point.in_block}
    record = dlens.trace(remote.model).capture(*inside).forward(IDS)
    assert set(record.captured) == inside
