"""Answers to prompts as lm-eval's requests ask for them: length, stop strings, temperature."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, final

from dlens.checks import finite, quoted, refuse
from dlens.findings.scores.batches import length_batches
from dlens.findings.scores.decoding import Decoding
from dlens.models.model import Model
from dlens.ops.base.given import as_index
from dlens.samplers import Sampler, default_for
from dlens.tasks.benchmark import until
from dlens.tracing.chain import Trace
from dlens.tracing.progress import quiet

__all__ = ["Asked", "answers", "sampler_of"]

# What requests of lm-eval say beside their stop strings; a length has four names there.
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_DRAWS = ("temperature", "top_p", "top_k")
_LENGTH = 256


@final
@dataclass(frozen=True)
class Asked:
    """How one request wants its answer.

    Args:
        length: most new tokens; for diffusion models exactly so many are decoded.
        stops: the answer ends before the first of these.
        draws: temperature, top_p and top_k, where the request draws at all.

    Examples:
        >>> Asked.of({"until": ["\\n"], "max_gen_toks": 32, "do_sample": False, "temperature": 0.7})
        Asked(length=32, stops=('\\n',), draws=())
        >>> Asked.of({"do_sample": True, "temperature": 0.7}).draws
        (('temperature', 0.7),)
    """

    length: int = _LENGTH
    stops: tuple[str, ...] = ()
    draws: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Asked:
        """What the keywords of a request say.

        Raises:
            ValueError: a keyword that dlens does not know, or a length below 1.
        """
        known = {*_LENGTHS, *_DRAWS, "until", "do_sample"}
        if other := sorted(set(given) - known):
            raise ValueError(
                f"a request with {', '.join(other)}; expected {', '.join(sorted(known))}; leave it out of the task's "
                f"generation_kwargs, or set it with a sampler"
            )
        length = next((given[name] for name in _LENGTHS if given.get(name) is not None), _LENGTH)
        if as_index(length, "max_gen_toks") < 1:
            refuse("max_gen_toks", length, "at least 1, the length of an answer", "ask for more")
        stops = given.get("until") or ()
        stops = (stops,) if isinstance(stops, str) else tuple(stops)
        temperature = finite(given.get("temperature") or 0)
        drawn = bool(temperature) and given.get("do_sample", True)
        draws = tuple((name, given[name]) for name in _DRAWS if given.get(name) is not None) if drawn else ()
        return cls(length, tuple(stop for stop in stops if stop), draws)


def sampler_of(model: Model, sampler: Sampler | None, asked: Asked) -> Sampler | None:
    """The sampler of an answer: as given, or the family's; at the temperature of a request that draws.

    Raises:
        ValueError: the request asks for what the sampler does not have.

    Examples:
        >>> import dlens
        >>> sampler_of(dlens.load("trio/ar"), None, Asked.of({"temperature": 0.5}))
        Autoregressive(temperature=0.5, top_p=None, top_k=None)
    """
    if not asked.draws:
        return sampler
    chosen = sampler or default_for(model.family.objective, model.family.shift, model.family.block_length)
    names = {each.name for each in fields(chosen)}
    if missing := [name for name, _ in asked.draws if name not in names]:
        raise ValueError(
            f"a request with {', '.join(missing)} and {quoted(chosen)}; expected a sampler that has it; take another "
            f"sampler, or leave it out of the task's generation_kwargs"
        )
    return replace(chosen, **dict(asked.draws))


def answers(
    trace: Trace, prompts: Sequence[Sequence[int]], asked: Sequence[Asked], decoding: Decoding, model_length: int
) -> list[str]:
    """The answer to each prompt, cut before its first stop string.

    Requests that ask alike are decoded together, the longest prompts first. Prompts are cut from the left where they
    do not fit with their answers.

    Args:
        trace: the model with whatever operations it has.
        prompts: token ids.
        asked: how each prompt is to be answered.
        decoding: sampler and batches; `max_new_tokens` goes before the length of the requests.
        model_length: positions that the model has.

    Raises:
        ValueError: an answer that leaves no room for its prompt, or settings that the sampler refuses; before anything
            is computed.

    Examples:
        >>> import dlens
        >>> trace, asked = dlens.trace("trio/ar"), Asked(length=4)
        >>> text = answers(trace, [[652, 401]], [asked], Decoding(), 512)
        >>> text == trace.generate([[652, 401]], 4).text
        True
    """
    kinds = list(dict.fromkeys(asked))
    decodings = {kind: _decoding(trace.model, kind, decoding, model_length) for kind in kinds}
    texts, number = [""] * len(prompts), 0
    with _bar(len(prompts), decoding.progress) as bar:
        for kind, own in decodings.items():
            members = [i for i, each in enumerate(asked) if each == kind]
            rows = [list(prompts[i][own.length - model_length :]) for i in members]
            for batch in length_batches(trace.model, rows, own.batch_size):
                seed = random.Random(f"{own.seed} {number}").getrandbits(32)
                record = own.generate(trace, [rows[i] for i in batch], seed)
                for i, text in zip(batch, record.text, strict=True):
                    texts[members[i]] = until(text, kind.stops)
                number += 1
                bar.update(len(batch))
    return texts


def _decoding(model: Model, asked: Asked, decoding: Decoding, model_length: int) -> Decoding:
    length = decoding.max_new_tokens or asked.length
    if length >= model_length:
        raise ValueError(
            f"answers of {length} tokens from {model.name}; expected fewer than the {model_length} positions that it "
            f"has, prompts included; give max_new_tokens"
        )
    own = replace(decoding, max_new_tokens=length, sampler=sampler_of(model, decoding.sampler, asked))
    own.planned_steps(model)
    return own


def _bar(total: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="answer", delay=1.0, leave=False, disable=quiet(progress))
