from pathlib import Path

import pytest
import torch

import dlens
from dlens.tracing.planning.alignment import aligned


def test_the_last_layer_gives_the_models_own_alternatives(diffusion: dlens.Model, tmp_path: Path) -> None:
    trace = dlens.trace(diffusion).measure(dlens.TopTokens(k=3, layers=[0, -1])).capture("logits")
    record = trace.generate(["Once upon a time", "The"], 3)
    data = record.measures["top_tokens"]
    assert data["layer"].values.tolist() == [0, diffusion.n_layers - 1]
    for step in range(3):
        logits = aligned(record["logits"][step], diffusion.family.shift, ~record.is_pad).double()
        logits[..., diffusion.family.mask_token_id] = -torch.inf
        p = logits.softmax(-1)
        top = p.topk(3)
        real = ~record.is_pad
        kept = data.sel(step=step, layer=diffusion.n_layers - 1)
        assert torch.equal(torch.tensor(kept["token"].values)[real].long(), top.indices[real])
        torch.testing.assert_close(
            torch.tensor(kept["probability"].values)[real], top.values[real].float(), rtol=1e-4, atol=1e-6
        )
        # The mask has no part: 0 log 0 is 0.
        entropy = -(p * p.clamp_min(1e-300).log()).sum(-1)
        torch.testing.assert_close(
            torch.tensor(kept["entropy"].values)[real], entropy[real].float(), rtol=1e-4, atol=1e-5
        )
    assert (data["token"].values[..., record.is_pad.numpy(), :] == -1).all()
    assert data["entropy"].isnull().values[..., record.is_pad.numpy()].all()


def test_a_record_knows_the_text_of_every_id_it_holds(diffusion: dlens.Model, tmp_path: Path) -> None:
    record = dlens.trace(diffusion).measure(dlens.TopTokens()).generate("Once upon a time", 3)
    ids = {*record.tokens.flatten().tolist(), *record.measures["top_tokens"]["token"].values.ravel().tolist()}
    assert ids <= record.pieces.keys()
    assert "".join(record.pieces[i] for i in record.tokens[0].tolist()[:4]) == "Once upon a time"
    record.save(tmp_path / "record")
    assert dlens.load_record(tmp_path / "record").pieces == record.pieces


def test_decoding_keeps_each_position_once(ar: dlens.Model) -> None:
    record = dlens.trace(ar).measure(dlens.TopTokens(k=1, layers=[-1])).generate("Once upon a time", 4)
    data = record.measures["top_tokens"]
    assert data["token"].shape == (1, 1, 1, record.tokens.shape[-1] - 1, 1)
    assert data["entropy"].dims == ("step", "layer", "batch", "position") and bool((data["entropy"] > 0).all())
    # At temperature 0 the token read off each new position is the next one.
    new = record.tokens[0, -4:].tolist()
    assert data["token"].values[0, 0, 0, -4:, 0].tolist() == new


@pytest.mark.parametrize("given, error", [({"k": 0}, ValueError), ({"layers": [99]}, IndexError)])
def test_bad_settings_are_refused(given: dict, error: type[Exception], ar: dlens.Model) -> None:
    with pytest.raises(error, match="expected"):
        dlens.trace(ar).measure(dlens.TopTokens(**given)).forward("Once")
