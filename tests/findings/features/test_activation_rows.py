from typing import Any

import pytest
import torch

import dlens
from tests.reference import block_outputs, fresh, shallow
from tests.refusing import refused
from tests.unchecked import unchecked

TEXTS = ["Once upon a time there was a girl", "The dog ran to the house and", "Tom has two red apples"]
SITE = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def model(diffusion: dlens.Model) -> dlens.Model:
    return shallow(diffusion, 4)


def drawn(model: dlens.Model, noise: tuple[float, float], seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The texts and their masks, as the docstring says that they are drawn."""
    generator, found = torch.Generator().manual_seed(seed), []
    for text in TEXTS:
        ids = torch.tensor(model.tokenizer(text)["input_ids"])
        share = noise[0] + (noise[1] - noise[0]) * torch.rand((), generator=generator).item()
        masked = torch.zeros(len(ids), dtype=torch.bool)
        count = min(len(ids) - 1, max(1, round(share * len(ids))))
        masked[torch.randperm(len(ids) - 1, generator=generator)[:count] + 1] = True
        found.append((ids, masked))
    return found


@pytest.mark.parametrize("tokens", ["masked", "visible", "all"])
def test_rows_are_what_leaves_the_block_at_the_positions_named(model: dlens.Model, tokens: Any) -> None:
    rows = dlens.activation_rows(model, TEXTS, SITE, tokens=tokens, noise=(0.2, 0.6), batch_size=2, seed=3)
    plain, expected = fresh(model.module), []
    for ids, masked in drawn(model, (0.2, 0.6), 3):
        inputs = torch.where(masked, model.family.mask_token_id or 0, ids)
        with torch.no_grad(), block_outputs(plain) as seen:
            plain(input_ids=inputs[None])
        where = {"masked": masked, "visible": ~masked, "all": masked | True}[tokens]
        expected.append(seen[2][0, where])
    assert len({len(ids) for ids, _ in drawn(model, (0.2, 0.6), 3)}) > 1
    torch.testing.assert_close(rows, torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_the_first_token_is_never_masked_and_each_draw_is_another(model: dlens.Model) -> None:
    one, two = (dlens.activation_rows(model, TEXTS, SITE, noise=(0.9, 1.0), draws=n) for n in (1, 2))
    lengths = [len(model.tokenizer(text)["input_ids"]) for text in TEXTS]
    assert len(one) == sum(lengths) - len(lengths) and len(two) == 2 * len(one)
    few = dlens.activation_rows(model, TEXTS, SITE, draws=2, noise=(0.3, 0.5))
    assert not torch.equal(few[: len(few) // 2], few[len(few) // 2 :])


def test_clean_text_and_models_without_noise(model: dlens.Model, ar: dlens.Model) -> None:
    clean = dlens.activation_rows(model, TEXTS[:1], SITE, noise=None)
    record = dlens.trace(model).capture(SITE).forward(TEXTS[0])
    torch.testing.assert_close(clean, record[SITE][0])
    rows = dlens.activation_rows(shallow(ar, 4), TEXTS[:1], "blocks.-1.hook_resid_post")
    assert rows.shape == (len(clean), 192)


def test_operations_of_a_trace_act(model: dlens.Model) -> None:
    trace = dlens.trace(model).ablate(3, [0]).ablate(2, [5], 1.5)
    assert dlens.activation_rows(trace, TEXTS, SITE)[:, 5].unique().tolist() == [1.5]


def test_what_makes_no_sense_is_refused(model: dlens.Model) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"site": "resid_post"}, "site='resid_post'"),
        ({"site": "blocks.2.attn.hook_z"}, "site='blocks.2.attn.hook_z'"),
        ({"tokens": "decoded"}, "tokens='decoded'"),
        ({"tokens": "masked", "noise": None}, "tokens='masked'"),
        ({"noise": (0.5, 0.2)}, "noise="),
        ({"draws": 0}, "draws=0"),
        ({"seed": -1}, "seed=-1"),
    ]
    for given, came in wrong:
        with unchecked(), refused(model, ValueError, came):
            dlens.activation_rows(model, TEXTS, **{"site": SITE} | given)
    with refused(model, IndexError, "layer 9"):
        dlens.activation_rows(model, TEXTS, "blocks.9.hook_resid_post")
