"""`dlens skip`: what skipping layers does."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from dlens.commands.options import CacheName, LoadOptions, cache_of, named, numbers, parse_layers, print_notes

if TYPE_CHECKING:
    from dlens.findings.scores.loss import TextLoss
    from dlens.tracing.records.record import Record

__all__ = ["skip"]

Part = Literal["block", "attn", "mlp"]


def skip(
    model: Annotated[str, named("MODEL")],
    /,
    *,
    layers: str,
    load: LoadOptions = LoadOptions(),
    part: Part = "block",
    prompt: str = "Once upon a time, there was a",
    max_new_tokens: int = 64,
    seed: int = 0,
    cache: CacheName | None = None,
    task: str | None = None,
    problems: int = 64,
    shots: int | None = None,
    examples: Path | None = None,
    allow_code: bool = False,
    json: Path | None = None,
) -> None:
    """Show what skipping layers does: to the text, to the loss, to the FLOPs, and to the accuracy on a task.

    For example: dlens skip trio/diffusion --layers 3,4,5 --task trio-code

    Args:
        model: name of a shipped model, hub id or folder.
        layers: which, such as 3,4,5 or 3-5.
        part: the whole block, or its attn or mlp half.
        prompt: text to continue with and without them.
        max_new_tokens: length of the continuation.
        seed: of the random draws, the masks and the problems.
        cache: prefix, dual, delayed, adaptive or blocks: what a diffusion model decodes with, skipped or not.
        task: trio-math, trio-code, or gsm8k, math500, humaneval, mbpp or mbpp_sanitized with :PATH.
        problems: of the task.
        shots: worked examples in each prompt (all but humaneval); the format's by default.
        examples: the file that they come from; the task's own by default.
        allow_code: programs that the model writes may be run, which humaneval and mbpp need: no sandbox.
        json: a .json file for the numbers; - is the output, and nothing else then.
    """
    import dlens
    from dlens import tasks
    from dlens.findings.effects.retention import enough
    from dlens.findings.scores.accuracy import refuse_long_problems
    from dlens.findings.scores.loss import text_loss
    from dlens.show.terminal import printable

    asked = None if task is None else tasks.get(task, shots=shots, examples=examples, allow_code=allow_code)
    drawn = () if asked is None else asked.problems(enough(problems), seed)
    places = parse_layers(layers)
    plain = dlens.trace(load.load(model))
    skipped = plain.skip(places, part=part)
    if asked is not None:
        refuse_long_problems(plain.model, asked, drawn)
    with numbers(json) as found:
        texts, losses = [], []
        for name, trace in (("all layers", plain), ("skipped", skipped)):
            record = trace.generate(prompt, max_new_tokens=max_new_tokens, seed=seed, cache=cache_of(cache))
            losses.append(text_loss(trace, seed=seed))
            texts.append(record.text[0])
            print(printable(f"{name}: {prompt}{record.text[0]}\n"))
        found |= {"model": plain.model.name, "plan": skipped.ops[0].words(), "prompt": prompt, "texts": texts}
        found |= {"losses": [loss.value for loss in losses], "cache": record.settings["cache"]}
        found |= {"flops": record.flops, "saved_flops": record.saved_flops}
        _print_costs(losses[0], losses[1], record)
        if asked is not None:
            kept = dlens.retention(skipped, task=asked, n=problems, seed=seed, cache=cache_of(cache))
            found["retention"] = kept.row()
            _print_retention(kept)


def _print_costs(before: TextLoss, after: TextLoss, record: Record) -> None:
    from dlens.findings.effects.applied import flops_saved

    print(f"loss: {before.value:.4f} with all layers, {after.value:.4f} skipped, {after.value - before.value:+.4f}")
    print(f"      ({after.estimator}, nats a token, {after.n_tokens} tokens of the shipped calibration text)")
    assert record.flops is not None and record.saved_flops is not None
    whole = (record.flops + record.saved_flops) / 1e9
    print(f"FLOPs: {flops_saved(record):.1%} saved in the skipped run above", end=" ")
    print(f"({record.saved_flops / 1e9:.4g} of {whole:.4g} GFLOPs)")


def _print_retention(kept: Any) -> None:
    from dlens.findings.scores.intervals import share_interval

    print(f"{kept.task}: {kept.baseline:.1%} of {kept.n} problems solved with all layers, {kept.accuracy:.1%} skipped")
    before, after = (_interval(*share_interval(scores.correct)) for scores in (kept.before, kept.after))
    print(f"      95 % intervals {before} with all layers, {after} skipped; by Wilson's score")
    if not isnan(kept.retained):
        interval = "no interval" if isnan(kept.low) else f"95 % interval {_interval(kept.low, kept.high)}"
        print(f"      {kept.retained:.1%} retained, {interval}, p = {kept.p_value:.2g}; {kept.method}")
    print(f"      {kept.flops_saved:.1%} of the FLOPs saved")
    if kept.p_value >= 0.05:
        print("      undecided whether anything is lost")
    print_notes(kept.notes)


def _interval(low: float, high: float) -> str:
    return f"{low:.1%} to {high:.1%}"
