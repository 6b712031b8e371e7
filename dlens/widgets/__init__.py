"""Notebook widgets over records and models; `import dlens.widgets` loads them, `import dlens` does not."""

from dlens.widgets.denoising import Denoising
from dlens.widgets.layer_collapse import LayerCollapse
from dlens.widgets.skip_planner import SkipPlanner
from dlens.widgets.token_recency import TokenRecency

__all__ = ["Denoising", "LayerCollapse", "SkipPlanner", "TokenRecency"]
