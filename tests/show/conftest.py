import pytest

import dlens
from dlens.findings.layers.profile import Profile, profile

TEXTS = ["Once upon a time there was a fox", "def f(x):\n    return"]


@pytest.fixture(scope="session")
def profiles(ar: dlens.Model, diffusion: dlens.Model) -> list[Profile]:
    """A model without noise levels and one with."""
    return [profile(model, TEXTS) for model in (ar, diffusion)]
