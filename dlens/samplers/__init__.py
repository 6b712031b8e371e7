"""How tokens are decoded: pure loops over a forward callable.

A sampler is an immutable value that knows no model: `Autoregressive` says how transformers'
`generate` chooses a token; `LLaDA`, `Dream` and `Threshold` fill the masks of a canvas, each on
every diffusion model, since the logits come aligned with the tokens they predict; so do `Ancestral`, and
`BlockDiffusion` and `FirstHitting`, whose canvas blocks are those of block-causal models.
"""

from dlens.samplers.ancestral import Ancestral
from dlens.samplers.autoregressive import Autoregressive
from dlens.samplers.block_diffusion import BlockDiffusion
from dlens.samplers.default import default_for
from dlens.samplers.dream import Dream
from dlens.samplers.first_hitting import FirstHitting
from dlens.samplers.llada import LLaDA
from dlens.samplers.sampler import Columns, Denoiser, Draw, Forward, Sampler, Tokens
from dlens.samplers.threshold import Threshold

__all__ = [
    "Ancestral",
    "Autoregressive",
    "BlockDiffusion",
    "Columns",
    "Denoiser",
    "Draw",
    "Dream",
    "FirstHitting",
    "Forward",
    "LLaDA",
    "Sampler",
    "Threshold",
    "Tokens",
    "default_for",
]
