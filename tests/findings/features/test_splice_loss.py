import numpy as np
import pytest
import torch

import dlens
from dlens.findings.scores.loss import text_loss
from tests.features.published import autoencoder, identity
from tests.reference import fresh, shallow
from tests.refusing import refused

TEXTS = ["Once upon a time there was a girl", "The dog ran to the house", "Tom has two red apples"]
SITE = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def model(diffusion: dlens.Model) -> dlens.Model:
    return shallow(diffusion, 4)


def test_a_perfect_one_costs_nothing(model: dlens.Model, ar: dlens.Model) -> None:
    for each in (model, shallow(ar, 4)):
        found = dlens.splice_loss(each, identity(each.d_model, SITE), TEXTS, draws=2)
        assert abs(found.change.value) < 1e-6 and abs(found.recovered - 1) < 1e-5
        assert found.ablated.value != found.plain.value


def test_losses_are_those_of_a_model_whose_block_was_changed(model: dlens.Model) -> None:
    """Each text by itself, by hooks; masks as `text_loss` draws them, text by text."""
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(model.d_model, 64, generator=rng) / 14
    sae = dlens.SparseAutoencoder(w, w.T.contiguous(), torch.zeros(64), torch.zeros(192), k=8, site=SITE)
    found = dlens.splice_loss(model, sae, TEXTS, draws=2, seed=5)
    changed = dlens.load(fresh(model.module), tokenizer=model.tokenizer)
    handle = changed.module.model.layers[2].register_forward_hook(lambda _m, _a, out: sae.reconstruct(out))
    spliced = [text_loss(dlens.trace(changed), [text], draws=2, seed=5 + n).value for n, text in enumerate(TEXTS)]
    handle.remove()
    plain = [text_loss(dlens.trace(model), [text], draws=2, seed=5 + n).value for n, text in enumerate(TEXTS)]
    assert found.plain.value == pytest.approx(np.mean(plain), rel=1e-5)
    assert found.spliced.value == pytest.approx(np.mean(spliced), rel=1e-5)
    assert found.change.value == pytest.approx(np.mean(spliced) - np.mean(plain), rel=1e-4)
    assert found.change.low < found.change.value < found.change.high and found.change.n == 3


def test_one_that_does_not_fit_is_refused(model: dlens.Model) -> None:
    with refused(model, ValueError, "an autoencoder of 6 channels"):
        dlens.splice_loss(model, autoencoder(site=SITE), TEXTS)
    with refused(model, ValueError, "layers=None"):
        dlens.splice_loss(model, identity(model.d_model), TEXTS)
    with refused(model, ValueError, "draws=0"):
        dlens.splice_loss(model, identity(model.d_model, SITE), TEXTS, draws=0)
