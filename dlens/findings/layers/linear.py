"""Linear readers of vectors: ridge regression for numbers, a ridge classifier for classes, on standardised channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

__all__ = ["fitted", "score", "weights_of"]

_PENALTIES = tuple(10.0**power for power in range(-1, 6))


def fitted(vectors: Float[np.ndarray, "n d_model"], labels: NDArray[Any], classes: bool) -> Pipeline:
    """A reader fitted to labels; each channel standardised, the penalty chosen by leaving one out.

    Examples:
        >>> import numpy as np
        >>> reader = fitted(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1]), classes=True)
        >>> reader.predict(np.array([[-1.0], [4.0]])).tolist()
        [0, 1]
    """
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = (RidgeClassifierCV if classes else RidgeCV)(alphas=_PENALTIES)
    return make_pipeline(StandardScaler(), model).fit(vectors, labels)


def score(truth: NDArray[Any], guessed: NDArray[Any], classes: bool) -> float:
    """Balanced accuracy over the classes that there are, or R2.

    Examples:
        >>> import numpy as np
        >>> score(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]), classes=True)
        0.5
    """
    from sklearn.metrics import r2_score, recall_score

    if classes:
        return float(recall_score(truth, guessed, labels=np.unique(truth), average="macro"))
    return float(r2_score(truth, guessed))


def weights_of(reader: Pipeline) -> Float[np.ndarray, "output d_model"]:
    """What a reader weighs each channel by, in the units of the vectors: one row of numbers for two classes."""
    scaler, model = (each for _, each in reader.steps)
    return np.atleast_2d(model.coef_) / scaler.scale_
