"""Directions that tell labels apart: by the difference of means, or by a linear probe."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dlens.checks import refuse, require_word
from dlens.findings.features.samples import samples_of
from dlens.findings.layers.linear import fitted, weights_of

__all__ = ["Method", "direction"]

Method = Literal["difference", "probe"]


def direction(
    source: Any,
    labels: Any,
    toward: Any = None,
    *,
    method: Method = "difference",
    at: str = "resid_post",
    tokens: Any = "all",
) -> Float[Tensor, "layer d_model"]:
    """A vector a layer that points from one class to another, for `Trace.steer`.

    "difference" is the mean of one class minus that of the other; "probe" is the weight of a ridge classifier on
    standardised channels, in the units of the stream, scaled so that along it the means are as far apart as they are.
    `scale=1` in `Trace.steer` then moves a value from the mean of one class to that of the other. The direction of a
    feature is `sae.direction(feature)`.

    Args:
        source, labels, at, tokens: as in `dlens.probe`; samples of all steps count alike.
        toward: the class that it points to; of two classes the second in their order by default.
        method: "difference" or "probe".

    Returns:
        One row for each layer that the record holds.

    Raises:
        ValueError: labels that do not fit, or no such class.

    Examples:
        >>> import dlens
        >>> texts = ["She was happy", "He was glad", "She was sad", "He cried"]
        >>> record = dlens.trace("trio/diffusion").capture("resid_post", layers=[3, 8]).forward(texts)
        >>> vector = dlens.direction(record, ["happy", "happy", "sad", "sad"], toward="happy")
        >>> vector.shape
        torch.Size([2, 192])
        >>> steered = dlens.trace("trio/diffusion").steer(vector, layers=[3, 8]).generate("The girl", 4)
    """
    require_word("method", method, get_args(Method))
    samples = samples_of(source, labels, at, tokens, None, False)
    assert samples.classes is not None
    names = [str(each) for each in samples.classes]
    if toward is None and len(names) > 2:
        refuse("toward", toward, f"one of {', '.join(names)}", "name the class that the direction points to")
    aim = names[-1] if toward is None else str(toward)
    require_word("toward", aim, names)
    steps = range(len(samples.steps))
    found = []
    for layer in range(len(samples.layers)):
        parts = [samples.at(step, layer) for step in steps]
        vectors, own = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        found.append(_between(vectors.astype(np.float64), own == names.index(aim), method))
    return torch.as_tensor(np.stack(found), dtype=torch.float32)


def _between(
    vectors: Float[np.ndarray, "n d_model"], inside: NDArray[Any], method: Method
) -> Float[np.ndarray, " d_model"]:
    apart = vectors[inside].mean(0) - vectors[~inside].mean(0)
    if method == "difference":
        return apart
    weights = weights_of(fitted(vectors, inside, classes=True))[0]
    return weights * (weights @ apart) / (weights @ weights)
