"""Notebook widgets over records and models; they load when `dlens.widgets` is first used, not on `import dlens`."""

from dlens.widgets.denoising import Denoising
from dlens.widgets.heads import Heads
from dlens.widgets.layer_collapse import LayerCollapse
from dlens.widgets.skip_planner import SkipPlanner
from dlens.widgets.token_recency import TokenRecency

__all__ = ["Denoising", "Heads", "LayerCollapse", "SkipPlanner", "TokenRecency"]
