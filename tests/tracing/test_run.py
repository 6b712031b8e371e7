"""One forward over prompts of unequal length."""

from __future__ import annotations

import dlens
from tests.tracing.plain import PROMPTS


def test_forward_of_unequal_prompts_hides_padding(diffusion: dlens.Model) -> None:
    together = dlens.trace(diffusion).capture("resid_post", "logits").forward(PROMPTS[:2])
    assert together.text == [] and together.canvas is None
    for row, text in enumerate(PROMPTS[:2]):
        alone = dlens.trace(diffusion).capture("resid_post", "logits").forward(text)
        real = together.tokens.shape[1] - alone.tokens.shape[1]
        gap = together["resid_post"][:, row, real:] - alone["resid_post"][:, 0]
        assert gap.abs().max() < 1e-3
        assert together["resid_post"][:, row, :real].abs().sum() == 0


def test_masks_of_a_forward_are_noise(diffusion: dlens.Model) -> None:
    mask, seen = diffusion.family.mask_token_id, []
    trace = dlens.trace(diffusion).hook("logits", lambda value, hook: seen.append((hook.step, hook.noise, hook.masked)))
    record = trace.forward([[5, mask, mask, 6], [7, 8]])
    ((step, noise, masked),) = seen
    assert step == 0 and [float(share) for share in noise] == [0.5, 0.0]
    assert masked.tolist() == [[False, True, True, False], [False] * 4]
    assert (record.kind, record.n_steps, record.planned_steps, record.text) == ("forward", 1, 1, [])
    assert record.canvas is None and (record.committed_at == -1).all() and record.step_of_position is None


def test_a_generation_runs_as_its_kind_of_model_decodes(ar: dlens.Model, diffusion: dlens.Model) -> None:
    kinds = [dlens.trace(model).generate([5, 6], 2).kind for model in (ar, diffusion)]
    assert kinds == ["decoding", "denoising"]


def test_a_forward_of_many_prompts_runs_so_many_at_a_time(diffusion: dlens.Model) -> None:
    sizes: list[tuple[int, ...]] = []
    trace = dlens.trace(diffusion).capture("logits").capture("pattern", layers=[3]).measure(dlens.CKA())
    whole = trace.forward(PROMPTS)
    parts = trace.hook("hook_embed", lambda value, hook: sizes.append(tuple(value.shape[:2]))).forward(
        PROMPTS, batch_size=2
    )
    lengths = (~whole.is_pad).sum(-1).tolist()
    assert sizes == [(2, max(lengths[:2])), (1, lengths[2])] and parts.tokens.equal(whole.tokens)
    assert (parts["logits"] - whole["logits"]).abs().max() < 1e-3
    assert (parts["pattern"] - whole["pattern"]).abs().max() < 1e-4
    gap = abs(parts.measures["cka"]["cka_all"] - whole.measures["cka"]["cka_all"])
    assert float(gap.max()) < 1e-4 and int(parts.measures["cka"]["n_all"].sum()) == 3
    assert parts.flops < whole.flops
