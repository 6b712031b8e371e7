# %% [markdown]
# # 10. Your own data set, from stream to probe
#
# You will take a table of texts with labels, write what every layer holds of them to disk, read that without the model,
# ask at which layer the labels can be read, find out that a probe may have read something else than you meant, and do
# the same at every step while a model decodes.
#
# Why: papers probe data sets that others made. Your question needs your texts, your labels and your split, and more
# activations than memory holds.
#
# What to expect: a probe that reads a label nearly without error, and the same probe after you keep whole words out of
# its training. All cells together take less than half a minute.

# %%
import csv
import random
from collections import Counter
from pathlib import Path

import plotly.graph_objects as go
import torch

import dlens
from dlens.show.figures import styled

# %% [markdown]
# ## A table of texts and labels
#
# Here is one of 96 small stories: somebody gets or loses some things. Each has the verb, whether there are more or
# fewer things in the end, and how many. Yours comes from a file as well; nothing below cares where it is from.

# %%
MORE, FEWER = "buys finds gets wins makes picks", "loses sells drops breaks burns spends"
VERBS = {verb: end for end, words in (("more", MORE), ("fewer", FEWER)) for verb in words.split()}
draw = random.Random(0)
with Path("stories.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["text", "verb", "end", "left"])
    for verb, end in list(VERBS.items()) * 8:
        name, item = draw.choice(["Ella", "Tom", "Mia", "Ben"]), draw.choice(["apples", "books", "shells", "stars"])
        first, change = draw.randint(20, 40), draw.randint(2, 15)
        text = f"Question: {name} has {first} {item}. {name} {verb} {change}. How many {item} does {name} have now?"
        table.writerow([f"{text}\nAnswer:", verb, end, first + change * (1 if end == "more" else -1)])

with Path("stories.csv").open(newline="") as file:
    stories = list(csv.DictReader(file))
texts, verbs, ends = ([story[column] for story in stories] for column in ("text", "verb", "end"))
print(texts[0])
print(Counter(ends), Counter(verbs))

# %% [markdown]
# Look at the counts before anything else: a label that nine of ten texts share is guessed right nine times of ten.
# dlens scores by *balanced* accuracy, for which a blind guess has 1 / classes, and its folds hold the classes in like
# shares.
#
# ## Write the activations to disk
#
# A record holds what was captured in memory; a **stream** writes it to a folder, so that memory does not grow with the
# texts. Each position is a row. If this is killed, the same call goes on where the folder ends.

# %%
model = dlens.load("trio/diffusion")
trace = dlens.trace(model).capture("resid_post", layers=range(0, 16, 3))
trace.stream(texts, "activations", progress=False)
print(f"{sum(path.stat().st_size for path in Path('activations').iterdir()) / 2**20:.0f} MiB")

# %% [markdown]
# From here on the model is not needed: read the folder tomorrow, or on a laptop.

# %%
kept = dlens.load_activations("activations")
print(kept)
rows = next(kept.select(layers=9).rows(5, shuffle=0))
print(rows.values.shape, "of prompts", rows.prompt.tolist(), "at positions", rows.position.tolist())

# %% [markdown]
# ## At which layer can the label be read?
#
# `dlens.probe` takes the stream and one label for each text. It reads the mean over the positions of a text, by a
# linear classifier that never saw the text, and does the same with shuffled labels.

# %%
data = dlens.probe(kept, ends)


def curve(name, score, low, high):
    """A score by layer, with its interval."""
    reach = {"type": "data", "symmetric": False, "array": high - score, "arrayminus": score - low}
    return go.Scatter(x=data["layer"], y=score, name=name, error_y=reach)


curves = [
    curve("score", data["score"], data["low"], data["high"]),
    curve("shuffled labels", data["control"], data["control_low"], data["control_high"]),
]
styled(go.Figure(curves), "layer", "balanced accuracy")

# %% [markdown]
# How to read it: bars are 95 % intervals over texts. Where those of the score lie above those of the control, the
# label can be read. It can, at layer 0 already: so ask what was read.
#
# ## Did it read what you meant?
#
# The verb decides the label. A probe that knows twelve words needs no idea of more and fewer. So keep whole verbs out
# of its training: `groups=` names what folds must not share.

# %%
unseen = dlens.probe(kept, ends, groups=verbs, folds=6)
print("layer  other texts  other verbs  (interval over verbs)")
for layer in kept.layers:
    seen, other = data.sel(layer=layer), unseen.sel(layer=layer)
    interval = f"({float(other['low']):.2f} to {float(other['high']):.2f})"
    print(f"{layer:5}  {float(seen['score']):11.2f}  {float(other['score']):11.2f}  {interval}")

# %% [markdown]
# How to read it: the first column has seen the verbs of the texts that it is tried on, the second has not. What is left
# in the second is what the layers say of *more* and *fewer* whatever the word. Twelve verbs are few, as the intervals
# say. Whoever reports the first column alone reports a list of words.
#
# ## Numbers
#
# Labels that are numbers are read by ridge regression and scored by R2: 1 is exact, 0 is no better than their mean.

# %%
left = [float(story["left"]) for story in stories]
numbers = dlens.probe(kept, left, numbers=True)
print(numbers[["score", "low", "high", "control"]].to_pandas().round(2).to_string())

# %% [markdown]
# ## While the model decodes
#
# With `max_new_tokens=` the model answers each text, and each position at each step is a row. `tokens="masked"` keeps
# the positions that are still masks. Ask them for the number that is left: what can be read there is known before it is
# written.

# %%
STEPS = 4
asked = range(0, 96, 2)
run = dlens.trace(model).capture("resid_post", layers=[3, 9, 15], tokens="masked", dtype="float16")
sampler = dlens.samplers.LLaDA(steps=STEPS, block_length=8)
answers = run.stream([texts[n] for n in asked], "answers", max_new_tokens=8, sampler=sampler, progress=False)
found = dlens.probe(answers, [left[n] for n in asked], numbers=True)
print(answers)
print(found["score"].to_pandas().round(2).to_string())
print("shuffled:", found["control"].values.round(1).min(), "to", found["control"].values.round(1).max())

# %% [markdown]
# How to read it: a row a step, a column a layer, R2 in each. Fewer masks are left at later steps, so a row reads fewer
# positions than the one above it. `found["low"]` and `found["high"]` have the same shape.
#
# ## More than memory holds
#
# `probe` keeps one vector a text, layer and step. What needs every row reads the stream batch by batch, as a training
# set: here a linear classifier of single positions, by gradient descent, tried on texts that it never saw.

# %%
label = torch.tensor([end == "more" for end in ends])
train, test = kept.select(layers=9, prompts=range(72)), kept.select(layers=9, prompts=range(72, 96)).read()
torch.manual_seed(0)
reader = torch.nn.Linear(model.d_model, 1)
optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3)
for epoch in range(20):
    for rows in train.rows(512, shuffle=epoch):
        guess = reader(rows.values)[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(guess, label[rows.prompt.long()].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
with torch.no_grad():
    right = (reader(test.values)[:, 0] > 0) == label[test.prompt.long()]
openings = [text.split(f" {verb} ")[0] for text, verb in zip(texts, verbs, strict=True)]
starts = torch.tensor([len(model.tokenizer(opening)["input_ids"]) for opening in openings])
before = test.position < starts[test.prompt.long()]
for name, part in {"before the verb": before, "from it on": ~before}.items():
    print(f"{name:16} {right[part].float().mean():.2f} of {int(part.sum())} positions are read right")

# %% [markdown]
# How to read it: the model is bidirectional, so that a position before the verb can know of it too.
#
# ## What this does not show
#
# - **That the model uses what can be read.** Steer along `dlens.direction(kept, ends)`, or ablate it
#   ([tutorial 9](9_features_and_steering.ipynb)).
# - **That a low score means that nothing is there.** A linear probe of a few texts misses what is not linear, or small.
# - **Anything of texts unlike these.** Twelve verbs and one frame are a narrow world; so is many a published data set.
#
# On your own: put your file in place of `stories.csv`; `trace.skip([5])` before `.capture`, to see which layers a label
# needs; `dlens.similarity(kept, other)` for two streams; `dlens.train_sae(kept.select(layers=9))` for features.
