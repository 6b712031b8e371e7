"""What lies within a block, on native decoders of each architecture, against their own eager code and plain hooks."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

import dlens
from tests.reference import left_padded
from tests.whole.architectures import CONFIGS, build
from tests.whole.operations import IDS

PARTS = {"gpt2": ("attn", "c_proj", "c_proj"), "pythia": ("attention", "dense", "dense_4h_to_h")}
LLAMA_PARTS = ("self_attn", "o_proj", "down_proj")
KERNEL = ("rot_q", "rot_k", "attn_scores", "pattern")


@contextmanager
def watched(module: Any) -> Iterator[list[dict[str, Tensor]]]:
    """What the library's own eager function of an architecture gets and gives, call by call."""
    file = sys.modules[type(module).__module__]
    own, seen = file.eager_attention_forward, []  # pyright: ignore

    def record(part: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **told: Any) -> Any:
        out, weights = own(part, query, key, value, mask, **told)
        seen.append({"rot_q": query.transpose(1, 2), "rot_k": key.transpose(1, 2), "pattern": weights, "z": out})
        return out, weights

    file.eager_attention_forward = record  # pyright: ignore
    try:
        yield seen
    finally:
        file.eager_attention_forward = own  # pyright: ignore


def eager(name: str) -> Any:
    module = build(copy.deepcopy(CONFIGS[name][0]))  # models share the config that they are built of
    module.set_attn_implementation("eager")
    return module


def parts(name: str, module: Any, layer: int) -> tuple[Any, Any]:
    """The last projections of both halves of a block."""
    attention, last, down = PARTS.get(name, LLAMA_PARTS)
    block = module.get_submodule(CONFIGS[name][1].blocks)[layer]
    return getattr(block, attention).get_submodule(last), block.mlp.get_submodule(down)


def inputs(padded: bool) -> dict[str, Any]:
    if not padded:
        return {"input_ids": IDS}
    ids, mask = left_padded([IDS[0].tolist(), IDS[1, :5].tolist()], 0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_visited_attention_is_the_eager_one_to_the_bit(name: str, padded: bool) -> None:
    plain = eager(name)
    with watched(plain) as seen, torch.no_grad():
        expected = plain(**inputs(padded), use_cache=False).logits
    prompts = [IDS[0].tolist(), IDS[1, :5].tolist()] if padded else IDS
    record = dlens.trace(build(CONFIGS[name][0])).capture(*KERNEL, "z", "logits").forward(prompts)
    real = ~record.is_pad
    assert torch.equal(record["logits"][real], expected[real])
    for layer, own in enumerate(seen):
        for point in ("rot_q", "rot_k", "z"):
            assert torch.equal(record[point][layer][real], own[point][real]), point
        pattern = rearrange(own["pattern"], "batch head query key -> batch query head key")
        assert torch.equal(rearrange(record["pattern"][layer], "b h q k -> b q h k")[real], pattern[real])


@pytest.mark.parametrize("name", CONFIGS)
def test_results_add_up_to_what_the_projection_gives(name: str) -> None:
    module, found = build(CONFIGS[name][0]), {}
    projection = parts(name, module, 2)[0]
    handle = projection.register_forward_hook(lambda part, args, out: found.update(out=out))
    with torch.no_grad():
        module(IDS, use_cache=False)
    handle.remove()
    record = dlens.trace(module).capture("result").forward(IDS)
    bias = 0 if projection.bias is None else projection.bias
    assert torch.allclose(record["result"][2].sum(2) + bias, found["out"], atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_heads_and_neurons_ablated_are_columns_zeroed(name: str) -> None:
    module, changed = build(CONFIGS[name][0]), build(CONFIGS[name][0])
    trace = dlens.trace(module).capture("logits")
    out, down = parts(name, changed, 1)
    transposed = name == "gpt2"
    with torch.no_grad():
        for weight, columns in ((out.weight, slice(8, 24)), (down.weight, [3, 7])):
            (weight if transposed else weight.T)[columns] = 0
        expected = changed(IDS, use_cache=False).logits
    record = trace.ablate(1, at="z", heads=[1, 2]).ablate(1, [3, 7], at="mlp_post").forward(IDS)
    assert torch.equal(record["logits"], expected)
    by_result = trace.ablate(1, at="result", heads=[1, 2]).ablate(1, [3, 7], at="mlp_post").forward(IDS)
    assert torch.allclose(by_result["logits"], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen2", "gemma3", "gpt2", "pythia"])
def test_knockout_is_a_mask_of_ones_own(name: str) -> None:
    plain = eager(name)
    mask = torch.full((8, 8), torch.finfo(torch.float32).min).triu(1)
    mask[5:, 1:3] = torch.finfo(torch.float32).min
    given: Any = mask[None, None].expand(2, 1, 8, 8)
    if name == "gemma3":
        window = mask + torch.full((8, 8), torch.finfo(torch.float32).min / 2).tril(-6)
        given = {"full_attention": given, "sliding_attention": window[None, None].expand(2, 1, 8, 8)}
    with torch.no_grad():
        expected = plain(input_ids=IDS, attention_mask=given, use_cache=False).logits
    trace = dlens.trace(build(CONFIGS[name][0])).capture("logits")
    record = trace.knockout(source=slice(1, 3), target=slice(5, None)).forward(IDS)
    assert torch.equal(record["logits"], expected)


def test_a_target_without_keys_takes_nothing() -> None:
    trace = dlens.trace(build(CONFIGS["qwen2"][0])).capture("pattern", "z")
    record = trace.knockout(2, source="all", target=[0, 4], heads=[1]).forward(IDS)
    assert record["pattern"][2, :, 1, [0, 4]].abs().max() == 0 and record["z"][2, :, [0, 4], 1].abs().max() == 0
    assert torch.allclose(record["pattern"][2, :, 0].sum(-1), torch.ones(2, 8), atol=1e-6)


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_a_written_pattern_is_the_one_that_mixes(name: str) -> None:
    trace = dlens.trace(build(CONFIGS[name][0])).capture("v", "z", layers=1)
    uniform = torch.ones(8, 8).tril() / torch.arange(1, 9)[:, None]
    record = trace.hook("blocks.1.attn.hook_pattern", lambda value, hook: uniform.expand_as(value), heads=[0]).forward(
        IDS
    )
    expected = torch.einsum("qk,bkd->bqd", uniform, record["v"][0, :, :, 0])
    assert torch.allclose(record["z"][0, :, :, 0], expected, atol=1e-6)
    plain = trace.forward(IDS)
    assert torch.allclose(record["z"][0, :, :, 1:], plain["z"][0, :, :, 1:], atol=1e-6)


@pytest.mark.parametrize("name", ["qwen2", "mistral", "gemma2", "pythia"])
def test_points_of_cached_decoding_are_those_of_recomputing(name: str) -> None:
    trace = dlens.trace(build(CONFIGS[name][0])).capture("q", "v", "rot_k", "pattern", "z", "result", "mlp_pre")
    prompts = [IDS[0].tolist(), IDS[1, :5].tolist()]
    cached, whole = (trace.generate(prompts, 5, cache=cache) for cache in ("require", "off"))
    assert torch.equal(cached.tokens, whole.tokens)
    for point in cached.captured:
        assert torch.allclose(cached[point], whole[point], atol=1e-5), point


def test_rotated_keys_that_are_written_stay_out_of_the_cache() -> None:
    trace = dlens.trace(build(CONFIGS["qwen2"][0])).ablate(1, at="rot_k", heads=0)
    record = trace.generate(IDS, 4)
    assert any("cache" in note for note in record.notes)
    assert torch.equal(record.tokens, trace.generate(IDS, 4, cache="off").tokens)


@pytest.mark.parametrize("name", ["qwen2", "llama"])
def test_scales_are_what_the_norms_divide_by(name: str) -> None:
    module = build(CONFIGS[name][0])
    record = (
        dlens.trace(module)
        .capture("resid_pre", "resid_mid", "resid_post")
        .capture("ln1_scale", "ln2_scale", "ln_final_scale")
        .forward(IDS)
    )
    eps = module.config.rms_norm_eps
    for scale, stream in (("ln1_scale", "resid_pre"), ("ln2_scale", "resid_mid")):
        expected = (record[stream].pow(2).mean(-1, keepdim=True) + eps).sqrt()
        assert torch.equal(record[scale], expected)
    last = record["resid_post"][-1]
    assert torch.equal(record["ln_final_scale"], (last.pow(2).mean(-1, keepdim=True) + eps).sqrt())


def test_layer_norms_divide_about_the_mean() -> None:
    module = build(CONFIGS["gpt2"][0])
    record = dlens.trace(module).capture("resid_pre", "ln1_scale").forward(IDS)
    pre = record["resid_pre"]
    expected = (pre.var(-1, unbiased=False, keepdim=True) + module.config.layer_norm_epsilon).sqrt()
    assert torch.allclose(record["ln1_scale"], expected, atol=1e-6)


@pytest.mark.parametrize("point", ["q", "k", "v", "rot_q", "attn_scores", "pattern", "z", "result", "mlp_pre"])
def test_patching_all_of_a_point_gives_what_follows_from_it(point: str) -> None:
    trace = dlens.trace(build(CONFIGS["qwen2"][0]))
    other, plain = (trace.capture(point, "logits").forward(ids) for ids in (IDS.flip(-1), IDS))
    patched = trace.patch(other, layers=0, at=point).capture(point, "logits").forward(IDS)
    assert torch.equal(patched[point][0], other[point][0])
    assert not torch.equal(patched["logits"], plain["logits"])


def test_the_mean_of_heads_is_taken_head_by_head() -> None:
    model = dlens.load("trio/ar")
    record = (
        dlens.trace(model).ablate(3, value="mean", at="z", heads=[1]).capture("z", layers=3).forward("Once upon a time")
    )
    z = record["z"][0, 0]
    assert torch.equal(z[0, 1], z[1, 1]) and not torch.equal(z[0, 0], z[1, 0]) and z[0, 1].abs().max() > 0


def test_the_model_is_as_it_was() -> None:
    module = build(CONFIGS["qwen2"][0])
    model = dlens.load(module)
    before, configs = model.fingerprint(), [vars(part).get("config") for part in module.modules()]
    with pytest.raises(RuntimeError, match="broken"):
        dlens.trace(model).hook("pattern", broken, layers=2).forward(IDS)
    dlens.trace(model).knockout(1).generate(IDS, 2)
    assert model.fingerprint() == before
    assert all(vars(part).get("config") is config for part, config in zip(module.modules(), configs, strict=True))


def broken(value: Tensor, hook: Any) -> None:
    raise RuntimeError("broken")
