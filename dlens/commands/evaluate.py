"""`dlens evaluate`: tasks of lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from dlens.commands.options import LoadOptions, SamplerOptions, named, numbers, parse_layers

__all__ = ["evaluate"]


def evaluate(
    model: Annotated[str, named("MODEL")],
    tasks: Annotated[tuple[str, ...], named("TASK", "(required)")],
    /,
    *,
    load: LoadOptions = LoadOptions(),
    sampler: SamplerOptions = SamplerOptions(),
    skip: str | None = None,
    part: Literal["block", "attn", "mlp"] = "block",
    include_path: Annotated[tuple[Path, ...], named("FOLDER", "(default: none)")] = (),
    limit: int | None = None,
    shots: int | None = None,
    max_new_tokens: int | None = None,
    draws: int = 128,
    check_greedy: bool = False,
    batch_size: int = 8,
    seed: int = 0,
    chat: bool = False,
    allow_code: bool = False,
    json: Path | None = None,
) -> None:
    """Score a model on tasks of lm-evaluation-harness, which `pip install 'dlens[eval]'` brings.

    For example: dlens evaluate trio/ar gsm8k:test.jsonl --shots 0 --limit 20

    Args:
        model: name of a shipped model, hub id or folder.
        tasks: names that lm-eval knows, yaml files, or a benchmark with its file, such as gsm8k:test.jsonl.
        skip: layers not to run, such as 3,4,5.
        part: of these the whole block, or its attn or mlp half.
        include_path: folders of further tasks.
        limit: only the first documents of each task.
        shots: worked examples in each prompt; the task's own number by default.
        max_new_tokens: length of an answer; the task's by default.
        draws: how many times each continuation is masked (diffusion).
        check_greedy: find out whether greedy decoding gives each continuation, a forward a token (diffusion).
        batch_size: rows of a forward.
        seed: of draws and samplers.
        chat: write prompts with the tokenizer's chat template.
        allow_code: programs that the model writes may be run, which humaneval and mbpp need: no sandbox.
        json: a .json file for the numbers; - is the output, and nothing else then.
    """
    import dlens
    from dlens.evaluation.evaluate import require_lm_eval

    if not tasks:
        raise ValueError(
            "no task named; expected at least one; write for example: dlens evaluate trio/ar gsm8k:test.jsonl"
        )
    places = None if skip is None else parse_layers(skip)
    require_lm_eval()
    trace = dlens.trace(load.load(model))
    if places is not None:
        trace = trace.skip(places, part=part)
    with numbers(json) as found:
        scores = dlens.evaluate(
            trace,
            list(tasks),
            include_path=list(include_path) or None,
            limit=limit,
            shots=shots,
            sampler=sampler.build(trace.model),
            max_new_tokens=max_new_tokens,
            draws=draws,
            check_greedy=check_greedy,
            batch_size=batch_size,
            seed=seed,
            chat=chat,
            allow_code=allow_code,
        )
        found |= {"model": scores.model, "plan": list(scores.plan), "scores": scores.table()}
        print(scores)
