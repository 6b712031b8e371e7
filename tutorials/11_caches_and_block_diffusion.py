# %% [markdown]
# # 11. Caches and block diffusion
#
# You will decode with the caches that people run, see which columns each step computes, count what that saves, look
# at how far it moves the stream, ask what a skip costs under a cache, and see a model for which the cache is exact.
#
# Why: a masked diffusion model computes every position at every step. *Fast-dLLM* (arXiv 2505.22618), *dKV-Cache*
# (arXiv 2505.15781) and *dLLM-Cache* (arXiv 2506.06295) keep what changes little; *block diffusion* (arXiv
# 2503.09573) trains models for which finished blocks never change. What is found about a model without a cache need
# not hold with one.
#
# What to expect: numbers of one model of eight million weights. All cells together take about twenty seconds.

# %%
from dataclasses import replace

import pandas as pd
import plotly.express as px
import torch

import dlens
import dlens.widgets
from dlens import caches
from dlens.samplers import BlockDiffusion, LLaDA
from dlens.show.figures import styled

model = dlens.load("trio/diffusion")
trace = dlens.trace(model)
PROMPT, NEW, BLOCK = "Once upon a time there was a little dog. One day", 16, 8
sampler = LLaDA(block_length=BLOCK)
kinds = {
    "none": "auto",
    "Prefix": caches.Prefix(),
    "Dual": caches.Dual(),
    "Delayed": caches.Delayed(refresh=4),
    "Adaptive": caches.Adaptive(),
}
runs = {
    name: trace.capture("resid_post").generate(PROMPT, NEW, sampler=sampler, cache=cache, progress=False)
    for name, cache in kinds.items()
}
for name, record in runs.items():
    print(f"{name:9}", repr(record.text[0]))

# %% [markdown]
# ## Windows
#
# What a step computes is its window. `record.computed` says which columns that was; captured values are NaN at the
# others, and operations and measures act on the window alone.

# %%
shown = torch.stack([runs[name].computed[:, 0].int() for name in ("Prefix", "Dual", "Delayed")])
figure = px.imshow(shown.numpy(), facet_col=0, zmin=0, zmax=1, color_continuous_scale="Cividis", aspect="auto")
for number, name in enumerate(("Prefix", "Dual", "Delayed")):
    figure.layout.annotations[number].text = name
figure.update_coloraxes(showscale=False)
styled(figure, "position", "step")

# %% [markdown]
# How to read it: bright is computed, dark is kept from an earlier step. All three begin each block of eight with the
# whole canvas. *Dual* then computes the block alone, *Prefix* also what follows, *Delayed* what is still masked or
# has just been decoded. In the widget, what a step leaves out is dim.

# %%
dlens.widgets.Denoising(runs["Dual"])

# %% [markdown]
# ## What is saved, and what it moves
#
# FLOPs count the window. To see what the cache did to the stream, each canvas of a cached run is read once more in
# whole: the two differ by nothing but the keys and values of the columns that were left out.

# %%
mask = model.family.mask_token_id


def alike(record: dlens.Record) -> torch.Tensor:
    """[step, layer]: cosine with the stream of a whole forward, at masks that the step computed."""
    whole = trace.capture("resid_post").forward(record.canvas[:, 0])["resid_post"].transpose(0, 1)
    cosine = torch.cosine_similarity(record["resid_post"][:, :, 0].float(), whole.float(), dim=-1)
    counts = (record.canvas[:, 0] == mask)[:, None] & ~cosine.isnan()
    return cosine.where(counts, 0).sum(-1) / counts.sum(-1)


moved = {name: alike(record) for name, record in runs.items()}
rows = {
    name: {
        "FLOPs": record.flops / runs["none"].flops,
        "cosine, layer 5": float(moved[name][:, 5].mean()),
        "cosine, layer 15": float(moved[name][:, 15].mean()),
        "tokens as without": int((record.tokens == runs["none"].tokens).sum()) - int(record.is_prompt.sum()),
    }
    for name, record in runs.items()
}
print(pd.DataFrame(rows).T.round(4).to_string())
figure = px.line(pd.DataFrame({name: own[:, 15].tolist() for name, own in moved.items() if name != "none"}))
styled(figure, "step", "cosine at layer 15")

# %% [markdown]
# How to read it: 1 is the stream of a whole forward. It falls within a block, as what was kept grows old, and returns
# to 1 where all is computed. Tokens differ sooner than the cosine suggests: one other token changes all that follow,
# so judge a cache by loss and task score, not by how many tokens agree.
#
# ## A skip under a cache
#
# A cache is an argument of everything that decodes: `retention`, `sweep`, `dlens.report`. A skip at every step is
# right under a cache. One at some steps would leave other steps without the keys and values of that block, and is
# refused.

# %%
kept = dlens.retention(
    model, [5, 9], task="trio-code", n=4, sampler=LLaDA(steps=16, block_length=8), cache=caches.Dual(), progress=False
)
print(kept)
try:
    trace.skip([5, 9], steps="early").generate(PROMPT, NEW, sampler=sampler, cache=caches.Dual())
except ValueError as error:
    print("refused:", error)

# %% [markdown]
# How to read it: both sides decode with the cache, so that the share is the skip's alone. Four problems decide
# little; [what caches cost on the trio](../caches.md) has many more.
#
# ## Block diffusion: a cache that is exact
#
# Where attention is causal between canvas blocks, a finished block never changes. Families of such models say so with
# `block_length`; here the trio's model is given one, which it was not trained for, so look at the cache and not at
# the text.

# %%
blocks = dlens.load("trio/diffusion", family=replace(model.family, block_length=BLOCK))
for threshold in (None, 0.5):
    decoder = BlockDiffusion(BLOCK, steps=None, threshold=threshold)
    cached, whole = (
        dlens.trace(blocks).generate(PROMPT, NEW, sampler=decoder, cache=cache, progress=False)
        for cache in ("auto", "off")
    )
    computed = cached.computed.sum(-1)[:, 0].tolist()
    print(f"threshold {threshold}: the same tokens {torch.equal(cached.tokens, whole.tokens)}, {cached.n_steps} steps")
    print(f"  columns computed {computed}, FLOPs {cached.flops / whole.flops:.2f} of no cache")

# %% [markdown]
# How to read it: the first step computes the blocks of the prompt and the one in which it ends, later ones their
# block, and the first of a block also the one before, whose last token has just changed. The text is that of a run
# without the cache, whatever the operations. With a threshold a step commits every token that is sure enough.
#
# ## What this does not show
#
# - **Time.** FLOPs are counted; how much faster a machine is depends on it. See [performance](../performance.md).
# - **Trained block diffusion.** LLaDA2.x, SDAR and Fast-dLLM v2 load by name; see [models](../models.md).
#
# On your own: a cache is a rule of one function; `caches.Cache` shows one that computes all at every other step.
