# %% [markdown]
# # 5. Token recency: near and far tokens
#
# You will measure how alike the vectors of two tokens are by their distance, condense that into one number a layer,
# and compare the three models of the trio: autoregressive, diffusion, and diffusion started from the autoregressive
# one. Then you will ask what the noise level, an outlier channel and the attention have to do with it.
#
# Why: *Skip to the Good Part* (arXiv 2603.07475) reports that autoregressive models have a *recency bias*, that
# diffusion models build more global representations, and that a diffusion model started from an autoregressive one
# keeps its dynamics. The paper's formula is not published. The one below is that of dlens, the same for every kind of
# model, so that they can be put on the same axes.
#
# What to expect: similarity that falls with distance in all three models. How fast, and in which fastest, is computed
# below. All cells together take about 15 seconds.

# %%
import pandas as pd
import plotly.graph_objects as go
import torch

import dlens
import dlens.widgets
from dlens.measures import pool
from dlens.show.figures import COLOURS, noise_words, styled

models = {name: dlens.load(name) for name in ("trio/ar", "trio/diffusion", "trio/ar-init")}
OPENING = "Once upon a time there was a little girl who lived in a small house near the woods."
STORY = (
    f"{OPENING} Every day she went out to play with her dog. One day the dog ran away, and she was very sad. "
    "She looked for him all day long."
)
MIDDLE = models["trio/ar"].n_layers // 2


def lines(values, x, y):
    """A figure with one line for each name of `values`: name -> xarray with one dimension."""
    figure = go.Figure()
    for number, (name, line) in enumerate(values.items()):
        colour = COLOURS[number % len(COLOURS)]
        axis = line[line.dims[0]].values
        figure.add_trace(go.Scatter(x=axis, y=line.values, name=name, mode="lines+markers", line={"color": colour}))
    return styled(figure, x, y)


# %% [markdown]
# ## The definition, by hand
#
# Take what leaves one block, h, for the n tokens of one text. S[i, j] is the cosine of h[i] and h[j], and P(d) the
# mean of S over all pairs that are d tokens apart. The **recency index** is P(1) minus the mean of P(d) over d ≥ n /
# 2: how much more alike neighbours are than tokens far from each other. 0 means that distance does not matter.
#
# S is symmetric, so all this means the same for a causal model, where a token sees only those before it, and for a
# bidirectional one.

# %%
trace = dlens.trace(models["trio/ar"]).capture("resid_post", layers=[MIDDLE]).measure(dlens.Recency())
record = trace.forward(STORY)
h = torch.nn.functional.normalize(record["resid_post"][0, 0], dim=-1)  # [position, d_model]
similar, n = h @ h.T, len(h)
profile = torch.stack([similar.diagonal(d).mean() for d in range(1, n)])  # P(1), P(2), ...
far = profile[torch.arange(1, n) * 2 >= n]
measured = record.measures["recency"].sel(layer=MIDDLE)
print(f"by hand: P(1) {profile[0]:.4f}, far {far.mean():.4f}, index {profile[0] - far.mean():.4f}")
print(f"measure: P(1) {float(measured['adjacent']):.4f}, index {float(measured['recency_index']):.4f}, {n} tokens")

# %% [markdown]
# How to read it: both lines agree up to rounding. The measure keeps sums over pairs and not the matrix, so that it
# also serves a denoising run of many steps.
#
# ## Three models, the same texts
#
# `dlens.profile` reads the texts that ship with dlens, here without masks. The far distances of a short text have few
# pairs.

# %%
clean = {
    name: dlens.profile(model, inputs="clean", measures=[dlens.Recency(max_distance=48)]).measures["recency"]
    for name, model in models.items()
}
by_distance = {name: pool(data, "similarity", "noise").sel(layer=MIDDLE) for name, data in clean.items()}
shown = {name: values.sel(distance=[1, 2, 4, 8, 16, 32]).to_series() for name, values in by_distance.items()}
print(f"after block {MIDDLE}:")
print(pd.DataFrame(shown).round(3).T.to_string())
lines(by_distance, "distance in tokens", "cosine")

# %% [markdown]
# How to read it: one line a model: the mean cosine of two tokens at that distance. The *height* of a line says how
# alike any two tokens are; one channel that is large at all tokens lifts the whole line. The *fall* from distance 1
# says how much being near matters. A recency bias is a steep fall, not a high line.

# %%
by_layer = {name: pool(data, "recency_index", "noise") for name, data in clean.items()}
index = pd.DataFrame({name: values.values for name, values in by_layer.items()})
print(index.round(3).to_string())
print("mean over layers:", index.mean().round(3).to_dict())
lines(by_layer, "layer", "recency index")

# %% [markdown]
# How to read it: one row a layer. If the paper's picture holds here, `trio/ar` lies above `trio/diffusion`, and
# `trio/ar-init` nearer to `trio/ar`. Look at single layers too: a difference that changes its sign with depth is no
# bias of the model as a whole. The table has no intervals.
#
# ## How much of it is one channel
#
# A channel that is large at every token makes all cosines high, and differences small. `drop=` leaves channels out;
# the largest channel of each model is found with `Outliers`.

# %%
without = {}
for name, model in models.items():
    found = dlens.profile(model, [STORY], measures=[dlens.Outliers()]).measures["outliers"]
    largest = int(found["channel"][0])
    measure = dlens.Recency(drop=[largest], name=f"without channel {largest}")
    dropped = dlens.profile(model, inputs="clean", measures=[measure]).measures[measure.key]
    without[f"{name}, {measure.key}"] = pool(dropped, "recency_index", "noise")
print("mean over layers:")
print("\n".join(f"{name}: {float(values.mean()):.3f}" for name, values in without.items()))
lines(without, "layer", "recency index")

# %% [markdown]
# How to read it: compare with the figure before, line by line. If the order of the models changes, the first
# comparison was one of outlier channels as much as of recency.
#
# ## By noise level
#
# A diffusion model reads canvases with masks. Here a share of the tokens is masked at random, and all positions count,
# masks included.

# %%
rates = [0, 0.25, 0.5, 0.75, 0.95]
masked = {}
for name in ("trio/diffusion", "trio/ar-init"):
    profile = dlens.profile(models[name], [STORY], measures=[dlens.Recency()], rates=rates)
    masked[name] = profile.measures["recency"]["recency_index"].dropna("noise")
table = pd.DataFrame({name: index.mean("layer").to_series() for name, index in masked.items()})
print(table.rename(index=noise_words).round(3).to_string())
by_noise = masked["trio/diffusion"]
lines({noise_words(noise): by_noise.sel(noise=noise) for noise in by_noise["noise"].values}, "layer", "recency index")

# %% [markdown]
# How to read it: the table has means over layers, the figure one line a noise level of `trio/diffusion`, for one text.
# All masks have the same embedding, so with many masks *every* two positions start out alike, whatever their distance:
# a small index at high noise is partly built in. Compare diffusion models with each other at equal noise, and with an
# autoregressive model only without masks.
#
# ## While decoding
#
# The same measure on a run. In a diffusion model every step computes all positions, so the noise axis is the course of
# decoding, from 1 at the start down to 0. An autoregressive model with a cache computes one position a step, which has
# no pairs: a forward over the finished tokens gives it all of them.

# %%
decoding = {}
for name, model in models.items():
    trace = dlens.trace(model).measure(dlens.Recency())
    record = trace.generate(OPENING, 16, progress=False)
    if model.family.objective == "autoregressive":
        record = trace.forward(record.tokens)
    index = record.measures["recency"]["recency_index"].mean("layer")
    if "noise" in index.dims:
        decoding[name] = index.to_series()
    else:
        print(f"{name}: {float(index):.3f}\n")
print(pd.DataFrame(decoding).rename(index=noise_words).round(3).to_string())

# %% [markdown]
# How to read it: means over layers; for diffusion models by noise, from nearly decoded (top) to nearly all masks
# (bottom). The prompt is part of the canvas at every step, and the masks stand together behind it: near positions are
# mostly of one state, far ones of two. So the index at high noise also says how unlike masks and prompt are, and
# differs from that of masks strewn over a text, above.
#
# ## The same in a widget

# %%
widget = dlens.widgets.TokenRecency(models, prompt=OPENING, max_new_tokens=16)
widget.layer = MIDDLE
widget

# %% [markdown]
# How to read it: on a static page you see P(d) of all models at one layer as a table, with the recency index, and S
# itself, token by token, of one model at one step. In a running notebook the sliders choose layer, noise level and
# step; hover over the map, or move with the arrow keys, to read pairs of tokens. In Python the same is in traits:

# %%
widget.position, widget.position_b = 3, 4
print([(each["name"], each["about"]) for each in widget.profiles])
print(widget.pair)

# %% [markdown]
# ## What attention adds
#
# Similar vectors are no proof that one token *read* the other. `dlens.Attention` measures which positions draw the
# attention of all others: their *mass*, 1 on average. It reads the pattern of every block, whatever kernel
# the model runs:

# %%
mass = {}
for name in models:
    record = dlens.trace(models[name]).measure(dlens.Attention()).capture("pattern").forward(STORY)
    data = record.measures["attention"]
    mass[name] = pool(data, "first_mass", ["step", "noise"])
    pattern = record["pattern"][:, 0].mean(1)  # [layer, query, key], mean over heads
    gap = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    near = (pattern * (gap == 1)).sum(-1).mean()
    sinks = float(pool(data, "sinks", ["step", "noise"]).mean())
    print(f"{name}: {near:.1%} of the attention goes to a neighbour; {sinks:.2f} sinks a text, averaged over layers")
lines(mass, "layer", "mass of the first token (1 is the average)")

# %% [markdown]
# How to read it: the figure is the mass of the first token by layer. In a causal model it is seen by every query and
# the last one by a single query, which alone lifts early tokens: compare shapes, not heights, between causal and
# bidirectional models. A *sink* has far more mass than the others (`margin=`). The share that goes to a neighbour is
# the counterpart of recency in attention: in a causal model there is one neighbour to look at, before the token, in a
# bidirectional one there are two.
#
# ## What this does not show
#
# - **That recency is a bias.** Near words belong together in language; some fall of P(d) is right.
# - **Cause.** A bidirectional model *can* look both ways; that it is less recent would not follow from that alone.
# - **Intervals.** Parts with `STORY` read one text. `dlens report` puts an interval on the difference between models
#   over the shipped texts; neither covers other training runs.
# - **The paper's numbers.** Its formula is not published; compare the order of models with it, and no values.
#
# On your own: give your own texts with `dlens.profile(model, texts, ...)`; look at `to_last` of the same measure, the
# similarity with the last token alone. Next: [tutorial 6](6_your_own.ipynb), your own operation, measure and family.
