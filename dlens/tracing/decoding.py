"""An autoregressive run, whole: what is known of each step, and transformers' own `generate` that drives it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.models.families.fitting import places, takes
from dlens.models.model import Model
from dlens.ops.base.op import Op
from dlens.ops.base.target import Target
from dlens.samplers.autoregressive import Autoregressive
from dlens.tracing.finish import Outcome, finish
from dlens.tracing.planning.inputs import as_batch, refuse_too_long
from dlens.tracing.planning.kv_cache import cache_policy, fullest_cache
from dlens.tracing.planning.shape import run_shape
from dlens.tracing.planning.tokens import after
from dlens.tracing.prepare import check_run, prepare
from dlens.tracing.probes.flops import StepCost
from dlens.tracing.progress import Watch, hold, refuse_stray_call
from dlens.tracing.records.finite import broken, broken_notes
from dlens.tracing.records.record import Record
from dlens.tracing.records.text import drafts, end_ids
from dlens.tracing.settings import RunSettings, watch_of
from dlens.tracing.step.state import Group, StepState

__all__ = ["DecodingRun", "run_decoding"]

# What a generation config says of the model rather than of how a token is chosen.
_KEPT = {"transformers_version", "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"}


def run_decoding(model: Model, target: Target, ops: Sequence[Op], prompts: Any, settings: RunSettings) -> Record:
    """Decode a batch of prompts with an autoregressive model."""
    assert isinstance(settings.sampler, Autoregressive) and isinstance(settings.cache, str)
    batch = as_batch(model, prompts)
    refuse_too_long(model, batch, settings.new_tokens)
    if batch.padded and not model.honours_padding:
        raise ValueError(
            f"{model.name} does not hide padding and got prompts of unequal length; expected one length; "
            f"generate them one by one"
        )
    rows, width = batch.ids.shape
    shape = run_shape(model, batch, settings.new_tokens, settings.sampler)
    real = torch.cat([batch.real, batch.real.new_ones(rows, settings.new_tokens)], dim=-1)
    watch = watch_of(shape.n_steps, settings, lambda ids: drafts(model, ids, width))
    with hold(model.lock, settings.cancel):
        plan = check_run(model, target, ops, shape, real, settings.capture_limit)
        use_cache, notes = cache_policy(plan, settings.cache, target)
        prepared = prepare(model, target, ops, shape, plan, settings.gather)
        run = DecodingRun(
            model=model,
            sampler=settings.sampler,
            prompts=batch.ids,
            real=batch.real,
            new_tokens=settings.new_tokens,
            end_ids=end_ids(model),
            use_cache=use_cache,
            empties_cache=bool(prepared.plan.uncached_layers()),
            all_logits=prepared.plan.touches("logits"),
            watch=watch,
            seed=settings.seed,
        )
        start = time.perf_counter()
        with watch.shown():
            tokens = prepared.run(run.state, run.drive)
        seconds = time.perf_counter() - start
    notes += _left_out(run) + broken_notes(run.broken)
    n_run = tokens.shape[-1] - width
    costs = run.step_costs(n_run, use_cache, run.all_logits)
    plain = run.step_costs(n_run, settings.cache != "off", False)
    return finish(prepared, batch, Outcome(tokens, n_run, seconds, costs, plain, None, settings.to_json(), notes))


def _left_out(run: DecodingRun) -> tuple[str, ...]:
    """The note on what a checkpoint's generation config asks for and dlens does not do."""
    said_by_sampler = {"do_sample", "temperature", "top_p", "top_k", "max_length", "max_new_tokens", "use_cache"}
    left_out = sorted(run.neutral().keys() - said_by_sampler)
    return (f"not used of the checkpoint's generation config: {', '.join(left_out)}",) if left_out else ()


@final
@dataclass
class DecodingRun:
    """AR decoding of a batch.

    Args:
        model: what is run.
        sampler: greedy, or its temperature and cuts.
        prompts, real: [batch, position], left-padded.
        new_tokens: how many at most.
        end_ids: tokens that end a row.
        use_cache: whether old positions are kept or computed again.
        empties_cache: whether a layer writes nothing into the cache, so that its length must be
            read from another.
        all_logits: whether the logits of every position are wanted.
        watch: told of every step.
        seed: of torch's random numbers, forked for the run.
        broken: per step whether the logits were NaN or infinite.
    """

    model: Model
    sampler: Autoregressive
    prompts: TokenIds
    real: TokenMask
    new_tokens: int
    end_ids: tuple[int, ...]
    use_cache: bool
    empties_cache: bool
    all_logits: bool
    watch: Watch
    seed: int
    broken: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._group = Group(tuple(range(len(self.prompts))), 0)
        self._ids = self.prompts
        self._ends = torch.tensor(self.end_ids, device=self.prompts.device)

    def drive(self) -> TokenIds:
        """Decode; returns prompts and continuations."""
        module: Any = self.model.module
        device = self.model.device
        with torch.random.fork_rng([device] if device.type == "cuda" else [], enabled=self.sampler.temperature > 0):
            if self.sampler.temperature > 0:
                torch.manual_seed(self.seed)
            return module.generate(**self._arguments())

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = self.neutral() | {
            "input_ids": self.prompts,
            "attention_mask": self.real.long(),
            "max_new_tokens": self.new_tokens,
            "pad_token_id": self.model.pad_token_id,
            "use_cache": self.use_cache,
            "streamer": _streamer(self),
            "logits_processor": [self._look],
            "return_dict_in_generate": False,
            **self.sampler.generate_arguments(),
            **places(self.model.family.inputs, self.prompts, self.real),
        }
        if self.end_ids:
            arguments["eos_token_id"] = list(self.end_ids)
        # A cache of states by another name has none but each layer's own, which a skipped layer leaves alone.
        if self.use_cache and self.empties_cache and takes(self.model.module, "past_key_values"):
            arguments["past_key_values"] = fullest_cache(self.model.config)
        if self.all_logits:
            arguments["logits_to_keep"] = 0
        return arguments

    def _look(self, ids: TokenIds, scores: Float[Tensor, "batch vocab"]) -> Float[Tensor, "batch vocab"]:
        """Told of the scores that a token is chosen from; changes nothing."""
        self.broken.append(broken(scores))
        if self.sampler.temperature > 0 and bool(self.broken[-1]):
            raise ValueError(
                f"the logits of step {len(self.broken) - 1} are NaN or infinite; expected finite ones to draw a token "
                f"from; look for the first layer whose capture is not finite, or change less"
            )
        return scores

    def neutral(self) -> dict[str, Any]:
        """What takes back the choices of the checkpoint's generation config: penalties, beams and the like."""
        config: Any = self.model.module.generation_config
        defaults = {"repetition_penalty": 1.0, "num_beams": 1, "num_return_sequences": 1}
        asked = {key for key, value in config.to_diff_dict().items() if value is not None and value is not False}
        chosen = {key for key in asked - _KEPT if not key.startswith("_")}
        return {key: defaults.get(key) for key in chosen}

    def state(self, step: int, args: Sequence[Any], kwargs: dict[str, Any]) -> StepState:
        """What is known of a step when it starts; read from what `generate` feeds the module."""
        refuse_stray_call(step, self.watch.begun)
        ids: Tensor = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        width = self.prompts.shape[-1] + step
        if step:
            self._ids = torch.cat([self._ids, ids[:, -1:]], dim=-1)
        start = width - ids.shape[-1]
        columns = slice(start, width)
        generated = torch.zeros_like(self._ids, dtype=torch.bool)
        generated[:, self.prompts.shape[-1] :] = True
        ends = torch.isin(self._ids, self._ends) & generated
        ended = after(ends) & generated
        real = torch.cat([self.real, torch.ones_like(generated[:, self.real.shape[-1] :])], dim=-1)
        none = torch.zeros_like(generated)
        return StepState(
            step=step,
            group=self._group,
            columns=columns,
            fresh=0 if step == 0 else width - 1,
            real=real[:, columns],
            generated=generated[:, columns],
            masked=none[:, columns],
            ended=ended[:, columns],
            halves=1,
            has_noise=False,
            noise_over=none[:, columns],
        )

    def step_costs(self, n_steps: int, use_cache: bool, all_logits: bool) -> list[StepCost]:
        """What each step cost; `generate` asks for the last position's logits alone where the module can."""
        module: Any = self.model.module
        batch, prompt = self.prompts.shape
        logits = 1 if module._supports_logits_to_keep() and not all_logits else 0
        first = StepCost(batch, prompt, logits=logits)
        if not use_cache:
            return [replace(first, query=prompt + step) for step in range(n_steps)]
        return [first, *(replace(first, query=1, cached=prompt + step - 1) for step in range(1, n_steps))]


def _streamer(run: DecodingRun) -> Any:
    """What `generate` tells of every token: the prompt first, then a token per row."""
    from transformers.generation.streamers import BaseStreamer

    class Streamer(BaseStreamer):
        def __init__(self) -> None:
            self.tokens = run.prompts
            self.step = -1

        def put(self, value: Tensor) -> None:
            if self.step >= 0:
                self.tokens = torch.cat([self.tokens, value.to(self.tokens.device)[:, None]], dim=-1)
                run.watch.end(self.step, self.tokens, range(len(self.tokens)))
            self.step += 1
            if self.step < run.new_tokens:
                run.watch.begin()

        def end(self) -> None:
            pass

    return Streamer()
