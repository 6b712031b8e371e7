"""Train the autoencoder of trio/diffusion: `python -m recipes.features.train train.jsonl.gz valid.jsonl.gz`.

Writes dlens/features/trio/diffusion, with a README.md that says what it is and how good.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro

import dlens
from dlens.features.load_sae import SHIPPED
from recipes.trio.documents import SOURCES, read_documents

__all__ = ["rows_of", "texts_of", "train"]

MODEL, LAYER = "trio/diffusion", 8
SITE = f"blocks.{LAYER}.hook_resid_post"
# A canvas that is decoded goes through all noise levels.
NOISE = (0.05, 1.0)
LENGTH = 128
TASKS = ("trio-math", "trio-code")
CARD = """# Sparse autoencoder of {model}

TopK, {n} features of which {k} are active, of `{site}`, in SAELens's form and float16: `dlens.load_sae("{model}")`.

- **Training**: {rows:,} rows ({distinct:,}, read {epochs} times) of {texts} texts of the trio's training data (stories,
  prose, math, code and problems of both tasks in equal parts), each masked once, noise {lo:g} to {hi:g}, masked and
  visible positions alike; Adam, learning rate {learning_rate:g}, {batch} rows a step, auxiliary loss 1/32 for features
  that did not fire for {dead_after:,} rows. {dead} of {n} features were dead at the end.
- **Time**: {read:.0f} s of a processor to read the activations, {trained:.0f} s to train.
- **Held-out texts** ({held} of them): explained variance {all:.3f}, at masked positions {masked:.3f}, at visible ones
  {visible:.3f}. Masked-denoising loss with what it reconstructs in place of the stream: {spliced:.3f} nats a token,
  without {plain:.3f}, with the mean in its place {ablated:.3f} (95 % interval of the change {low:.3f} to {high:.3f}).

    python -m recipes.features.train train.jsonl.gz valid.jsonl.gz
"""


@dataclass(frozen=True)
class Texts:
    """Token ids to train on, and held-out ones."""

    train: list[list[int]]
    held: list[list[int]]


def texts_of(model: dlens.Model, train: Path, held: Path, each: int, each_held: int, seed: int = 0) -> Texts:
    """As many documents of each domain as there are problems of each task, cut to one length."""
    return Texts(
        _ids(model, [*_documents(train, each, seed), *_problems(each, "train", seed)]),
        _ids(model, [*_documents(held, each_held, seed), *_problems(each_held, "test", seed)]),
    )


def _documents(path: Path, each: int, seed: int) -> list[str]:
    found = read_documents((path,))
    random.Random(seed).shuffle(found)
    domains = sorted({source.domain for source in SOURCES.values()})
    by_domain = {name: [one.text for one in found if SOURCES[one.set].domain == name] for name in domains}
    return [text for texts in by_domain.values() for text in texts[:each]]


def _problems(each: int, split: str, seed: int) -> list[str]:
    problems = [dlens.tasks.get(task).problems(each, seed, split) for task in TASKS]
    return [problem.prompt + problem.answer for drawn in problems for problem in drawn]


def _ids(model: dlens.Model, texts: Sequence[str]) -> list[list[int]]:
    return [model.tokenizer(text, truncation=True, max_length=LENGTH)["input_ids"] for text in texts]


def rows_of(model: dlens.Model, texts: list[list[int]], tokens: Any, seed: int = 0) -> torch.Tensor:
    """The activations of texts."""
    return dlens.activation_rows(model, texts, SITE, tokens=tokens, noise=NOISE, seed=seed)


def train(
    documents: Path,
    held: Path,
    /,
    n_features: int = 1024,
    k: int = 32,
    epochs: int = 4,
    learning_rate: float = 3e-3,
    batch_size: int = 512,
    each: int = 40,
    each_held: int = 5,
    out: Path = SHIPPED[MODEL],
) -> None:
    """Train the autoencoder, measure it on held-out texts, and write both.

    Args:
        documents: JSON lines with "text" and "set", as `recipes.trio.prepare` reads them.
        held: the same, of documents that the trio was not trained on.
        n_features, k, epochs, learning_rate, batch_size: as in `dlens.train_sae`.
        each, each_held: texts of each domain and task.
        out: folder to write to.
    """
    model = dlens.load(MODEL)
    texts = texts_of(model, documents, held, each, each_held)
    start = time.process_time()
    rows = rows_of(model, texts.train, "all")
    read = time.process_time() - start
    how: dict[str, Any] = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    sae = dlens.train_sae(rows, n_features, k=k, site=SITE, model=MODEL, **how)
    trained = time.process_time() - start - read
    half = {name: getattr(sae, name).half() for name in ("encoder", "decoder", "encoder_bias", "decoder_bias")}
    sae = replace(sae, **half, memo={})
    sae.save(out)
    # What is measured is what ships.
    sae = dlens.load_sae(out)
    kinds = ("all", "masked", "visible")
    variance = {name: sae.explained_variance(rows_of(model, texts.held, name, seed=1)) for name in kinds}
    loss = dlens.splice_loss(model, sae, texts.held, draws=2)
    card = CARD.format(
        **{"model": MODEL, "site": SITE, "n": n_features, "distinct": len(rows), "texts": len(texts.train)},
        **{"lo": NOISE[0], "hi": NOISE[1], "batch": batch_size, "read": read, "trained": trained},
        **{"held": len(texts.held), "k": k},
        **{name: sae.facts[name] for name in ("rows", "epochs", "learning_rate", "dead_after", "dead")},
        **{"plain": loss.plain.value, "spliced": loss.spliced.value, "ablated": loss.ablated.value},
        **{"low": loss.change.low, "high": loss.change.high},
        **variance,
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    print(card)


if __name__ == "__main__":
    tyro.cli(train)
