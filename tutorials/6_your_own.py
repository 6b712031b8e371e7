# %% [markdown]
# # 6. Your own operation, measure and model family
#
# You will extend dlens from a notebook, without touching the package: first a function at a hook point, then an
# *operation* with checks and words of its own, a *measure* that works while a model runs, and a *family* for an
# architecture that dlens does not know.
#
# Why: questions differ, and most are one small change away from what is there. Each of the three is one small class or
# value. What is built in is written the same way, so the files of dlens are further examples: `dlens/ops/steer.py`,
# `dlens/measures/norms.py`, `dlens/models/families/decoder.py`.
#
# What to expect: about fifty lines that you can reuse, and clear errors where something does not fit. All cells
# together take about ten seconds.

# %%
from dataclasses import dataclass, replace
from typing import Any, final

import pandas as pd
import plotly.graph_objects as go
import torch
from transformers import ModernBertConfig, ModernBertForMaskedLM

import dlens
from dlens.measures import PositionMeans, Visit
from dlens.ops.base.edit import Place
from dlens.ops.base.target import Target
from dlens.show.figures import styled

model = dlens.load("trio/diffusion")
inner = range(model.n_layers - 1)
TEXTS = ["Once upon a time there was a little girl", "def f(x):\n    return ((x + 4) * 2)"]

# %% [markdown]
# ## A function at a hook point
#
# Tutorial 4 set a huge channel to zero or to its mean. A third way is to *clamp*: cut whatever is far above the rest,
# and keep its sign. `.hook(name, fn)` calls `fn(value, hook)` there, with a copy of the value that you may edit or
# keep. What you return replaces it; None leaves it as it is.


# %%
def clamp(value, hook):
    """Cut magnitudes above 8 times the median of the same position; value is [batch, position, d_model]."""
    seen.add((hook.name, hook.step))
    most = 8 * value.abs().median(dim=-1, keepdim=True).values
    return value.clamp(-most, most)


seen = set()
plain = dlens.trace(model).capture("resid_post")
hooked = dlens.trace(model).hook("resid_post", clamp, layers=inner, steps="early").capture("resid_post")
print(hooked, "\n")
before = plain.generate(TEXTS[0], 16, seed=0, progress=False)
after = hooked.generate(TEXTS[0], 16, seed=0, progress=False)
print("as it is:", before.text[0])
print("clamped: ", after.text[0])
print(f"\nthe function was called {len(seen)} times, at steps {sorted({step for _, step in seen})}")

# %% [markdown]
# How to read it: the plan says in words what will happen. The early third of 16 steps is the first five, each with one
# call for every block but the last. Whether the text changes depends on the model; what changed for sure is the
# stream:

# %%
for name, record in (("as it is", before), ("clamped", after)):
    stream = record["resid_post"][0, 8, 0]  # step 0, layer 8: [position, d_model]
    ratio = (stream.abs().amax(-1) / stream.abs().median(-1).values).max()
    print(f"{name}: largest over median magnitude after block 8 at step 0: at most {ratio:.2f}")

# %% [markdown]
# How to read it: the capture was written after the hook, so it sees what the hook returned; the second number is at
# most the limit of 8, up to rounding. Operations at one place apply in the order written.
#
# A function is enough for most experiments. It has three limits: the plan knows only its name, its settings are not
# saved with a record, and nothing checks them before the run.
#
# ## An operation
#
# An operation is a frozen dataclass that says what to do, as data. One that writes to a hook point extends
# `dlens.Edit`, which brings where and when: `at`, `layers`, `tokens`, and `scope` (steps and noise). Two methods are
# yours:
#
# - `edit(value, place)`: the new value. Where the scope does not reach, dlens keeps the old one;
# - `words()`: for `print(trace)` and for errors; `self.where()` says where and when.
#
# Two more where there are settings:
#
# - `check(target)`: refuse what cannot work, before anything is computed;
# - `details()`: the settings that `record.plan` keeps.


# %%
@final
@dataclass(frozen=True, kw_only=True)
class Clamp(dlens.Edit):
    """Magnitudes are cut at `limit` times the median of the same position."""

    limit: float = 8.0

    def check(self, target: Target) -> None:
        super().check(target)
        if not self.limit >= 1:
            raise ValueError(f"limit={self.limit}; expected at least 1, the median itself; give for example 8")

    def edit(self, value: torch.Tensor, place: Place) -> torch.Tensor:
        most = self.limit * value.abs().median(dim=-1, keepdim=True).values
        return value.clamp(-most, most)

    def words(self) -> str:
        return f"clamp to {self.limit:g} x the median in {self.where()}"

    def details(self) -> dict[str, Any]:
        return {"limit": self.limit}


trace = dlens.trace(model).apply(Clamp(layers=(0, 1, 2, 3))).capture("resid_post")
print(trace, "\n")
record = trace.generate(TEXTS[0], 16, seed=0, progress=False)
print(record.text[0], "\n")
print({key: value for key, value in record.plan[0].items() if key != "words"})

# %% [markdown]
# How to read it: the operation stands in the plan beside those of dlens, and the saved record will tell its limit.
# `.apply` takes any operation, and checks it as a verb does. `value` has the rows of the whole batch; under
# classifier-free guidance it has both halves, the conditional rows first. Return a new tensor and leave `value` as it
# was.
#
# What does not fit is refused by your own check, or by the one that `Edit` brings:

# %%
for settings in ({"limit": 0.5}, {"layers": (99,)}, {"at": "resid_psot"}):
    try:
        dlens.trace(model).apply(Clamp(**settings))
    except (ValueError, IndexError) as error:
        print(f"{settings}: {error}\n")

# %% [markdown]
# ## A measure
#
# A measure reads the stream while the model runs and keeps sums, so that its memory does not grow with steps and
# positions. Ours is the *kurtosis* of each position's channels about zero, mean of h⁴ over the squared mean of h²: 3
# for a Gaussian vector, and `d_model` where one channel holds everything. It is a way to see outliers without naming
# channels.
#
# It is a mean over positions of one number each, so it extends `PositionMeans`, and says three things:
#
# - `points`: the hook points it reads;
# - `formulas`: the name of each variable, and in words what it is the mean of;
# - `values(visit)`: the number of every position, [layer, batch, position], from `visit.values`, which hold some layers
#   of one step as [layer, batch, position, d_model].
#
# The rest is done for it: sums by step, noise and state, positions that do not count, labels. `PromptMeans` does the
# same for numbers that the positions of a prompt have together, as in `dlens/measures/effective_rank.py`. What is no
# mean extends `dlens.Measure`, with `start`, `update` and `result` of its own.


# %%
@final
@dataclass(frozen=True, kw_only=True)
class Kurtosis(PositionMeans):
    """Mean over positions of mean_c h^4 / (mean_c h^2)^2 at what leaves each block."""

    points = ("resid_post",)
    formulas = {"kurtosis": "kurtosis of channels about zero"}

    def values(self, visit: Visit) -> dict[str, torch.Tensor]:
        square = visit.values["resid_post"].double().square()
        return {"kurtosis": square.square().mean(-1) / square.mean(-1).square()}


record = plain.measure(Kurtosis()).forward(TEXTS[0])
data = record.measures["kurtosis"]
stream = record["resid_post"][:, 0].double()
by_hand = (stream**4).mean(-1) / (stream**2).mean(-1) ** 2
print("dimensions:", dict(data.sizes))
measured = dlens.measures.pool(data, "kurtosis", ["noise", "state"]).values
print("largest difference from the same computed by hand:", f"{abs(measured - by_hand.mean(-1).numpy()).max():.1e}")

# %% [markdown]
# How to read it: the difference is rounding. Check a new measure like this once, on captured tensors.
#
# As the dataset has `n`, everything that pools works with it: `dlens.measures.pool`, and `dlens.profile`, which runs
# batch after batch and joins their sums.

# %%
profiles = {
    "as it is": dlens.profile(model, TEXTS, measures=[Kurtosis()]),
    "one text a batch": dlens.profile(model, TEXTS, measures=[Kurtosis()], batch_size=1),
    "clamped": dlens.profile(dlens.trace(model).apply(Clamp(layers=tuple(inner))), TEXTS, measures=[Kurtosis()]),
    "autoregressive": dlens.profile("trio/ar", TEXTS, measures=[Kurtosis()]),
}
table = pd.DataFrame({name: profile.pooled("kurtosis", "kurtosis").values for name, profile in profiles.items()})
print(table.round(2).to_string())
figure = go.Figure([go.Scatter(x=table.index, y=table[name], name=name) for name in table])
styled(figure, "layer", "kurtosis")

# %% [markdown]
# How to read it: one row a layer, and the same as lines. The first two columns are equal: the result does not depend
# on the batches. The third is lower than the first where the clamp acts and cut something. The last block is free, and
# shows what it makes of a clamped stream. An autoregressive model has no noise, and the same measure serves it.
#
# ## A family
#
# dlens loads decoders of transformers by their layout: where the blocks are, what each returns, how text goes in. Here
# is one that it does not know, ModernBERT: a bidirectional model trained to fill masks, so that one can decode with it
# as with a diffusion model. This one is tiny and random, and borrows the trio's tokenizer.

# %%
torch.manual_seed(0)
tokenizer = model.tokenizer
config = ModernBertConfig(
    vocab_size=len(tokenizer),
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=6,
    num_attention_heads=4,
    max_position_embeddings=256,
    pad_token_id=tokenizer.pad_token_id,
    eos_token_id=tokenizer.eos_token_id,
    bos_token_id=None,
    cls_token_id=None,
    sep_token_id=None,
    initializer_range=0.1,
)
module = ModernBertForMaskedLM(config).eval()
try:
    dlens.load(module, tokenizer=tokenizer)
except ValueError as error:
    print(type(error).__name__, "-", error)
print("\n", module.model.layers[1], sep="")

# %% [markdown]
# How to read it: the error names what was looked for, and the fix. The printed block shows what a `Layout` has to say:
# its modules, and which of their inputs and outputs are the points of the residual stream. `Site("mlp_norm", "input")`
# is what enters that module. `Fill` names a module that does not run when half of a block is skipped, and what takes
# the place of its output.


# %%
def nothing(hidden, block):
    """What an MLP adds when it is skipped."""
    return torch.zeros_like(hidden)


def no_attention(hidden, block):
    """The same for attention, which returns a pair here: what is added, and its weights."""
    return torch.zeros_like(hidden), None


def inputs(ids, attention_mask):
    """The arguments of the module; the mask is None where nothing is padded."""
    return {"input_ids": ids} if attention_mask is None else {"input_ids": ids, "attention_mask": attention_mask.long()}


layout = dlens.Layout(
    blocks="model.layers",
    embed="model.embeddings.tok_embeddings",
    norm="model.final_norm",
    head="decoder",
    sites={
        "attn_out": dlens.Site("attn"),
        "resid_mid": dlens.Site("mlp_norm", "input"),
        "mlp_out": dlens.Site("mlp"),
    },
    attn_skip=(dlens.Fill("attn", no_attention),),
    mlp_skip=(dlens.Fill("mlp", nothing),),
)
family = dlens.Family(
    name="modernbert",
    objective="diffusion",
    shift=0,
    layout=layout,
    model_types=("modernbert",),
    inputs=inputs,
)
own = dlens.load(module, tokenizer=tokenizer, family=family)
print(own.n_layers, "blocks,", own.d_model, "channels, mask token", own.family.mask_token_id, "(the tokenizer's)")
print("padding is hidden from attention:", own.honours_padding)

# %% [markdown]
# How to read it: that it loaded is a proof. A few tiny forwards checked that
#
# - depth and width are those of the config, and the mask token is one that embedding and tokenizer know;
# - weights, buffers and logits are finite, and rotary buffers are what they are computed from;
# - every block and every site ran once, a block returned what the layout says, and the parts add up: `resid_pre` +
#   `attn_out` = `resid_mid`, `resid_mid` + `mlp_out` = `resid_post`;
# - the model is bidirectional: other tokens in all later places move the first position (of a model with experts, by
#   more than rounding does);
# - a masked token is predicted where `shift` says, for a model that can predict at all.
#
# Each mistake has its own message:

# %%
wrong = {
    "another objective": replace(family, objective="autoregressive", shift=1),
    "another return value": replace(family, layout=replace(layout, block_tuple=2)),
    "another module": replace(
        family, layout=replace(layout, sites={**layout.sites, "resid_mid": dlens.Site("attn_norm", "input")})
    ),
    "a mask token out of range": replace(family, mask_token_id=config.vocab_size),
}
for what, mistaken in wrong.items():
    try:
        dlens.load(module, tokenizer=tokenizer, family=mistaken)
    except ValueError as error:
        print(f"{what}: {error}\n")

# %% [markdown]
# ## All together
#
# The new model takes everything else, your own operation and measure included. What it cannot do is refused: the lens
# needs a model whose norm and head are all that follows the last block, and ModernBERT has a dense layer between them.

# %%
trace = dlens.trace(own).apply(Clamp(limit=2.0)).skip([3], part="attn").measure(Kurtosis(), dlens.Cosine())
record = trace.generate(TEXTS, 8, progress=False)
print(trace)
print(
    f"\n{record.n_steps} steps, {record.saved_flops / (record.flops + record.saved_flops):.1%} of the operations saved"
)
print(dlens.measures.pool(record.measures["kurtosis"], "kurtosis", ["step", "noise", "state"]).values.round(2), "\n")
try:
    dlens.trace(own).measure(dlens.LogitLens()).forward(TEXTS[0])
except ValueError as error:
    print(error)

# %% [markdown]
# How to read it: the kurtosis after each block, clamped; with random weights it tells nothing about ModernBERT, only
# that operation and measure work there. A trained checkpoint goes the same way. `dlens.load` with a name asks
# transformers for a causal model, and this is none, so load the module yourself:
#
# ```python
# from transformers import AutoModelForMaskedLM, AutoTokenizer
#
# name = "answerdotai/ModernBERT-base"
# module = AutoModelForMaskedLM.from_pretrained(name).eval()
# model = dlens.load(module, tokenizer=AutoTokenizer.from_pretrained(name), family=family)
# ```
#
# After `register_family` the model type of a config selects the family, and `dlens models` lists it:

# %%
dlens.register_family(family)
print(dlens.load(module, tokenizer=tokenizer).family.name)

# %% [markdown]
# ## What this does not show
#
# - **Operations that change which blocks run.** `Edit` writes values. One that skips, repeats or swaps blocks extends
#   `dlens.Op` and says so in `structure(target)`, which returns a `dlens.Structure`; its page has an example.
# - **That a checked family is right in all.** The checks prove paths, sums, causality and shift. They do not know the
#   prompt format, special tokens, or the sampler that the model was trained for.
# - **Speed.** Built-in measures read a step once and share work, some in kernels of their own; a measure in plain
#   PyTorch is right, and slower. Sums belong on `span.device`, and `update` should not wait for the GPU (`.item()`).
# - **Other processes.** A class or function of a notebook cannot be imported elsewhere; put it in a file for that.
#
# Next: [tutorial 7](7_large_models.ipynb), models of seven and eight billion parameters.
