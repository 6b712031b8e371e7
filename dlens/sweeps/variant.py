"""One cell of a sweep: a trace with how it decodes and how its weights are compressed; and grids of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Any, final

from dlens.checks import refuse, several
from dlens.compression.compress import check_recipe, compressed
from dlens.compression.recipe import Recipe
from dlens.digest import value_digest
from dlens.samplers import Sampler
from dlens.tracing.chain import Trace, trace
from dlens.tracing.planning.kv_cache import Caching, check_cache

__all__ = ["Variant", "as_variants", "grid"]


@final
@dataclass(frozen=True, eq=False)
class Variant:
    """What a sweep tries.

    Args:
        trace: a model with its operations.
        sampler: how it decodes; the sweep's own by default.
        cache: as in `Trace.generate`; the sweep's own by default.
        compression: how its weights are compressed before; not at all by default.
        labels: columns of the table that say what is varied.

    Examples:
        >>> import dlens
        >>> variant = Variant(dlens.trace("trio/ar").skip([3]), labels={"layers": "3"})
        >>> print(variant)
        trio/ar, skip layers 3
        >>> print(variant.baseline)
        trio/ar, as it is
        >>> variant.check()
        >>> variant.ready() is variant.trace
        True
    """

    trace: Trace
    sampler: Sampler | None = None
    cache: Caching | None = None
    compression: Recipe | None = None
    labels: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if not isinstance(self.trace, Trace):
            refuse("trace", self.trace, "a trace", "make one with dlens.trace")
        if self.sampler is not None and not isinstance(self.sampler, Sampler):
            refuse("sampler", self.sampler, "one of dlens.samplers", "make one, such as dlens.samplers.LLaDA()")
        if self.cache is not None:
            check_cache(self.cache)
        if self.compression is not None and not isinstance(self.compression, Recipe):
            refuse("compression", self.compression, "a dlens.Recipe", "write for example dlens.Recipe(bits=3)")
        if not isinstance(self.labels, Mapping) or not all(isinstance(name, str) for name in self.labels):
            refuse("labels", self.labels, "names and values", "write for example labels={'layers': '3'}")

    @property
    def plan(self) -> str:
        """What is changed, in words; empty for a model as it is."""
        words = [] if self.compression is None else [self.compression.words]
        return "; ".join([*words, *(op.words() for op in self.trace.ops)])

    @property
    def baseline(self) -> Variant:
        """The same model as it is, decoding in the same way."""
        return replace(self, trace=replace(self.trace, ops=()), compression=None, labels=MappingProxyType({}))

    def ready(self) -> Trace:
        """The trace to run, of the compressed model where it is one; the last of a model is kept."""
        if self.compression is None:
            return self.trace
        model = self.trace.model
        held = model.kept("a compressed copy", f"{model.fingerprint()} {value_digest(self.compression)}")
        if "copy" not in held:
            held["copy"] = compressed(model, self.compression, progress=False)
        return replace(trace(held["copy"]), ops=self.trace.ops)

    def check(self) -> None:
        """Refuse a compression that the model cannot have.

        Raises:
            ValueError: nothing was computed.
        """
        if self.compression is not None:
            check_recipe(self.trace.model, self.compression, None)

    def __str__(self) -> str:
        return f"{self.trace.model.name}, {self.plan or 'as it is'}"


def as_variants(given: Any) -> list[Variant]:
    """What a sweep tries, as users write it: a trace, a model, a variant, or several.

    Raises:
        ValueError: nothing, or something else.
    """
    items = list(given) if several(given) else [given]
    if not items:
        raise ValueError(
            "no trace to sweep over; expected at least one; write for example [trace.skip([i]) for i in range(16)]"
        )
    return [item if isinstance(item, Variant) else Variant(_as_trace(item)) for item in items]


def _as_trace(item: Any) -> Trace:
    return item if isinstance(item, Trace) else trace(item)


def grid(
    model: Any,
    *,
    layers: Sequence[Any] = ((),),
    parts: Sequence[str] = ("block",),
    steps: Sequence[Any] = (None,),
    noise: Sequence[tuple[float, float] | None] = (None,),
    samplers: Sequence[Sampler | None] = (None,),
    caches: Sequence[Caching | None] = (None,),
    compressions: Sequence[Recipe | None] = (None,),
) -> list[Variant]:
    """Every combination of skips, samplers, caches and compressions, for `dlens.sweep`.

    Args:
        model: anything `dlens.trace` takes, or a trace whose operations all of them have.
        layers: sets of layers to skip, such as `[[3], [3, 4]]`; an empty one skips nothing.
        parts: "block", "attn" or "mlp", as `Trace.skip` takes them.
        steps, noise: when they are skipped, as `Trace.skip` takes them; None is always.
        samplers, caches: how the model decodes.
        compressions: recipes; None leaves the weights as they are.

    Returns:
        Variants with a label for each argument that has more than one value. Those that skip nothing stand once,
        whatever the parts, steps and noise.

    Raises:
        ValueError, IndexError: something that the model does not have.

    Examples:
        >>> import dlens
        >>> cells = dlens.grid("trio/diffusion", layers=[[], [3], [3, 4]], parts=["attn", "mlp"])
        >>> len(cells), cells[1].labels["parts"], str(cells[1])
        (5, 'attn', 'trio/diffusion, skip the attn of layers 3')
    """
    axes = {
        "layers": layers,
        "parts": parts,
        "steps": steps,
        "noise": noise,
        "samplers": samplers,
        "caches": caches,
        "compressions": compressions,
    }
    for name, values in axes.items():
        if not several(values) or not len(values):
            refuse(name, values, "several values, each a point of the grid", f"put them into a list: {name}=[...]")
    plain = model if isinstance(model, Trace) else trace(model)
    varied = [name for name, values in axes.items() if len(values) > 1]
    return list(_cells(plain, axes, varied))


def _cells(plain: Trace, axes: Mapping[str, Sequence[Any]], varied: Sequence[str]) -> Iterator[Variant]:
    known: set[tuple[str, ...]] = set()
    for values in product(*axes.values()):
        at = dict(zip(axes, values, strict=True))
        skips = several(at["layers"]) and len(at["layers"]) == 0
        chain = plain if skips else plain.skip(at["layers"], part=at["parts"], steps=at["steps"], noise=at["noise"])
        # What skips nothing is the same whatever it would have skipped.
        shown = {name: "" if skips and name in ("parts", "steps", "noise") else _words(at[name]) for name in varied}
        if tuple(shown.values()) in known:
            continue
        known.add(tuple(shown.values()))
        yield Variant(chain, at["samplers"], at["caches"], at["compressions"], MappingProxyType(shown))


def _words(value: Any) -> str:
    """A value of a grid as it stands in a table."""
    if isinstance(value, Recipe):
        return value.words
    if several(value):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
