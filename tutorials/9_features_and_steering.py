# %% [markdown]
# # 9. Features and steering over denoising
#
# You will write the stream of a diffusion model as a sum of few features, watch them come and go while a text is
# decoded, see what the model loses when it works with them alone, read a label of your own off every layer and step,
# and steer at the steps where it forms, beside a control with the same budget.
#
# Why: *DLM-Scope* (arXiv 2602.05859) trains sparse autoencoders on diffusion language models and follows their features
# over denoising; *Steering Without Breaking* (arXiv 2605.10971) finds that attributes are committed early or late, and
# steers there.
#
# What to expect: an autoencoder of a model of eight million weights. Its features are real, but small, and few have a
# name. Scores have intervals, and controls beside them. All cells together take about a minute.

# %%
import numpy as np
import pandas as pd
import plotly.express as px

import dlens
from dlens.show.figures import styled

model = dlens.load("trio/diffusion")
trace = dlens.trace(model)
sae = dlens.load_sae("trio/diffusion")
print(sae)
print(f"trained on {sae.facts['rows']:,} rows; {sae.facts['dead']} features never fired at the end")

# %% [markdown]
# ## What it explains
#
# `dlens.activation_rows` reads the stream at positions of masked texts. Explained variance is a mean over everything;
# the loss of the model says whether what is missing mattered.

# %%
texts = [
    "Once upon a time there was a little girl who lived in a small house near the forest. She had a red ball.",
    "Tom was a big dog. He liked to run in the park and play with his friends every day.",
    "Question: Rose has 14 stars. Rose gives away 4. How many stars does Rose have now?\nAnswer: 14 - 4 = 10",
    "# Take x, then add 3, then double it.\ndef f(x):\n    return (x + 3) * 2",
]
for tokens in ("masked", "visible"):
    rows = dlens.activation_rows(model, texts, str(sae.site), tokens=tokens, noise=(0.3, 0.7), draws=2)
    print(f"{tokens:8} {len(rows)} rows, explained variance {sae.explained_variance(rows):.2f}")
loss = dlens.splice_loss(model, sae, texts)
for name in ("plain", "spliced", "ablated"):
    found = getattr(loss, name)
    print(f"{name:8} {found.value:6.2f} nats a token")
print(f"recovered {loss.recovered:.2f} of what the mean in its place loses")

# %% [markdown]
# How to read it: *spliced* is the model working with what the features decode to, *ablated* with the mean of the stream
# in its place. An autoencoder can explain most of the variance and still cost loss: the model also reads what is small.
#
# ## When features come and go

# %%
OPENING = "Once upon a time there was a little"
record = trace.capture(str(sae.site)).measure(dlens.Features(sae=sae)).generate(OPENING, 24, progress=False)
steps = dlens.feature_steps(record, sae)
print(record.text[0])
figure = px.imshow(steps["overlap"].values, zmin=0, zmax=1, color_continuous_scale="Cividis")
styled(figure, "step", "step")

# %% [markdown]
# How to read it: a cell is how many active features two steps share, averaged over the generated positions (Jaccard: 1
# is the same set). A bright block along the diagonal is a stretch in which little changes.

# %%
beside = steps[["stability", "drift"]].to_pandas()
print(beside.iloc[[1, 4, 8, 12, 16, 20, 23]].round(2).to_string())
lives = steps[["positions", "first", "last", "masked", "decoded"]].to_pandas()
print("\nfeatures that live at masks, and features that live at decoded tokens:")
often = lives[lives["positions"] >= 6]
print(often.sort_values("masked", ascending=False).head(4).round(2).to_string())
print(often.sort_values("decoded", ascending=False).head(4).round(2).to_string())

# %% [markdown]
# How to read it: *stability* is what a position shares with the step before while both are masked; *drift* is what a
# decoded position has lost since the step at which it was decoded. In the table *first* and *last* are the steps at
# which a feature comes and goes, averaged over the positions where it is ever active.
#
# ## Set a feature
#
# With its error, only the features that are set change anything.

# %%
rate = record.measures["features"]["rate_by_noise"].sel(state="masked").max("noise").to_pandas()
masks = often.sort_values("masked", ascending=False).index[:3].tolist()
print("features", masks, "are active at", rate[masks].round(2).tolist(), "of the masks, at their most frequent noise")
changes = {
    "as it is": trace,
    "with the reconstruction alone": trace.splice(sae, error=False),
    f"without features {masks}": trace.splice(sae, features=masks, value=0.0),
    f"feature {masks[0]} at 20, early": trace.splice(sae, features=masks[0], value=20.0, steps="early"),
}
for words, chain in changes.items():
    print(f"{words:34}", repr(chain.generate(OPENING, 16, progress=False).text[0]))

# %% [markdown]
# ## Read a label of your own
#
# Whether somebody *saw* something: a label of the finished text. At every step the probe reads the mean over the
# generated positions, most of them still masks, and asks whether the word will be there in the end.

# %%
NEW, NAMES = 12, ["little", "small", "young", "happy", "sad", "kind", "brave", "funny", "big", "old", "good", "new"]
prompts = [f"Once upon a time there was a {name} child. One day" for name in NAMES]
sampler = dlens.samplers.LLaDA(steps=NEW, block_length=NEW, temperature=0.8)
run = trace.capture("resid_post", layers=[8]).generate(prompts * 3, NEW, sampler=sampler, progress=False)
labels = ["saw" if " saw" in text else "none" for text in run.text]
print({label: labels.count(label) for label in sorted(set(labels))}, repr(run.text[0]))
found = dlens.probe(run, labels, tokens="generated", folds=4).sel(layer=8)
shown = ["score", "low", "high", "control", "control_low", "control_high"]
print(found[shown].to_pandas()[shown].iloc[[0, 3, 6, 9, 11]].round(2).to_string())

# %% [markdown]
# How to read it: balanced accuracy with its 95 % interval over prompts; a blind guess has 0.5. The control reads
# shuffled labels: what it reaches with so few prompts is what a score must be compared with.
#
# ## Steer where it forms
#
# A direction toward "saw", and a schedule from the curve of what can be read. Strength is a number that you define of a
# text; fluency is the plain model's own loss of it. The constant control has the same sum of scales.

# %%
vector = dlens.direction(run, labels, toward="saw", tokens="generated")[0]
schedule = dlens.plan_steering(found["score"], alpha=1.0, chance=found.attrs["chance"])
print("scales", np.round(schedule.scales, 1).tolist(), f"dispersion {schedule.dispersion:.1f}")


def saw(text: str) -> float:
    """Whether somebody saw something."""
    return float(" saw" in text)


effect = dlens.steering(
    model, vector, 8, schedule, prompts, saw, max_new_tokens=NEW, sampler=sampler, tokens="masked", draws=1, seed=1
)
rows = {
    name: {
        "strength": effect.strength[name].value,
        "low": effect.strength[name].low,
        "high": effect.strength[name].high,
        "loss": effect.fluency[name].value,
    }
    for name in effect.strength
}
print(pd.DataFrame(rows).T.round(2).to_string())
for words, difference in (("stronger", effect.stronger), ("costlier", effect.costlier)):
    print(f"scheduled is {difference.value:+.2f} {words} ({difference.low:+.2f} to {difference.high:+.2f})")
for name, own in effect.texts.items():
    print(f"{name:10}", repr(own[0]))

# %% [markdown]
# How to read it: compare *scheduled* with *constant*, not with *plain*: both push as much in all. An interval that
# holds 0 decides nothing, and a dozen prompts rarely decide.
#
# ## What this does not show
#
# - **That features are the model's.** Another seed finds others; an autoencoder of another size splits them.
# - **That what can be read is used.** A probe reads what lies there; steering asks what follows from it.
# - **The published schedule.** The paper's formula is not known; this one is dlens's own, from the curve of a probe.
#
# On your own: `dlens.train_sae` on rows of another layer; `noise=(0.5, 1.0)` in `activation_rows` for early steps; an
# autoencoder's direction in place of the probe's; `dlens.view_metrics` for what layers keep through two maskings.
