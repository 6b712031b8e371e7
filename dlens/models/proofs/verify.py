"""Proof, when a model loads, that its adapter reads it right: a few tiny forwards and plain PyTorch hooks.

Every check is a function of the model that raises VerificationError; none of them leaves a mark on it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dlens.axes import Logits, TokenIds
from dlens.errors import VerificationError
from dlens.models.family import Layout
from dlens.models.identity import foreign_parts
from dlens.models.layout.calls import undisturbed
from dlens.models.layout.config import depths, width
from dlens.models.model import Model
from dlens.models.packed import is_packed, plain_tensors
from dlens.models.proofs.blocks import with_needed
from dlens.models.proofs.buffers import check_rotary
from dlens.models.proofs.fills import as_spelled
from dlens.models.proofs.inner import with_inner
from dlens.models.proofs.sites import Seen, check_sites, observe, shared_by_rows, undecided, without

__all__ = [
    "VerificationError",
    "alike",
    "check_blocks",
    "check_causality",
    "check_finite",
    "check_mask_token",
    "check_paths",
    "check_rotary",
    "check_shift",
    "check_size",
    "probe_padding",
    "verify",
]

_TEXT = (
    "Once upon a time there was a little girl who lived in a small house near the woods. Every day she went out to "
    "play with her dog. One day the dog ran away, and she was very sad. She looked for him all day long, and when "
    "the sun went down she found him under a big tree. They were happy and went home together."
)
_PROOF_TOKENS = 8
_SHIFT_MARGIN = 1.0  # nats a token
_COARSE = 0.2
_ROUNDING = 1e-5  # of the largest logit
_PADDED = 8192  # roundings of the largest logit


def verify(model: Model) -> tuple[Layout, Logits]:
    """Run every check.

    Args:
        model: what was loaded.

    Returns:
        Its layout, without the halves and points that its modules turned out not to give; and the logits of a row of
        unlike tokens, for `probe_padding`.

    Raises:
        VerificationError: the model is not what its family and layout say, or cannot run.
    """
    try:
        check_size(model)
        check_mask_token(model)
        check_rotary(model)
        with undisturbed(model.module):
            check_finite(model)
            # What one forward shows is looked at by every proof that asks for nothing else.
            ids = _ids(model)
            seen = observe(model, ids)
            _check_logits(model, seen.logits)
            check_sites(model, seen)
            shared = shared_by_rows(model, ids)
            model = _of(model, check_inner(model, seen, shared))
            check_causality(model, ids, seen.logits) if model.family.block_length is None else check_blocks(model)
            check_shift(model)
            model = _of(model, as_spelled(model, ids, seen))
            model = _of(model, with_needed(model, ids))
            return with_inner(model, ids, seen, shared), seen.logits
    except VerificationError as error:
        if foreign := foreign_parts(model.module):
            raise VerificationError(
                f"{error}; or remove what hooks into {', '.join(foreign[:3])}, which may be the cause, and add it "
                f"after loading"
            ) from error
        raise
    except Exception as error:
        raise VerificationError(
            f"{model.name} cannot be proved: {type(error).__name__}, {error}; expected a module that gives logits of "
            f"{_PROOF_TOKENS} tokens and keeps its parts where the layout says; give a Family with the right Layout "
            f"and inputs, or verify=False for a module that runs otherwise"
        ) from error


def _of(model: Model, layout: Layout) -> Model:
    return replace(model, family=replace(model.family, layout=layout))


def check_inner(model: Model, seen: Seen, shared: Seen) -> Layout:
    """What the layout names within a half decides all that the half adds; where it was found and not given, it goes.

    Args:
        model: what was loaded.
        seen: one row of unlike tokens, at every point.
        shared: of `shared_by_rows`.

    Raises:
        VerificationError: a point of a layout that somebody wrote does not decide what it should.
    """
    wrong = undecided(model, seen, shared)
    if model.layout.because:
        return without(model.layout, wrong)
    for point, reason in wrong.items():
        raise VerificationError(
            f"{reason}; expected otherwise, as {point} is all that its half is made of; give a Family whose Layout "
            f"names another module for {point}, or none"
        )
    return model.layout


def check_paths(module: nn.Module, layout: Layout) -> None:
    """Every path of the layout exists, in every block."""
    modules = dict(module.named_modules(remove_duplicate=False))
    roots = [path for path in (layout.blocks, layout.embed, layout.norm, layout.head) if path is not None]
    for path in roots:
        if path not in modules:
            raise VerificationError(
                f"{type(module).__name__} has no {path!r}; expected blocks, embedding, norm and head at "
                f"{', '.join(roots)}; load the class with the language-model head, or give a Family with a Layout"
            )
    blocks = modules[layout.blocks]
    if not isinstance(blocks, nn.ModuleList) or len(blocks) == 0:
        raise VerificationError(
            f"{layout.blocks!r} of {type(module).__name__} is a {type(blocks).__name__} of no blocks; expected a "
            f"ModuleList of them; give a Family whose Layout names the list of blocks"
        )
    for index in range(len(blocks)):
        own = layout.at(index)
        fills = (*own.attn_skip, *own.mlp_skip)
        for path in (*(site.path for site in own.sites.values()), *(fill.path for fill in fills)):
            if path and f"{layout.blocks}.{index}.{path}" not in modules:
                raise VerificationError(
                    f"block {index} ({type(blocks[index]).__name__}) has no {path!r}; expected it as the layout names "
                    f"it; give a Family with a Layout for this kind of block"
                )


def check_size(model: Model) -> None:
    """Depth and width are those of the config, as far as it says; a stream wider than the embedding has a width of its
    own."""
    wide = width(model.config) if model.layout.width is None else None
    sizes = (
        ("blocks", depths(model.config), model.n_layers),
        ("channels", () if wide is None else (wide,), model.d_model),
    )
    for what, declared, found in sizes:
        if declared and found not in declared:
            raise VerificationError(
                f"{model.name} has {found} {what} at {model.layout.blocks!r} and {model.layout.embed!r}; expected "
                f"{declared[0]}, as its config says; correct the config of a changed module, or give its Layout"
            )


def check_mask_token(model: Model) -> None:
    """A diffusion model has a mask token, inside the embedding and known to the tokenizer."""
    family, mask, tokenizer = model.family, model.family.mask_token_id, model.tokenizer
    if family.objective != "diffusion":
        return
    if mask is None or not 0 <= mask < model.vocab_size:
        raise VerificationError(
            f"mask token {mask} of {model.name}; expected one of its {model.vocab_size} tokens, as family "
            f"{family.name!r} denoises; set mask_token_id in the config, or give family=dataclasses.replace(family, "
            f"mask_token_id=...)"
        )
    if tokenizer is None:
        return
    named = tokenizer.mask_token_id
    if (named is not None and named != mask) or tokenizer.convert_ids_to_tokens(mask) is None:
        raise VerificationError(
            f"mask token {mask} of {model.name}; expected a token that the tokenizer knows (its own mask token is "
            f"{named}); set mask_token_id in the config, or give the tokenizer this model was trained with"
        )


def check_finite(model: Model) -> None:
    """No parameter or buffer is NaN or infinite."""
    for name, held in (*model.module.named_parameters(), *model.module.named_buffers()):
        for tensor in plain_tensors(held):
            if tensor.is_floating_point() and not tensor.is_meta and not _finite(tensor):
                raise _not_finite(model, name)


def _check_logits(model: Model, logits: Logits) -> None:
    """No logit is NaN or infinite."""
    if not _finite(logits):
        raise _not_finite(model, "the output of a forward")


def _finite(tensor: Tensor) -> bool:
    # Types of one byte have no isfinite of their own.
    tensor = tensor.float() if tensor.itemsize == 1 else tensor
    # A sum of numbers is a number, unless it is too large; it takes a fifth of the time.
    return bool(tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)).isfinite()) or bool(
        torch.isfinite(tensor).all()
    )


def _not_finite(model: Model, what: str) -> VerificationError:
    return VerificationError(
        f"{what} of {model.name} is not finite; expected numbers; the checkpoint is damaged, its dtype too narrow, "
        f"or a buffer was never initialised: load it again, with dtype='bfloat16' or 'float32'"
    )


def check_causality(model: Model, ids: TokenIds, logits: Logits) -> None:
    """A causal model's first logits do not see the tokens after them; a bidirectional model's do.

    Args:
        model: what was loaded.
        ids, logits: one row of unlike tokens, and what the model gives for it.
    """
    before, after = logits[:, 0].float(), _logits(model, ids[:, :1].expand_as(ids))[:, 0].float()
    moved = float((after - before).abs().max() / before.abs().max()) > _rounding(model)
    if model.family.causal == moved:
        found, expected = ("bidirectional", "causal") if model.family.causal else ("causal", "bidirectional")
        raise VerificationError(
            f"{model.name} is {found}: changing its later tokens {'moves' if model.family.causal else 'does not move'} "
            f"the first position; expected {expected}, as family {model.family.name!r} says; give the right family=, "
            f"and set is_causal in the config and in every attention module"
        )


def check_blocks(model: Model) -> None:
    """Attention is causal between canvas blocks: no token of the second one moves the first one, inside which all do.

    A model whose context is one block is looked at inside alone.
    """
    length = model.family.block_length
    assert length is not None
    if "sliding_attention" in model.attention_types:
        raise VerificationError(
            f"{model.name} attends within sliding windows, which a mask by canvas blocks would open; expected full "
            f"attention in every block for block_length={length}; load with use_sliding_window=False, or a family "
            f"without a block length"
        )
    ids = _ids(model, length + _PROOF_TOKENS)
    first = _logits(model, ids)[:, :length]
    # Experts compute their tokens together, so that others move a position's rounding.
    rounding = max(_rounding(model), _ROUNDING) * float(first.abs().max())
    for what, start, stop, expected in (("within", 1, length, True), ("of the second", length, ids.shape[1], False)):
        changed = ids.clone()
        changed[:, start:stop] = ids[:, :1]
        place = slice(0, 1) if expected else slice(0, length)
        moved = bool((_logits(model, changed)[:, place] - first[:, place]).abs().max() > rounding)
        if moved != expected and start < min(stop, ids.shape[1]):
            raise VerificationError(
                f"other tokens {what} canvas block {'move' if moved else 'do not move'} the first one of {model.name}; "
                f"expected attention that is full within blocks of {length} and causal between them, as family "
                f"{model.family.name!r} says; give the right block_length, load with attn_implementation='sdpa', or "
                f"give inputs= that make it so"
            )


def _rounding(model: Model) -> float:
    """How far other tokens may move a position that does not see them, as a share of its largest logit.

    Experts compute their tokens together, so that others move a position's rounding, more so in few bits; and quantised
    layers may scale all tokens together.
    """
    if _is_packed(model):
        return _COARSE
    if any(weight.ndim == 3 for weight in model.module.parameters()):
        return max(_ROUNDING, 4 * torch.finfo(model.dtype).eps)
    return _ROUNDING if model.family.causal else 0.0


def _is_packed(model: Model) -> bool:
    return any(map(is_packed, model.module.modules()))


def check_shift(model: Model) -> None:
    """The logits that predict a masked token stand where the family says.

    Raises only where the other reading predicts the text clearly better, so that an untrained model passes.
    """
    if model.tokenizer is None or model.family.objective != "diffusion":
        return
    ids = torch.tensor([model.tokenizer(_TEXT).input_ids], device=model.device)[:, : model.n_positions or None]
    canvas = ids.clone()
    masked = torch.arange(1, ids.shape[1], 4, device=ids.device)
    canvas[:, masked] = model.family.mask_token_id  # pyright: ignore
    logits = _logits(model, canvas)[0].float()
    declared = model.family.shift
    loss = {s: float(nn.functional.cross_entropy(logits[masked - s], ids[0, masked])) for s in (0, 1)}
    if loss[1 - declared] < loss[declared] - _SHIFT_MARGIN:
        raise VerificationError(
            f"{model.name} predicts masked words at {loss[declared]:.2f} nats with shift {declared} and at "
            f"{loss[1 - declared]:.2f} with shift {1 - declared}; expected shift {declared} to be better, as family "
            f"{model.family.name!r} says; give the family with the other shift"
        )


def probe_padding(model: Model, alone: Logits | None = None) -> bool:
    """Whether padded positions are hidden: padded logits are the unpadded ones up to rounding, and nearer to them than
    unhidden ones.

    Args:
        model: what was loaded.
        alone: logits of its row of unlike tokens, as `verify` returns them; None runs it.

    Returns:
        False where the module ignores the attention mask; its prompts are then run grouped by length.
    """
    ids, n_padding = _ids(model), 3
    length = min((model.n_positions or len(ids[0]) + n_padding) - n_padding, ids.shape[1])
    padding = torch.full_like(ids[:, :n_padding], model.pad_token_id)
    padded = torch.cat((padding, ids[:, :length]), dim=1)
    real = torch.ones_like(padded, dtype=torch.bool)
    real[:, :n_padding] = False
    with undisturbed(model.module):
        if alone is None or length < ids.shape[1]:
            alone = _logits(model, ids[:, :length])
        hidden = _run(model, model.family.inputs(padded, real))[:, n_padding:]
        seen = _logits(model, padded)[:, n_padding:]
    far = float((hidden - alone).abs().max())
    # Code in float64 may still turn its queries and keys in float32.
    eps = max(torch.finfo(dtype).eps for dtype in (alone.dtype, torch.float32))
    rounding = _COARSE if _is_packed(model) else _PADDED * eps
    return far < 0.2 * float((seen - alone).abs().max()) and far < rounding * float(alone.abs().max())


def alike(model: Model, other: Model) -> bool:
    """Whether what two families give to one module makes the same logits of a text without padding."""
    ids = _ids(model)
    with undisturbed(model.module):
        return torch.equal(_logits(model, ids), _logits(other, ids))


def _ids(model: Model, length: int = _PROOF_TOKENS) -> TokenIds:
    """A row of unlike tokens, none of them special."""
    special = {model.family.mask_token_id, model.pad_token_id, model.eos_token_id, *model.family.end_token_ids}
    usable = [token for token in range(model.vocab_size) if token not in special]
    length = min(length, model.n_positions or length)
    chosen = [usable[(7 * i + len(usable) // 3) % len(usable)] for i in range(length)]
    return torch.tensor([chosen], device=model.device)


def _logits(model: Model, ids: TokenIds) -> Logits:
    return _run(model, model.family.inputs(ids, None))


def _run(model: Model, inputs: dict[str, Any]) -> Logits:
    return model.module(**inputs).logits
