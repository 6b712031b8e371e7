"""When an operation acts: at which steps and noise levels of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, cast, get_args

from dlens.checks import quoted, require_word
from dlens.ops.base.given import as_ints, as_number, as_slice

__all__ = ["Scope", "StepSpec", "Third", "range_words"]

Third = Literal["early", "middle", "late"]
StepSpec = SupportsIndex | range | slice | Iterable[SupportsIndex] | Third | None


@dataclass(frozen=True)
class Scope:
    """When an operation acts.

    Args:
        steps: an int, range, slice, list of ints or a third ("early", "middle", "late") of the
            planned steps; None is every step. Negative steps count from the end of the plan.
        noise: (lo, hi): rows whose share of masked positions is in lo < noise <= hi, 0 included
            when lo is 0; None is every level.

    Examples:
        >>> sorted(Scope(steps="late").resolve(6))
        [4, 5]
    """

    steps: StepSpec = None
    noise: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _as_steps(self.steps))
        object.__setattr__(self, "noise", _as_noise(self.noise))

    def resolve(self, n_steps: int) -> frozenset[int]:
        """The steps of a planned run that it names.

        Raises:
            IndexError: a step beyond the planned run.
            ValueError: a third of a run of fewer than three steps.
        """
        steps = self.steps
        if steps is None:
            return frozenset(range(n_steps))
        if isinstance(steps, str):
            if n_steps < len(get_args(Third)):
                raise _no_thirds(steps, n_steps)
            third = get_args(Third).index(steps)
            return frozenset(range(third * n_steps // 3, (third + 1) * n_steps // 3))
        if isinstance(steps, slice):
            for end, last in ((steps.start, n_steps - 1), (steps.stop, n_steps)):
                if end is not None and not -n_steps <= end <= last:
                    raise _beyond(steps, end, n_steps)
            return frozenset(range(n_steps)[steps])
        named = cast(Sequence[int], steps)
        for step in named:
            if not -n_steps <= step < n_steps:
                raise _beyond(steps, step, n_steps)
        return frozenset(step % n_steps for step in named)

    def in_noise(self, noise: float) -> bool:
        """Whether a row's noise level is inside."""
        if self.noise is None:
            return True
        lo, hi = self.noise
        return lo < noise <= hi or (lo == 0 and noise == 0)

    def words(self) -> str:
        """The scope in words, with a leading space; empty when it is everything."""
        parts = []
        if self.steps is not None:
            parts.append(f" at steps {range_words(self.steps)}")
        if self.noise is not None:
            parts.append(f" at noise {self.noise[0]:g} to {self.noise[1]:g}")
        return "".join(parts)

    def to_json(self) -> dict[str, Any]:
        """The scope as data: steps as a list of ints, the ends of a slice, or a word."""
        entry: dict[str, Any] = {}
        if self.steps is not None:
            entry["steps"] = _steps_json(self.steps)
        if self.noise is not None:
            entry["noise"] = list(self.noise)
        return entry


def _as_steps(steps: Any) -> StepSpec:
    """Steps as a user writes them: a word, a slice, a range or a tuple of ints; None stays None."""
    if steps is None:
        return None
    if isinstance(steps, slice):
        return as_slice(steps, "step")
    if isinstance(steps, str):
        forms = "an int, range, slice, list of ints, 'early', 'middle' or 'late'"
        require_word("steps", steps, get_args(Third), forms)
        return cast(Third, steps)
    named = steps if isinstance(steps, range) else as_ints(steps, "step")
    if not named:
        raise ValueError(
            f"steps={steps!r} is empty; expected at least one step; name some, such as range(4), which is 0 to 3"
        )
    return named


def _as_noise(noise: Any) -> tuple[float, float] | None:
    if noise is None:
        return None
    ends = [as_number(end, "noise") for end in noise] if isinstance(noise, Sequence) else []
    if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= 1:
        raise ValueError(
            f"noise={quoted(noise)}; expected (lo, hi) with 0 <= lo < hi <= 1; "
            f"noise is the share of masked positions, for example noise=(0.5, 1.0)"
        )
    return ends[0], ends[1]


def range_words(steps: Any) -> str:
    """Steps or positions in words: a third, the ends of a slice, or numbers."""
    if isinstance(steps, str):
        return steps
    rising = isinstance(steps, range) and min(steps.start, steps.stop) >= 0 and steps.step > 0
    if isinstance(steps, slice) or rising:
        start, stop = ("" if end is None else end for end in (steps.start, steps.stop))
        return f"{start}:{stop}" + (f":{steps.step}" if steps.step not in (None, 1) else "")
    return ", ".join(map(str, steps))


def _steps_json(steps: Any) -> Any:
    if isinstance(steps, slice):
        return {"start": steps.start, "stop": steps.stop, "step": steps.step}
    return steps if isinstance(steps, str) else list(steps)


def _no_thirds(steps: str, n_steps: int) -> ValueError:
    what = "a forward, or a run of one step" if n_steps == 1 else f"a run of {n_steps} steps"
    return ValueError(
        f"steps={steps!r} of {what}; expected at least 3 steps, one a third; leave steps= out, or generate more tokens"
    )


def _beyond(steps: StepSpec, step: int, n_steps: int) -> IndexError:
    if n_steps == 1:
        return IndexError(
            f"steps={range_words(steps)} names step {step}; expected step 0 alone, as a forward has one step, "
            f"and so has this run; leave steps= out, or generate more tokens"
        )
    return IndexError(
        f"steps={range_words(steps)} names step {step}; expected steps 0 to {n_steps - 1}, as the run is planned "
        f"for {n_steps}; give fewer steps, or plan a longer run"
    )
