# %% [markdown]
# # 8. Heads, gradients, circuits: inside the block
#
# You will look at the attention pattern of a head, switch heads off, stop tokens from reading others, take gradients
# at every step of a run, and find the edges between heads and MLPs that decide between two answers: in an
# autoregressive and in a diffusion model, with the same lines.
#
# Why: *Mechanism Shift During Post-training from Autoregressive to Masked Diffusion Language Models* (arXiv
# 2601.14758) asks whether diffusion training keeps the circuits of the model that it started from. Its models have
# seven billion weights; the three of the trio have eight million, and answer within a minute.
#
# What to expect: numbers that differ between the models. Whether circuits are shared is measured, with a control, and
# on few pairs: the page "Circuits of the trio" has more of them, with intervals. All cells together take about
# a minute.

# %%
import numpy as np
import pandas as pd
import plotly.express as px

import dlens
import dlens.widgets
from dlens.show.figures import styled

models = {name: dlens.load(name) for name in ("trio/ar", "trio/diffusion", "trio/ar-init")}
OPENING = "Once upon a time there was a little girl"

# %% [markdown]
# ## Points inside a block
#
# Names are those of TransformerLens: `q`, `k`, `v` after the projections, `rot_q` and `rot_k` after rotation,
# `attn_scores`, `pattern`, `z` (what each head mixed), `result` (what each head adds), `mlp_pre` and `mlp_post`. All
# are captured as the stream is, whatever attention kernel the model was loaded with.

# %%
trace = dlens.trace(models["trio/diffusion"])
record = trace.capture("pattern", "z", "result", "attn_out", layers=[3]).generate(OPENING, 8, progress=False)
for name in record:
    print(name, record.dims(name), list(record[name].shape))
gap = (record["result"].sum(-2) - record["attn_out"]).abs().max()
print(f"results of the heads add up to attn_out within {gap:.1e}")

# %%
heads = record["blocks.3.attn.hook_pattern"][4, 0]  # [head, query, key] at step 4
figure = px.imshow(heads.numpy(), facet_col=0, color_continuous_scale="Cividis", labels={"x": "key", "y": "query"})
styled(figure, "key", "query")

# %% [markdown]
# How to read it: one panel a head; a row is a token that looks, a column a token that is looked at, and each row adds
# up to 1. A diagonal is a head that looks at its own position or next to it; a bright column is a token that draws
# attention from everywhere.
#
# ## Without a head, without a path
#
# `heads=` limits any operation to some heads, `channels` at `mlp_post` are neurons, and `knockout` stops tokens of
# one kind from attending to tokens of another.

# %%
changes = {
    "as it is": trace,
    "without heads 0 and 2 of layer 3": trace.ablate(3, at="z", heads=[0, 2]),
    "without 32 neurons of layer 5": trace.ablate(5, range(32), at="mlp_post"),
    "masks do not see the prompt": trace.knockout(source="prompt", target="masked"),
    "masks do not see each other": trace.knockout(source="masked", target="masked"),
}
for words, chain in changes.items():
    print(f"{words:34}", repr(chain.generate(OPENING, 12, progress=False).text[0]))

# %% [markdown]
# How to read it: the text of the same decoding with one thing taken away. Each is one text; what an ablation costs in
# accuracy is asked with `dlens.retention`. What masks attend to on average, and whether a head's pattern stays as it
# is over the steps:

# %%
run = trace.capture("pattern").generate([OPENING, "One day a boy found a big"], 12, progress=False)
flow = dlens.attention_flow(run)
share = flow["share"].sel(state="masked").mean(["layer", "head"]).to_pandas()
print("what masks attend to, mean over heads, by step:")
beside = pd.concat({"share": share, "if even": flow["keys"].to_pandas()}, axis=1)
print(beside.iloc[[0, 4, 8, 11]].round(2).to_string())
stable = dlens.pattern_stability(run)
print("\nstability of patterns from step to step, by layer and head:")
print(stable["stability"].to_pandas().round(2).T.to_string())

# %% [markdown]
# How to read it: under "if even" are the shares that a head would give which attends to all tokens alike. A
# stability of 1 is a pattern that never moves; `stable["others"]` holds the control, the cosine with the other heads
# of the layer.
#
# ## Gradients, step by step
#
# `.gradient(points, of=metric)` keeps d metric / d value beside everything else a trace does. A metric is a function
# of a step's logits and the step that gives one number a row; `dlens.metrics` has the usual ones. Each step has one
# backward pass, over its own forward alone.

# %%
question = dlens.pairs("trio-math", models["trio/diffusion"], n=1)
prompt = question.clean[0][: question.at[0]]  # the canvas of the pair without its masks
record = trace.gradient("resid_pre", of=question.metric(), layers=[0]).generate(
    [list(prompt)], len(question.clean[0]) - len(prompt), progress=False
)
size = record.gradients["resid_pre"][:, 0, 0].norm(dim=-1)  # [step, position]
print("right minus wrong token where the answer begins, by step:", [round(float(m), 1) for m in record.metric[:, 0]])
pieces = [record.pieces.get(int(token), "?") for token in record.canvas[0, 0]]
print(pd.Series(size[0].tolist(), index=pieces).round(2).to_string())

# %% [markdown]
# How to read it: the length of the gradient at each token of the first canvas: how strongly the metric would move
# with the vector that enters there. It says nothing of how far that vector can move; attribution does.
#
# ## Attribution: which places, which heads
#
# Two prompts of equal length that differ in one number have different answers. `dlens.attribute` says how the metric
# of the clean run moves when a place takes its value from the corrupted run: exactly, one run a place (`"patching"`),
# or to first order, with one backward pass for all places (`"attribution"`).

# %%
asked = {name: dlens.pairs("trio-math", model, n=4) for name, model in models.items()}
print(asked["trio/ar"].words[0])
one = asked["trio/ar"][:1]
exact, quick = (
    dlens.attribute(models["trio/ar"], one.clean, one.corrupted, one.metric(), at="z", method=method)
    for method in ("patching", "attribution")
)
print(exact)
correlation = np.corrcoef(exact.scores.values.ravel(), quick.scores.values.ravel())[0, 1]
print(f"correlation of the quick scores with the exact ones: {correlation:.2f}")
styled(px.imshow(exact.scores.values, labels={"x": "head", "y": "layer"}, color_continuous_midpoint=0), "head", "layer")

# %% [markdown]
# How to read it: a cell is a head; negative means that the right answer loses when this head takes what it had for
# the other prompt. One pair is one pair: look at several before you name a head.
#
# ## Circuits: which edges
#
# `dlens.circuit` scores every edge between heads and MLPs (EAP-IG). `faithfulness` runs the model with every other
# edge patched from the corrupted prompt; the control is a circuit of as many random edges.

# %%
circuits = {name: dlens.circuit(model, asked[name]) for name, model in models.items()}
table = {
    name: {
        "edges": len(found),
        "first edge": f"{found.top(1).edges['source'].values[0]} to {found.top(1).edges['target'].values[0]}",
        "faithfulness of 500": found.faithfulness(500).value,
        "of 500 random": found.random(500).faithfulness().value,
    }
    for name, found in circuits.items()
}
print(pd.DataFrame(table).T.to_string())
names = list(circuits)
shared = {(a, b): circuits[a].overlap(circuits[b], 200) for i, a in enumerate(names) for b in names[i + 1 :]}
chance = circuits[names[0]].random(200).overlap(circuits[names[0]].random(200, seed=1))
print("\n".join(f"{a} and {b}: {value:.2f} of their top 200 edges" for (a, b), value in shared.items()))
print(f"random circuits: {chance:.2f}")

# %% [markdown]
# How to read it: faithfulness 1 is the clean run's metric, 0 the corrupted one's; it may be more or less. Overlap is
# Jaccard's: edges that both have, over those that either has. Compare it with that of random circuits, and with what
# one model's circuits from *other pairs* share, which is the most one can hope for: [the page](../circuits.md) has
# that number.
#
# ## The same in a widget

# %%
widget = dlens.widgets.Heads(models["trio/diffusion"], prompt=OPENING, max_new_tokens=8)
widget.layer, widget.head, widget.step = 3, 0, widget.steps[4]
widget

# %% [markdown]
# How to read it: a row of thumbnails a layer, a column a head. In a running notebook click a head to see it in full,
# move through the steps, and ablate it: the run is made anew, and both texts stand side by side.
#
# ## What this does not show
#
# - **That a pattern explains.** A head may look at a token and carry nothing of it; `z` and `result` say what it
#   carries.
# - **That a circuit is the mechanism.** Edges are scored to first order and the top n need not lie on a path.
#   Faithfulness is measured exactly, for these pairs.
# - **Large models.** The same lines run on them; EAP holds what every head adds, so take small batches.
#
# On your own: `at="mlp_post", by=("layer", "neuron")`; `dlens.logit_attribution`; `noise=` of `dlens.attribute`;
# `shown=` of `dlens.pairs`, for the circuit of a later canvas.
#
# Next: [tutorial 9](9_features_and_steering.ipynb), features of the stream over denoising, and steering where they
# form.
