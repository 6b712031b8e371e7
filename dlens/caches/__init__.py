"""What a denoising step computes anew, and what it reads from earlier steps: one cache a file.

A cache is an immutable value that knows no model: at the start of a step it says which columns of the canvas are
computed. All but `Blocks` are approximations, as every column attends to every other.
"""

from dlens.caches.adaptive import Adaptive
from dlens.caches.blocks import Blocks
from dlens.caches.cache import Cache, Halves, View
from dlens.caches.delayed import Delayed
from dlens.caches.dual import Dual
from dlens.caches.prefix import Prefix

__all__ = ["Adaptive", "Blocks", "Cache", "Delayed", "Dual", "Halves", "Prefix", "View"]
