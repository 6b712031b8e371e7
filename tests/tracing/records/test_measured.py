import copy
import pickle

import pytest

from dlens.tracing.records.measured import Measures


def test_what_was_not_measured_is_told() -> None:
    measures = Measures(cosine=1, outliers=2)
    assert measures == {"cosine": 1, "outliers": 2} and "cka" not in measures and measures.get("cka") is None
    for same in (copy.copy(measures), pickle.loads(pickle.dumps(measures))):
        with pytest.raises(KeyError, match="'cka' was not measured; expected one of cosine, outliers; add .measure"):
            same["cka"]
    with pytest.raises(KeyError, match="'cka' was not measured; expected a measure, and none was taken; add"):
        Measures()["cka"]
