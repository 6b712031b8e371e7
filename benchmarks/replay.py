"""What replayed steps cost on a GPU, and whether they equal eager ones: `python -m benchmarks.replay [--check]`."""

from __future__ import annotations

import itertools
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dlens
from benchmarks.cuda import peak_bytes
from benchmarks.models import MASK, pair
from benchmarks.rows import Row, publish
from benchmarks.shapes import llada_like
from benchmarks.timing import interleaved

__all__ = ["main", "published", "random_chain"]

NAME = "LLaDA-8B's shape"
SKIPPED = (3, 4, 5, 6, 7, 8)
BUDGETS = {
    (1, "all four measures"): 0.85,
    (1, "Cosine"): 0.78,
    (1, "skip 6 of 32"): 0.65,
    (4, "all four measures"): 1.02,
    (4, "Cosine"): 1.0,
    (4, "skip 6 of 32"): 0.84,
}


def main(
    rounds: int = 7,
    steps: int = 32,
    json: Path | None = None,
    device: str = "cuda",
    layers: int = 32,
    width: int = 512,
    check: bool = False,
    chains: int = 50,
) -> None:
    """Measure or check, print a table, and say which budgets hold.

    Args:
        rounds: how often a denoising run is timed.
        steps: of a denoising run.
        json: where to write the same as JSON.
        device: where it runs.
        layers: blocks of the large model; fewer for a trial.
        width: positions of the large model.
        check: compare replayed with eager runs, in place of timing them.
        chains: random chains of operations to compare on the trio; a fifth as many at the large shape.
    """
    trio = dlens.load("trio/diffusion", device_map=device)
    model, plain = pair(llada_like(device, layers))
    if check:
        cases = [(trio, "trio", chains, 64), (model, NAME, max(1, chains // 5), width)]
        rows = (row for edits in (True, False) for case in cases for row in _checked(*case, edits))
    else:
        rows = itertools.chain(_large(model, plain, rounds, steps, width), _small(trio, rounds, steps))
    options = {"rounds": rounds, "steps": steps, "layers": layers, "width": width, "check": check, "chains": chains}
    publish(rows, json, "benchmarks.replay", device, **options)


def published(module: torch.nn.Module, ids: Tensor, new: int, steps: int, block: int = 32) -> Tensor:
    """LLaDA's published loop, watching nothing: arXiv:2502.09992, algorithm 5, as its `generate.py` computes it."""
    canvas = torch.full((len(ids), ids.shape[1] + new), MASK, device=ids.device)
    canvas[:, : ids.shape[1]] = ids
    in_block = steps // (new // block)
    for start in range(ids.shape[1], canvas.shape[1], block):
        masks = (canvas[:, start : start + block] == MASK).sum(1, keepdim=True)
        counts = torch.zeros(len(ids), in_block, dtype=torch.long, device=ids.device) + masks // in_block
        for row, more in enumerate((masks % in_block)[:, 0].tolist()):
            counts[row, :more] += 1
        for step in range(in_block):
            masked = canvas == MASK
            logits = module(canvas).logits
            best = logits.argmax(-1)
            confidence = logits.to(torch.float64).softmax(-1).gather(-1, best[..., None])[..., 0]
            confidence[:, start + block :] = -torch.inf
            confidence = torch.where(masked, confidence, -torch.inf)
            chosen = torch.zeros_like(masked)
            for row in range(len(ids)):
                chosen[row, confidence[row].topk(k=int(counts[row, step])).indices] = True
            canvas[chosen] = torch.where(masked, best, canvas)[chosen]
    return canvas


def random_chain(model: dlens.Model, source: random.Random, edits: bool) -> dlens.Trace:
    """A chain of one to four operations that can be played, and measures; without edits it can be recorded at once."""
    chain, layers = dlens.trace(model), range(model.n_layers)
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(source.randrange(2**31)))
    steps: Any = source.choice([None, None, "early", "late"])
    tokens = source.choice(["all", "masked", "decoded", "prompt"])
    one, two = source.sample(layers, 2)
    changes: list[Callable[[dlens.Trace], dlens.Trace]] = [
        lambda t: t.skip([one], steps=steps),
        lambda t: t.skip([one], part=source.choice(["attn", "mlp"]), steps=steps),
        lambda t: t.swap(one, two, steps=steps),
        lambda t: t.repeat(one, 2, steps=steps),
        lambda t: t.ablate(one, [1, 5], tokens=tokens, steps=steps),
        lambda t: t.ablate(one, at="z", heads=[0], steps=steps),
        lambda t: t.ablate_outlier(steps=steps),
        lambda t: t.steer(vector, layers=two, scale=2.0, tokens=tokens, steps=steps),
        lambda t: t.steer(vector, layers=two, noise=(0.3, 0.8)),
        lambda t: t.knockout([one], source="masked", target="prompt", steps=steps),
    ]
    for change in source.sample(changes if edits else changes[:4], source.randint(1, 4)):
        try:
            chain = change(chain)
        except ValueError:  # two of them contradict each other
            continue
    measures = [dlens.Cosine(), dlens.CKA(), dlens.Recency(), dlens.Outliers(), dlens.Norms()]
    return chain.measure(*source.sample(measures, source.randint(1, 3)))


def _checked(model: dlens.Model, name: str, chains: int, width: int, edits: bool) -> Iterator[Row]:
    """How many of random runs are the same to the bit, and by how much the others differ.

    Without edits the second run of a chain is the one that is compared: what was recorded once is recorded at once.
    """
    source = random.Random(0)
    same = played = all_played = 0
    largest = usual = 0.0
    tried = 0
    for number in itertools.count():
        if tried == chains:
            break
        new, batch = width // 2, source.choice([1, 1, 2, 4])
        sampler = source.choice(
            [
                dlens.samplers.LLaDA(steps=16, block_length=new // 2),
                dlens.samplers.LLaDA(steps=16, block_length=new, guidance=1.0),
                dlens.samplers.LLaDA(steps=16, block_length=new, temperature=0.7),
                dlens.samplers.Dream(steps=16, temperature=0.3),
                dlens.samplers.Threshold(threshold=0.5, block_length=new),
            ]
        )
        draw = torch.Generator().manual_seed(number)
        rows = [
            torch.randint(8, 4000, (width - new - source.choice([0, 0, 3]) * row,), generator=draw).tolist()
            for row in range(batch)
        ]
        chain = random_chain(model, source, edits)
        try:
            policies: list[Any] = ["off", *["auto"] * (1 if edits else 2), "off"]
            runs = [
                chain.generate(rows, new, sampler=sampler, seed=number, progress=False, replay=replay)
                for replay in policies
            ]
        except (ValueError, dlens.NeverFired) as error:  # what contradicts itself, or finds nothing to act on
            print(f"{name}, chain {number}: not run, {str(error)[:100]}")
            continue
        tried += 1
        difference, again = (_difference(runs[0], run) for run in runs[-2:])
        largest, usual = max(largest, difference), max(usual, again)
        same += difference == 0
        notes, n_steps = " ".join(runs[-2].notes), runs[-2].n_steps
        of = re.search(r"(\d+) of \d+ steps were played", notes)
        now = 0 if of is None else int(of[1])
        played, all_played = played + (now > 0), all_played + (now == n_steps)
        if difference > 1e-12 or not now:
            print(
                f"{name}, chain {number}: {difference:.3g} (eager again {again:.3g}), {batch} rows, {sampler}, {notes}"
            )
            print("   ", str(chain).replace("\n", ";"))
    kind = "" if edits else ", recorded at once"
    runs_of = f"random runs, of {tried}{kind},"
    yield Row(f"{runs_of} that are equal to the bit", name, same, unit="runs")
    yield Row(f"{runs_of} in which steps were played", name, played, unit="runs")
    if not edits:
        yield Row(f"{runs_of} in which every step was played", name, all_played, unit="runs")
    scale = f"largest difference of a value from eager, relative to its scale{kind}"
    yield Row(scale, name, 1e15 * largest, unit="x 1e-15")
    yield Row(f"the same of eager runs from each other{kind}", name, 1e15 * usual, unit="x 1e-15")


def _difference(a: dlens.Record, b: dlens.Record) -> float:
    """The largest difference of tokens (1) or measured numbers, relative to the largest of their kind."""
    assert a.canvas is not None and b.canvas is not None
    if not torch.equal(a.tokens, b.tokens) or not torch.equal(a.canvas, b.canvas):
        return 1.0
    found = 0.0
    for key, dataset in a.measures.items():
        for name, values in dataset.data_vars.items():
            one, two = (torch.from_numpy(v.values).double() for v in (values, b.measures[key][name]))
            both = ~(one.isnan() & two.isnan())
            scale = one[both].abs().nan_to_num().max() if both.any() else torch.tensor(1.0)
            if both.any():
                found = max(found, float((one - two)[both].abs().max() / scale.clamp(min=1e-12)))
    return found


def _large(model: dlens.Model, plain: dlens.Model, rounds: int, steps: int, width: int) -> Iterator[Row]:
    four = [dlens.Cosine(), dlens.CKA(), dlens.Recency(), dlens.Outliers()]
    trace = dlens.trace(model)
    chains = {
        "no operation": trace,
        "Cosine": trace.measure(four[0]),
        "all four measures": trace.measure(*four),
        "skip 6 of 32": trace.skip(SKIPPED),
    }
    new = width // 2
    sampler = dlens.samplers.LLaDA(steps=steps, block_length=32)
    for batch in (1, 4):
        ids = torch.randint(8, model.vocab_size, (batch, new), device=model.device)

        def run(chain: dlens.Trace, replay: str = "auto", ids: Tensor = ids) -> Callable[[], object]:
            return lambda: chain.generate(ids, new, sampler=sampler, progress=False, replay=replay)  # pyright: ignore

        def loop(ids: Tensor = ids) -> Tensor:
            with torch.no_grad():
                return published(plain.module, ids, new, steps)

        cases: dict[str, Callable[[], object]] = {"the published loop": loop}
        cases |= {what: run(chain) for what, chain in chains.items()}
        cases |= {f"{what}, eager": run(chain, "off") for what, chain in chains.items()}
        timings = interleaved(cases, rounds)
        rows = "1 row" if batch == 1 else f"{batch} rows"
        for what in cases:
            if what != "the published loop":
                ratio = timings.ratio(what, "the published loop")
                yield Row.of(f"{rows}: {what} / the published loop", NAME, ratio, BUDGETS.get((batch, what)))
        extra = (peak_bytes(cases["all four measures"]) - peak_bytes(cases["all four measures, eager"])) / 2**30
        yield Row(f"{rows}: memory of all four measures, above eager", NAME, extra, 1.0, unit="GiB")
        if ids.is_cuda:
            waits = _waits(chains["all four measures"], ids, new)
            yield Row(f"{rows}: a further step waits for the GPU", NAME, waits, 0.0, unit="times")


def _waits(chain: dlens.Trace, ids: Tensor, new: int) -> float:
    """How often a further step waits for what the GPU computes: that of 64 steps less that of 32, a step."""
    found = []
    for steps in (32, 64):
        sampler = dlens.samplers.LLaDA(steps=steps, block_length=32)
        chain.generate(ids, new, sampler=sampler, progress=False)
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                chain.generate(ids, new, sampler=sampler, progress=False)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found.append(sum("synchronizing" in str(wait.message) for wait in waits))
    return (found[1] - found[0]) / 32


def _small(model: dlens.Model, rounds: int, steps: int) -> Iterator[Row]:
    chain = dlens.trace(model).measure(dlens.Cosine(), dlens.CKA(), dlens.Recency(), dlens.Outliers())
    for batch, budget in ((1, 0.25), (16, 0.35)):
        ids = torch.randint(8, model.vocab_size, (batch, 64), device=model.device)

        def run(replay: str, steps: int = steps, ids: Tensor = ids) -> Callable[[], object]:
            sampler = dlens.samplers.LLaDA(steps=steps, block_length=64)
            return lambda: chain.generate(ids, 64, sampler=sampler, progress=False, replay=replay)  # pyright: ignore

        cases = {"replayed": run("auto"), "eager": run("off"), "both": run("auto", 64), "eager 64": run("off", 64)}
        timings = interleaved(cases, rounds)
        rows = "1 row" if batch == 1 else f"{batch} rows"
        yield Row.of(
            f"{rows}: a run of {steps} steps, all four measures, replayed / eager",
            "trio",
            timings.ratio("replayed", "eager"),
        )
        long, short = (sorted(timings.seconds[name])[rounds // 2] for name in ("both", "replayed"))
        slow, base = (sorted(timings.seconds[name])[rounds // 2] for name in ("eager 64", "eager"))
        yield Row(
            f"{rows}: a further step, all four measures, replayed / eager",
            "trio",
            (long - short) / (slow - base),
            budget,
        )
        yield Row(f"{rows}: a further step, replayed", "trio", 1000 * (long - short) / (64 - steps), unit="ms")


if __name__ == "__main__":
    import tyro

    sys.exit(tyro.cli(main))
