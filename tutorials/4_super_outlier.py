# %% [markdown]
# # 4. The super-outlier: find it, ablate it, watch the text
#
# You will find the channel of the residual stream that holds the most energy, see in which layers, at which tokens,
# steps and noise levels it lives, take it out in four ways, and compare with taking out other channels.
#
# Why: *Layer Collapse in Diffusion Language Models* (arXiv 2605.06366) reports that a few early layers of a diffusion
# model are dominated by a single huge channel, a *super-outlier*, that persists over many tokens, and that pruning it
# turns the text into repetitive loops. If that is so, one channel decides what can be compressed. How the paper prunes
# the channel is not public, so here each way is a change of its own.
#
# What to expect: channels whose energy is far above an even share. Whether the text breaks without the largest is
# computed below and not promised: the trio is small, and what happens depends on what the channel is set to. All cells
# together take about half a minute, since few problems are decoded for each change; the intervals are wide.

# %%
import pandas as pd
import torch

import dlens
import dlens.widgets
from dlens.findings.scores.repetition import repetition
from dlens.measures import pool
from dlens.show.figures import (
    channel_by_layer,
    channel_share,
    effect_bars,
    largest_share,
    noise_words,
    share_by_noise,
)

model = dlens.load("trio/diffusion")
TEXTS = [
    "Once upon a time there was a little girl who lived in a small house near the woods.",
    "Tom has 12 apples. He gives 5 of them to Mia and buys 3 more. How many apples does he have?",
    "# Take x, then add 4, then double it.\ndef f(x):\n    return ((x + 4) * 2)\n",
]
print(f"{model.n_layers} layers, {model.d_model} channels; evenly spread, each would hold {1 / model.d_model:.1%}")

# %% [markdown]
# ## Which channel
#
# `Outliers` sums h[t, c]² over the tokens t, at what leaves each block, and divides by the sum over all channels: the
# *energy share* of channel c. `dlens.profile` reads the texts; a diffusion model reads each of them five times, with
# 0, 25, 50, 75 and 95 % of its tokens masked.

# %%
profiles = [dlens.profile(name, TEXTS) for name in ("trio/diffusion", "trio/ar", "trio/ar-init")]
rows = pd.DataFrame(profiles[0].table())
print(rows[["layer", "top_channel", "top_share", "max_median"]].round(3).to_string(index=False))

# %% [markdown]
# How to read it: `top_channel` is the largest channel after that block, `top_share` its part of the energy. If one
# number stands in `top_channel` for most layers, the outlier is one channel of the stream that blocks pass on, and not
# a different one each time. `max_median` is its mean magnitude over that of the median channel.

# %%
largest_share(profiles)

# %% [markdown]
# How to read it: one line a model; hover names the channel. Models trained apart need not agree on the number of the
# channel, but `trio/ar-init` started from `trio/ar`. Look at how high each line is, at which layers it rises and
# falls, and at the last layer, before the logits are read off, where it may vanish or change to another channel.

# %%
by_layer = pool(profiles[0].measures["outliers"], "energy_share", ["step", "noise", "state"])
averages = by_layer.sel(layer=slice(0, model.n_layers - 2)).mean("layer").to_series()
print("the largest channels, by their share averaged over all layers but the last:")
print(averages.round(3).to_string())
channel, second = averages.index[:2].tolist()
channel_share(profiles[0])

# %% [markdown]
# How to read it: rows are these channels, the largest on top; columns are layers. A single bright row is a
# super-outlier; several rows of like brightness are a model with several large channels. From here on `channel` is the
# first of the list, *the outlier*, and `second` the next; it is the same channel in every cell below.
#
# ## At which noise levels

# %%
shares = profiles[0].pooled("outliers", "energy_share", by=["noise"]).sel(channel=channel)
seen = shares.mean("layer").dropna("noise")
for noise, share in zip(seen["noise"].values, seen.values, strict=True):
    print(f"{noise_words(noise):>22}: {share:.3f}")
share_by_noise(profiles[0])

# %% [markdown]
# How to read it: noise is the share of masked tokens; the numbers are the channel's share averaged over layers. Masks
# all have one embedding, so a canvas with many masks is a text of equal tokens: compare the lines before you read one
# of them as *the* share.
#
# ## At which tokens
#
# One forward with the stream captured shows every token. `record.pieces` is the text of each token id.

# %%
record = dlens.trace(model).capture("resid_post").forward(TEXTS[0])
energy = record["resid_post"][:, 0].square()  # [layer, position, d_model]
by_token = energy[..., channel] / energy.sum(-1)
pieces = [record.pieces[token] for token in record.tokens[0].tolist()]
middle = model.n_layers // 2
shares = by_token[middle].tolist()
print(f"share after block {middle}:")
print(" ".join(f"{piece.strip()}[{share:.2f}]" for piece, share in zip(pieces, shares, strict=True)))
low, median, high = by_token[middle].quantile(torch.tensor([0, 0.5, 1])).tolist()
print(f"smallest {low:.3f}, median {median:.3f}, largest {high:.3f}")

# %% [markdown]
# How to read it: the two abstracts of the paper differ: one says "over a long token range", the other "across all
# token positions". Compare the smallest with the median: an outlier of all tokens has them close together, an
# attention sink of one token would have a median near zero.
#
# ## What breaks without it
#
# `dlens.collapse` follows the channel through a decoding run, and then decodes a few problems of a task with the
# channel taken out, and with other channels taken out as controls. Without `channel=`, it and `ablate_outlier` take the
# channel with the largest share on a text that ships with dlens. Where two channels are nearly tied, another text may
# put the other one first, so give the channel that you found. The `Threshold` sampler commits all tokens it is sure of
# at once, which saves steps.

# %%
found = dlens.collapse(
    model,
    "trio-code",
    n=4,
    channel=channel,
    n_random=1,
    prompts=["Once upon a time", "def f(x):"],
    texts=TEXTS,
    draws=2,
    sampler=dlens.samplers.Threshold(threshold=0.8),
    max_new_tokens=24,
    progress=False,
)
print(
    f"channel {found.channel} holds {found.share:.1%} of the energy on the shipped text, after all blocks but the last"
)
where = found.where[["energy_share", "peak_share", "steps_led"]].to_dataframe()
states = found.where["energy_share_by_state"].transpose("layer", "state").to_pandas()
print(where.join(states).round(3).to_string())
channel_by_layer([found], "peak_share")

# %% [markdown]
# How to read it: one row a layer, over a whole decoding run. `peak_share`, also drawn in the figure: at how many
# positions it is the largest channel of all. `steps_led`: at how many steps it is so at more than half of the
# positions, over both prompts. A channel whose `steps_led` is near 1 stays for the whole run, and is not a matter of
# the first steps. The last three columns are its energy share by what a position was at the start of a step: part of
# the prompt, a mask, or decoded already.
#
# ## The changes beside each other

# %%
columns = ["name", "share", "loss", "repetition", "accuracy", "low", "high", "p_value"]
table = pd.DataFrame(found.table())[columns]
print(table.round(3).to_string(index=False))
print("; ".join(found.notes))
effect_bars([found], "loss")

# %% [markdown]
# How to read it: `none` is the model as it is. The next four rows take out the outlier: the channel set to zero or to
# its mean after every block but the last; *rows*, the weights that write to it; *columns*, the weights that read from
# it. `loss` is in nats a token of the denoising loss on the texts above. `accuracy` is on a handful of problems; `low`
# and `high` bound the share of it that is kept (95 %, over problems, in pairs), and `p_value` tests whether anything
# changed. With so few problems they say little, as the width of the interval shows; NaN stands where the model as it
# is solves nothing.
#
# Compare a row with the controls before you blame the outlier:
#
# - A *random channel* holds little energy. It shows what any ablation of one channel costs.
# - *next channels* are as many of the next-largest as come closest to the same energy. If these cost more, then
#   the energy of a channel does not tell how much the model needs it.
# - *zero* and *mean* differ in what they remove. A channel that is nearly constant acts as a bias: its mean keeps the
#   bias and removes what varies, zero removes both. If zero costs little and the mean much, or the other way round,
#   the question "what happens without the channel" has no single answer.
#
# ## Watch the text: which of two channels breaks it
#
# The paper reports repetitive loops for LLaDA-8B. The list above has a second channel, and the table holds the share
# of both on the shipped text if *next channels* is that one alone. Where two channels are nearly tied, energy does not
# say which of them the text needs. So set each to zero and see. Controls are the first set to its mean, and the random
# channel of the table. The prompts and the seed are the same each time. `repetition` is the share of 4-grams of tokens
# that came before in the text.

# %%
PROMPTS = [
    "Once upon a time there was a",
    "Tom and Mia went to the",
    "One day a boy named Tim",
]
rest = next(effect.channels for effect in found.effects if effect.name.startswith("random"))
changes = {
    "as it is": dlens.trace(model),
    f"channel {channel} to zero": dlens.trace(model).ablate_outlier(channel),
    f"channel {second} to zero": dlens.trace(model).ablate_outlier(second),
    f"channel {channel} to its mean": dlens.trace(model).ablate_outlier(channel, value="mean"),
    f"random channel {rest[0]} to zero": dlens.trace(model).ablate(range(model.n_layers - 1), rest),
}
repeated, texts = {}, {}
for name, trace in changes.items():
    run = trace.generate(PROMPTS, 32, seed=0, progress=False)
    written = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in run.text]
    repeated[name] = [repetition([tokens]) for tokens in written] + [repetition(written)]
    texts[name] = run.text[0]
columns = [f"prompt {number}" for number in range(len(PROMPTS))] + ["mean"]
print("repetition of each text")
print(pd.DataFrame(repeated, index=columns).T.round(2).to_string())
for name, text in texts.items():
    print(f"\n{name}, prompt 0:\n  {text!r}")

# %% [markdown]
# How to read it: compare the rows of the two channels, and each with *as it is* and the random channel: a story may
# repeat itself as it is. If one channel's row is high and the other's is not, then a large share of energy is not what
# breaks the text. Loops are one way to break: a text can lose its sense without a single repeated 4-gram, and the loss
# in the table may rank the changes otherwise, so read both, and the texts. Three texts of 32 tokens are a look and no
# measurement: one that loops moves the mean by much.
#
# ## Does the channel make layers look alike?
#
# A huge channel that blocks pass on unchanged lifts the cosine between what enters a block and what leaves it. `drop=`
# leaves channels out.

# %%
cosines = dlens.profile(
    model, TEXTS, measures=[dlens.Cosine(), dlens.Cosine(drop=[found.channel], name="without")], rates=[0, 0.5]
)
by_layer = {name: pool(cosines.measures[name], "cosine", ["step", "noise", "state"]) for name in ("cosine", "without")}
print(pd.DataFrame({name: values.values for name, values in by_layer.items()}).round(3).to_string())

# %% [markdown]
# How to read it: one row a layer: the cosine of block input and output, with all channels and without the outlier.
# Where the second is lower, the channel made the layer look more redundant than its other channels are.
#
# ## The same in a widget

# %%
widget = dlens.widgets.LayerCollapse(model, prompt=TEXTS[0], max_new_tokens=8)
widget.channel = channel
widget.without = True
print("the widget leaves out channel", widget.channel)
widget

# %% [markdown]
# How to read it: the map says how alike the streams after every two layers are, here without the channel; below it are
# the channels that hold the energy, by layer, by token and by step. In a running notebook click a pair of layers or a
# token, or move with the arrow keys; *Ablate channel* runs the model again without the channel and shows both texts. A
# static page shows the map and the shares as a plain picture. Everything is also in traits:

# %%
widget.ablated = True
widget.wait(60)
print("as it is:", widget.texts["plain"])
print("ablated: ", widget.texts["ablated"])

# %% [markdown]
# ## What this does not show
#
# - **Other training runs.** Intervals cover problems, not seeds of training. One model of each kind is one sample.
# - **Large models.** The paper's channel is one of LLaDA-8B; run the same cells on it with [tutorial
#   7](7_large_models.ipynb).
# - **Cause.** That a model breaks without a channel does not say what the channel is for.
# - **Compression.** The paper's claims on quantisation and sparsity need changed weights, which these cells do not
#   make.
#
# On your own: raise `n` to 64 for intervals that mean something; pass `channel=` to ask about another channel; compare
# models with `effect_bars([found, other])`. Next: [tutorial 5](5_token_recency.ipynb), near and far tokens.
