"""A loaded model: a torch module with the facts that dlens needs of it."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn

from dlens.models.compression import Compression
from dlens.models.family import Family, Layout
from dlens.models.identity import identity, reading
from dlens.models.layout import config
from dlens.models.wrapper import Wrapper, mount_save, unwrap, wrapper_of

if TYPE_CHECKING:
    from nnsight import NNsight

__all__ = ["Model", "Origin"]

_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


@final
@dataclass(frozen=True)
class Origin:
    """How a model was loaded, so that another process can load it again.

    Args:
        source: the name or folder.
        arguments: of `dlens.load`.
    """

    source: str
    arguments: Mapping[str, Any]


@final
@dataclass(frozen=True, eq=False)
class Model:
    """A model as dlens sees it; made by `dlens.load`.

    Args:
        module: the torch module, unchanged.
        tokenizer: its tokenizer, or None.
        family: what kind of model it is, with `layout` and `mask_token_id` filled in.
        name: what it was loaded from, for records and plots.
        honours_padding: whether a padded position is really hidden; where it is not,
            prompts of unequal length run in groups of equal length.
        origin: how `dlens.load` got it by name; None where a module was passed.
        memo: what is worth keeping between runs, such as FLOP counts.
        compression: what `dlens.compress` did to its weights; None where nothing was done.

    Examples:
        >>> import dlens
        >>> model = dlens.load("trio/diffusion")
        >>> model.n_layers, model.d_model, model.n_heads, model.vocab_size, model.n_positions
        (16, 192, 3, 4096, 512)
        >>> model.family.objective, model.device.type, model.dtype
        ('diffusion', 'cpu', torch.float32)
        >>> model
        trio/diffusion: diffusion, 16 layers, d_model 192, float32 on cpu
        >>> before = model.fingerprint()
        >>> record = dlens.trace(model).skip([3]).forward("Once upon a time")
        >>> model.unwrap()
        >>> model.fingerprint() == before
        True
    """

    module: nn.Module
    tokenizer: Any
    family: Family
    name: str
    honours_padding: bool = True
    origin: Origin | None = None
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)
    compression: Compression | None = None

    @property
    def layout(self) -> Layout:
        """Where the parts are."""
        assert self.family.layout is not None
        return self.family.layout

    @property
    def config(self) -> Any:
        """The module's config, of its text part where it has several."""
        return self.module.config.get_text_config()  # pyright: ignore

    @property
    def blocks(self) -> nn.ModuleList:
        """The list of blocks, in the order of their places."""
        blocks = self.module.get_submodule(self.layout.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def embed(self) -> nn.Module:
        """The token embedding."""
        return self.module.get_submodule(self.layout.embed)

    @property
    def _table(self) -> torch.Tensor:
        """The embedding's matrix, whatever it is called; with low-rank additions the first is its own."""
        return next(weight for weight in self.embed.parameters() if weight.ndim == 2)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.layout.width or int(self._table.shape[-1])

    @property
    def n_heads(self) -> int:
        """Number of attention heads of a block; 1 where the config names none."""
        return config.n_heads(self.config) or 1

    @property
    def names_heads(self) -> bool:
        """Whether the config says how many attention heads a block has; that of a model without attention does not."""
        return config.n_heads(self.config) is not None

    @property
    def n_kv_heads(self) -> int:
        """Number of heads of keys and values of a block; fewer than `n_heads` where several share them."""
        return config.n_kv_heads(self.config) or self.n_heads

    @property
    def vocab_size(self) -> int:
        """Number of rows of the embedding: token ids lie below it."""
        return int(self._table.shape[0])

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        hook = vars(self.embed).get("_hf_hook")
        # The weights of an offloaded embedding are elsewhere until it runs.
        moved_to = getattr(hook, "execution_device", None)
        return self._table.device if moved_to is None else torch.device(moved_to)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the residual stream's first tensor."""
        return self._table.dtype

    @property
    def n_positions(self) -> int | None:
        """Longest sequence the model takes; None where its config does not say."""
        return config.n_positions(self.config)

    @property
    def attention_types(self) -> tuple[str, ...]:
        """Per layer the kind of attention, such as "full_attention", or of block where their classes differ."""
        if types := getattr(self.config, "layer_types", None):
            return tuple(types[: self.n_layers])
        classes = tuple(type(block).__name__ for block in self.blocks)
        return classes if len(set(classes)) > 1 else ("full_attention",) * self.n_layers

    @property
    def eos_token_id(self) -> int | None:
        """The end of sequence, of the tokenizer if there is one, else of the config."""
        found = getattr(self.tokenizer, "eos_token_id", None)
        if found is None:
            found = getattr(self.config, "eos_token_id", None)
        return found[0] if isinstance(found, (list, tuple)) else found

    @property
    def pad_token_id(self) -> int:
        """What fills the left of shorter prompts: never the mask token, which would read as a gap to fill."""
        for found in (getattr(self.tokenizer, "pad_token_id", None), self.eos_token_id, 0):
            if found is not None and found < self.vocab_size and found != self.family.mask_token_id:
                return found
        return 1

    @property
    def lock(self) -> threading.RLock:
        """The lock that lets one run at a time use this torch module."""
        with _LOCKS_GUARD:
            return _LOCKS.setdefault(self.module, threading.RLock())

    @property
    def nnsight(self) -> NNsight:
        """nnsight's view of the module, for traces of one's own; with it comes the `.save` of every object."""
        root = self.root
        mount_save()
        return root

    @property
    def root(self) -> NNsight:
        """The same for dlens's own traces; one for each torch module, built when first asked for."""
        with self.lock:
            held = self.memo.get(Wrapper)
            if held is None or not held.serves(self.module):
                held = self.memo[Wrapper] = wrapper_of(self.module)
            return held.root

    def unwrap(self) -> None:
        """Remove nnsight's wrapper from every submodule and restore any forward that stood there before.

        Raises:
            RuntimeError: in a function that a run of this module calls.
        """
        with self.lock:
            unwrap(self.module)
            self.memo.pop(Wrapper, None)

    def save(self, folder: str | Path) -> Path:
        """Write the model to a new folder, for `dlens.load(folder)`: all of it, or nothing.

        Args:
            folder: not there yet, or empty.

        Returns:
            The folder.

        Raises:
            FileExistsError: the folder holds something.
            ValueError: a model that its weights and config do not describe.
            OSError: it cannot be written.

        Examples:
            >>> import dlens
            >>> from tempfile import mkdtemp
            >>> small = dlens.compress("trio/ar", "rtn", bits=4)
            >>> again = dlens.load(small.save(mkdtemp()))
            >>> again.compression == small.compression, again.fingerprint() == small.fingerprint()
            (True, True)
        """
        from dlens.models.saved import save_model

        return save_model(self, folder)

    def fingerprint(self) -> str:
        """The name of what the module computes; see `dlens.models.identity.identity`."""
        return identity(self.module)

    def kept(self, what: str, name: str) -> dict[Any, Any]:
        """What was found before of one kind, for a computation of this name; that of any other name is forgotten.

        Args:
            what: the kind.
            name: all that it depends on beside its key: `identity` of the module, or its `structure`.

        Examples:
            >>> import dlens
            >>> model = dlens.load("trio/ar")
            >>> model.kept("a number", model.fingerprint())["three"] = 3
            >>> model.kept("a number", model.fingerprint()), model.kept("a number", "of another model")
            ({'three': 3}, {})
        """
        held = self.memo.get(what)
        if held is None or held[0] != name:
            held = self.memo[what] = (name, {})
        return held[1]

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        size = f"{self.n_layers} layers, d_model {self.d_model}"
        return f"{self.name}: {self.family.objective}, {size}, {dtype} on {self.device}"

    def __reduce__(self) -> tuple[Any, ...]:
        """As its name and what it computes: whoever unpickles it loads it anew, and checks that it is the same.

        Raises:
            TypeError: it was not loaded by name.
        """
        if self.origin is None:
            raise TypeError(
                f"{self.name} was made of a torch module and cannot be pickled; expected a model that dlens.load got "
                f"by name or folder, which another process loads again; save the module and load it from its folder"
            )
        known = _Pickled(self.name, self.fingerprint(), reading(self), self.family, self.honours_padding)
        return _loaded_again, (self.origin, known)

    def __copy__(self) -> Model:
        """Another name for the same module."""
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        """A model on a copy of the module; nnsight's root must not be copied, as the copy's would act on nothing."""
        return replace(self, module=copy.deepcopy(self.module, memo), memo={})


@final
@dataclass(frozen=True)
class _Pickled:
    """What is pickled of a model, beside its origin.

    Args:
        name: its own.
        fingerprint: what its module computes.
        reading: how it reads and writes text.
        family, honours_padding: as they were.
    """

    name: str
    fingerprint: str
    reading: str
    family: Family
    honours_padding: bool

    def made_of(self, model: Model) -> Model:
        """A model that was loaded anew, with what was changed of the one that was pickled."""
        return replace(model, name=self.name, family=self.family, honours_padding=self.honours_padding)

    def fits(self, model: Model) -> bool:
        """Whether a model is the one that was pickled."""
        return model.fingerprint() == self.fingerprint and reading(model) == self.reading


# Unpickled models of one origin share a module as long as any of them lives.
_AGAIN: weakref.WeakValueDictionary[str, Model] = weakref.WeakValueDictionary()


def _loaded_again(origin: Origin, known: _Pickled) -> Model:
    """A pickled model in the process that reads it.

    Raises:
        ValueError: what loads under its name computes something else than what was pickled, or reads otherwise.
    """
    from dlens.models.load import load

    key = f"{known.fingerprint} {known.reading} {known.name}"
    model = _AGAIN.get(key)
    if model is not None and known.fits(model):
        return model
    model = _AGAIN[key] = known.made_of(load(origin.source, **origin.arguments))
    if not known.fits(model):
        other = "other weights, settings or hooks" if model.fingerprint() != known.fingerprint else "another tokenizer"
        raise ValueError(
            f"{known.name} was pickled with {other} than {origin.source!r} loads with; expected the same; save "
            f"what was changed with save_pretrained, module and tokenizer, and load it from its folder, or pickle it "
            f"unchanged"
        )
    return model
