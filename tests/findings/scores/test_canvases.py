from __future__ import annotations

import pytest

import dlens
from dlens.errors import NeverFired
from dlens.findings.scores.canvases import noise_canvases, text_canvases
from dlens.findings.scores.loss import loss_of, losses_of, text_loss

TEXTS = ["Once upon a time there was a fox", "def f(x):\n    return"]


@pytest.mark.parametrize("noise", [(0.0, 0.3), (0.3, 0.7), (0.7, 1.0)])
@pytest.mark.parametrize("name", ["diffusion", "ar_init"])
def test_every_canvas_lies_within_its_noise(
    name: str, noise: tuple[float, float], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(name)
    mask, shift = model.family.mask_token_id, model.family.shift
    ids = [model.tokenizer(text)["input_ids"] for text in TEXTS]
    canvases = noise_canvases(model, noise, TEXTS, draws=3)
    assert [row.targets for row in canvases.rows] == [row for row in ids for _ in range(3)]
    for row in canvases.rows:
        masked = [token == mask for token in row.inputs]
        assert noise[0] < sum(masked) / len(masked) <= noise[1]
        assert not any(masked[:shift])
        assert row.weights == pytest.approx([hidden / sum(masked) for hidden in masked])
        assert all(a == b for a, b, hidden in zip(row.inputs, row.targets, masked, strict=True) if not hidden)
    # Operations limited to this noise act on every canvas.
    limited, always = (dlens.trace(model).skip([3], noise=span) for span in (noise, None))
    assert loss_of(limited, canvases) == loss_of(always, canvases)


def test_levels_that_cover_all_noise_add_up_to_the_denoising_loss(diffusion: dlens.Model) -> None:
    text = [diffusion.tokenizer(" ".join(TEXTS))["input_ids"][:6]]
    edges = [0.0, 0.5, 1.0]
    chain = dlens.trace(diffusion)
    parts = [noise_canvases(diffusion, (lo, hi), text, draws=256) for lo, hi in zip(edges, edges[1:], strict=False)]
    mean = sum(loss.value for loss in losses_of(chain, parts, 64)) / 2
    # Counts from 1 to 6 of 6 stand for rates from 0 to 1: their mean differs from the integral by the ends.
    whole = text_loss(chain, text, draws=256, batch_size=64).value
    assert mean == pytest.approx(whole, rel=0.15)


def test_an_operation_that_acts_in_some_batches_counts(diffusion: dlens.Model) -> None:
    parts = [noise_canvases(diffusion, span, TEXTS) for span in ((0.0, 0.5), (0.5, 1.0))]
    losses = losses_of(dlens.trace(diffusion).skip([2, 3], noise=(0.5, 1.0)), parts)
    assert losses[0] == loss_of(dlens.trace(diffusion), parts[0])
    assert losses[1] == loss_of(dlens.trace(diffusion).skip([2, 3]), parts[1])
    with pytest.raises(NeverFired, match="'skip layers 3 at noise 0.5 to 1' found nothing to act on in any text"):
        loss_of(dlens.trace(diffusion).skip([3], noise=(0.5, 1.0)).skip([2]), parts[0])


def test_what_cannot_be_predicted_is_refused(ar: dlens.Model, diffusion: dlens.Model) -> None:
    with pytest.raises(ValueError, match="texts of one token, which trio/ar predicts from nothing; expected at least"):
        text_canvases(ar, [[5], [6]])
    assert text_canvases(ar, [[5], [6, 7]]).n_tokens == 1
    assert text_canvases(diffusion, [[5]]).n_tokens == 1
    with pytest.raises(ValueError, match="no text can have a share of masks from 0 to 0.25; expected texts long"):
        noise_canvases(diffusion, (0.0, 0.25), [[5, 6, 7]])
    with pytest.raises(ValueError, match="draws=0; expected at least 1"):
        text_canvases(diffusion, TEXTS, draws=0)
