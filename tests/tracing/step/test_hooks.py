"""Blocks that are only read are read by hooks, and parts that no operation visits run without nnsight."""

from __future__ import annotations

from typing import Any

import torch

import dlens
from tests.reference import block_outputs, fresh


def forwards(model: dlens.Model) -> dict[str, Any]:
    """Per part what stands on the instance as its forward."""
    return {name: vars(part).get("forward") for name, part in model.module.named_modules()}


def test_reading_beside_a_skip_a_swap_and_a_write_equals_hooks(diffusion: dlens.Model) -> None:
    ids = torch.arange(8, 40)[None]
    plain = fresh(diffusion.module)
    layers = plain.model.layers
    layers[9], layers[12] = layers[12], layers[9]
    layers[4].register_forward_hook(lambda _m, args, out: args[0])
    layers[6].register_forward_hook(lambda _m, _a, out: out * 2)
    with torch.no_grad(), block_outputs(plain) as expected:
        plain(input_ids=ids, use_cache=False)
    trace = dlens.trace(diffusion).skip([4]).swap(9, 12).hook("blocks.6.hook_resid_post", lambda value, hook: value * 2)
    record = trace.capture("resid_post").measure(dlens.Cosine()).forward(ids)
    assert torch.equal(record["resid_post"], torch.stack(expected))
    cosine = record.measures["cosine"].cosine.sum(("noise", "state")).squeeze("step")
    pre, post = expected[10], expected[11]
    measured = float(cosine.sel(layer=11))
    assert abs(measured - float(torch.cosine_similarity(pre, post, dim=-1).mean())) < 1e-5


def test_parts_that_are_not_visited_rest_and_come_back(diffusion: dlens.Model) -> None:
    diffusion.nnsight  # noqa: B018  # wraps the module
    before = forwards(diffusion)
    seen: list[dict[str, Any]] = []
    trace = dlens.trace(diffusion).hook(
        "blocks.3.hook_resid_post", lambda value, hook: seen.append(forwards(diffusion))
    )
    trace.forward(torch.arange(8, 20)[None])
    assert all(forward is not None for forward in before.values())
    assert seen[0]["model.layers.3.mlp"] is None and seen[0]["model.layers.3"] is before["model.layers.3"]
    assert forwards(diffusion) == before
    assert not any(block._forward_hooks for block in diffusion.blocks)


def test_parts_come_back_after_an_error(diffusion: dlens.Model) -> None:
    diffusion.nnsight  # noqa: B018  # wraps the module
    before = forwards(diffusion)

    def fail(value: torch.Tensor, hook: object) -> None:
        raise KeyError("mine")

    trace = dlens.trace(diffusion).measure(dlens.Cosine()).hook("blocks.3.hook_resid_post", fail)
    try:
        trace.forward(torch.arange(8, 20)[None])
    except KeyError:
        pass
    assert forwards(diffusion) == before
    assert not any(block._forward_hooks for block in diffusion.blocks)
