# %% [markdown]
# # 2. Depth and denoising
#
# You will compare what three models do along their depth, layer by layer, and along denoising, step by step, with two
# measures of similarity. And you will see two ways in which such similarities mislead: by the estimator, and by a
# canvas of nothing but masks.
#
# The words of [tutorial 1](1_first_trace.ipynb) are used: a *step* is one update of the canvas, a *layer* is a place
# in depth, the *stream* is what passes from layer to layer. Two more:
#
# - **Noise** is the share of positions that are still masked: 1 at the start of a denoising run, 0 at its end.
# - The **state** of a position is `prompt` (given), `masked` (to be written) or `decoded` (written by the model).
#
# Why look: papers report that early layers of diffusion models change the stream less than those of autoregressive
# models, and propose to skip them. Whether that is so depends on what is compared, and on which positions.
#
# What to expect: three curves over depth that differ; curves that move with noise; and a CKA well above 0 for data
# that have nothing to do with each other.

# %%
import plotly.express as px
import torch
import xarray as xr

import dlens
import dlens.widgets
from dlens.measures import pool
from dlens.show import figures
from dlens.show.figures import comparison_lines

models = {name: dlens.load(f"trio/{name}") for name in ("ar", "diffusion", "ar-init")}
for name, model in models.items():
    print(f"{name:10} {model.family.objective}, {model.n_layers} layers")

# %% [markdown]
# `ar` is autoregressive, `diffusion` was trained as a diffusion model from scratch, and `ar-init` is a diffusion model
# that started from the weights of an autoregressive one. All have the same shape and saw the same kind of text.
#
# ## Along depth, on the same text
#
# `dlens.compare` profiles several models on the same prompts, here the texts that ship with dlens. `inputs="clean"`
# gives all of them the plain text without masks, so that whatever differs comes from the models.

# %%
measures = [dlens.Cosine(), dlens.CKA(), dlens.CKA(debiased=False, name="cka_biased")]
table = dlens.compare(models, inputs="clean", measures=measures)
for name, own in table.profiles.items():
    print(f"{name:10} {own.n_prompts} texts, {own.n_tokens} tokens, {own.notes[0]}")
figures.cosine_by_layer(list(table.profiles.values()))

# %% [markdown]
# Each point is the cosine between what enters a layer and what leaves it, averaged over all tokens of all texts. 1:
# the layer does not turn the stream. The axis is fitted to layers 1 and later; the first layer, which turns the
# embedding into something else, may lie below it. Compare shapes: in which third of the depth is a model's curve
# highest?

# %%
thirds = {"layers 1 to 5": slice(1, 5), "6 to 10": slice(6, 10), "11 to 15": slice(11, 15)}
cosine = table.to_xarray()["cosine"]
for name in models:
    own = cosine.sel(model=name)
    means = {part: own.sel(layer=layers).mean().item() for part, layers in thirds.items()}
    print(f"{name:10}", "  ".join(f"{part} {value:.3f}" for part, value in means.items()))

# %% [markdown]
# The same as numbers, without layer 0. If the first number of a diffusion model is the largest of its row and that of
# `ar` is not, these texts and models agree with the claim. If not, they do not.
#
# ## Every layer with every other: CKA
#
# A cosine compares one token's vector with itself one layer later. **CKA** (centred kernel alignment) compares
# arrangements instead: are tokens that lie close together after one layer also close after the other? It can compare
# distant layers, whose directions need not match. 1 is the same arrangement, 0 is none in common.


# %%
def without_noise(cka):
    """Clean text has one level of noise, and autoregressive models have no such axis."""
    return cka.mean("noise") if "noise" in cka.dims else cka


cka = {name: without_noise(own.measures["cka"]["cka_all"]) for name, own in table.profiles.items()}
together = xr.concat(list(cka.values()), dim="model").assign_coords(model=list(cka))
figure = px.imshow(together, facet_col="model", zmin=0, zmax=1, color_continuous_scale="Viridis")
figure.for_each_annotation(lambda title: title.update(text=title.text.removeprefix("model=")))
figures.styled(figure, "layer", "layer")
figure.update_layout(margin_t=40, coloraxis_colorbar_title="CKA")

# %% [markdown]
# Layer against layer, one square a model; the diagonal is 1. A bright square block means that the layers within it
# arrange the tokens alike; a dark corner, that the last layers arrange them unlike the first ones.
#
# ### An estimator that says "similar" of anything
#
# The textbook formula of CKA is biased upward when there are few rows (tokens) and many channels. To see it, put noise
# in the place of one layer's output: the operation `hook` calls a function of ours there. What leaves layer 7 and what
# leaves layer 8 then have nothing in common, so the right answer is 0.

# %%
generator = torch.Generator().manual_seed(0)


def unrelated(value, hook):
    """Random numbers of the same shape."""
    return torch.randn(value.shape, generator=generator)


broken = dlens.trace(models["diffusion"]).hook("blocks.8.hook_resid_post", unrelated)
profile = dlens.profile(broken, inputs="clean", measures=measures)
for key in ("cka", "cka_biased"):
    data = profile.measures[key]
    value = without_noise(data["cka_all"]).sel(layer=7, layer_b=8).item()
    print(f"{key:10} of layers 7 and 8: {value:.3f}   ({data.attrs['estimator']})")

# %% [markdown]
# Both lines are of unrelated data. `CKA()` is debiased by default and should be near 0; the biased one is not. Before
# you believe a high CKA in a paper, look for the estimator and for the numbers of rows and channels. The name of the
# estimator travels with every result of dlens.
#
# ## Along noise
#
# Now mask a share of the tokens, as in training, and profile the diffusion model at five shares. Each token is
# measured apart by its state, and each noise level by itself.

# %%
masked = dlens.profile(models["diffusion"], inputs="masked", measures=[dlens.Cosine()])
print(masked.notes[0])
figures.cosine_by_noise(masked)

# %% [markdown]
# One line a noise level, all positions together. If the lines lay on each other, noise would not matter. Where they
# part, two things are mixed: the model works differently on a noisier canvas, *and* more of its positions are masks.
# So take the two apart:

# %%
early = masked.measures["cosine"].sel(layer=slice(1, 5))
by_state = pool(early, "cosine", ["step"]).mean("layer")
parts = by_state.sel(state=["prompt", "masked"]).dropna("noise", how="all")
print("cosine, mean of layers 1 to 5, by share of masks and by state\n")
print(parts.to_pandas().round(4).to_string())

# %% [markdown]
# Read along a row: at the same noise, positions with a real token (here called `prompt`, as the text was given)
# against masked ones. Read down a column: the same kind of position as the canvas gets noisier. `NaN`: there was no
# such position. A number that averages over all of this depends on how many masks the canvas had.
#
# ## A canvas of masks alone
#
# The extreme is the first step without a prompt. Every position then holds the same token, so the same vector enters
# the model everywhere. `off_diagonal` of the measure `Recency` is the mean cosine between *different* positions of a
# text.

# %%
model = models["diffusion"]
story = "There was a fox who lived under a hill. Every morning he went to the river to drink."
length = dlens.trace(model).forward(story).tokens.shape[1]
watched = dlens.trace(model).measure(dlens.Cosine(), dlens.Recency())
canvases = {"text": story, "all masks": [model.family.mask_token_id] * length}

for name, canvas in canvases.items():
    found = watched.forward(canvas).measures
    between = pool(found["recency"], "off_diagonal", ["noise"])
    through = pool(found["cosine"], "cosine", ["step", "noise", "state"])
    print(
        f"{name:9}  between positions, after layers 0, 5, 10, 15:",
        *(f"{between[i].item():.3f}" for i in (0, 5, 10, 15)),
    )
    print(f"{'':9}  through a layer, mean of layers 1 to 5: {through[1:6].mean().item():.3f}")

# %% [markdown]
# On the canvas of masks any two positions are alike at every depth. That says nothing about the layers: the same
# vector enters everywhere, and attention, which averages equal vectors, keeps them equal. The cosine through a layer
# is then one vector's, however many positions it is averaged over, and CKA, which compares differences between
# positions, has none to compare and is `NaN`. So compare models on the same real text, or at equal noise, with
# masked and other positions apart.
#
# ## Along the steps of a run
#
# So far the canvas was ours. In a run it is the model's own: measure while it writes, and keep the stream at three
# steps for the widget below.

# %%
trace = dlens.trace(model).capture("resid_post", steps=[0, 12, 23])
trace = trace.measure(dlens.Cosine())
record = trace.generate("Once upon a time, there was a little dog", max_new_tokens=24, seed=0)
print(repr(record.text[0]))

by_step = pool(record.measures["cosine"], "cosine", ["noise", "state"])
by_step = by_step.sel(layer=slice(1, 15))
figure = px.imshow(by_step, aspect="auto", color_continuous_scale="Viridis")
figures.styled(figure, "layer", "step").update_layout(coloraxis_colorbar_title="cosine")

# %% [markdown]
# Steps go down, layers go across, layer 0 left out. Columns of one colour: what a layer does hardly changes over the
# run. A gradient from top to bottom: it changes as masks become words. To know which of the two, look at masked and
# decoded positions apart, at the same steps:

# %%
early = record.measures["cosine"].sel(layer=slice(1, 5))
run = pool(early, "cosine", ["step"]).mean("layer")
figure = px.line(
    run.dropna("noise", how="all").to_pandas(),
    markers=True,
    color_discrete_sequence=figures.COLOURS,
)
figure.update_xaxes(autorange="reversed")
figures.styled(figure, "noise, from start to end of the run", "cosine, mean of layers 1 to 5")

# %% [markdown]
# Time runs from left to right, as noise falls. Each line is one state. The prompt is the same tokens throughout, so
# its line shows how much the rest of the canvas reaches it.
#
# ## Explore
#
# `LayerCollapse` shows the similarity of every two layers at the captured steps of this run, and which channels hold
# the energy of the stream. In a live notebook: choose step, cosine or CKA, and leave out the largest channel.

# %%
dlens.widgets.LayerCollapse(record)

# %% [markdown]
# Cosines between layers can be high because one channel is much larger than all others; the table shows its share of
# the energy after each layer. [Tutorial 4](4_super_outlier.ipynb) is about that channel.
#
# ## Models side by side, at any depth
#
# Models with unlike numbers of layers are compared over relative depth: 0 is the first layer, 1 the last.

# %%
comparison_lines(table, "cosine", axis="depth")

# %% [markdown]
# The numbers of the first figure, on an axis that a model of 28 and one of 32 layers can share; here layer 0 is on it,
# which is what flattens the rest.
#
# ## What this does not show
#
# - Whether similar layers can be removed. Similarity is about the stream, not about what the model answers: [tutorial
#   3](3_skip_layers.ipynb) measures that.
# - Anything about chance: there are no intervals here, one training seed of each model, and 24 short texts. `dlens
#   report` computes intervals over texts for the same claims.
# - That small models behave as large ones do.
