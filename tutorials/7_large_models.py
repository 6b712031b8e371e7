# %% [markdown]
# # 7. LLaDA-8B, Dream-7B and Qwen2.5-7B on a GPU
#
# You will use the calls of the other tutorials on models of seven and eight billion parameters: what to type, how
# much memory and time it takes, and where such models differ from the trio.
#
# Why: what the two papers claim is claimed of these models. The trio shows how to ask; these are whom to ask.
#
# What to expect: this page was executed without a GPU, on small *stand-ins* with random weights. The stand-in of
# Qwen2.5-7B has its very class. LLaDA and Dream bring classes of their own from the hub; their stand-ins are native
# decoders of transformers that behave alike: bidirectional, with a mask token, and for Dream with logits shifted by
# one. Every number below that depends on weights is therefore without meaning, and is there to show its place. Sizes,
# memory and operations are computed from the real shapes. All cells together take about ten seconds.
#
# To run it on the real models, set `REAL = True` on a machine with a GPU that holds all three (the first table says
# how much that is). Nothing else changes.

# %%
import tempfile
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

import dlens
from dlens.show.figures import comparison_lines

REAL = False
NAMES = {
    "LLaDA-8B": "GSAI-ML/LLaDA-8B-Instruct",
    "Dream-7B": "Dream-org/Dream-v0-Instruct-7B",
    "Qwen2.5-7B": "Qwen/Qwen2.5-7B-Instruct",
}
OPTIONS = {"trust_remote_code": True, "dtype": "bfloat16", "device_map": "auto"}

# The sizes of the three, as their configs have them.
DREAM_OR_QWEN = {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}
SHAPES = {
    "LLaDA-8B": LlamaConfig(
        hidden_size=4096,
        intermediate_size=12288,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=126464,
    ),
    "Dream-7B": Qwen2Config(hidden_size=3584, intermediate_size=18944, **DREAM_OR_QWEN),
    "Qwen2.5-7B": Qwen2Config(hidden_size=3584, intermediate_size=18944, **DREAM_OR_QWEN),
}

# %% [markdown]
# ## How much memory
#
# The meta device builds a module without any memory, so its parameters can be counted. In bfloat16 each takes 2
# bytes. What a run needs beside the weights: the logits of all positions, and what you capture.

# %%
POSITIONS, GIB = 512, 2**30


def shape_of(config):
    """Parameters of the whole model, of the matrices of one block, and of its head."""
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    block = sum(p.numel() for p in module.model.layers[0].parameters() if p.ndim == 2)
    return sum(p.numel() for p in module.parameters()), block, module.lm_head.weight.numel()


def row(config):
    width, layers = config.hidden_size, config.num_hidden_layers
    stream = POSITIONS * width * 2  # bytes of one layer at one step
    return {
        "parameters, 1e9": shape_of(config)[0] / 1e9,
        "weights, GiB": shape_of(config)[0] * 2 / GIB,
        "logits, GiB": POSITIONS * config.vocab_size * 2 / GIB,
        "resid_post of all layers, GiB a step": layers * stream / GIB,
        "the same at 256 steps": 256 * layers * stream / GIB,
    }


print(f"batch of 1, {POSITIONS} positions, bfloat16")
print(pd.DataFrame({name: row(config) for name, config in SHAPES.items()}).round(2).to_string())

# %% [markdown]
# How to read it: the weights decide which GPU you need, with some room for logits, activations and PyTorch itself.
# With `device_map="auto"` the blocks are spread over several GPUs where one is too small. Captured tensors go to the
# memory of the *host*; the last two rows say why to name `steps=` and `layers=` of a capture, or to measure instead:
# measures keep sums, whose size does not grow with the number of steps.
#
# ## The stand-ins
#
# The next cell writes three small checkpoints into a temporary folder. On a GPU it is skipped. `dlens_family` in a
# config tells dlens what kind of model it is; LLaDA's and Dream's own checkpoints are known by their model type.

# %%
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
FAMILY = {"LLaDA-8B": "masked", "Dream-7B": "masked-shifted", "Qwen2.5-7B": "autoregressive"}
kept = tempfile.TemporaryDirectory()


def stand_in(name):
    """The folder of a small checkpoint of random weights, with the trio's tokenizer."""
    tokenizer = dlens.load("trio/ar").tokenizer
    settings = SMALL | {"vocab_size": len(tokenizer), "mask_token_id": tokenizer.mask_token_id}
    settings |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(type(SHAPES[name])(**settings, dlens_family=FAMILY[name]))
    folder = Path(kept.name) / name
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


sources = NAMES if REAL else {name: stand_in(name) for name in NAMES}

# %% [markdown]
# ## Load
#
# ```python
# model = dlens.load("GSAI-ML/LLaDA-8B-Instruct", trust_remote_code=True, dtype="bfloat16", device_map="auto")
# ```
#
# - `trust_remote_code=True` lets code from the hub run on your machine. LLaDA and Dream need it; read that code, and
#   pin what you read with `revision=`. Without it dlens refuses and names the files. Qwen needs none.
# - `dtype="bfloat16"` is the type in which the three are published. Without it, transformers takes what the
#   checkpoint says.
# - The first call downloads the weights; `local_files_only=True` forbids that, and a folder works as well.

# %%
models = {name: dlens.load(source, **OPTIONS) for name, source in sources.items()}
for name, model in models.items():
    family = model.family
    print(f"{name}: {type(model.module).__name__}, {model.n_layers} blocks of {model.d_model} channels, {model.dtype}")
    print(f"  family {family.name}, shift {family.shift}, mask token {family.mask_token_id}", end="; ")
    print("padding is honoured" if model.honours_padding else "padding is NOT honoured: prompts run by length")

# %% [markdown]
# How to read it: `shift` 1 means that the logits at one position predict the token at the next, as in Dream and every
# autoregressive model; dlens aligns them, so you need not. Some copies of LLaDA's code ignore the padding mask. dlens
# finds out at load, and then decodes prompts of equal length together, which is right but slower.
#
# Loading also checks what transformers 5 does not: remote code written for version 4 can leave buffers uninitialised
# that no checkpoint holds. Dream's rotary frequencies are such. Here the same damage is done to a stand-in:

# %%
damaged = AutoModelForCausalLM.from_pretrained(sources["Qwen2.5-7B"]) if not REAL else None
if damaged is not None:
    damaged.model.rotary_emb.inv_freq.mul_(1.5)
    try:
        dlens.load(damaged)
    except ValueError as error:
        print(error)

# %% [markdown]
# How to read it: a model with such buffers answers, and answers badly. `dlens.load` with a *name* computes them anew;
# a module that you loaded yourself is refused. `verify=False` skips the checks, and saves the few small forwards that
# they take.
#
# ## Prompts
#
# A string is taken as it is. Instruct models expect their chat template: pass a list of messages, and the tokenizer's
# template is used. The trio's tokenizer has none, so this stand-in gets a plain one.

# %%
tokenizer = models["LLaDA-8B"].tokenizer
if tokenizer.chat_template is None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
question = "Tom has 12 apples and gives 5 of them away. How many are left?"
sampler = dlens.samplers.LLaDA(steps=8, block_length=16)
plain = dlens.trace(models["LLaDA-8B"])
for prompt in (question, [{"role": "user", "content": question}]):
    record = plain.generate(prompt, 16, sampler=sampler, progress=False)
    start = tokenizer.decode(record.tokens[0][record.is_prompt[0]])
    print(f"{record.is_prompt.sum()} tokens of prompt, {record.n_steps} steps: {start!r}")
try:
    mask = tokenizer.decode([models["LLaDA-8B"].family.mask_token_id])
    plain.generate(f"{question} {mask}", 16, progress=False)
except ValueError as error:
    print(error)

# %% [markdown]
# How to read it: the second prompt has the roles around it. The error is the third case: a prompt that holds the mask
# token is a gap to fill, and dlens wants to hear that you mean it.
#
# ## How long it decodes
#
# A diffusion model decodes a *fixed* number of new tokens, and computes prompt and answer anew at every step. `steps`
# decides the price and, with it, how many tokens are committed at once; the default is one a step. A sampler says
# beforehand how many steps it plans, and refuses settings that do not fit.

# %%
for own in (
    dlens.samplers.LLaDA(steps=256, block_length=32),
    dlens.samplers.LLaDA(steps=64, block_length=32),
    dlens.samplers.Dream(algorithm="entropy"),
    dlens.samplers.Threshold(threshold=0.9),
):
    print(own.planned_steps(256), "steps at most for 256 tokens:", own)
try:
    dlens.samplers.LLaDA(steps=100, block_length=32).planned_steps(256)
except ValueError as error:
    print(error)

# %% [markdown]
# How to read it: `Threshold` ends earlier wherever the model is sure of several tokens at once; how much depends on
# the model.
#
# FLOPs follow from the shapes: a position that sees n positions costs blocks x (P + 2 n d) + d V multiplications, P
# the weights in the matrices of a block. Below that arithmetic is held against what dlens counts on the stand-in, and
# then used on the real shapes.


# %%
def run_flops(config, prompt, new, steps=None):
    """Multiplications and additions of one row: a denoising run of so many steps, or AR decoding with a cache."""
    _, block, head = shape_of(config)
    layers, width = config.num_hidden_layers, config.hidden_size
    if steps is not None:
        n = prompt + new
        return 2 * steps * n * (layers * (block + 2 * n * width) + head)
    ends = range(prompt + 1, prompt + new)  # attended positions of each later step
    first = prompt * (layers * (block + 2 * prompt * width) + head)  # logits of the whole prompt, as dlens counts
    return 2 * (first + sum(layers * (block + 2 * n * width) + head for n in ends))


for name, own_sampler, steps in (("LLaDA-8B", sampler, 8), ("Qwen2.5-7B", None, None)):
    if not REAL:
        record = dlens.trace(models[name]).generate(question, 16, sampler=own_sampler, progress=False)
        by_hand = run_flops(models[name].module.config, int(record.is_prompt.sum()), 16, steps)
        print(f"stand-in of {name}: {record.flops:,} counted, {by_hand:,} by arithmetic")

RATE = 300e12  # operations a second that your GPU sustains: an assumption to replace by your own number
lengths = {"LLaDA-8B": (256, 64), "Dream-7B": (256, 64), "Qwen2.5-7B": (None,)}
rows = []
for name, choices in lengths.items():
    for steps in choices:
        flops = run_flops(SHAPES[name], 256, 256, steps)
        rows.append(
            {"model": name, "steps": steps or "cache", "1e12 operations": flops / 1e12, "seconds": flops / RATE}
        )
print(f"\n256 tokens of prompt, 256 new, one row; seconds if {RATE / 1e12:.0f}e12 operations a second were sustained")
print(pd.DataFrame(rows).round(2).to_string(index=False))

# %% [markdown]
# How to read it: the seconds are a lower end, not a forecast. Decoding with a cache reads all weights for every token
# and is bound by memory instead, so its real time is far above its operations. A single row of a diffusion model does
# not keep a large GPU busy either: use batches, for decoding and for measuring.
#
# What dlens adds was measured on one H100 at LLaDA-8B's shape and stands on the page *Performance* as ratios to the
# untraced run: with four rows `Cosine` cost 2 %, and `Cosine`, `CKA`, `Recency` and `Outliers` together 9 %; with one
# row more, as the GPU waits for Python there. Measure it on your machine with
# `python -m benchmarks.measures --device cuda`.
#
# ## The same calls
#
# From here on nothing differs from the other tutorials. First a look at depth, all three models on one axis:

# %%
TEXTS = [question, "Once upon a time there was a little girl who lived near the woods.", "def f(x):\n    return x + 1"]
table = dlens.compare(models, TEXTS)
comparison_lines(table, "cosine", "depth")

# %% [markdown]
# How to read it: the cosine of what enters a block and what leaves it, over relative depth, since the models differ
# in their number of blocks. Here weights are random, and the lines show only where the real ones will stand. Tutorial
# 2 says what such lines mean.
#
# Then a plan, a run with it, and what it saves:

# %%
for name, model in models.items():
    trace = dlens.trace(model)
    plan = dlens.plan_skip(table.profiles[name], n=2, rule="block-influence")
    run = trace.skip(plan).measure(dlens.Cosine(), dlens.Outliers()).generate(TEXTS, 16, progress=False)
    saved = run.saved_flops / (run.flops + run.saved_flops)
    top = run.measures["outliers"]["channel"].values[0]
    print(f"{name}: without blocks {plan.layers} {saved:.1%} of the operations are saved; channel {top} is the largest")

# %% [markdown]
# How to read it: two of so many blocks, less the head, which is computed anyway. On the real models a head over a
# large vocabulary is a smaller part of the whole than in this stand-in.
#
# Captures say what they need before they run, and are refused above a limit unless you raise it:

# %%
few = plain.capture("resid_post", layers=[0, 4], steps=range(4))
print(f"{few.capture_bytes(question, 16, sampler):,} bytes for two layers at four steps")
try:
    plain.capture("logits").generate([question] * 16, 208)
except MemoryError as error:
    print(error)

# %% [markdown]
# ## Real tasks, and the report
#
# `dlens.retention`, `dlens.collapse` and `dlens.disruption` take these models as they take the trio. For a task bring
# the published file (`test.jsonl` of GSM8K); dlens downloads none. Random weights solve no problem, so this is not
# executed:
#
# ```python
# plan = dlens.plan_skip(model, n=6, rule="cosine")
# kept = dlens.retention(model, plan, task="gsm8k:test.jsonl", n=200, batch_size=8)
# print(kept.baseline, kept.accuracy, kept.retained, kept.low, kept.high)
#
# found = dlens.collapse(model, task="gsm8k:test.jsonl", n=64)
# ```
#
# The whole comparison is one command:
#
# ```console
# $ dlens report GSAI-ML/LLaDA-8B-Instruct Qwen/Qwen2.5-7B-Instruct --trust-remote-code --dtype bfloat16 \
#     --device-map auto --task gsm8k:test.jsonl --out report.html
# ```
#
# It keeps finished parts beside the page, so that after an interruption the same command goes on. Begin with
# `--quick`.
#
# What goes wrong first, and why:
#
# - `PermissionError` at load: the checkpoint brings its own code. Read it, then pass `trust_remote_code=True`.
# - `VerificationError` at load: the model is not what its family says. The message names the check and the fix.
# - An instruct model scores below its published number: prompts of tasks are plain text, without the chat template.
#   Compare with base models, or with the same model unchanged, as `retention` does.
# - Answers are cut off: diffusion models write exactly `max_new_tokens`. Raise it, and `steps` with it.
# - Out of memory on the GPU: the logits of a large batch. Lower `batch_size`.
# - `Attention` runs out of memory: patterns grow with the square of the length. Capture them at a few `layers=`, or
#   take shorter texts.
# - A run limited by `noise=` saves little: rows that disagree on their noise run the block. Use `steps=`.
#
# ## What this does not show
#
# - **Any result on LLaDA, Dream or Qwen.** The weights here are random.
# - **Their own code.** The stand-ins of LLaDA and Dream are native decoders. What their code does differently (no
#   attention weights, other return values) is held by the tests of dlens, on stand-ins of that code.
# - **Real times.** The table divides operations by a rate; only a run tells.
#
# Next: [tutorial 8](8_heads_gradients_circuits.ipynb), heads, gradients and circuits.
