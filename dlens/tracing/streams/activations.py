"""Read a stream: rows of activations from disk, a few at a time, without the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dlens.axes import STATES, hook_name
from dlens.checks import as_flag, as_path, quoted, require_word, several
from dlens.ops.base.given import Indices, as_count, as_indices, as_seed
from dlens.ops.base.scope import Scope, StepSpec
from dlens.tracing.planning.streamed import StreamedPoint
from dlens.tracing.streams.header import Header, read_header
from dlens.tracing.streams.places import Places, Rows, joined, picked, rows_of
from dlens.tracing.streams.shard import Shard, read_columns, read_values, shards_in

__all__ = ["Activations", "load_activations"]

# What shuffling mixes at a time.
_POOL_BYTES = 2**27


@dataclass(frozen=True)
class Chosen:
    """Which rows are read.

    Args:
        scope: steps and noise.
        states: by name; None is all.
        prompts: by number; None is all.
    """

    scope: Scope = Scope()
    states: tuple[str, ...] | None = None
    prompts: tuple[int, ...] | None = None

    def mask(self, places: Places, n_steps: int) -> Bool[Tensor, " place"]:
        """Which places are chosen."""
        mask = torch.ones(len(places), dtype=torch.bool)
        if self.scope.steps is not None:
            mask &= torch.isin(places.step, _ints(self.scope.resolve(n_steps)))
        if self.scope.noise is not None:
            low, high = self.scope.noise
            mask &= (places.noise > low) & (places.noise <= high) | ((places.noise == 0) & (low == 0))
        if self.states is not None:
            mask &= torch.isin(places.state, _ints(map(STATES.index, self.states)))
        if self.prompts is not None:
            mask &= torch.isin(places.prompt, _ints(self.prompts))
        return mask


def _ints(numbers: Any) -> Tensor:
    return torch.tensor(sorted(numbers), dtype=torch.int32)


@final
@dataclass(frozen=True, eq=False)
class Activations:
    """Rows of activations in a folder that `Trace.stream` wrote; nothing is read before it is asked for.

    A row is what a hook point had at a layer, at one position of one prompt, at one step. `batches` gives the values
    alone, `rows` and `read` give with them, row by row: prompt (its number), step, layer, position (from the prompt's
    first real token), token (what stood there when the step began), state (0 prompt, 1 masked, 2 decoded) and noise
    (share of masked positions; NaN for AR models). `select` narrows what is read.

    Args:
        folder: where it is.
        header: what its index says.
        shards: its files.
        point: the hook point that is read.
        layers: the layers that are read; none of a point outside of blocks.
        chosen: which rows are read.

    Examples:
        >>> import dlens, tempfile
        >>> folder = tempfile.mkdtemp() + "/kept"
        >>> trace = dlens.trace("trio/diffusion").capture("resid_post", layers=[3, 8])
        >>> kept = trace.stream(["Once upon a time", "The dog"], folder, max_new_tokens=4)
        >>> kept.shape, [batch.shape for batch in kept.batches(64, shuffle=0)]
        ((112, 192), [torch.Size([64, 192]), torch.Size([48, 192])])
        >>> masked = dlens.load_activations(folder).select(layers=8, states="masked", noise=(0.5, 1.0))
        >>> rows = masked.read()
        >>> rows.values.shape, sorted(set(rows.noise.tolist())), rows.layer.unique().tolist()
        (torch.Size([14, 192]), [0.75, 1.0], [8])
        >>> len(masked), next(masked.rows(4)).prompt.tolist()
        (14, [0, 0, 0, 0])
        >>> [[len(rows) for rows in layers] for layers in kept.by_file()]
        [[56, 56]]
    """

    folder: Path
    header: Header
    shards: tuple[Shard, ...]
    point: str | None
    layers: tuple[int, ...]
    chosen: Chosen = Chosen()

    def select(
        self,
        *,
        point: str | None = None,
        layers: Indices = None,
        steps: StepSpec = None,
        states: Any = None,
        noise: tuple[float, float] | None = None,
        prompts: Indices = None,
    ) -> Activations:
        """Some of the rows; what is not named stays as it is.

        Args:
            point: the hook point, where there are several.
            layers: which layers.
            steps: which steps; negative ones and thirds count the planned steps.
            states: "prompt", "masked" or "decoded", or several of them.
            noise: (lo, hi): rows with lo < noise <= hi, 0 included when lo is 0.
            prompts: which prompts, by number, such as slice(0, 100).

        Raises:
            ValueError, IndexError: there is no such point, layer, step, state or prompt.
        """
        own = self if point is None else self._at(point)
        kept = own.layers if layers is None else own._layers(layers)
        scope = own.chosen.scope
        scope = Scope(scope.steps if steps is None else steps, scope.noise if noise is None else noise)
        scope.resolve(self.header.n_steps)
        self._refuse_noise(scope)
        chosen = Chosen(
            scope=scope,
            states=own.chosen.states if states is None else _states(states),
            prompts=own.chosen.prompts if prompts is None else own._prompts(prompts),
        )
        return replace(own, layers=kept, chosen=chosen)

    def _refuse_noise(self, scope: Scope) -> None:
        if scope.noise is not None and not self.header.has_noise:
            raise ValueError(
                f"noise={scope.noise} of a stream of {self.header.model}; expected a diffusion model, as the noise of "
                f"an autoregressive model is undefined; use steps= instead"
            )

    def _at(self, point: str) -> Activations:
        known = {one.point: one for one in self.header.points}
        require_word("point", point, known)
        return replace(self, point=point, layers=known[point].layers)

    def _layers(self, layers: Indices) -> tuple[int, ...]:
        named = as_indices(layers, "layer", self.header.n_layers) or ()
        found = tuple(dict.fromkeys(layer % self.header.n_layers for layer in named))
        if missing := [layer for layer in found if layer not in self.layers]:
            raise IndexError(
                f"layers {missing} of a stream of {self.point}; expected some of {list(self.layers)}; name these, or "
                f"stream the others too"
            )
        return found

    def _prompts(self, prompts: Indices) -> tuple[int, ...]:
        named, n = as_indices(prompts, "prompt", self.header.n_prompts) or (), self.header.n_prompts
        for prompt in named:
            if not -n <= prompt < n:
                raise IndexError(f"prompt {prompt} of a stream; expected {-n} to {n - 1}; give a smaller number")
        return tuple(prompt % n for prompt in named)

    def batches(self, size: int, *, shuffle: int | None = None) -> Iterator[Float[Tensor, "row ..."]]:
        """The values, so many rows at a time; the last batch may be smaller.

        Args:
            size: rows of a batch.
            shuffle: a seed; rows come in an order of its own, drawn among files and mixed within pools of 128 MiB, so
                that memory stays small. None keeps the order of the files: layer after layer in each.
        """
        return (rows.values for rows in self.rows(size, shuffle=shuffle))

    def rows(self, size: int, *, shuffle: int | None = None) -> Iterator[Rows]:
        """The same, with where each row comes from."""
        size = as_count(size, "size")
        seed = None if shuffle is None else as_seed(shuffle)
        self._one_point()
        return self._rows(size, seed)

    def _rows(self, size: int, seed: int | None) -> Iterator[Rows]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        left: list[Rows] = []
        for pool in self._pools(generator):
            n = sum(map(len, pool))
            order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
            start = 0
            while start < n:
                stop = start + size - sum(map(len, left))
                left.append(picked(pool, order[start:stop]))
                start = min(stop, n)
                if sum(map(len, left)) == size:
                    yield joined(left)
                    left = []
        if left:
            yield joined(left)

    def read(self) -> Rows:
        """All rows at once."""
        parts = [part for file in self.by_file() for part in file]
        if not parts:
            raise ValueError(
                f"no row of {self.folder} is chosen; expected one at least; choose other steps, states, noise or "
                f"prompts"
            )
        return joined(parts)

    def by_file(self) -> Iterator[list[Rows]]:
        """File by file the chosen rows, layer by layer: a place is at the same number of each."""
        self._one_point()
        return (parts for shard in self.shards if (parts := self._parts(shard)))

    def __len__(self) -> int:
        places = sum(shard.places for shard in self.shards)
        if self.chosen != Chosen():
            places = sum(int(self.chosen.mask(read_columns(shard), self.header.n_steps).sum()) for shard in self.shards)
        return places * max(1, len(self.layers))

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, and the axes of one."""
        point = self._one_point()
        layer = self.layers[0] if self.layers else None
        return len(self), *read_values(self.shards[0], hook_name(point.point, layer), torch.tensor([0])).shape[1:]

    def _one_point(self) -> StreamedPoint:
        for one in self.header.points:
            if one.point == self.point:
                return one
        names = [one.point for one in self.header.points]
        raise ValueError(
            f"{self.folder} holds {', '.join(names)}; expected one point to read; write .select(point={names[0]!r})"
        )

    def _pools(self, generator: torch.Generator | None) -> Iterator[list[Rows]]:
        """Rows of some files together: of one, or of as many as are mixed at a time."""
        n = len(self.shards)
        order = range(n) if generator is None else torch.randperm(n, generator=generator).tolist()
        pool: list[Rows] = []
        for number in order:
            pool += self._parts(self.shards[number])
            if pool and (generator is None or sum(part.values.nbytes for part in pool) >= _POOL_BYTES):
                yield pool
                # Let go of by everyone before the next one is read.
                pool.clear()
        if pool:
            yield pool

    def _parts(self, shard: Shard) -> list[Rows]:
        """The chosen rows of a file, layer by layer."""
        places = read_columns(shard)
        index = None
        if self.chosen != Chosen():
            index = self.chosen.mask(places, self.header.n_steps).nonzero()[:, 0]
            places = places.at(index)
        assert self.point is not None
        if not len(places):
            return []
        names = {layer: hook_name(self.point, layer) for layer in self.layers} or {-1: hook_name(self.point)}
        return [rows_of(read_values(shard, name, index), layer, places) for layer, name in names.items()]

    def __repr__(self) -> str:
        point = self.point or " and ".join(one.point for one in self.header.points)
        layers = f" of layers {', '.join(map(str, self.layers))}" if self.layers else ""
        rows = f"{len(self)} rows"
        if self.point is not None and self.shards:
            rows += f" {list(self.shape[1:])}"
        of = f"{self.header.model}, {self.header.kind}"
        return f"Activations of {of}: {point}{layers}, {rows} of {self.header.n_prompts} prompts"


def _states(states: Any) -> tuple[str, ...]:
    named = tuple(states) if several(states) else (states,)
    for state in named:
        require_word("states", state, STATES, f"some of {', '.join(STATES)}")
    if not named:
        raise ValueError(f"states={quoted(states)}; expected some of {', '.join(STATES)}; name one at least")
    return named


def load_activations(folder: str | Path, *, partial: bool = False) -> Activations:
    """Read the rows that `Trace.stream` wrote; no model is needed.

    Args:
        folder: the folder.
        partial: take a stream that is not finished as far as it came.

    Raises:
        FileNotFoundError: it is not the folder of a stream.
        ValueError: a file is damaged, or the stream is not finished.

    Examples:
        >>> import dlens, tempfile
        >>> folder = tempfile.mkdtemp() + "/kept"
        >>> kept = dlens.trace("trio/ar").capture("z", layers=3).stream(["Once upon a time"], folder)
        >>> dlens.load_activations(folder).shape
        (4, 3, 64)
    """
    as_flag(partial, "partial")
    folder = as_path(folder, "folder")
    header = read_header(folder)
    shards = tuple(shards_in(folder, header.stream))
    if not (header.complete or partial) or not shards:
        prompts = f"after batch {shards[-1].mark.batch}" if shards else "before its first file"
        raise ValueError(
            f"{folder} holds a stream that ended {prompts}; expected a finished one; stream again, which goes on where "
            f"it ended, or pass partial=True for the files that are there"
        )
    one = header.points[0] if len(header.points) == 1 else None
    return Activations(folder, header, shards, one and one.point, () if one is None else one.layers)
