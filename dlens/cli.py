"""The command line: `dlens models`, `dlens generate`, `dlens profile`, `dlens skip`, `dlens report`."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import Annotated, Any, Literal

from dlens.arguments import asked
from dlens.errors import Cancelled, NeverFired
from dlens.files import check_file, write_text
from dlens.tables import table_text

__all__ = ["generate", "main", "models", "profile", "report", "skip"]

SamplerName = Literal["ar", "llada", "dream", "threshold"]
Part = Literal["block", "attn", "mlp"]
KindName = Literal["auto", "diffusion", "ar", "ar-init"]

# What a wrong argument, a missing file or a model that does not fit raises; anything else shows where it came from.
_USER_ERRORS = (ValueError, LookupError, OSError, MemoryError, ImportError, NeverFired, Cancelled)


# More layers than any model has: a range beyond is a slip.
_LAYERS = 10_000


def _named(name: str, hint: str | None = None) -> Any:
    """How an argument is called in the help, and what stands there for its default."""
    import tyro

    return tyro.conf.arg(metavar=name, help_behavior_hint=hint)


@dataclass(frozen=True)
class LoadOptions:
    """How a model is loaded.

    Args:
        trust_remote_code: allow the checkpoint to run code of its own.
        dtype: such as bfloat16; the checkpoint's by default.
        family: autoregressive, masked, masked-shifted, llada, dream or a registered one.
        device_map: such as auto, or cuda.
    """

    trust_remote_code: bool = False
    dtype: str | None = None
    family: str | None = None
    device_map: str | None = None

    def load(self, model: str) -> Any:
        import dlens

        placed = {name: value for name in ("dtype", "device_map") if (value := getattr(self, name)) is not None}
        _check_placed(**placed)
        return dlens.load(model, trust_remote_code=self.trust_remote_code, family=self.family, **placed)


def _check_placed(dtype: str = "auto", device_map: str = "auto") -> None:
    """Refuse a type that torch does not have, and a GPU that it does not see."""
    import torch

    kind = getattr(torch, dtype, None)
    if dtype != "auto" and not (isinstance(kind, torch.dtype) and kind.is_floating_point):
        raise ValueError(f"--dtype {dtype}; expected a type of torch; write float32, bfloat16 or float16")
    device, _, number = device_map.partition(":")
    seen = torch.cuda.device_count()
    if device == "cuda" and int(number or 0 if number.isdecimal() or not number else -1) not in range(seen):
        raise ValueError(
            f"--device-map {device_map} where torch sees {seen} GPUs; expected one of these; write auto or cpu"
        )


@dataclass(frozen=True)
class SamplerOptions:
    """How tokens are decoded; what is not given is the sampler's default.

    Args:
        sampler: ar, llada, dream or threshold; the model's own by default.
        steps: denoising steps (llada, dream).
        block_length: tokens a block (llada, threshold).
        temperature: 0 takes the likeliest token.
        guidance: classifier-free guidance (llada).
        remasking: low_confidence or random (llada).
        eos_inf: never take the end of sequence (llada).
        confidence_eos_inf: take the end of sequence last (llada).
        algorithm: origin, maskgit_plus, topk_margin or entropy (dream).
        alg_temp: temperature of the choice of positions (dream).
        eps: noise level at the end (dream).
        top_p: smallest set of tokens with this mass (ar, dream).
        top_k: this many likeliest tokens (ar, dream).
        threshold: least confidence to commit (threshold).
        factor: the factor rule instead of a threshold (threshold).
    """

    sampler: SamplerName | None = None
    steps: int | None = None
    block_length: int | None = None
    temperature: float | None = None
    guidance: float | None = None
    remasking: str | None = None
    eos_inf: bool = False
    confidence_eos_inf: bool = False
    algorithm: str | None = None
    alg_temp: float | None = None
    eps: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    threshold: float | None = None
    factor: float | None = None

    def build(self, model: Any) -> Any:
        """The sampler.

        Raises:
            ValueError: an option that this sampler does not have.
        """
        from dlens import samplers

        kinds = {
            "ar": samplers.Autoregressive,
            "llada": samplers.LLaDA,
            "dream": samplers.Dream,
            "threshold": samplers.Threshold,
        }
        family = model.family
        base = kinds[self.sampler]() if self.sampler else samplers.default_for(family.objective, family.shift)
        given = {
            option.name: value for option in fields(self) if (value := getattr(self, option.name)) != option.default
        }
        given.pop("sampler", None)
        known = [option.name for option in fields(base)]
        for name in given:
            if name not in known:
                raise ValueError(
                    f"{_flag(name)} with the sampler {type(base).__name__}; expected one of "
                    f"{', '.join(map(_flag, known))}; leave it out, or name another --sampler"
                )
        return replace(base, **given)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def parse_layers(text: str) -> list[int]:
    """Layer numbers from text: single ones, and ranges with both ends.

    Raises:
        ValueError: not numbers.

    Examples:
        >>> parse_layers("3,5-7,-1")
        [3, 5, 6, 7, -1]
    """
    layers: list[int] = []
    for part in text.split(","):
        found = _LAYERS_PART.fullmatch(part.strip())
        if found is None:
            raise ValueError(f"layers {text[:80]!r}; expected numbers, such as 3,4,5 or 3-5; check the commas")
        first, last = int(found[1] or found[2]), int(found[1] or found[3])
        if not first <= last < first + _LAYERS:
            raise ValueError(
                f"layers {part.strip()!r}; expected a range that rises, of at most {_LAYERS} layers; write for example "
                f"3-5"
            )
        layers += range(first, last + 1)
    return layers


# A number, or a range of such from 0.
_LAYERS_PART = re.compile(r"(-?[0-9]{1,9})|([0-9]{1,9})-([0-9]{1,9})")


def models() -> None:
    """List the models that ship with dlens, and the families that others belong to."""
    from dlens.models.families.known import known_models

    known = known_models()
    shipped = [[m.name, m.family, m.objective, m.layers, m.width, m.note] for m in known if m.layers is not None]
    print(table_text(["model", "family", "objective", "layers", "d_model", "what"], shipped))
    print()
    families = [[m.name, m.objective, m.shift, m.note] for m in known if m.layers is None]
    print(table_text(["family", "objective", "shift", "what"], families))
    print("\nLoad others by hub id or folder, for example: dlens profile Qwen/Qwen2.5-0.5B")


def generate(
    model: Annotated[str, _named("MODEL")],
    prompt: Annotated[str, _named("PROMPT")],
    /,
    *,
    load: LoadOptions = LoadOptions(),
    sampler: SamplerOptions = SamplerOptions(),
    max_new_tokens: int = 64,
    seed: int = 0,
    skip: str | None = None,
    watch: bool = False,
) -> None:
    """Continue a prompt; it is printed with its continuation.

    Args:
        model: name of a shipped model, hub id or folder.
        prompt: text to continue, taken as it is.
        max_new_tokens: length of the continuation.
        seed: of the random draws, where the sampler makes any.
        skip: layers not to run, such as 3,4,5.
        watch: show the text while it is being decoded.
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
    record = trace.generate(
        prompt,
        max_new_tokens=max_new_tokens,
        sampler=sampler.build(loaded),
        seed=seed,
        progress=not watch,
        on_step=view,
    )
    if not watch:
        print(printable(f"{prompt}{record.text[0]}"))
    _print_notes(record.notes)


def profile(
    models: Annotated[tuple[str, ...], _named("MODEL", "(required)")],
    /,
    *,
    load: LoadOptions = LoadOptions(),
    inputs: Literal["masked", "clean", "trajectory"] = "masked",
    out: Path | None = None,
) -> None:
    """Measure what each layer changes and which channels stand out.

    Args:
        models: names of shipped models, hub ids or folders.
        inputs: what the models read: text with masks, clean text, or their own decoding runs.
        out: a .json or .html file to write.
    """
    from dlens.findings.layers.profile import profile as measure

    if not models:
        raise ValueError("no model named; expected at least one; write for example: dlens profile trio/diffusion")
    if out is not None and out.suffix not in (".json", ".html"):
        raise ValueError(f"--out {out}; expected a name that ends in .json or .html; give it one of these endings")
    if out is not None:
        check_file(out, ".json", ".html")
        _check_different(models)
    profiles = []
    for name in models:
        loaded = load.load(name)
        if out is not None:
            _check_different([*(own.model for own in profiles), loaded.name])
        profiles.append(measure(loaded, inputs=inputs))
        _print_profile(profiles[-1])
    if out is not None:
        print(f"\nWrote {_write_profiles(profiles, out)}")


def skip(
    model: Annotated[str, _named("MODEL")],
    /,
    *,
    layers: str,
    load: LoadOptions = LoadOptions(),
    part: Part = "block",
    prompt: str = "Once upon a time, there was a",
    max_new_tokens: int = 64,
    seed: int = 0,
    task: str | None = None,
    problems: int = 64,
    shots: int | None = None,
    examples: Path | None = None,
    allow_code: bool = False,
) -> None:
    """Show what skipping layers does: to the text, to the loss, to the FLOPs, and to the accuracy on a task.

    Args:
        model: name of a shipped model, hub id or folder.
        layers: which, such as 3,4,5 or 3-5.
        part: the whole block, or its attn or mlp half.
        prompt: text to continue with and without them.
        max_new_tokens: length of the continuation.
        seed: of the random draws, the masks and the problems.
        task: trio-math, trio-code, or gsm8k, math500, humaneval, mbpp or mbpp_sanitized with :PATH.
        problems: of the task.
        shots: worked examples in each prompt (all but humaneval); the format's by default.
        examples: the file that they come from; the task's own by default.
        allow_code: programs that the model writes may be run, which humaneval and mbpp need: no sandbox.
    """
    import dlens
    from dlens import tasks
    from dlens.findings.effects.applied import flops_saved
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
    losses = []
    for name, trace in (("all layers", plain), ("skipped", skipped)):
        record = trace.generate(prompt, max_new_tokens=max_new_tokens, seed=seed)
        losses.append(text_loss(trace, seed=seed))
        print(printable(f"{name}: {prompt}{record.text[0]}\n"))
    before, after = losses
    print(f"loss: {before.value:.4f} with all layers, {after.value:.4f} skipped, {after.value - before.value:+.4f}")
    print(f"      ({after.estimator}, nats a token, {after.n_tokens} tokens of the shipped calibration text)")
    saved = flops_saved(record)
    print(f"FLOPs: {saved:.1%} saved in the skipped run above ({record.saved_flops / 1e9:.4g} of ", end="")
    print(f"{(record.flops + record.saved_flops) / 1e9:.4g} GFLOPs)")
    if asked is not None:
        _print_retention(dlens.retention(skipped, task=asked, n=problems, seed=seed))


def report(
    models: Annotated[tuple[str, ...], _named("MODEL", "(default: the trio)")] = (),
    /,
    *,
    load: LoadOptions = LoadOptions(),
    out: Path = Path("report.html"),
    json: Path | None = None,
    quick: bool = False,
    compression: bool = False,
    task: str = "trio-code",
    problems: int | None = None,
    shots: int | None = None,
    examples: Path | None = None,
    allow_code: bool = False,
    kind: Annotated[tuple[KindName, ...], _named("KIND", "(default: auto)")] = (),
    seed: int = 0,
    fresh: bool = False,
) -> None:
    """Ask what two papers claim of layers and channels of several models; write one offline page.

    Finished parts are kept beside the page, so that an interrupted report goes on where it was.

    Args:
        models: names of shipped models, hub ids or folders; the trio where none is named.
        out: the page, a .html file.
        json: a .json file for the numbers.
        quick: fewer problems and texts, so wider intervals.
        compression: also with 3 bits, with half of all weights, and the spectra of the weights.
        task: trio-code, trio-math, or gsm8k, math500, humaneval, mbpp or mbpp_sanitized with :PATH.
        problems: of the task; 64, or 12 with --quick.
        shots: worked examples in each prompt (all but humaneval); the format's by default.
        examples: the file that they come from; the task's own by default.
        allow_code: programs that the model writes may be run, which humaneval and mbpp need: no sandbox.
        kind: for each model diffusion, ar, ar-init, or auto, which goes by its family.
        seed: of problems, masks and random channels.
        fresh: compute everything again.
    """
    from dlens import tasks
    from dlens.models.source import TRIO
    from dlens.show.report.report import check_paths, settings_of, write_report

    asked = tasks.get(task, shots=shots, examples=examples, allow_code=allow_code)
    check_paths(out, json)
    page, rows = write_report(
        [load.load(name) for name in models or TRIO],
        out,
        json,
        asked,
        settings_of(quick, problems, seed, compression),
        kinds=[None if name == "auto" else name for name in kind],
        fresh=fresh,
    )
    verdicts = [cell.verdict for row in rows for cell in row.cells if cell.claimed]
    print(f"{len(verdicts)} verdicts: {verdicts.count('holds')} hold, ", end="")
    print(f"{verdicts.count('does not hold')} do not, {verdicts.count('undecided')} undecided")
    print(f"Wrote {page}")


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
    _print_notes(kept.notes)


def _print_notes(notes: Sequence[str]) -> None:
    from dlens.show.terminal import printable

    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)


def _interval(low: float, high: float) -> str:
    return f"{low:.1%} to {high:.1%}"


def _print_profile(profile: Any) -> None:
    print(f"\n{profile.model} ({profile.family}, {profile.objective}): {'; '.join(profile.notes)}")
    rows = profile.table()
    columns = [column for column in rows[0] if column != "model"]
    print(table_text([column.replace("_", " ") for column in columns], [[row[c] for c in columns] for row in rows]))


def _check_different(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two models of the name {name}; expected different ones in one file; name each once")


def _write_profiles(profiles: Sequence[Any], out: Path) -> Path:
    from dlens.show.report.page import profile_page, save_page

    if out.suffix == ".html":
        return save_page(profile_page(profiles), out)
    return write_text(out, json.dumps({p.model: json.loads(p.to_json()) for p in profiles}))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a wrong argument ends it with one line on stderr and exit code 2."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given == ["--version"]:
        print(f"dlens {version('dlens')}")
        return
    for stream in (sys.stdout, sys.stderr):
        # What the encoding of a terminal lacks is spelt out, and does not end a run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        commands = (models, generate, profile, skip, report)
        asked(commands, given)()
    except BrokenPipeError:
        # Who read the output has enough of it, as `| head` has; the exit must not write to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except _USER_ERRORS as error:
        _stop(error)
    except KeyboardInterrupt:
        sys.exit(130)


def _stop(error: BaseException) -> None:
    from dlens.show.terminal import printable

    print(f"dlens: {printable(_one_line(error))}", file=sys.stderr)
    sys.exit(2)


def _one_line(error: BaseException) -> str:
    """The message without line breaks; str of a KeyError would quote it."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return " ".join(str(message).split()) or type(error).__name__
