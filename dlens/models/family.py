"""What differs between model families, as data: the one table of differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from dlens.axes import Half, Resid, TokenIds, TokenMask
from dlens.checks import as_flag, check_fields, refuse, require_word, whole

__all__ = ["Family", "Fill", "Inputs", "Layout", "Site", "Zeros", "hidden_in", "hidden_of"]

Objective = Literal["diffusion", "autoregressive"]
End = Literal["input", "output"]
_FLAT = "(batch position) d_model"


@dataclass(frozen=True)
class Site:
    """Where in a block a hook point is read: a module's input or output, or an element of it.

    Args:
        path: module path below the block; "" is the block itself.
        end: "input" (the first argument) or "output".
        index: which element where the module returns a tuple.
        heads: whether it holds all heads, as `spelled` says, and is split into `head` and `d_head`.
        spelled: the axes of what the module has, as an einops pattern; with an axis `part` where one module gives
            queries, keys and values; "(batch position) d_model" where it joins rows and positions.
        part: which of these three.
        scale: what the block multiplies it by before it uses it.

    Examples:
        >>> Site("norm_2", "input").path
        'norm_2'
        >>> site = Site("unembed", heads=True)
        >>> whole = torch.zeros(1, 5, 12)
        >>> heads = site.split(whole, 3)
        >>> heads.shape, site.join(heads, whole).shape
        (torch.Size([1, 5, 3, 4]), torch.Size([1, 5, 12]))
        >>> keys = Site("qkv", heads=True, spelled="batch position (part head d_head)", part=1)
        >>> keys.split(torch.arange(6).reshape(1, 1, 6), 2).flatten().tolist()
        [2, 3]
    """

    path: str
    end: End = "output"
    index: int = 0
    heads: bool = False
    spelled: str = "batch position (head d_head)"
    part: int = 0
    scale: float = 1.0

    def __post_init__(self) -> None:
        as_flag(self.heads, "heads")
        check_fields(self, 'write Site("self_attn.o_proj"), with the path of a module below the block')
        require_word("end", self.end, get_args(End))

    def split(self, value: Tensor, n_heads: int = 1, positions: int | None = None) -> Tensor:
        """What the module has, as the hook point's axes say it; `positions` where rows and positions are joined."""
        if not self.heads:
            value = rearrange(value, f"{_FLAT} -> batch position d_model", position=positions) if self.flat else value
            return value if self.scale == 1 else value * self.scale
        if not self._fused:
            return rearrange(value, f"{self.spelled} -> batch position head d_head", head=n_heads)
        return self._parts(value, n_heads)[self.part]

    def join(self, value: Tensor, whole: Tensor) -> Tensor:
        """A value of the hook point, as the module has it; `whole` is what it had, for the other parts."""
        if not self.heads:
            value = value if self.scale == 1 else value / self.scale
            return value.reshape(whole.shape) if self.flat else value
        if not self._fused:
            return rearrange(value, f"batch position head d_head -> {self.spelled}")
        parts = list(self._parts(whole, value.shape[2]))
        parts[self.part] = value
        return rearrange(parts, f"part batch position head d_head -> {self.spelled}")

    @property
    def flat(self) -> bool:
        """Whether the module joins rows and positions to one axis."""
        return self.spelled == _FLAT

    @property
    def _fused(self) -> bool:
        return "part" in self.spelled.split("(")[-1]

    def _parts(self, value: Tensor, n_heads: int) -> Tensor:
        return rearrange(value, f"{self.spelled} -> part batch position head d_head", part=3, head=n_heads)


@dataclass(frozen=True)
class Fill:
    """One module that does not run when half a block is skipped, and what stands in for its output.

    Args:
        path: module path below the block.
        make: from the block's input and the block, the value that replaces the module's output.

    Examples:
        >>> Fill("attention", make=lambda hidden, block: torch.zeros_like(hidden)).path
        'attention'
    """

    path: str
    make: Callable[[Resid, torch.nn.Module], Any]

    def __post_init__(self) -> None:
        check_fields(self, 'write Fill("mlp", make), with a function of the block\'s input and the block')


@dataclass(frozen=True)
class Zeros:
    """Nothing, in the form in which a module returns what it adds to the stream.

    Args:
        length: of the tuple that it returns, whose other elements become None; None for a bare tensor.
        width: of its last axis, where that is not the stream's.
        flat: whether it joins rows and positions to one axis.

    Examples:
        >>> Zeros(length=2)(torch.ones(1, 2, 3), torch.nn.Identity())
        (tensor([[[0., 0., 0.],
                 [0., 0., 0.]]]), None)
        >>> Zeros(width=4, flat=True)(torch.ones(1, 2, 3), torch.nn.Identity()).shape
        torch.Size([2, 4])
    """

    length: int | None = None
    width: int | None = None
    flat: bool = False

    def __call__(self, hidden: Resid, block: torch.nn.Module) -> Any:
        """What stands in, from the stream that enters the block."""
        batch, position, d_model = hidden.shape
        shape = (batch * position,) if self.flat else (batch, position)
        zeros = hidden.new_zeros(*shape, self.width or d_model)
        return zeros if self.length is None else (zeros, *[None] * (self.length - 1))


@dataclass(frozen=True)
class Layout:
    """Where an architecture keeps its parts and how a block spells its values.

    Args:
        blocks: path of the list of blocks below the root module.
        embed: path of the token embedding.
        norm: path of the final norm; None where there is none.
        head: path of the unembedding; None where the embedding's weight is reused in code.
        sites: hook point -> site, for the points inside a block; one that is absent raises when asked for.
        attn_skip, mlp_skip: the modules that do not run when that half is skipped.
        block_tuple: length of the tuple a block returns, None for a bare tensor.
        absent: hook point -> why it does not exist here, for the error.
        direct: whether its code may call PyTorch's attention itself, and not by the name in its config; the proof at
            load finds out.
        rotary: path, below the block, of a module that rotates queries and keys by their index; None where a forward
            is told the positions.
        reads, writes: the linear modules of a block whose input is the normed stream, and whose output is
            added to it; empty where nobody named them.
        sum_norms: paths of the norms that follow each of the two sums of a block, where they are part of the stream,
            as in BERT.
        width: of the stream, where it is not the embedding's.
        others: index of a block -> its own layout, for blocks that differ from the rest; all have the same points.
        needed: index of a block that cannot be left out -> why, as another one reads what it leaves elsewhere.
        because: part or point -> why it was taken for that, where the layout was found and not given.

    Examples:
        >>> layout = Layout(blocks="layers", embed="tokens", norm="norm", head="unembed", block_tuple=2)
        >>> packed = layout.pack(torch.zeros(1, 4, 8))
        >>> packed[0].shape, packed[1], layout.skips("attn")
        (torch.Size([1, 4, 8]), None, ())
        >>> tuple_less = layout.changed(lambda own: replace(own, block_tuple=None))
        >>> tuple_less.at(3).pack(torch.zeros(1, 4, 8)).shape, len(tuple_less.each)
        (torch.Size([1, 4, 8]), 1)
    """

    blocks: str
    embed: str
    norm: str | None
    head: str | None
    sites: Mapping[str, Site] = field(default_factory=dict)
    attn_skip: tuple[Fill, ...] = ()
    mlp_skip: tuple[Fill, ...] = ()
    block_tuple: int | None = None
    absent: Mapping[str, str] = field(default_factory=dict)
    direct: bool = True
    rotary: str | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    sum_norms: tuple[str, ...] = ()
    width: int | None = None
    others: Mapping[int, Layout] = field(default_factory=dict)
    needed: Mapping[int, str] = field(default_factory=dict)
    because: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        as_flag(self.direct, "direct")
        check_fields(
            self, 'give paths of modules as text, such as Layout("model.layers", "model.embed", "norm", "head")'
        )

    def __str__(self) -> str:
        from dlens.models.layout.words import text

        return text(self)

    def at(self, block: int) -> Layout:
        """The layout of one block."""
        return self.others.get(block, self)

    @property
    def each(self) -> tuple[Layout, ...]:
        """This layout and those of the blocks that differ."""
        return (self, *self.others.values())

    def changed(self, change: Callable[[Layout], Layout]) -> Layout:
        """The same with something changed in the layout of every block."""
        return replace(change(self), others={index: change(other) for index, other in self.others.items()})

    def skips(self, part: Half) -> tuple[Fill, ...]:
        """The modules that do not run when a half is skipped."""
        return self.attn_skip if part == "attn" else self.mlp_skip

    def pack(self, hidden: Resid) -> Any:
        """Spell a residual the way a block of this architecture returns it."""
        if self.block_tuple is None:
            return hidden
        return (hidden, *[None] * (self.block_tuple - 1))


def hidden_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Resid:
    """The stream among the arguments of a block: the first, or `hidden_states` by name."""
    return args[0] if args else kwargs["hidden_states"]


def hidden_of(returned: Any) -> Resid:
    """The stream in what a block returned: all of it, or the first of a tuple."""
    return returned[0] if isinstance(returned, tuple) else returned


def native_inputs(ids: TokenIds, attention_mask: TokenMask | None) -> dict[str, Any]:
    """Arguments of a native decoder: no mask without padding, positions counted from the first token."""
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if attention_mask is not None:
        inputs["attention_mask"] = attention_mask.long()
        inputs["position_ids"] = position_ids(attention_mask)
    return inputs


def position_ids(attention_mask: TokenMask) -> Tensor:
    """Positions counted from each row's first real token; padding gets 1, as transformers does."""
    counted = attention_mask.long().cumsum(-1) - 1
    return counted.masked_fill(~attention_mask, 1)


@dataclass(frozen=True)
class Inputs:
    """Arguments of a module that hang on its family: whose blocks attention is causal between, or the noise.

    A Family that is given one tells it its own block length and mask token.

    Args:
        make: from token ids, a padding mask (None where nothing is padded) and this, the module's keyword arguments.
        block_length: tokens of a canvas block; None is full attention.
        mask_token_id: the mask token.

    Examples:
        >>> family = Family("mine", "diffusion", 0, inputs=Inputs(block_inputs), block_length=2)
        >>> family.inputs(torch.tensor([[5, 6, 7]]), None)["attention_mask"].long().tolist()
        [[[[1, 1, 0], [1, 1, 0], [1, 1, 1]]]]
    """

    make: Callable[[TokenIds, TokenMask | None, Inputs], dict[str, Any]]
    block_length: int | None = None
    mask_token_id: int | None = None

    def __call__(self, ids: TokenIds, attention_mask: TokenMask | None) -> dict[str, Any]:
        """The module's keyword arguments."""
        return self.make(ids, attention_mask, self)


def block_inputs(ids: TokenIds, attention_mask: TokenMask | None, told: Inputs) -> dict[str, Any]:
    """Arguments of a decoder that takes a mask [batch, 1, query, key] as it is, True where a query sees a key."""
    real = torch.ones_like(ids, dtype=torch.bool) if attention_mask is None else attention_mask
    return {
        "input_ids": ids,
        "attention_mask": block_causal(real, told.block_length),
        "position_ids": position_ids(real),
        "use_cache": False,
    }


def block_causal(real: TokenMask, block_length: int | None) -> Bool[Tensor, "batch 1 query key"]:
    """Which keys a query sees where attention is full within blocks and causal between them.

    Blocks are counted from each row's first real token. A padded query sees all that is real, as one that saw
    nothing would be NaN.

    Args:
        real: [batch, position], what is not padding.
        block_length: tokens a block; None is one block.
    """
    counted = real.long().cumsum(-1) - 1
    block = torch.zeros_like(counted) if block_length is None else counted.div(block_length, rounding_mode="floor")
    block = block.masked_fill(~real, torch.iinfo(torch.long).max)
    return (real[:, None, :] & (block[:, None, :] <= block[:, :, None]))[:, None]


@dataclass(frozen=True, repr=False)
class Family:
    """All that dlens must know of a kind of model.

    Args:
        name: what `dlens.load(..., family=name)` and a checkpoint's `dlens_family` call it.
        objective: "diffusion" or "autoregressive".
        shift: the logits at position i - shift predict the token at i (0 or 1).
        layout: where the parts are; None looks it up by the config's model type.
        mask_token_id: the mask token; None reads it from the config or the tokenizer.
        model_types: values of `config.model_type` that select this family by themselves.
        inputs: builds the module's keyword arguments from token ids and a padding mask
            (None where nothing is padded); an `Inputs` where they hang on block length or mask token.
        end_token_ids: end-of-turn tokens beside the tokenizer's end of sequence.
        block_length: tokens of a canvas block, counted from a row's first real token, where attention is full within
            blocks and causal between them; None is attention over the whole canvas. A native decoder gets a mask that
            makes it so.

    Examples:
        >>> import dlens
        >>> family = dlens.load("trio/diffusion").family
        >>> family.name, family.objective, family.shift, family.causal
        ('masked', 'diffusion', 0, False)
        >>> family
        Family 'masked': diffusion, shift 0, mask token 1, blocks at 'model.layers'
    """

    name: str
    objective: Objective
    shift: Literal[0, 1]
    layout: Layout | None = None
    mask_token_id: int | None = None
    model_types: tuple[str, ...] = ()
    inputs: Callable[[TokenIds, TokenMask | None], dict[str, Any]] = native_inputs
    end_token_ids: tuple[int, ...] = ()
    block_length: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "write Family(name, objective, shift, layout), the others by name")
        self._tell_inputs()
        if not isinstance(self.layout, Layout | None):
            refuse(
                "layout",
                self.layout,
                "a dlens.Layout, or None where the module's kind says it",
                "make one, or leave it out",
            )
        require_word("objective", self.objective, get_args(Objective))
        shifts = (1,) if self.objective == "autoregressive" else (0, 1)
        if whole(self.shift) not in shifts:
            raise ValueError(
                f"shift {self.shift!r} of {self.objective} family {self.name!r}; expected "
                f"{' or '.join(map(str, shifts))}, as the logits at position i - shift predict "
                f"the token at i; set shift={shifts[-1]}"
            )

    def _tell_inputs(self) -> None:
        """Let the inputs know the block length and the mask token, whenever one of them is given anew.

        Raises:
            ValueError: a block length that means nothing here.
        """
        length, given = self.block_length, self.inputs
        if length is not None and (self.objective != "diffusion" or whole(length) is None or length < 1):
            refuse(
                "block_length",
                length,
                "a whole number, 1 or more, of a diffusion family",
                "leave it out where attention sees the whole canvas",
            )
        if given is native_inputs and length is not None:
            given = Inputs(block_inputs)
        if isinstance(given, Inputs):
            object.__setattr__(self, "inputs", replace(given, block_length=length, mask_token_id=self.mask_token_id))

    def __repr__(self) -> str:
        mask = "" if self.mask_token_id is None else f", mask token {self.mask_token_id}"
        blocks = "" if self.layout is None else f", blocks at {self.layout.blocks!r}"
        causal = "" if self.block_length is None else f", causal between canvas blocks of {self.block_length}"
        return f"Family {self.name!r}: {self.objective}, shift {self.shift}{mask}{causal}{blocks}"

    @property
    def causal(self) -> bool:
        """Whether a position is hidden from those before it."""
        return self.objective == "autoregressive"
