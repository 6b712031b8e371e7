"""How a generation is run: the arguments of `Trace.generate`, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from dlens.checks import as_flag, quoted, require_word
from dlens.models.model import Model
from dlens.ops.base.target import Target
from dlens.samplers import Autoregressive, BlockDiffusion, Denoiser, FirstHitting, Sampler, default_for
from dlens.tracing.planning.kv_cache import Caching, check_caching
from dlens.tracing.progress import OnStep, Watch
from dlens.tracing.replay.replays import ReplayPolicy
from dlens.tracing.step.gather import Gather

__all__ = ["RunSettings", "check_cancel", "check_settings", "sampler_for", "watch_of"]


@dataclass(frozen=True)
class RunSettings:
    """How a generation is run: the arguments of `Trace.generate`, and what takes captures in the record's place."""

    new_tokens: int
    sampler: Sampler
    seed: int
    infill: bool
    cache: Caching
    capture_limit: int
    progress: bool
    on_step: OnStep | None
    cancel: Any
    replay: ReplayPolicy = "auto"
    gather: Gather | None = None

    def to_json(self) -> dict[str, Any]:
        """What is written of them into the record."""
        return {
            "new_tokens": self.new_tokens,
            "sampler": repr(self.sampler),
            "seed": self.seed,
            "infill": self.infill,
            "cache": self.cache if isinstance(self.cache, str) else repr(self.cache),
        }


def sampler_for(model: Model, sampler: Sampler | None) -> Sampler:
    """The sampler asked for, else the default of the model's family.

    Raises:
        ValueError: it decodes the other kind of model.
    """
    family = model.family
    if sampler is None:
        return default_for(family.objective, family.shift, family.block_length)
    diffusion = family.objective == "diffusion"
    if not isinstance(sampler, Denoiser if diffusion else Autoregressive):
        kind = "a diffusion" if diffusion else "an autoregressive"
        expected = "LLaDA, BlockDiffusion or another of a canvas" if diffusion else "Autoregressive"
        raise ValueError(
            f"{type(sampler).__name__} for {model.name}, which is {kind} model; "
            f"expected dlens.samplers.{expected}; pass one of these, or none for the default"
        )
    own, blocks = family.block_length, family.block_length
    if isinstance(sampler, (BlockDiffusion, FirstHitting)):
        own = sampler.block_length
    if blocks is not None and own != blocks:
        raise ValueError(
            f"{type(sampler).__name__}(block_length={own}) for {model.name}, whose attention is causal between canvas "
            f"blocks of {blocks}; expected the same; give block_length={blocks}, or load with "
            f"family=dataclasses.replace(family, block_length={own})"
        )
    return sampler


def check_settings(model: Model, target: Target, settings: RunSettings) -> None:
    """Refuse settings that contradict the model or each other.

    Raises:
        ValueError: before anything is computed.
    """
    as_flag(settings.progress, "progress")
    infill = as_flag(settings.infill, "infill")
    least = 0 if infill else 1
    check_caching(model, target, settings.cache)
    require_word("replay", settings.replay, get_args(ReplayPolicy))
    if settings.replay == "require" and not target.has_noise:
        raise ValueError(
            f"replay='require' on {model.name}; expected a diffusion model, as the steps of autoregressive decoding "
            f"grow and are computed one by one; leave it out"
        )
    if infill and not target.has_noise:
        raise ValueError(
            f"infill=True on {model.name}; expected a diffusion model, as an autoregressive model only "
            f"appends; leave it out"
        )
    _check_followers(settings)
    if settings.new_tokens < least:
        raise ValueError(f"max_new_tokens={settings.new_tokens}; expected at least {least}; ask for more tokens")


def _check_followers(settings: RunSettings) -> None:
    if settings.on_step is not None and not callable(settings.on_step):
        raise ValueError(
            f"on_step={quoted(settings.on_step)}; expected a function of one StepView; "
            f"pass the function itself, uncalled"
        )
    check_cancel(settings.cancel)


def check_cancel(cancel: Any) -> None:
    """Refuse what cannot be asked whether a run is to end.

    Raises:
        ValueError: it is no event.
    """
    if cancel is not None and not callable(getattr(cancel, "is_set", None)):
        raise ValueError(
            f"cancel={quoted(cancel)}; expected a threading.Event; make one, and set it from another thread"
        )


def watch_of(n_steps: int, settings: RunSettings, decode: Any) -> Watch:
    """What follows a run of these settings; `decode` reads text off its token ids."""
    return Watch(n_steps, settings.progress, settings.on_step, settings.cancel, decode)
