"""dlens: an interpretability toolkit for diffusion and autoregressive language models.

The main calls, each with an example in its own help:

    model = dlens.load("trio/diffusion")   # or a hub id, a folder, a transformers module
    trace = dlens.trace(model)             # .skip .swap .repeat .ablate .steer .patch .hook .capture .measure .apply
    record = trace.generate("Once upon a") # or .forward(...): text, captures, measures, FLOPs
    record.save("run")                     # dlens.load_record("run") reads it without the model
    dlens.profile(model)                   # what each layer changes; dlens.compare for several models
    dlens.plan_skip(model, 2)              # which blocks to skip
    dlens.retention(model, [5, 9])         # how much of a task's accuracy is left without them
    dlens.report(["trio/ar", "trio/diffusion"], "report.html")

Beside these: `dlens.samplers` (how tokens are decoded), `dlens.tasks` (problems with exact scores),
`dlens.show.figures` (plotly figures), `dlens.widgets` (for notebooks, loaded when first used).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlens import widgets as widgets
    from dlens.public import *  # noqa: F403
    from dlens.public import __all__ as __all__
else:
    # torch takes seconds to load, and `dlens --help` needs none of it.
    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name == "widgets":
            return import_module("dlens.widgets")
        if name == "__all__" or not name.startswith("_"):
            public = import_module("dlens.public")
            # While that file loads, it asks here for the packages that it imports.
            known = getattr(public, "__all__", ())
            globals().update({each: getattr(public, each) for each in known}, __all__=list(known))
            if name in known or (known and name == "__all__"):
                return globals()[name]
        raise AttributeError(f"module 'dlens' has no attribute {name!r}")

    def __dir__() -> list[str]:
        from dlens.public import __all__

        return sorted({*globals(), *__all__, "widgets"})
