"""`dlens generate`: continue a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from dlens.commands.options import (
    CacheName,
    LoadOptions,
    SamplerOptions,
    cache_of,
    named,
    numbers,
    parse_layers,
    print_notes,
)

__all__ = ["generate"]


def generate(
    model: Annotated[str, named("MODEL")],
    prompt: Annotated[str, named("PROMPT")],
    /,
    *,
    load: LoadOptions = LoadOptions(),
    sampler: SamplerOptions = SamplerOptions(),
    max_new_tokens: int = 64,
    seed: int = 0,
    skip: str | None = None,
    cache: CacheName | None = None,
    watch: bool = False,
    json: Path | None = None,
) -> None:
    """Continue a prompt; it is printed with its continuation.

    For example: dlens generate trio/diffusion "Once upon a time" --watch

    Args:
        model: name of a shipped model, hub id or folder.
        prompt: text to continue, taken as it is.
        max_new_tokens: length of the continuation.
        seed: of the random draws, where the sampler makes any.
        skip: layers not to run, such as 3,4,5.
        cache: prefix, dual, delayed, adaptive or blocks: what a diffusion model decodes with.
        watch: show the text while it is being decoded.
        json: a .json file for text, FLOPs and notes; - is the output, and nothing else then.
    """
    import dlens
    from dlens.show.terminal import printable, terminal_view
    from dlens.tracing.planning.inputs import as_batch

    places = None if skip is None else parse_layers(skip)
    loaded = load.load(model)
    trace = dlens.trace(loaded)
    if places is not None:
        trace = trace.skip(places)
    view = terminal_view(loaded, as_batch(loaded, prompt).ids.shape[1]) if watch else None
    with numbers(json) as found:
        record = trace.generate(
            prompt,
            max_new_tokens=max_new_tokens,
            sampler=sampler.build(loaded),
            seed=seed,
            cache=cache_of(cache),
            progress=not watch,
            on_step=view,
        )
        if not watch:
            print(printable(f"{prompt}{record.text[0]}"))
        print_notes(record.notes)
        if json is not None:
            found |= {"model": loaded.name, "prompt": prompt, "text": record.text[0], "plan": list(record.plan)}
            found |= {"flops": record.flops, "saved_flops": record.saved_flops, "notes": list(record.notes)}
            found["cache"] = record.settings["cache"]
