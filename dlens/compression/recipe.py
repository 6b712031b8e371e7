"""How a model is to be compressed, as data that is checked when it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, final, get_args

from dlens.checks import as_flag, quoted, require_word
from dlens.compression.methods.method import Method
from dlens.compression.methods.registry import METHODS
from dlens.models.compression import settings_words
from dlens.models.model import Model
from dlens.ops.base.given import as_index, as_number, as_seed

__all__ = ["ALLOCATIONS", "Recipe"]

Named = Literal["uniform", "early-sparser", "late-sparser", "owl", "alpha"]
ALLOCATIONS: tuple[Named, ...] = get_args(Named)
Read = Literal["clean", "masked"]
_HALF_RANGES = {"early-sparser": 0.2, "late-sparser": 0.2, "owl": 0.08, "alpha": 0.15}
_BITS = range(2, 9)


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to compress a model; what `dlens.compress` takes, for `dlens.robustness` to try several.

    Args:
        method: "rtn", "gptq" (they round), "magnitude", "wanda" or "sparsegpt" (they prune).
        bits: for methods that round: a weight has one of 2^bits levels; 2 to 8.
        group: columns of a row that share their levels; None is the whole row.
        symmetric: levels around zero; otherwise from the least to the largest weight.
        act_order: whether "gptq" takes the columns of largest input first, with levels found before; otherwise from
            left to right, as the published code of arXiv 2605.06366.
        sparsity: for methods that prune: the mean share of weights that become zero.
        allocation: how that share is spread: "uniform"; "early-sparser" or "late-sparser", which rise or fall in a
            line over layers (`sparsity` + and - `half_range`, arXiv 2605.06366); "owl", by the share of outliers of
            each matrix (arXiv 2310.05175); "alpha", by the tails of its spectrum (AlphaPruning, arXiv 2410.10912);
            or a share for each layer.
        half_range: how far shares go from the mean: by default 0.2, 0.08 for "owl", 0.15 for "alpha".
        calibration: what methods read that look at inputs: "masked" (the default of a diffusion model: masks as in
            its training) or "clean".
        rows: so many rows of the calibration text, drawn; None is all there is.
        length: tokens a row.
        repeats: how often each row is masked.
        seed: of the rows that are drawn, of the masks, and of the parts of large matrices whose spectra are taken for
            "alpha".
        protect: channels of the stream whose weights stay as they are: the rows that write them and the columns that
            read them; "outlier" is the channel that `ablate_outlier` finds.
        head, embed: whether the unembedding and the embedding are compressed too; the embedding by methods that do
            not look at inputs.

    Examples:
        >>> recipe = Recipe(method="wanda", sparsity=0.5, allocation="early-sparser")
        >>> recipe.how.kind, recipe.spread
        ('sparsity', 0.2)
        >>> import dlens
        >>> model = dlens.load("trio/diffusion")
        >>> recipe.calibration_of(model), recipe.of(model).half_range
        ('masked', 0.2)
    """

    method: str = "gptq"
    bits: int | None = None
    group: int | None = None
    symmetric: bool = True
    act_order: bool = True
    sparsity: float | None = None
    allocation: str | Sequence[float] = "uniform"
    half_range: float | None = None
    calibration: Read | None = None
    rows: int | None = None
    length: int = 128
    repeats: int = 1
    seed: int = 0
    protect: str | Sequence[int] | None = None
    head: bool = False
    embed: bool = False

    def __post_init__(self) -> None:
        require_word("method", self.method, METHODS)
        for name in ("symmetric", "act_order", "head", "embed"):
            object.__setattr__(self, name, as_flag(getattr(self, name), name))
        for name in ("rows", "length", "repeats", "group"):
            object.__setattr__(self, name, _count(getattr(self, name), name, name in ("rows", "group")))
        object.__setattr__(self, "seed", as_seed(self.seed))
        if self.calibration is not None:
            require_word("calibration", self.calibration, get_args(Read))
        self._check_bits() if self.how.kind == "bits" else self._check_sparsity()
        if self.embed and self.how.needs != "nothing":
            raise ValueError(
                f"embed=True with method={self.method!r}, which looks at the inputs of a matrix, and an embedding has "
                f"none; expected 'rtn' or 'magnitude'; leave embed out"
            )

    @property
    def how(self) -> Method:
        """The method."""
        return METHODS[self.method]

    @property
    def words(self) -> str:
        """The settings that matter, in a few words."""
        return settings_words(asdict(self))

    @property
    def reads(self) -> bool:
        """Whether the model runs on calibration text."""
        return self.how.needs != "nothing" or self.allocation == "owl"

    @property
    def spread(self) -> float:
        """How far the shares of zeros go from the mean."""
        named = self.allocation if isinstance(self.allocation, str) else "uniform"
        return _HALF_RANGES.get(named, 0.0) if self.half_range is None else self.half_range

    def calibration_of(self, model: Model) -> Read:
        """What this model reads.

        Raises:
            ValueError: masks, for a model that has none.
        """
        diffusion = model.family.objective == "diffusion"
        if self.calibration == "masked" and not diffusion:
            raise ValueError(
                f"calibration='masked' on {model.name}, which is autoregressive and has no masks; expected 'clean'; "
                f"leave calibration out"
            )
        return self.calibration or ("masked" if diffusion else "clean")

    def of(self, model: Model) -> Recipe:
        """Itself with what it left open.

        Raises:
            ValueError: this model cannot be compressed so.
        """
        if not isinstance(self.allocation, str) and len(self.allocation) != model.n_layers:
            raise ValueError(
                f"allocation of {len(self.allocation)} shares on {model.name}, which has {model.n_layers} layers; "
                f"expected a share for each; give {model.n_layers} numbers, or a word such as 'early-sparser'"
            )
        half_range = self.spread if self.sparsity is not None and self.spread else None
        return replace(self, calibration=self.calibration_of(model), half_range=half_range)

    def _check_bits(self) -> None:
        if self.bits is None or as_index(self.bits, "bits") not in _BITS:
            raise ValueError(
                f"bits={quoted(self.bits)} with method={self.method!r}; expected {_BITS[0]} to {_BITS[-1]}; give bits=3"
            )
        object.__setattr__(self, "bits", as_index(self.bits, "bits"))
        refused = {"sparsity": self.sparsity, "half_range": self.half_range}
        given = [name for name, value in refused.items() if value is not None]
        if given or self.allocation != "uniform":
            raise ValueError(
                f"{(given or ['allocation'])[0]}= with method={self.method!r}, which rounds and does not prune; "
                f"expected bits= alone; compress twice for both: first prune, then round"
            )

    def _check_sparsity(self) -> None:
        if self.bits is not None or self.group is not None or not self.symmetric:
            raise ValueError(
                f"bits=, group= or symmetric= with method={self.method!r}, which prunes and does not round; expected "
                f"sparsity=; compress twice for both: first prune, then round"
            )
        share = None if self.sparsity is None else as_number(self.sparsity, "sparsity")
        if isinstance(self.allocation, str):
            require_word("allocation", self.allocation, ALLOCATIONS, "a share for each layer, or a known word")
        else:
            shares = tuple(as_number(value, "a share of allocation") for value in _listed(self.allocation))
            _refuse_outside(shares, "allocation")
            object.__setattr__(self, "allocation", shares)
            share = sum(shares) / len(shares) if share is None and shares else share
        _refuse_outside((share,), "sparsity")
        object.__setattr__(self, "sparsity", share)
        self._check_half_range()

    def _check_half_range(self) -> None:
        if self.half_range is None:
            return
        half_range = as_number(self.half_range, "half_range")
        if self.allocation not in _HALF_RANGES or not 0 < half_range < 1:
            raise ValueError(
                f"half_range={half_range:g} with allocation={quoted(self.allocation)}; expected a number between 0 and "
                f"1 with one of {', '.join(_HALF_RANGES)}; leave it out, or give 0.2"
            )
        object.__setattr__(self, "half_range", half_range)


def _count(value: Any, what: str, optional: bool) -> int | None:
    if value is None and optional:
        return None
    if as_index(value, what) < 1:
        raise ValueError(f"{what}={value}; expected at least 1; leave it out, or give a larger number")
    return as_index(value, what)


def _listed(values: Any) -> list[Any]:
    try:
        return list(values)
    except TypeError:
        raise ValueError(
            f"allocation={quoted(values)}; expected one of {', '.join(ALLOCATIONS)}, or a share for each layer; give "
            f"'early-sparser', or a list of numbers"
        ) from None


def _refuse_outside(shares: Sequence[float | None], what: str) -> None:
    for share in shares:
        if share is None or not 0 <= share < 1 or (what == "sparsity" and share == 0):
            raise ValueError(
                f"{what} {quoted(share)}; expected a share of weights that become zero, above 0 and below 1; give for "
                f"example 0.5"
            )
