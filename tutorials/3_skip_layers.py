# %% [markdown]
# # 3. Skip layers: choose, measure, plan by schedule
#
# You will choose two of sixteen layers to skip by five rules, measure what each choice costs in loss and in solved
# problems, with intervals, ask whether similarity was a good guide, and let the choice depend on the noise level.
#
# The words of [tutorial 1](1_first_trace.ipynb) are used: *layer* (or block), *step*, *noise*, *record*. To **skip** a
# layer is to pass the stream by: its work is not done, so compute is saved.
#
# Why: layers that hardly change the stream look like waste. Rules that find them are cheap; whether the model can do
# without them is another question, and only measuring answers it.
#
# What to expect: rules disagree; the loss tells plans apart with little work; a few problems do not, and the intervals
# will say so.

# %%
import pandas as pd
import plotly.express as px
from IPython.display import display
from scipy.stats import spearmanr

import dlens
import dlens.widgets
from dlens import tasks
from dlens.findings.scores.accuracy import score_task
from dlens.findings.skipping.plan_schedule import noise_losses
from dlens.findings.skipping.skip_schedule import mean_loss
from dlens.show import figures
from dlens.show.figures import retention_points

model = dlens.load("trio/diffusion")
task = tasks.get("trio-code")


def worked(n, seed):
    """Problems of the training split with their answers, as text."""
    problems = task.problems(n, seed=seed, split="train")
    return [problem.prompt + problem.answer for problem in problems]


chosen_on, judged_on = worked(8, seed=0), worked(12, seed=1)
print(chosen_on[1])

# %% [markdown]
# The task is to write small Python functions. Plans are **chosen** on some texts and **judged** on others: a plan is
# fitted to the texts it was chosen on. All of them are from the training split; the problems that are scored below are
# from the test split.
#
# ## Choose
#
# `dlens.profile` reads the texts once, with none to 95 % of their tokens masked, and measures every layer. `plan_skip`
# picks layers from the profile; two of its rules run the model themselves.

# %%
profile = dlens.profile(model, chosen_on, measures=[dlens.Cosine(), dlens.CKA()])
plans = {
    rule: dlens.plan_skip(profile, n=2, rule=rule, threshold=0 if rule == "cosine" else None)
    for rule in ("cosine", "block-influence", "cka")
}
for rule in ("angular", "greedy-loss"):
    plans[rule] = dlens.plan_skip(model, n=2, rule=rule, prompts=chosen_on, batch_size=16)

print(profile.notes[0], "\n")
print("\n".join(f"{rule:16} {plan.layers}" for rule, plan in plans.items()))

# %% [markdown]
# - `cosine` takes the layers whose input and output point the same way most, no two of them neighbours (the paper asks
#   for a cosine above 0.95; here for one above 0, so that there are always two).
# - `block-influence` takes the same numbers, and allows neighbours.
# - `cka` looks at how alike the tokens are arranged before and after the layer.
# - `angular` takes two layers in a row, over which the stream turns least.
# - `greedy-loss` removes one layer after the other, each time the one without which the loss rises least. It does not
#   look at similarity at all.
#
# ## Measure the loss
#
# The loss says how well the model predicts masked tokens, in nats a token (lower is better). It needs a few forwards
# and no decoding, so it is the quickest way to tell plans apart. It is measured at low noise (up to half of the tokens
# masked) and at high noise; the mean of both stands for a whole run.

# %%
LEVELS = (0.0, 0.5, 1.0)


def loss(trace):
    """Nats a token at low and at high noise, and their mean, on texts that no plan was chosen on."""
    low, high = noise_losses(trace, LEVELS, judged_on, batch_size=12)
    return {"low noise": low, "high noise": high, "mean": mean_loss(LEVELS, (low, high))}


losses = {"skip nothing": loss(dlens.trace(model))}
for rule, plan in plans.items():
    losses[rule] = loss(dlens.trace(model).skip(plan))
table = pd.DataFrame(losses).T
table["added"] = table["mean"] - table["mean"].iloc[0]
print(table.round(3).to_string())

# %% [markdown]
# `added` is what the skip costs. All five skip two layers, so they save the same; compare the costs. The texts are few
# and short: a difference of some hundredths may turn around on others, and a cost below 0 is chance.
#
# ## Was similarity a good guide?
#
# The rule `greedy-loss` measured what removing each layer *alone* adds to the loss. Put that beside the layer's
# cosine: if similarity were a perfect guide, the points would fall from left to right.

# %%
scores = {"cosine": plans["cosine"].scores, "added loss": plans["greedy-loss"].scores}
alone = pd.DataFrame(scores)
later = alone.iloc[1:]
rank = spearmanr(later["cosine"], later["added loss"])
print(f"rank correlation over layers 1 to 15: {rank.statistic:.2f} (p = {rank.pvalue:.2g})")
print("a perfect guide would have -1")
print("most similar layer:", later["cosine"].idxmax())
print("cheapest to remove:", later["added loss"].idxmin())

figure = px.scatter(later, "cosine", "added loss", text=later.index)
figure.update_traces(textposition="top center", marker_color=figures.COLOURS[0])
figures.styled(figure, "cosine of block input and output", "added loss, nats a token")

# %% [markdown]
# One point a layer, its number beside it. Layer 0, which turns the embedding into the stream, is left out, as it would
# set the scale of both axes. Read the printed correlation: near -1, similarity ranks layers as the loss does; near 0,
# it knows nothing of what a layer is for. A cosine weighs all directions of the stream alike, and what matters to the
# answer may lie in a few of them.
#
# ## In a row, or apart
#
# One paper skips no two neighbours, as errors of neighbours may add up. Three layers, side by side and spread out,
# from three places in depth:

# %%
rows = {}
for first in (2, 5, 8):
    in_a_row, apart = [first, first + 1, first + 2], [first, first + 2, first + 4]
    rows[f"from layer {first}"] = {
        "in a row": loss(dlens.trace(model).skip(in_a_row))["mean"] - table["mean"].iloc[0],
        "apart": loss(dlens.trace(model).skip(apart))["mean"] - table["mean"].iloc[0],
    }
print("added loss of three layers\n")
print(pd.DataFrame(rows).T.round(3).to_string())

# %% [markdown]
# Compare the two columns row by row. If neighbours cost more, `in a row` is larger throughout. Where it is not, the
# rule "no neighbours" has a price here and no gain; also note that the two choices do not skip the same layers, so
# some of the difference is which layers, and not their distance.
#
# ## Measure answers
#
# What one wants to keep is solved problems. `retention` scores the model with and without the skip on the *same*
# problems. The unchanged model is scored once, for all comparisons. Two tokens a step, to save time.

# %%
sampler = dlens.samplers.LLaDA(steps=16, block_length=32)
settings = {"n": 8, "sampler": sampler, "progress": False}
baseline = score_task(dlens.trace(model), task, **settings)
kept = {
    rule: dlens.retention(model, plans[rule], task, baseline=baseline, **settings) for rule in ("cosine", "greedy-loss")
}
columns = "n baseline accuracy retained low high p_value flops_saved time_ratio".split()
rows = pd.DataFrame([each.row() for each in kept.values()], index=list(kept))
print(rows[columns].round(3).T.to_string())

# %% [markdown]
# - `baseline` and `accuracy`: share of the problems solved without and with the skip. `retained` is their ratio.
# - `low` and `high`: an interval of 95 % for `retained`: all ratios that a score test of paired answers does not
#   refuse.
# - `p_value`: the exact test of McNemar. It looks at the problems that only one of the two solves: is it as often the
#   one as the other? Above 0.05 the answers do not show a difference.
# - `flops_saved`: counted on the run, with attention and head. `time_ratio`: seconds with the skip over seconds
#   without, one run each, so it also holds whatever else this machine did.
#
# With so few problems the interval is wide and the test can hardly find anything. A comparison to rely on takes
# hundreds of problems: a larger `n` is the only change.
#
# ## By noise level
#
# A diffusion model may need other layers on a canvas of masks than on one that is nearly written. `plan_schedule`
# chooses layers for each noise level, one pair of layer and level after the other, until the budget of compute is
# spent. The budget here is that of two layers, so that the saving is equal.

# %%
schedule = dlens.plan_schedule(model, budget=2 / 16, levels=LEVELS, prompts=chosen_on)
for low, high, layers in zip(schedule.levels, schedule.levels[1:], schedule.layers, strict=False):
    print(f"noise above {low:.1f}, up to {high:.1f}: skip {layers}")

kept["schedule"] = dlens.retention(model, schedule, task, baseline=baseline, **settings)
for name, each in kept.items():
    print(f"{name:12} saves {each.flops_saved:.1%} of the FLOPs")

# %%
retention_points(kept)

# %% [markdown]
# Points are `retained`, lines their intervals, and the dotted line is "all kept". What each saves is printed above.
# Where intervals overlap, these problems do not tell the plans apart. An interval without width does not mean
# certainty: every draw of these few problems gave the same. The loss can tell more, on texts that none of the plans
# was chosen on:

# %%
losses["schedule"] = loss(schedule.apply(dlens.trace(model)))
print(pd.DataFrame(losses).T.loc[["skip nothing", *kept]].round(3).to_string())

# %% [markdown]
# If the mean of `schedule` is the lowest of the last three at equal FLOPs, choosing by noise was worth it on these
# texts. If not, it followed the few texts that it was chosen on: it has more choices to fit to them.
# `schedule.apply(dlens.trace(model))` is a trace for anything else.
#
# ## Try it by hand
#
# `SkipPlanner` is for a live notebook: click layers on the strip, and see the loss and the solved problems change
# while the work runs in the background. Here it measures one plan, with four problems, and says it in one line of
# Python.

# %%
widget = dlens.widgets.SkipPlanner(model, task, n=4, profile=profile, texts=chosen_on[:4], sampler=sampler, live=False)
widget.plan = list(plans["greedy-loss"].layers)
widget.running = True
widget.wait()
print(widget.code)
display(widget)

# %% [markdown]
# The brighter a layer, the less it turns the stream; skipped layers are struck out. The interval is that of the
# accuracy alone (Wilson's), with four problems wider still.
#
# ## What this does not show
#
# - Which rule is best. A few texts and problems of one task, and one training seed, decide nothing; another task may
#   need other layers.
# - Time. Operations are counted, seconds are not: compare `time_ratio` above with the share saved.
# - That a plan survives a change of the sampler, or of the length of the answers.
