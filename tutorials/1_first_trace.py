# %% [markdown]
# # 1. First trace in five minutes
#
# You will let a small language model write two short texts, look at which word it wrote when, read what its layers
# compute, leave three of them out, and do the same with a model of another kind. Nothing is downloaded and no GPU is
# needed; all cells together take less than a minute.
#
# Run it as a notebook: `make lab` opens all tutorials in JupyterLab. Run as a script,
# `python tutorials/1_first_trace.py`, it prints the same but shows no figures and no widgets.
#
# You should know PyTorch. You need not know diffusion language models; here is all that this page takes for granted:
#
# - An **autoregressive** model (such as GPT) writes from left to right, one token after the other.
# - A **diffusion** language model starts from a **canvas**: the prompt, and after it a *mask* token at every position
#   that is to be written. It reads the whole canvas at once and replaces some masks by tokens. That is one **step**.
#   It goes on until no mask is left.
# - Both are a stack of **layers**, also called blocks. Each takes a vector for every position, adds something to it
#   and passes the sum on. These vectors are the **residual stream**.
#
# What to expect: a canvas that fills in an order of the model's own, a curve that says how much each layer changes the
# stream, and two texts that tell whether three layers are missed.

# %%
import tempfile

from IPython.display import display

import dlens
import dlens.widgets
from dlens import tasks
from dlens.show import figures

model = dlens.load("trio/diffusion")
print(f"{model.name}: {model.n_layers} layers, a stream of {model.d_model} channels")
print(f"objective: {model.family.objective}")

# %% [markdown]
# `trio/diffusion` is one of three small models that ship with dlens. `dlens.load` also takes the name of a checkpoint
# such as `GSAI-ML/LLaDA-8B-Instruct`, a folder, or a transformers module you hold.
#
# ## Let it write
#
# The trio knows children's stories, small sums in words and small Python functions. Here is a story, and a sum from
# the task `trio-math`, which makes up problems of the kind the models were trained on.

# %%
[problem] = tasks.get("trio-math").problems(1)
prompts = ["Once upon a time, there was a little dog", problem.prompt]

record = dlens.trace(model).generate(prompts, max_new_tokens=24, seed=0)
for prompt, text in zip(prompts, record.text, strict=True):
    print(f"{prompt} → {text}\n")
print("expected for the sum:", problem.answer)

# %% [markdown]
# What a run leaves behind is a **record**. `record.text` holds the continuations. They are the work of a very small
# model: take them as something to look into, not as text to rely on.
#
# ## Which word came when
#
# `record.canvas` is what went into each step, with the axes step, batch, position. `░` is a mask here.

# %%
print("canvas:", tuple(record.canvas.shape), "(step, batch, position)\n")


def words(tokens):
    texts = record.pieces | {model.family.mask_token_id: "░"}
    return "".join(texts[token] for token in tokens.tolist())


row = 1
written = record.committed_at[row] >= 0
for step in (0, 4, 8, 12, 16, 20):
    print(f"before step {step:2}: {words(record.canvas[step, row][written])!r}")
print(f"at the end    : {words(record.tokens[row][written])!r}")

# %% [markdown]
# Read it from top to bottom: at first all is masked, and each step fills one more position. By default that is the
# position where the model is surest. What the run writes after an end-of-text token is no part of `record.text`.
#
# `record.committed_at` says the same in one tensor: the step at which each position got its last change, -1 for the
# prompt.

# %%
steps = record.committed_at[row][written].tolist()
pieces = [words(token[None]) for token in record.tokens[row][written]]
shown = [f"{piece.strip() or '·'}[{step}]" for piece, step in zip(pieces, steps, strict=True)]
print(" ".join(shown))
print("\nwritten from left to right:", steps == sorted(steps))

# %% [markdown]
# The number in brackets is the step. Where the numbers do not rise from left to right, the model wrote a later word
# before an earlier one.
#
# ## Look inside
#
# A **trace** says what to do while the model runs. It is an immutable value, and each verb returns a new one:
# `capture` keeps tensors, `measure` computes numbers on the way and keeps only those. `resid_post` is the stream as it
# leaves a layer; the names are those of TransformerLens.

# %%
trace = dlens.trace(model).capture("resid_post", layers=[0, 8, 15])
trace = trace.measure(dlens.Cosine(), dlens.TopTokens())
print(trace)

record = trace.generate(prompts, max_new_tokens=24, seed=0)
stream = record["resid_post"]
print("\nresid_post:", dict(zip(record.dims("resid_post"), stream.shape, strict=True)))
print("its layers:", record.coords("resid_post")["layer"])

# %% [markdown]
# Every axis has a name, so nobody has to guess which dimension is which: the stream was kept at every step, of three
# layers, for both prompts, at every position. Layers count from 0. `stream` is a plain tensor on the CPU.
#
# `Cosine` compares what enters a layer with what leaves it: 1 means that the layer did not turn the vector at all. It
# was measured at every layer, step and position while the model wrote.

# %%
figures.cosine_by_layer([record])

# %% [markdown]
# Read it from left (first layer) to right (last). The higher the point, the less the layer changes. The vertical axis
# is fitted to layers 1 and later, since the first layer builds its vectors almost from nothing; its point may lie
# outside. A high point does *not* show that a layer is useless: small changes can matter. To see that, leave layers
# out.
#
# ## Leave three layers out
#
# `skip` passes the stream by, so the skipped layers are not computed. The seed is the same, so all that differs is the
# skip.

# %%
skipped = trace.skip([4, 6, 8]).generate(prompts, max_new_tokens=24, seed=0)
for before, after in zip(record.text, skipped.text, strict=True):
    print(f"as it is   : {before!r}\nwithout 3  : {after!r}\n")
saved = skipped.saved_flops / (skipped.flops + skipped.saved_flops)
print(f"floating-point operations saved: {saved:.1%}")
print(f"three of {model.n_layers} layers are {3 / model.n_layers:.1%}")

# %% [markdown]
# Compare the two texts of each pair. The operations saved are counted on a run, not estimated; they are a smaller
# share than that of the layers, as the model also computes its output.
#
# ## See it step by step
#
# The widget shows both runs side by side. In a live notebook: drag the slider or press play, and hover over a token to
# see what else the model thought of, and what it would have said at an earlier layer. On a static page you see one
# moment of it.

# %%
widget = dlens.widgets.Denoising(record, skipped, row=1)
widget.step, widget.position = 8, int(written.nonzero()[10])
display(widget)

# %% [markdown]
# Tokens are coloured by the step that wrote them, dark ones first; masks are `░`. The tables list the likeliest tokens
# at one position, with their probabilities.
#
# ## The same with an autoregressive model
#
# The words stay the same. What has no meaning for such a model is not there: it has no canvas.

# %%
ar = dlens.trace("trio/ar").capture("resid_post", layers=[0, 8, 15])
ar = ar.measure(dlens.Cosine())
ar_record = ar.generate(prompts, max_new_tokens=24, seed=0)
print("\n".join(map(repr, ar_record.text)))
print("\ncanvas:", ar_record.canvas)
stream = ar_record["resid_post"]
print("resid_post:", dict(zip(ar_record.dims("resid_post"), stream.shape, strict=True)))

# %%
figures.cosine_by_layer([record, ar_record])

# %% [markdown]
# There is no axis `step` here: an autoregressive model computes each position once, in the step that reads it, so the
# tensor holds one vector a position (all but the last, which nothing reads). In the figure the two lines say how much
# each layer changes in either model. They are measured on what each model wrote itself, which differs; tutorial 2
# compares models on the same text.
#
# ## Keep it
#
# A record can be saved and read again, also on a machine that does not have the model.

# %%
with tempfile.TemporaryDirectory() as folder:
    record.save(f"{folder}/first")
    again = dlens.load_record(f"{folder}/first")
print(again)
print("\nsame tensors:", again["resid_post"].equal(record["resid_post"]))
print("same text:", again.text == record.text)

# %% [markdown]
# ## What this does not show
#
# - Two prompts and one seed are a look, not a measurement: another prompt may lose more or less to the same skip.
#   [Tutorial 3](3_skip_layers.ipynb) counts solved problems, with intervals.
# - That a layer changes the stream little does not mean that the model can do without it. [Tutorial
#   2](2_depth_and_denoising.ipynb) looks at what such similarities mean, and where they mislead.
# - The trio is tiny. What holds for it need not hold for a model of 8 billion parameters; [tutorial
#   7](7_large_models.ipynb) has the same calls for those.
