"""How a model's layers behave on text: what each block changes, and which channels stand out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final, get_args

import numpy as np

from dlens.checks import as_path, check_fields, quoted, refuse, require_word, several
from dlens.files import write_text
from dlens.findings.scores.batches import batched, masked_rows, rng, token_rows
from dlens.findings.scores.decoding import Decoding
from dlens.measures import Cosine, Measure, Outliers, pool
from dlens.measures.base.measure import Span, Sums, Visit
from dlens.ops.base.given import as_number
from dlens.samplers import Sampler
from dlens.tracing.chain import Trace, trace
from dlens.tracing.probes.calibration import calibration_texts
from dlens.tracing.records.measured import Measures

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "CELLS",
    "MASK_RATES",
    "Inputs",
    "Profile",
    "Running",
    "dataset_from_json",
    "dataset_to_json",
    "inputs_read",
    "profile",
]

Inputs = Literal["masked", "clean", "trajectory"]
MASK_RATES = (0.0, 0.25, 0.5, 0.75, 0.95)
CELLS = ("step", "noise", "state")
_PROMPT_TOKENS = 32


@final
@dataclass(frozen=True)
class Profile:
    """Measures of one model on one set of prompts.

    Args:
        model: what it was loaded from.
        family, objective: what kind of model it is.
        n_layers, d_model: its size.
        inputs: what it read: "masked", "clean" or "trajectory".
        n_prompts, n_tokens: how much text, before it was masked.
        seed: of the masks or of the run.
        plan: the operations it ran with.
        measures: key -> dataset, as in a record.
        notes: what a reader must know to read the numbers.

    Examples:
        >>> import dlens, tempfile
        >>> found = dlens.profile("trio/diffusion", ["Once upon a time"])
        >>> found.pooled("cosine", "cosine").dims, found.pooled("cosine", "cosine", by=["noise"]).dims
        (('layer',), ('noise', 'layer'))
        >>> found.table()[3]["layer"]
        3
        >>> print(found)
        Profile of trio/diffusion on masked inputs (prompts: 1): 16 layers; measures: cosine, outliers
        >>> path = found.save(tempfile.mkdtemp() + "/profile.json")
        >>> dlens.Profile.from_json(path.read_text()).to_json() == found.to_json()
        True
    """

    model: str
    family: str
    objective: str
    n_layers: int
    d_model: int
    inputs: str
    n_prompts: int
    n_tokens: int
    seed: int
    plan: tuple[Mapping[str, Any], ...]
    measures: Mapping[str, xr.Dataset]
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        import xarray as xr

        check_fields(self, "let dlens.profile make it", xr.Dataset)
        object.__setattr__(self, "measures", Measures(self.measures))

    def __str__(self) -> str:
        read = f"{inputs_read(self)} inputs (prompts: {self.n_prompts})"
        head = f"Profile of {self.model} on {read}: {self.n_layers} layers"
        return "; ".join([head, *(entry["words"] for entry in self.plan), f"measures: {', '.join(self.measures)}"])

    __repr__ = __str__

    def pooled(self, key: str, variable: str, by: Sequence[str] = ()) -> xr.DataArray:
        """A variable of a measure by layer, averaged over positions.

        Args:
            key: of the measure, such as "cosine".
            variable: of its dataset.
            by: which of "step", "noise" and "state" to keep.
        """
        if isinstance(by, str) or not several(by) or not set(map(str, by)) <= set(CELLS):
            refuse("by", by, f"a list of some of {', '.join(CELLS)}", "write by=['noise'], or leave it out")
        return pool(self.measures[key], variable, [dim for dim in CELLS if dim not in by])

    def table(self) -> list[dict[str, Any]]:
        """One row a layer, with every number that the measures have by layer, averaged over positions.

        For Cosine and Outliers: "cosine"; "max_median", largest over median magnitude of the
        channels; "top_channel" and "top_share", the largest channel and its energy share.
        """
        rows: list[dict[str, Any]] = [{"model": self.model, "layer": layer} for layer in range(self.n_layers)]
        for key, dataset in self.measures.items():
            for variable in _layer_variables(dataset):
                name = variable if variable not in rows[0] else f"{key}_{variable}"
                for row, value in zip(rows, self._by_layer(key, variable), strict=True):
                    row[name] = value
        return rows

    def _by_layer(self, key: str, variable: str) -> list[Any]:
        values = self.measures[key][variable]
        return (values if values.dims == ("layer",) else self.pooled(key, variable)).values.tolist()

    def to_json(self) -> str:
        """All of it as JSON text: measures as `xarray.Dataset.to_dict` has them, NaN as null."""
        entry = {name: value for name, value in vars(self).items() if name != "measures"}
        entry["measures"] = {key: dataset_to_json(dataset) for key, dataset in self.measures.items()}
        return json.dumps(entry)

    @staticmethod
    def from_json(text: str) -> Profile:
        """The profile that `to_json` wrote.

        Raises:
            ValueError: it is something else, or damaged.
        """
        try:
            entry = json.loads(text)
            entry["measures"] = {key: dataset_from_json(data) for key, data in entry["measures"].items()}
            return Profile(**entry | {"plan": tuple(entry["plan"]), "notes": tuple(entry["notes"])})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{quoted(text)} is no profile ({error}); expected all of what Profile.to_json wrote; write it again, "
                f"or give the text of the file and not its name"
            ) from error

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all."""
        return write_text(as_path(path, "path"), self.to_json())


def inputs_read(own: Profile) -> str:
    """The inputs of a profile in a word: what has no masks reads clean what others read masked."""
    return "clean" if own.inputs == "masked" and own.objective == "autoregressive" else own.inputs


def dataset_to_json(dataset: xr.Dataset) -> dict[str, Any]:
    """xarray's own form, with the type of each array; NaN and infinity, which JSON lacks, as None and as text."""
    entry = dataset.to_dict()
    # The order of the sizes depends on how a dataset was made, and each array has its own.
    del entry["dims"]
    for name, array in (entry["coords"] | entry["data_vars"]).items():
        array |= {"dtype": str(dataset[name].dtype), "data": _json_numbers(array["data"])}
    return entry


def _json_numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_json_numbers(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return str(value) if value in (float("inf"), float("-inf")) else value


def dataset_from_json(entry: dict[str, Any]) -> xr.Dataset:
    """The dataset that `dataset_to_json` wrote."""
    import xarray as xr

    # dlens 0.1 wrote "variables" for what xarray calls "data_vars".
    arrays = {"coords": entry["coords"], "data_vars": entry["data_vars" if "data_vars" in entry else "variables"]}
    for array in (array for own in arrays.values() for array in own.values()):
        array["data"] = np.array(array["data"], dtype=array["dtype"])
    return xr.Dataset.from_dict({"attrs": entry["attrs"], **arrays})


def _layer_variables(dataset: xr.Dataset) -> list[str]:
    """Variables that have one number a layer once cells are pooled."""
    counts = {"n", *(value for key, value in dataset.attrs.items() if str(key).startswith("count_of_"))}
    dims = {str(name): set(values.dims) for name, values in dataset.data_vars.items() if name not in counts}
    return [name for name, found in dims.items() if "layer" in found and found <= {*CELLS, "layer"}]


@final
@dataclass(frozen=True, kw_only=True)
class Running(Measure):
    """Keeps the sums of a measure, so that several runs of one span count as one.

    The result after the last run is that of all of them together, in the memory of one.

    Args:
        measure: what is measured.
        sums: its sums so far.
    """

    measure: Measure
    sums: Sums = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.measure.key

    @property
    def points(self) -> tuple[str, ...]:
        return self.measure.points

    @property
    def reads_tokens(self) -> bool:
        return self.measure.reads_tokens

    def start(self, span: Span) -> Sums:
        if not self.sums:
            self.sums.update(self.measure.start(span))
        return self.sums

    def update(self, sums: Sums, visit: Visit) -> None:
        self.measure.update(sums, visit)

    def merge(self, sums: Sums, other: Sums) -> Sums:
        return self.measure.merge(sums, other)

    def result(self, sums: Sums, span: Span) -> xr.Dataset:
        return self.measure.result(sums, span)


def profile(
    model: Any,
    prompts: Any = None,
    inputs: str = "masked",
    *,
    measures: Iterable[Measure] | None = None,
    rates: Sequence[float] = MASK_RATES,
    sampler: Sampler | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 8,
    seed: int = 0,
) -> Profile:
    """Measure every layer of a model on text.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        prompts: anything `Trace.forward` takes; the shipped calibration text by default.
        inputs: what the model reads. "masked": the prompts with a share of their tokens masked,
            each at every one of `rates`; an autoregressive model, which has no masks, reads them
            clean. "clean": the prompts as they are. "trajectory": the model's own decoding run
            after each prompt (the first 32 tokens of each shipped text).
        measures: what to measure; Cosine and Outliers by default.
        rates: shares of masked tokens, for "masked".
        sampler, max_new_tokens: of the decoding run, for "trajectory"; see `dlens.findings.scores.decoding.Decoding`.
        batch_size: prompts a forward; memory grows with it, the result does not depend on it.
        seed: chooses the masked tokens, or seeds the decoding run.

    Returns:
        The profile: `.table()`, `.measures`, `.to_json()`, `.save(path)`.

    Raises:
        ValueError: unknown inputs, or a rate outside 0 to 1.

    Examples:
        >>> import dlens
        >>> rows = dlens.profile("trio/ar", ["Once upon a time"]).table()
        >>> len(rows), sorted(rows[0])
        (16, ['cosine', 'layer', 'max_median', 'model', 'top_channel', 'top_share'])
    """
    _check(inputs, rates)
    decoding = Decoding(sampler, max_new_tokens, batch_size=batch_size, seed=seed)
    base = model if isinstance(model, Trace) else trace(model)
    rows = token_rows(base.model, calibration_texts() if prompts is None else prompts)
    if inputs == "trajectory" and prompts is None:
        rows = [row[:_PROMPT_TOKENS] for row in rows]
    running = [Running(measure=measure) for measure in _listed(measures)]
    traced = base.measure(*running)
    record, notes = None, ()
    if inputs == "trajectory":
        for part in batched(rows, batch_size):
            record = decoding.generate(traced, part)
        notes = (f"decoding runs of {max_new_tokens} new tokens",)
    else:
        canvases, notes = _canvases(base, rows, inputs, rates, seed)
        for part in batched(canvases, batch_size):
            record = traced.forward(part)
    assert record is not None
    return Profile(
        model=base.model.name,
        family=base.model.family.name,
        objective=base.model.family.objective,
        n_layers=base.model.n_layers,
        d_model=base.model.d_model,
        inputs=inputs,
        n_prompts=len(rows),
        n_tokens=sum(map(len, rows)),
        seed=seed,
        plan=tuple(entry for entry in record.plan if entry["op"] != "measure"),
        measures=record.measures,
        notes=(*notes, *record.notes),
    )


def _listed(measures: Any) -> list[Measure]:
    """What to measure: the default, one measure alone, or several."""
    if measures is None:
        return [Cosine(), Outliers()]
    if isinstance(measures, Measure):
        return [measures]
    several = isinstance(measures, Iterable) and not isinstance(measures, str)
    listed: list[Any] = list(measures) if several else [measures]
    if not listed or not all(isinstance(each, Measure) for each in listed):
        raise ValueError(f"measures={measures!r}; expected measures; pass a list, such as [dlens.Cosine()]")
    return listed


def _check(inputs: str, rates: Sequence[float]) -> None:
    require_word("inputs", inputs, get_args(Inputs))
    if not isinstance(rates, Iterable) or isinstance(rates, (str, Mapping)) or not len(rates):
        raise ValueError(f"rates={quoted(rates)}; expected shares from 0 to 1; give a list, such as [0.5]")
    for rate in rates:
        if not 0 <= as_number(rate, "rates holds a share") <= 1:
            raise ValueError(f"rates holds {rate}; expected shares from 0 to 1; give for example 0.5")


def _canvases(
    base: Trace, rows: list[list[int]], inputs: str, rates: Sequence[float], seed: int
) -> tuple[list[list[int]], tuple[str, ...]]:
    """What the model reads, and how to describe it."""
    mask = base.model.family.mask_token_id
    if inputs == "clean":
        return rows, ("prompts as they are",)
    if base.model.family.objective == "autoregressive" or mask is None:
        return rows, ("prompts as they are: an autoregressive model has no mask token",)
    return masked_rows(rows, rates, mask, rng(seed)), (
        f"each prompt with {', '.join(f'{rate:.0%}' for rate in rates)} of its tokens masked",
    )
