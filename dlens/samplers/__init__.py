"""How tokens are decoded: pure loops over a forward callable.

A sampler is an immutable value that knows no model: `Autoregressive` says how transformers'
`generate` chooses a token; `LLaDA`, `Dream` and `Threshold` fill the masks of a canvas, each on
every diffusion model, since the logits come aligned with the tokens they predict.
"""

from dlens.samplers.autoregressive import Autoregressive
from dlens.samplers.default import default_for
from dlens.samplers.dream import Dream
from dlens.samplers.llada import LLaDA
from dlens.samplers.sampler import Denoiser, Draw, Forward, Sampler, Tokens
from dlens.samplers.threshold import Threshold

__all__ = [
    "Autoregressive",
    "Denoiser",
    "Draw",
    "Dream",
    "Forward",
    "LLaDA",
    "Sampler",
    "Threshold",
    "Tokens",
    "default_for",
]
