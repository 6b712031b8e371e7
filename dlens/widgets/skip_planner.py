"""Choose blocks to skip, or halves of them, and see what that saves and costs."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import Any, final, get_args

import traitlets

from dlens.axes import Part
from dlens.checks import as_flag, refuse
from dlens.findings.layers.profile import Profile, profile
from dlens.findings.scores.canvases import text_canvases
from dlens.findings.scores.decoding import Decoding
from dlens.findings.skipping.choosable import bare
from dlens.html import rendered
from dlens.measures import Cosine
from dlens.ops.base.scope import Third
from dlens.samplers import Sampler
from dlens.tasks import Task, get
from dlens.tracing.chain import Trace
from dlens.widgets.colours import ink_on, ramp
from dlens.widgets.job import Job
from dlens.widgets.panel import Panel, css, esm, numbers_html
from dlens.widgets.skip_planner_numbers import Estimate, Plan, Planner

__all__ = ["SkipPlanner"]


@final
class SkipPlanner(Panel):
    """Pick blocks on a strip coloured by redundancy; see the FLOPs saved, the loss and the accuracy that are left.

    Redundancy is the cosine of what enters and leaves a block. The work runs in the background, one batch after
    another, under the model's lock for a batch at a time; it shows its progress, can be stopped between two steps of
    decoding, and begins anew when the plan changes (with `live`). FLOPs are counted on one forward; the loss is that
    of `dlens.findings.scores.loss` on the shipped text; the interval of the accuracy is over problems. A plan in a
    third of decoding has no loss, as a forward has one step; its FLOPs are counted on decoding the first problems.

    State that the page changes and that may be set: `plan` (the places to skip), `part` ("block", "attn" or "mlp"),
    `steps` ("early", "middle" or "late"; None is all of decoding), `running` (True starts, False stops), `live`
    (measure whenever the plan changes). `result` is what is known of the plan, `history` what was found of all, `code`
    the plan as one line of Python; `trace` is the chain itself.

    Args:
        model: anything `dlens.trace` takes.
        task: a task, or its name.
        n: problems.
        profile: of the same model with Cosine in it; made in the background by default.
        texts: what loss and redundancy are measured on; the shipped text by default.
        draws: how often each text is masked for the loss (diffusion only).
        batch_size: problems and texts at a time.
        max_new_tokens, sampler: of decoding; the task's and the family's by default.
        seed: draws problems and masks.
        live: start at once when the plan changes.

    Raises:
        ValueError: a trace that has operations, or a profile of another model.

    Examples:
        >>> from dlens.widgets import SkipPlanner
        >>> widget = SkipPlanner("trio/ar", n=2, texts=["Once upon a time"], max_new_tokens=2)
        >>> widget.plan = [3, 5]
        >>> widget.wait(), 0.1 < widget.result["flops_saved"] < 0.125, widget.html().startswith("<")
        (True, True, True)
        >>> print(widget.trace)
        trace of trio/ar (16 layers, autoregressive)
          skip layers 3, 5
    """

    _esm = esm("skip_planner")
    _css = css("skip_planner")
    name = traitlets.Unicode().tag(sync=True)
    task = traitlets.Unicode().tag(sync=True)
    layers = traitlets.Int().tag(sync=True)
    n = traitlets.Int().tag(sync=True)
    redundancy = traitlets.List().tag(sync=True)
    plan = traitlets.List(traitlets.Int()).tag(sync=True)
    part = traitlets.Enum(get_args(Part), "block").tag(sync=True)
    steps: Any = traitlets.Enum((None, *get_args(Third)), None, allow_none=True).tag(sync=True)
    whole = traitlets.List(traitlets.Unicode()).tag(sync=True)
    no_thirds = traitlets.Unicode("").tag(sync=True)
    live = traitlets.Bool(True).tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)
    progress = traitlets.Float(0.0).tag(sync=True)
    status = traitlets.Unicode("").tag(sync=True)
    result = traitlets.Dict().tag(sync=True)
    history = traitlets.List().tag(sync=True)
    code = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        model: Any,
        task: Task | str = "trio-math",
        *,
        n: int = 32,
        profile: Profile | None = None,
        texts: Any = None,
        draws: int = 1,
        batch_size: int = 8,
        max_new_tokens: int | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        live: bool = True,
    ) -> None:
        live = as_flag(live, "live")
        chain = bare(model, "SkipPlanner")
        task = get(task)
        Decoding(sampler, max_new_tokens, batch_size=batch_size, seed=seed)
        self._chain, self._texts, self._batch_size = chain, texts, batch_size
        self._planner = Planner(
            chain,
            task,
            task.problems(n, seed),
            text_canvases(chain.model, texts, draws, seed),
            batch_size,
            max_new_tokens,
            sampler,
        )
        self._job = Job(self._failed)
        self._starting, self._newest, self._taken = False, 0, Plan()
        super().__init__(
            name=chain.model.name,
            task=task.name,
            layers=chain.model.n_layers,
            n=n,
            redundancy=[] if profile is None else _redundancy(profile, chain),
            whole=list(chain.target.whole),
            no_thirds=self._planner.no_thirds,
            code=self._taken.line(chain.model.name),
            live=live,
        )
        self.observe(self._take_plan, ["plan", "part", "steps"])
        self.observe(self._start_or_stop, "running")
        if live:
            self._start()
        elif profile is None:
            self._job.start(lambda stop: self._measure_redundancy())

    @property
    def trace(self) -> Trace:
        """The model with the plan, for everything else that dlens does."""
        return self._planned.of(self._chain)

    @property
    def _planned(self) -> Plan:
        return Plan(tuple(self.plan), self.part, self.steps)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the work in the background is over; whether it is."""
        return self._job.wait(seconds)

    @traitlets.validate("plan")
    def _places(self, proposal: Any) -> list[int]:
        """Places of the model, each once, in order; negative ones count from the end."""
        for place in proposal.value:
            if not -self.layers <= place < self.layers:
                raise traitlets.TraitError(
                    f"plan names layer {place} of {self.layers}; expected -{self.layers} to {self.layers - 1}; give "
                    f"another"
                )
        return sorted({place % self.layers for place in proposal.value})

    @traitlets.validate("part", "steps")
    def _possible(self, proposal: Any) -> Any:
        """Halves that this model can do without, and thirds where its decoding has some."""
        name, given = proposal.trait.name, proposal.value
        if name == "part" and given in self.whole:
            raise traitlets.TraitError(
                f"part='{given}' of {self.name}, whose layout names no {given}_skip; expected the modules that do not "
                f"run then; plan with part='block'"
            )
        if name == "steps" and given is not None and self.no_thirds:
            raise traitlets.TraitError(
                f"steps='{given}' of {self.name}; expected None, as {self.no_thirds}; plan for all of decoding, or ask "
                f"dlens.phases"
            )
        return given

    def _take_plan(self, change: Any) -> None:
        if self._planned == self._taken:
            return
        self._taken = self._planned
        self.code = self._taken.line(self.name)
        self.result = next((each for each in self.history if _plan_of(each) == self._taken), {})
        self._job.stop()
        if self.live and not self.result:
            self._start()

    def _start_or_stop(self, change: Any) -> None:
        if not change.new:
            self._job.stop()
        elif not self._starting:
            self._start()

    def _start(self) -> None:
        plan = self._planned
        self._starting = True
        self.running, self.progress, self.status = True, 0.0, "waiting for the model"
        self._starting = False
        self._newest += 1
        number = self._newest
        self._job.start(lambda stop: self._work(plan, number, stop))

    def _work(self, plan: Plan, number: int, stop: Any) -> None:
        try:
            self._measure_redundancy()
            self.status = "counting FLOPs"
            for done, estimate in self._planner.estimates(plan, stop):
                if stop.is_set():
                    return
                self.progress, self.result = done, _plain(estimate)
                self.status = f"{estimate.n} of {self.n} problems" if estimate.n else "measuring the loss"
            self.history = [each for each in self.history if _plan_of(each) != plan] + [self.result]
        finally:
            # Newer work may have begun, whose state this is not.
            if self._newest == number:
                self.status = "stopped" if stop.is_set() else "done"
                self.running = False

    def _measure_redundancy(self) -> None:
        if self.redundancy:
            return
        self.status = "measuring redundancy"
        measured = profile(self._chain, self._texts, measures=[Cosine()], batch_size=self._batch_size)
        self.redundancy = _redundancy(measured, self._chain)
        self.status = ""

    def _failed(self, words: str) -> None:
        self.running, self.status = False, words

    def html(self) -> str:
        """The strip, what is known of the plan, and every plan that was measured."""
        rows = self.history or ([self.result] if self.result else [])
        html = rendered(
            "widgets/skip_planner.html.j2",
            name=self.name,
            task=self.task,
            strip=_strip(self),
            code=self.code,
            measured=numbers_html(_COLUMNS, [_row(each) for each in rows]),
        )
        return str(html)


_COLUMNS = [
    "skipped",
    "FLOPs saved",
    "loss as it is",
    "loss",
    "accuracy as it is",
    "accuracy",
    "95 % interval",
    "problems",
]


def _row(result: dict[str, Any]) -> list[Any]:
    known = {key: float("nan") if value is None else value for key, value in result.items()}
    interval = f"{known['low']:.2f} to {known['high']:.2f}" if isfinite(known["low"]) else "not yet"
    names = ("flops_saved", "baseline_loss", "loss", "baseline", "accuracy")
    plan = _plan_of(result)
    reasons = {name: "none in a third" for name in ("baseline_loss", "loss") if plan.steps}
    numbers = [float(known[name]) if isfinite(known[name]) else reasons.get(name, "not yet") for name in names]
    return [plan.words, *numbers, interval, result["n"]]


def _plan_of(result: dict[str, Any]) -> Plan:
    return Plan(tuple(result["plan"]), result["part"], result["steps"])


def _strip(widget: SkipPlanner) -> list[tuple[int, str, str, bool]]:
    """Each layer with its colour, that of its number, and whether it is skipped."""
    colours = [ramp(shade) for shade in _shades(widget.redundancy) or [0.5] * widget.layers]
    return [(layer, colour, ink_on(colour), layer in widget.plan) for layer, colour in enumerate(colours)]


def _shades(values: list[float | None]) -> list[float]:
    """From 0 at the least redundant block to 1 at the most; the first block, which rebuilds the stream, sets no end."""
    known = [value for value in values[1:] or values if value is not None]
    if not known:
        return []
    low, high = min(known), max(known)
    return [0.0 if value is None else min(max((value - low) / (high - low or 1), 0.0), 1.0) for value in values]


def _redundancy(made: Profile, chain: Trace) -> list[float | None]:
    """By layer the cosine of what enters and leaves it; None where it is not finite."""
    if not isinstance(made, Profile):
        refuse("profile", made, "a profile", "make it with dlens.profile, or leave it out")
    if "cosine" not in made.measures or made.n_layers != chain.model.n_layers:
        raise ValueError(
            f"a profile of {made.model} with {made.n_layers} layers and {', '.join(made.measures)}; expected one of "
            f"{chain.model.name} with {chain.model.n_layers} layers and cosine; make it with dlens.profile, or leave "
            f"it out"
        )
    values = made.pooled("cosine", "cosine").values.tolist()
    return [value if isfinite(value) else None for value in values]


def _plain(estimate: Estimate) -> dict[str, Any]:
    """An estimate as JSON has it: None for NaN."""
    entry = asdict(estimate) | {key: getattr(estimate.plan, key) for key in ("part", "steps")}
    entry["plan"] = list(estimate.plan.layers)
    return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in entry.items()}
