"""dLLM-Cache, as a rule."""

from typing import Any

import pytest

from dlens.caches import Adaptive
from dlens.caches.cache import Halves
from tests.caches.views import view
from tests.unchecked import unchecked


def test_prompts_and_new_tokens_have_their_own_steps() -> None:
    cache = Adaptive(prompt_every=6, response_every=4, share=0.5)
    assert [step for step in range(13) if cache.halves(step).prompt] == [0, 6, 12]
    assert [step for step in range(13) if cache.halves(step).response] == [0, 4, 8, 12]
    assert cache.halves(1) == Halves(False, False, 0.5)


def test_the_stream_has_all_columns() -> None:
    assert Adaptive().columns(view(age=5, asked="..xx")) is None


@pytest.mark.parametrize(
    "given", [{"prompt_every": 0}, {"response_every": 1.5}, {"share": 2}, {"share": None}], ids=str
)
def test_settings_that_mean_nothing(given: dict[str, Any]) -> None:
    (name,) = given
    with unchecked(), pytest.raises(ValueError, match=f"{name}=.*; expected .*; give for"):
        Adaptive(**given)
