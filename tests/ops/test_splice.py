"""Splice on hand-written numbers, and in a model against a hook that does the same."""

from typing import Any

import pytest
import torch

import dlens
from dlens.ops.base.scope import Scope
from dlens.ops.base.target import Target
from dlens.ops.splice import Splice, site_of
from tests.features.published import D_MODEL, FEATURES, autoencoder, identity, random_rows
from tests.ops.targets import place
from tests.reference import shallow
from tests.refusing import assert_three_parts, refused
from tests.unchecked import unchecked

TARGET = Target("tiny", n_layers=4, d_model=D_MODEL, has_noise=True)
SITE = "blocks.1.hook_resid_post"


def test_without_its_error_the_reconstruction_goes_on() -> None:
    x, sae = random_rows()[None], autoencoder()
    assert torch.equal(Splice(sae=sae, error=False).edit(x, place()), sae.reconstruct(x))


def test_with_its_error_only_the_features_that_are_set_change_anything() -> None:
    x, sae = random_rows()[None], autoencoder()
    assert Splice(sae=sae).edit(x, place()) is x
    found = Splice(sae=sae, features=(2, 5), value=1.5).edit(x, place())
    features = sae.encode(x)
    added = sum((1.5 - features[..., j, None]) * sae.decoder[j] for j in (2, 5))
    torch.testing.assert_close(found, x + added)


def test_without_its_error_features_are_set_too() -> None:
    x, sae = random_rows()[None], autoencoder()
    features = sae.encode(x)
    features[..., 2] = -1.0
    found = Splice(sae=sae, error=False, features=(2,), value=-1.0).edit(x, place())
    torch.testing.assert_close(found, sae.decode(features))


def test_half_precision_stays_half_precision() -> None:
    x = random_rows()[None].bfloat16()
    for error in (True, False):
        assert Splice(sae=autoencoder(), error=error, features=(1,)).edit(x, place()).dtype == torch.bfloat16


@pytest.mark.parametrize("error", [True, False])
def test_a_perfect_one_changes_nothing(diffusion: dlens.Model, error: bool) -> None:
    model = shallow(diffusion, 3)
    trace = dlens.trace(model).capture("logits")
    sae = identity(model.d_model, SITE)
    for run in (lambda chain: chain.forward("Once upon a time"), lambda chain: chain.generate("Once upon", 3)):
        expected, found = run(trace), run(trace.splice(sae, error=error))
        torch.testing.assert_close(found["logits"], expected["logits"], atol=1e-6, rtol=0)
        assert torch.equal(found.tokens, expected.tokens)


def test_it_acts_at_the_steps_and_states_named_and_as_a_hook_would(diffusion: dlens.Model) -> None:
    model = shallow(diffusion, 3)
    rng = torch.Generator().manual_seed(0)
    w = torch.randn(model.d_model, 40, generator=rng) / 14
    sae = dlens.SparseAutoencoder(w, w.T.contiguous(), torch.zeros(40), torch.zeros(model.d_model), k=4, site=SITE)

    def by_hand(value: torch.Tensor, hook: Any) -> torch.Tensor | None:
        if hook.step == 0:
            return None
        h = value @ w
        top = h.topk(4)
        back = torch.zeros_like(h).scatter(-1, top.indices, top.values.relu()) @ w.T
        return torch.where(hook.masked[..., None], back, value)

    trace = dlens.trace(model).capture("logits")
    found = trace.splice(sae, error=False, steps=slice(1, None), tokens="masked").generate("Once upon a time", 3)
    expected = trace.hook(SITE, by_hand).generate("Once upon a time", 3)
    torch.testing.assert_close(found["logits"], expected["logits"])
    assert not torch.equal(found["logits"], trace.generate("Once upon a time", 3)["logits"])


def test_words_and_plan() -> None:
    op = Splice(sae=autoencoder(), features=(2, 5), value=1.5, layers=(1,), scope=Scope(steps=range(2)))
    assert op.words() == (
        f"splice an autoencoder of {FEATURES} features, features 2, 5 set to 1.5, with its error into resid_post of "
        f"layers 1 at steps 0:2"
    )
    plan = {"op": "splice", "n_features": FEATURES, "error": True, "features": [2, 5], "value": 1.5}
    assert op.to_json() == plan | {"at": "resid_post", "layers": [1], "tokens": "all tokens", "steps": [0, 1]}


def test_its_own_site_is_where_it_goes() -> None:
    sae = autoencoder(site="blocks.2.hook_mlp_out")
    assert site_of(sae, None, None) == ("mlp_out", 2)
    assert site_of(sae, None, [0, 1]) == ("mlp_out", [0, 1])
    assert site_of(sae, "resid_post", 3) == ("resid_post", 3)
    for at, layers in (("resid_post", None), (None, None)):
        with pytest.raises(ValueError, match="layers=None; expected a place"):
            site_of(sae if at else autoencoder(), at, layers)


def test_what_does_not_fit_is_refused_before_anything_runs(diffusion: dlens.Model) -> None:
    model = shallow(diffusion, 3)
    trace, sae = dlens.trace(model), autoencoder(site=SITE)
    with refused(model, ValueError, f"an autoencoder of {D_MODEL} channels"):
        trace.splice(sae)
    own = identity(model.d_model, SITE)
    with refused(model, IndexError, "feature 384"):
        trace.splice(own, features=[384])
    with refused(model, IndexError, "layer 9"):
        trace.splice(own, layers=9)
    with refused(model, ValueError, "value=nan"):
        trace.splice(own, features=0, value=float("nan"))
    with unchecked(), refused(model, ValueError, "sae='x'"):
        trace.splice("x")  # pyright: ignore[reportArgumentType]
    with unchecked(), refused(model, ValueError, "error='no'"):
        trace.splice(own, error="no")  # pyright: ignore[reportArgumentType]


def test_one_made_by_hand_is_checked_too() -> None:
    for features in ((-1,), (FEATURES,)):
        with pytest.raises(IndexError) as caught:
            Splice(sae=autoencoder(), features=features).check(TARGET)
        assert_three_parts(str(caught.value), f"feature {features[0]}")
    with pytest.raises(ValueError, match="channels at pattern of tiny, which has an unknown number of"):
        Splice(sae=autoencoder(), at="pattern").check(TARGET)
