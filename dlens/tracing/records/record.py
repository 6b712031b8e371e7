"""What a run leaves behind: tokens, captured tensors, measures, costs, and the plan that made it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from dlens.axes import TokenIds, TokenMask
from dlens.ops.base.target import RunKind
from dlens.tracing.records.captured import Captured, Held
from dlens.tracing.records.measured import Measures

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

__all__ = ["Flops", "Record", "versions"]

_PACKAGES = ("dlens", "torch", "transformers", "nnsight")


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of a run, and of the same run without operations."""

    run: int
    plain: int


@final
@dataclass(frozen=True, eq=False)
class Record:
    """The result of `trace.forward` or `trace.generate`; readable without the model.

    Args:
        kind: "forward", "denoising" or "decoding".
        model: name of the model.
        family: name of its family.
        n_layers: its depth.
        tokens: [batch, position], prompt and continuation, left-padded.
        is_pad: [batch, position], padding, and in AR decoding what follows a row's end.
        is_prompt: [batch, position], the prompt's real tokens.
        text: per row the continuation; empty for a forward or without a tokenizer.
        canvas: [step, batch, position], what went into each step; None for AR models.
        committed_at: [batch, position], the step of the last change; -1 for prompt, padding, never.
        step_of_position: [computed], the step that first computed each position but the last: 0 for the prompt, then
            one position a step; AR only.
        n_steps: steps that ran.
        planned_steps: steps that were planned.
        captured: hook point -> tensor with its axes; read as `record[name]`. Of AR decoding, `layer batch position
            d_model` without `step`: each position is from the step that first computed it, see `step_of_position`.
        measures: key -> `xarray.Dataset`.
        plan: the operations with all that was found when the run started, one mapping each.
        settings: sampler, seed and so on.
        notes: what the run did differently from what one may expect.
        unfired: operations whose steps never came, as the run ended early.
        seconds: wall-clock time of the run.
        versions: of dlens and of the libraries below it.
        differentiated: hook point -> gradient with its axes; read as `record.gradients[name]`.
        metric: what gradients are of: [batch], or [step, batch] of a generation; NaN where none was taken.
        computed: [step, batch, position], which positions each step computed, of a denoising run with a cache; None
            where each computed all. Captured tensors are NaN at the others.
        count_flops, read_pieces, memo: how `flops` and `pieces` are found when first asked for.

    Examples:
        >>> import dlens, tempfile
        >>> trace = dlens.trace("trio/diffusion").capture("resid_post", layers=[0, 8]).measure(dlens.Cosine())
        >>> record = trace.generate("Once upon a time", 4)
        >>> record.kind, record.n_steps, record.canvas.shape, list(record.measures)
        ('denoising', 4, torch.Size([4, 1, 8]), ['cosine'])
        >>> record["blocks.8.hook_resid_post"].shape, record.dims("blocks.8.hook_resid_post")
        (torch.Size([4, 1, 8, 192]), ('step', 'batch', 'position', 'd_model'))
        >>> record.coords("resid_post")["layer"], record.flops > 0, record.saved_flops
        ([0, 8], True, 0)
        >>> record.to_xarray()["resid_post"].sel(step=2, layer=8).dims
        ('batch', 'position', 'd_model')
        >>> folder = tempfile.mkdtemp()
        >>> record.save(folder)
        >>> dlens.load_record(folder).text == record.text
        True
    """

    kind: RunKind
    model: str
    family: str
    n_layers: int
    tokens: TokenIds
    is_pad: TokenMask
    is_prompt: TokenMask
    text: list[str]
    canvas: Int[Tensor, "step batch position"] | None
    committed_at: TokenIds
    step_of_position: Int[Tensor, " computed"] | None
    n_steps: int
    planned_steps: int
    captured: Mapping[str, Captured]
    measures: dict[str, xr.Dataset]
    plan: tuple[dict[str, Any], ...]
    settings: dict[str, Any]
    notes: tuple[str, ...]
    unfired: tuple[str, ...]
    seconds: float
    versions: dict[str, str]
    differentiated: Mapping[str, Captured] = field(default_factory=dict)
    metric: Tensor | None = None
    computed: Bool[Tensor, "step batch position"] | None = None
    count_flops: Callable[[], Flops] | None = None
    read_pieces: Callable[[], dict[int, str]] | None = None
    memo: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "measures", Measures(self.measures))

    def __getitem__(self, name: str) -> Tensor:
        """A captured tensor, on the CPU, in the model's type.

        Args:
            name: as captured, a short form or a full hook name; a full name also picks one layer
                of a short form that was captured.

        Raises:
            KeyError: it was not captured.
        """
        return self._held[name]

    @property
    def _held(self) -> Held:
        return Held(self.captured, self.n_layers, len(self.tokens), "capture")

    @property
    def gradients(self) -> Held:
        """Hook point -> d metric / d value, with the axes of a capture."""
        return Held(self.differentiated, self.n_layers, len(self.tokens), "gradient")

    def __contains__(self, name: object) -> bool:
        """Whether a tensor was captured, under a name that `record[name]` takes."""
        return name in self._held

    def __iter__(self) -> Iterator[str]:
        """The names of what was captured."""
        return iter(self.captured)

    def dims(self, name: str) -> tuple[str, ...]:
        """The axis names of a captured tensor."""
        return self._held.dims(name)

    def coords(self, name: str) -> dict[str, list[int]]:
        """The layers, steps and positions that a captured tensor holds, axis by axis."""
        return self._held.coords(name)

    @property
    def flops(self) -> int:
        """Floating-point operations of the run, counted when first asked for.

        Raises:
            NotImplementedError: something ran whose operations cannot be counted; the message names it.
            ValueError: a saved record that was not counted, or the model was changed after the run.
        """
        return self._counted().run

    @property
    def saved_flops(self) -> int:
        """What the operations saved against the same run without them."""
        counted = self._counted()
        return counted.plain - counted.run

    def _counted(self) -> Flops:
        if "flops" not in self.memo:
            if self.count_flops is None:
                raise ValueError(
                    "this record has no count of FLOPs and no model to count with; expected a record of a live run, or "
                    "one saved after .flops was read; run the trace again"
                )
            self.memo["flops"] = self.count_flops()
        return self.memo["flops"]

    def counted(self) -> Flops | None:
        """Both counts; None where they cannot be had.

        Examples:
            >>> import dlens
            >>> record = dlens.trace("trio/ar").skip([3]).forward("Once upon a time")
            >>> record.counted().plain - record.counted().run == record.saved_flops
            True
        """
        try:
            return self._counted()
        except (NotImplementedError, ValueError):
            return None

    def __getstate__(self) -> dict[str, Any]:
        """All of it without the model: what is found when first asked for is found now, as in `save`."""
        known = {"flops": self.counted(), "pieces": dict(self.pieces)}
        memo = {key: value for key, value in known.items() if value is not None}
        return vars(self) | {"count_flops": None, "read_pieces": None, "memo": memo}

    @property
    def pieces(self) -> Mapping[int, str]:
        """Token id -> its text, of every id in the record, read when first asked for; empty without a tokenizer."""
        if "pieces" not in self.memo:
            self.memo["pieces"] = {} if self.read_pieces is None else self.read_pieces()
        return self.memo["pieces"]

    def to_xarray(self) -> xr.Dataset:
        """The tokens and captured tensors as one `xarray.Dataset`, for selection by name.

        bfloat16 becomes float32, which xarray can hold; what a tensor does not cover (other layers or steps,
        the last position of AR decoding) is NaN.
        """
        import xarray as xr

        positions = {"position": range(self.tokens.shape[-1]), "batch": range(len(self.tokens))}
        arrays = [xr.DataArray(self.tokens.numpy(), dims=("batch", "position"), coords=positions, name="tokens")]
        for name, kept in self.captured.items():
            values = kept.values.float() if kept.values.dtype == torch.bfloat16 else kept.values
            arrays.append(xr.DataArray(values.numpy(), dims=kept.dims, coords=self.coords(name), name=name))
        merged = xr.merge(arrays, join="outer", compat="no_conflicts")
        return merged.assign_attrs(model=self.model, kind=self.kind)

    def save(self, folder: str | Path) -> None:
        """Write the record to a folder: record.json, tensors.safetensors, and each measure as measures/KEY.nc.

        The files of measures are netCDF: `xarray.open_dataset` reads them, and so do other tools. An older record in
        the folder stays until the new one is whole.

        Raises:
            FileExistsError: the folder holds something else.
            OSError: it cannot be written; an older record is as it was.
        """
        from dlens.tracing.records.store import save_record

        save_record(self, folder)

    def __repr__(self) -> str:
        lines = [
            f"Record of {self.kind} with {self.model}: {len(self.tokens)} rows, {self.tokens.shape[-1]} positions, "
            f"{self.n_steps} of {self.planned_steps} steps, {self.seconds:.2f} s"
        ]
        # Padding that follows a row's end is not at the left.
        padding, size = int(self.is_pad.int().cumprod(-1).sum()), self.is_pad.numel()
        if padding:
            lines.append(
                f"  left-padded: {padding} of {size} positions are padding, zero in captures; see record.is_pad"
            )
        lines += [f"  captured: {self._held}"] if self.captured else []
        lines += [f"  gradients: {self.gradients}"] if self.differentiated else []
        lines += [f"  measures: {', '.join(self.measures)}"] if self.measures else []
        # A measure is named above, with its key alone.
        lines += [f"  {entry['words']}" for entry in self.plan if entry["op"] != "measure"]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """The installed versions of dlens and of what it runs on."""
    return {package: _version(package) for package in _PACKAGES}
