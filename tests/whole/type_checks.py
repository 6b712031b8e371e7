"""What dlens says of a model, against plain hooks of PyTorch on another one of equal weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import pytest
import torch
from torch import Tensor, nn

import dlens
from dlens.axes import HALVES
from tests.whole.operations import first, hooked, like

__all__ = ["CHECKS", "Subject", "Verdict", "verdict"]

IDS = torch.tensor([[7, 14, 15, 9, 26, 5, 35, 8], [12, 17, 18, 28, 18, 28, 45, 90]])


@final
@dataclass(frozen=True)
class Subject:
    """A model under dlens, and a plain module of equal weights that dlens never saw."""

    model: dlens.Model
    plain: nn.Module

    @property
    def trace(self) -> dlens.Trace:
        return dlens.trace(self.model)

    @property
    def layer(self) -> int:
        """The layer that is left out: the second, or another where others need what that one hands on."""
        return next(layer for layer in (1, 2, 0) if layer not in self.model.layout.needed)

    @property
    def blocks(self) -> Any:
        return self.plain.get_submodule(self.model.layout.blocks)

    def run(self, ids: Tensor = IDS, mask: Tensor | None = None) -> Tensor:
        """The plain module's logits, under whatever hooks stand on it."""
        with torch.no_grad():
            return self.plain(**self.model.family.inputs(ids, mask)).logits

    def exact(self, found: Tensor, expected: Tensor) -> None:
        """To the bit; where experts compute tokens together, up to rounding."""
        if torch.equal(found, expected):
            return
        experts = any(weight.ndim == 3 for weight in self.plain.parameters())
        far = float((found - expected).abs().max() / expected.abs().max())
        assert experts and far < 1e-5, f"off by {far:.1e} of the largest"


def no_op(subject: Subject) -> None:
    subject.exact(subject.trace.capture("logits").forward(IDS)["logits"], subject.run())


def resid_post(subject: Subject) -> None:
    seen: list[Tensor] = []
    hooks = [(block, lambda _m, _a, out: seen.append(first(out).clone())) for block in subject.blocks]
    with hooked(*hooks):
        subject.run()
    subject.exact(subject.trace.capture("resid_post").forward(IDS)["resid_post"], torch.stack(seen))


def _identity(block: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
    return like(out, args[0] if args else kwargs["hidden_states"])


def skip(subject: Subject) -> None:
    handle = subject.blocks[subject.layer].register_forward_hook(_identity, with_kwargs=True)
    expected = subject.run()
    handle.remove()
    assert not torch.equal(expected, subject.run())
    subject.exact(subject.trace.skip([subject.layer]).capture("logits").forward(IDS)["logits"], expected)


def skip_with_generate(subject: Subject) -> None:
    if subject.model.family.objective == "diffusion":
        return
    handle = subject.blocks[subject.layer].register_forward_hook(_identity, with_kwargs=True)
    ids = IDS[:1]
    for _ in range(4):
        ids = torch.cat([ids, subject.run(ids)[:, -1:].argmax(-1)], dim=-1)
    handle.remove()
    try:
        found = subject.trace.skip([subject.layer]).generate(IDS[:1], 4).tokens
    except AttributeError:
        with pytest.raises(AttributeError):  # where the library cannot decode with it either
            subject.plain.generate(IDS[:1], max_new_tokens=4)  # pyright: ignore
        return
    assert torch.equal(found, ids)


def padded(subject: Subject) -> None:
    rows = [IDS[0].tolist(), IDS[1, :5].tolist()]
    found = subject.trace.capture("logits").forward(rows)["logits"]
    for row, ids in enumerate(rows):
        alone = subject.run(torch.tensor([ids]))[0]
        far = float((found[row, -len(ids) :] - alone).abs().max() / alone.abs().max())
        assert far < 1e-3, f"a padded row is off by {far:.1e} of the largest"


def flops(subject: Subject) -> None:
    """At least what the linear modules take; and a skipped block saves what its own take."""
    taken: dict[nn.Module, int] = {}

    def count(part: Any, args: Any, out: Any) -> None:
        taken[part] = taken.get(part, 0) + 2 * first(out).numel() * part.in_features

    linear = [part for part in subject.plain.modules() if isinstance(part, nn.Linear)]
    with hooked(*((part, count) for part in linear)):
        subject.run()
    record = subject.trace.skip([subject.layer]).forward(IDS)
    try:
        total = record.flops + record.saved_flops
    except NotImplementedError:  # of an operation without a formula, which it names
        return
    within = sum(taken.get(part, 0) for part in subject.blocks[subject.layer].modules())
    assert total >= sum(taken.values()), "fewer FLOPs than the linear modules take"
    assert record.saved_flops >= within > 0 or not within, "a block saves fewer FLOPs than its linear modules take"


def halves(subject: Subject) -> None:
    layout = subject.model.layout.at(subject.layer)
    if "attn_out" not in layout.sites or not layout.attn_skip or not layout.mlp_skip:
        return
    for half in HALVES:
        site = layout.sites[f"{half}_out"]
        part = subject.blocks[subject.layer].get_submodule(site.path)

        def zeros(_m: Any, _a: Any, out: Any, index: int = site.index) -> Any:
            if not isinstance(out, tuple):
                return torch.zeros_like(out)
            return (*out[:index], torch.zeros_like(out[index]), *out[index + 1 :])

        with hooked((part, zeros)):
            expected = subject.run()
        found = subject.trace.skip([subject.layer], part=half).capture("logits").forward(IDS)["logits"]
        subject.exact(found, expected)
        assert not torch.equal(expected, subject.run()), f"{half} adds nothing"


def sums(subject: Subject) -> None:
    layout = subject.model.layout
    if "attn_out" not in layout.sites or layout.sum_norms:
        return
    points = [p for p in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post") if p not in layout.absent]
    record = subject.trace.capture(*points).forward(IDS)
    total = record["resid_pre"] + record["attn_out"]
    if "resid_mid" in points:
        assert torch.allclose(total, record["resid_mid"], atol=1e-5 * float(total.abs().max()))
    assert torch.allclose(total + record["mlp_out"], record["resid_post"], atol=1e-5 * float(total.abs().max()))


def inner(subject: Subject) -> None:
    layout = subject.model.layout
    points = [point for point in ("q", "k", "v", "z", "mlp_pre", "mlp_post") if point in layout.sites]
    if "pattern" not in layout.absent and "attn_out" in layout.sites:
        points.append("pattern")
    # Layer by layer, as they may differ in width.
    for layer in range(subject.model.n_layers if points else 0):
        record = subject.trace.capture(*points, layers=layer).forward(IDS)
        for point in points:
            assert record[point].isfinite().all() and record[point].any()
        if "pattern" in points:
            assert (record["pattern"] >= 0).all() and float(record["pattern"].sum(-1).max()) < 1 + 1e-5


CHECKS: dict[str, Callable[[Subject], None]] = {
    "no-op": no_op,
    "resid_post": resid_post,
    "skip": skip,
    "generate": skip_with_generate,
    "padded": padded,
    "FLOPs": flops,
    "halves": halves,
    "sums": sums,
    "inner": inner,
}


@final
@dataclass
class Verdict:
    """What a type turned out to be.

    Args:
        name: the type.
        unmade: why no tiny model of it could be made.
        refused: why it did not load, in dlens's words.
        raw: an error that is not.
        wrong: check -> what was off.
        points: hook points that it has.
        absent: hook points that it lacks, and why.
    """

    name: str
    unmade: str = ""
    refused: str = ""
    raw: str = ""
    wrong: dict[str, str] = field(default_factory=dict)
    points: tuple[str, ...] = ()
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def halves(self) -> bool:
        """Whether both halves of every block were found."""
        return "attn_out" in self.points and "mlp_out" in self.points

    @property
    def faults(self) -> bool:
        """Whether anything is not right."""
        return bool(self.refused or self.raw or self.wrong)

    @property
    def short(self) -> str:
        """Why it was refused, in a few words."""
        return self.refused.split(";")[0].rpartition(": ")[2][:80]


def verdict(name: str, make: Callable[[], nn.Module], family: Any = None) -> Verdict:
    """Load a model under dlens and ask every check of it."""
    found = Verdict(name)
    try:
        module, plain = make(), make()
    except Exception as error:
        found.unmade = f"{type(error).__name__}: {error}".split("\n")[0][:160]
        return found
    try:
        subject = Subject(dlens.load(module, family=family), plain)
    except ValueError as error:
        found.refused = str(error)
        return found
    except Exception as error:
        found.raw = f"{type(error).__name__}: {error}"
        return found
    layout = subject.model.layout
    found.points, found.absent = tuple(layout.sites), dict(layout.absent)
    for check, ask in CHECKS.items():
        try:
            ask(subject)
        except Exception as error:
            found.wrong[check] = f"{type(error).__name__}: {error}".split("\n")[0][:200]
    return found
