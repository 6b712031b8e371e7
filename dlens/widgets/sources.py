"""Records for widgets that are given a model: one run, with what the widget needs captured."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dlens.checks import refuse
from dlens.measures.base.measure import Measure
from dlens.tracing.chain import Trace, trace
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.records.record import Record

__all__ = ["as_trace", "asked_run", "opening", "spread", "watched"]

_WORDS = 8
_STEPS = 8


def opening() -> str:
    """The first words of the shipped calibration text."""
    return " ".join(calibration_texts()[0].split()[:_WORDS])


def asked_run(sources: Sequence[Any], prompt: Any, max_new_tokens: int | None, usual: int) -> tuple[Any, int]:
    """What a widget lets models write: the prompt, and how many tokens after it.

    Args:
        sources: what the widget is given.
        prompt: the opening where it is None.
        max_new_tokens: as usual where it is None.
        usual: how many that are.

    Raises:
        ValueError: one of both is given, and there are but records, whose runs are over.
    """
    if all(isinstance(source, Record) for source in sources):
        for name, given in {"prompt": prompt, "max_new_tokens": max_new_tokens}.items():
            if given is not None:
                refuse(name, given, f"no {name} beside a record, whose run is over", "leave it out, or pass the model")
    return opening() if prompt is None else prompt, usual if max_new_tokens is None else max_new_tokens


def spread(n: int, most: int = _STEPS) -> list[int]:
    """At most so many of n steps, evenly apart, the first and the last among them.

    Examples:
        >>> spread(32, 4), spread(2, 4)
        ([0, 10, 21, 31], [0, 1])
    """
    if n <= most:
        return list(range(n))
    return sorted({round(i * (n - 1) / (most - 1)) for i in range(most)})


def watched(
    chain: Trace,
    prompt: Any,
    max_new_tokens: int,
    measures: tuple[Measure, ...] = (),
    cancel: threading.Event | None = None,
) -> Record:
    """A run that keeps the stream of every layer: of a diffusion model at eight steps spread over its decoding, of an
    autoregressive one in a forward over the finished text, which has all positions at once.

    The text is in `record.text` either way.
    """
    measured = chain.measure(*measures) if measures else chain
    generate = {"max_new_tokens": max_new_tokens, "cancel": cancel, "progress": False}
    if chain.model.family.objective == "diffusion":
        steps = spread(max_new_tokens)
        return measured.capture("resid_post", steps=steps).generate(prompt, **generate)
    run = chain.generate(prompt, **generate)
    rows = [row[~pad].tolist() for row, pad in zip(run.tokens, run.is_pad, strict=True)]
    return replace(measured.capture("resid_post").forward(rows), text=run.text)


def as_trace(source: Any) -> Trace:
    """A trace of anything that names a model."""
    return source if isinstance(source, Trace) else trace(source)
