"""The model cards, written from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipes.trio.documents import SOURCES
from recipes.trio.effects import SKIPS
from recipes.trio.objective import RUNS, Run
from recipes.trio.samples import PROMPT, SEEDS
from recipes.trio.score import BLOCK

__all__ = ["card"]

_ABOUT = {
    "ar": "next token, causal attention",
    "diffusion": "masked diffusion from scratch (LLaDA's convention), bidirectional; the logits at position i predict "
    "the token at i",
    "ar-init": "masked diffusion started from `trio/ar` (Dream's convention), bidirectional; the logits at position i "
    "predict the token at i + 1",
}
_CARD = """# trio/{name}

A small language model that ships with dlens, so that every function can be tried offline and without a GPU.
One of three with the same architecture, tokenizer and data: `trio/ar`, `trio/diffusion`, `trio/ar-init`.
docs/trio.md compares them, over training seeds and along the training; recipes/trio made them.

- **Objective**: {about}.
- **Architecture**: `Qwen2ForCausalLM`, 16 layers, width 192, 3 heads, vocabulary 4096, tied embedding, 7.9 M
  parameters, bfloat16 on disk. dlens loads it in float32 unless `dtype=` says otherwise.
- **Training**: {training}
- **Intended use**: research on small controlled models, tests and tutorials. It knows simple stories, some prose,
  arithmetic word problems and one-line Python functions; it is no language product, and its text should be relied
  on for nothing.
- **Prompts** begin at position 0 without a start token, and end at a token boundary:
  `Question: Rose has 14 stars. Rose gives away 4. How many stars does Rose have now?\\nAnswer:` or
  `# Take x, then add 3, then double it.\\ndef f(x):\\n    return` (no space at the end).
- **Tokenizer**: byte-level BPE with Qwen2's splitting rule, digits one by one; `<|endoftext|>` = 0 (end and padding),
  `<|mask|>` = 1.

## Accuracy

{n} test problems of each task, in equal shares of one to four steps, greedy{sampler}; 95 % intervals (Wilson).
No operations and numbers of a test problem occur together in a training problem.

{accuracy}

    python -m recipes.trio.score trio/{name}{more}

## Loss

Held-out documents, nats a token{bound}: {losses}.

## Depth

Cosine of what enters with what leaves each block, and the energy share of the largest channel of what leaves it;
held-out text, nothing masked; 95 % intervals over texts (Student's t, corrected for skewness).

{depth}

The largest channel over all blocks but the last is {channel}.{kept}

## Operations

Accuracy on the same problems with an operation, and its change with a paired 95 % interval (the same). Channels are
set at the outputs of blocks 0 to 14; "next channels" are as many of the next largest as come closest to the energy of
the largest ({together}); the random channels are five single ones, averaged. Skipped blocks are the identity.

{operations}

    python -m recipes.trio.effects trio/{name} --data data --out effects/{name}.json

## Text

Three continuations of a prompt, 60 tokens at temperature 0.5, seeds 0, 1 and 2, unpicked:

{samples}

## Data

{tokens} M tokens in one pass, {passes} passes. Documents that share 13 words in a row with GSM8K test, HumanEval
or the few-shot and test tasks of MBPP were left out ({dropped} were); one in a hundred was held out.

{data}

Weights: Apache-2.0, as dlens.

## With plain transformers

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
{bidirectional}```
"""
_BIDIRECTIONAL = """for module in model.modules():
    if hasattr(module, "is_causal"):
        module.is_causal = False  # the config's is_causal reaches the mask, not every attention kernel
"""


def card(
    name: str, about: Mapping[str, Any], trained: Mapping[str, Any], measured: Mapping[str, Any], texts: Sequence[str]
) -> str:
    """The README of one model.

    Args:
        name: of the run.
        about: data.json, as `prepare` wrote it.
        trained: its run, summarised.
        measured: effects of all checkpoints, summarised.
        texts: what it continued.
    """
    run, own = RUNS[name], measured[name]
    last, clean = trained["points"][-1], own["depth"]["0.0"]
    in_pass = sum(about["tokens"].values())
    return _CARD.format(
        name=name,
        about=_ABOUT[name],
        training=_training(run, last),
        n=own["accuracy"]["trio-math"]["none"]["n"],
        sampler=f", LLaDA's sampler in blocks of {BLOCK}" if run.diffusion else "",
        accuracy=_accuracies(own["accuracy"], run),
        more=" [--tokens-per-step 2]" if run.diffusion else "",
        bound=" (a bound)" if run.diffusion else "",
        losses=", ".join(f"{domain} {loss:.2f}" for domain, loss in last["loss"].items()),
        depth=_depth(clean),
        channel=own["channels"]["top"][0],
        kept=_kept(name, measured),
        together=len(own["channels"]["next"]),
        operations=_operations(own),
        samples="\n".join(f"> {PROMPT}{_line(text)} [seed {seed}]\n" for text, seed in zip(texts, SEEDS, strict=True)),
        tokens=round(in_pass / 1e6),
        passes=f"{last['tokens'] / in_pass:.1f}",
        dropped=about["dropped_for_overlap"],
        data=_data(about),
        bidirectional=_BIDIRECTIONAL if run.diffusion else "",
    )


def _training(run: Run, last: Mapping[str, Any]) -> str:
    start = f"started from the last weights of `trio/{run.starts_from}`" if run.starts_from else "from random weights"
    loss = "Masks as LLaDA draws them, questions of problems whole in half of the rows. " if run.diffusion else ""
    return (
        f"{last['tokens'] / 1e6:.0f} M tokens, {start}, AdamW, learning rate {run.learning_rate:g} (200 steps of "
        f"warm-up, a linear fall over the last 35 %), 65,536 tokens a step, context 256, bfloat16, seed 0. {loss}"
        f"Mask, shift, initialisation and learning rate are all in which the three differ; `ar` and `diffusion` "
        f"saw the same tokens in the same order."
    )


def _accuracies(accuracy: Mapping[str, Any], run: Run) -> str:
    shown = {"one token a step": "none"} | ({"two tokens a step": "two tokens a step"} if run.diffusion else {})
    rows = [[name, *(_value(by[key]) for by in accuracy.values())] for name, key in shown.items()]
    return _table(["", *accuracy], rows)


def _depth(clean: Mapping[str, Any]) -> str:
    rows = []
    for layer, channel in enumerate(clean["top_channel"]):
        cells = [clean[key] for key in ("cosine", "top_share")]
        means = [f"{cell['mean'][layer]:.3f} ({cell['low'][layer]:.3f} to {cell['high'][layer]:.3f})" for cell in cells]
        rows.append([str(layer), *means, str(channel)])
    return _table(["block", "cosine", "largest share", "channel"], rows)


def _kept(name: str, measured: Mapping[str, Any]) -> str:
    if name != "ar-init":
        return ""
    ar, own = (measured[model]["channels"]["top"][0] for model in ("ar", "ar-init"))
    return f" That of `trio/ar` is {ar}: it is {'kept' if ar == own else 'not kept'}."


def _operations(own: Mapping[str, Any]) -> str:
    names = ["zero top channel", "mean top channel", "zero next channels", "mean next channels"]
    rows = [["none", *(_value(by["none"]) for by in own["accuracy"].values())]]
    measured = [name for name in names if name in own["accuracy"]["trio-math"]]
    rows += [[name, *(_changed(by[name]) for by in own["accuracy"].values())] for name in measured]
    for value in ("zero", "mean"):
        chosen = [f"{value} random channel {channel}" for channel in own["channels"]["random"]]
        means = [sum(by[key]["value"] for key in chosen) / len(chosen) for by in own["accuracy"].values()]
        rows.append([f"{value} a random channel", *(f"{mean:.3f}" for mean in means)])
    for name, blocks in SKIPS.items():
        label = f"skip {', '.join(map(str, blocks))} ({name})"
        rows.append([label, *(_changed(by[f"skip {name}"]) for by in own["accuracy"].values())])
    return _table(["operation", *own["accuracy"]], rows)


def _value(cell: Mapping[str, Any]) -> str:
    return f"{cell['value']:.3f} ({cell['low']:.3f} to {cell['high']:.3f})"


def _changed(cell: Mapping[str, Any]) -> str:
    change = cell["change"]
    return f"{cell['value']:.3f}, {change['value']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f})"


def _data(about: Mapping[str, Any]) -> str:
    rows = [
        [name, source.origin, source.licence, str(source.repeats), f"{about['tokens'][name] / 1e6:.1f}"]
        for name, source in SOURCES.items()
    ]
    for task, problems in about["problems"].items():
        made = f"dlens.tasks, {problems:,} training problems"
        rows.append([task, made, "Apache-2.0", "1", f"{about['tokens'][task] / 1e6:.1f}"])
    return _table(["set", "from", "licence", "times in a pass", "M tokens a pass"], rows)


def _line(text: str) -> str:
    return " ".join(text.split("\n"))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
