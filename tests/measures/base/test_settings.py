from typing import Any

import numpy as np
import pytest
import torch

from dlens.measures import Attention, Cosine, Outliers, Recency, TopTokens
from dlens.measures.base.settings import require_above, require_count, whole_numbers
from tests.refusing import assert_three_parts
from tests.unchecked import unchecked


def test_whole_numbers_alone_or_listed() -> None:
    for numbers in (3, [3], (np.int64(3),), range(3, 4), torch.tensor([3]), np.array(3)):
        assert whole_numbers("drop", numbers) == (3,)
    for wrong in ("3", 1.5, [1.5], None, [True]):
        with pytest.raises(ValueError) as caught:
            whole_numbers("drop", wrong)
        assert_three_parts(str(caught.value), f"drop={wrong!r}")


def test_bounds() -> None:
    require_count("k", 5, "tokens", 5, most=5)
    require_above("margin", 0.1, 0, "more than 0", 3)
    with pytest.raises(ValueError, match="k=6; expected at most 5; give for example 5"):
        require_count("k", 6, "tokens", 5, most=5)
    for wrong in (0, float("nan"), float("inf"), "1", None):
        with pytest.raises(ValueError, match="margin=.*; expected more than 0; give for example 3"):
            require_above("margin", wrong, 0, "more than 0", 3)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (TopTokens, {"k": 1.5}),
        (TopTokens, {"k": 10**9}),
        (TopTokens, {"layers": "3"}),
        (Recency, {"max_distance": 10**9}),
        (Recency, {"max_distance": 2.0}),
        (Outliers, {"top": "8"}),
        (Outliers, {"massive": float("inf")}),
        (Attention, {"margin": float("inf")}),
        (Cosine, {"drop": "35"}),
    ],
)
def test_no_measure_takes_what_it_cannot_use(kind: Any, settings: dict[str, Any]) -> None:
    with unchecked(), pytest.raises(ValueError) as caught:
        kind(**settings)
    [[name, value]] = settings.items()
    assert_three_parts(str(caught.value), f"{name}={value!r}")
