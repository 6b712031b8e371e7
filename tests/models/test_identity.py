"""The name of a computation: any edit that changes a logit changes it, and nothing else does."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import decoders
from torch import Tensor, nn
from torch.nn.utils import prune
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.models.qwen2 import modeling_qwen2

import dlens
from dlens.models.identity import _odd, _weighted, identity, outline, reading, structure
from tests.models.conftest import build

IDS = torch.arange(3, 15)[None]


def ran(module: Any) -> Tensor:
    with torch.no_grad():
        return module(input_ids=IDS, use_cache=False).logits


def scaled(part: nn.Module) -> None:
    part.register_forward_hook(lambda _m, _a, out: out * 2)


class Adapted(nn.Module):
    """A linear layer with a low-rank addition that a flag takes away."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.enabled, self.scales = base, True, {"default": 2.0}
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        added = self.up(self.down(x)) * self.scales["default"]
        return self.base(x) + added * self.enabled


def in_place(module: Any) -> None:
    with torch.no_grad():
        module.model.layers[1].mlp.up_proj.weight.mul_(2)


def past_the_counter(module: Any) -> None:
    module.model.embed_tokens.weight.data[:, 3] += 1


def equal_sums(module: Any) -> None:
    with torch.no_grad():
        module.model.layers[0].mlp.down_proj.weight[0, :2] += torch.tensor([0.5, -0.5])


def rows_reversed(module: Any) -> None:
    weight = module.model.layers[2].self_attn.q_proj.weight
    weight.data = weight.data.flip(0).contiguous()


def places_exchanged(module: Any) -> None:
    layers = module.model.layers._modules
    layers["1"], layers["2"] = layers["2"], layers["1"]


def other_activation(module: Any) -> None:
    module.model.layers[0].mlp.act_fn = nn.GELU()


def other_epsilon(module: Any) -> None:
    module.model.norm.variance_epsilon = 1.0


def other_scale(module: Any) -> None:
    module.model.layers[0].self_attn.scaling *= 3


def narrower(module: Any) -> None:
    module.to(torch.bfloat16)


def block_removed(module: Any) -> None:
    del module.model.layers[3]


def adapter_off(module: Any) -> None:
    module.model.layers[0].mlp.up_proj.enabled = False


def adapter_scaled(module: Any) -> None:
    module.model.layers[0].mlp.up_proj.scales["default"] = 4.0


def other_frequencies(module: Any) -> None:
    module.model.rotary_emb.inv_freq.mul_(0.5)


def foreign_hook(module: Any) -> None:
    scaled(module.model.layers[1].mlp)


def foreign_forward(module: Any) -> None:
    part = module.model.layers[1].mlp
    own = part.forward
    part.forward = lambda x: 2 * own(x)


def pruned(module: Any) -> None:
    prune.l1_unstructured(module.model.layers[1].mlp.up_proj, "weight", 0.5)


EDITS: dict[str, Callable[[Any], None]] = {
    edit.__name__: edit
    for edit in (
        in_place, past_the_counter, equal_sums, rows_reversed, places_exchanged, other_activation, other_epsilon,
        other_scale, narrower, block_removed, adapter_off, adapter_scaled, other_frequencies, foreign_hook,
        foreign_forward, pruned,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def adapted() -> Any:
    module = build("qwen2")
    torch.manual_seed(0)
    module.model.layers[0].mlp.up_proj = Adapted(module.model.layers[0].mlp.up_proj)
    return module


@pytest.mark.parametrize("edit", EDITS)
def test_what_changes_a_logit_changes_the_name(adapted: Any, edit: str) -> None:
    module = copy.deepcopy(adapted)
    before, logits = identity(module), ran(module)
    assert identity(module) == before
    EDITS[edit](module)
    changed = ran(module)
    assert changed.dtype != logits.dtype or not torch.equal(changed, logits)
    assert identity(module) != before


def test_a_copy_and_a_traced_module_keep_the_name(adapted: Any) -> None:
    module = build("qwen2")
    before = identity(module)
    assert identity(copy.deepcopy(module)) == before == identity(build("qwen2"))
    model = dlens.load(module)
    dlens.trace(model).skip([1]).ablate(2, [3]).forward(IDS)
    assert model.fingerprint() == identity(module) == before
    model.unwrap()
    assert identity(module) == before


def test_a_function_that_nobody_knows_is_never_named_twice(adapted: Any) -> None:
    module = build("qwen2")
    scaled(module.model.norm)
    assert identity(module) != identity(module) and structure(module) != structure(module)


def test_a_hook_on_every_module_is_seen() -> None:
    module = build("qwen2")
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert identity(module) != identity(module)
    finally:
        handle.remove()
    assert identity(module) == identity(module)


def test_structure_is_blind_to_numbers_alone() -> None:
    module = build("qwen2")
    before = structure(module)
    in_place(module)
    assert structure(module) == before
    narrower(module)
    assert structure(module) != before


def test_the_kernel_of_attention_is_part_of_it() -> None:
    module = build("qwen2")
    before = identity(module)
    module.set_attn_implementation("eager")
    assert identity(module) != before
    module.set_attn_implementation("sdpa")
    assert identity(module) == before


def test_what_a_class_does_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build("qwen2")
    before, kind = identity(module), type(module.model.norm)
    monkeypatch.setattr(kind, "forward", lambda self, x: x)
    assert identity(module) != before


def test_packed_weights_are_read() -> None:
    module = nn.Sequential(nn.Linear(4, 4))
    module[0].packed = torch.ones(3, dtype=torch.int8)  # stands beside the parameters
    before = identity(module)
    module[0].packed[1] = 2
    assert identity(module) != before


def test_bytes_are_read_in_every_type() -> None:
    names = set()
    for dtype in (torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.int8, torch.complex64):
        module = nn.Module()
        module.register_buffer("held", torch.zeros(5).to(dtype))
        names.add(identity(module))
        module.held[4] = 1  # pyright: ignore
        names.add(identity(module))
    assert len(names) == 12


def test_the_sum_of_products_is_the_same_where_there_is_no_product_of_whole_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(-(2**63), 2**63 - 1, (1000,), generator=generator)
    elsewhere = (words * _odd(words.device)[:1000]).sum()
    assert torch.equal(_weighted(words), elsewhere)
    exact = sum(a * b for a, b in zip(words.tolist(), _odd(words.device)[:1000].tolist(), strict=True))
    assert (int(elsewhere) - exact) % 2**64 == 0


def rotary_gone(module: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(modeling_qwen2, "apply_rotary_pos_emb", lambda q, k, *_: (q, k))


def method_replaced(module: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(type(module.model.layers[0].self_attn), "forward", scaled_forward(3.0))


def method_on_an_instance(module: Any, patch: pytest.MonkeyPatch) -> None:
    module.model.layers[0].mlp.act_fn = types.MethodType(lambda self, x: x.sin(), module.model.norm)


def builtin_function(module: Any, patch: pytest.MonkeyPatch) -> None:
    module.model.layers[0].mlp.act_fn = torch.tanh


def argument_of_a_partial(module: Any, patch: pytest.MonkeyPatch) -> None:
    module.model.layers[0].mlp.act_fn = functools.partial(nn.functional.gelu, approximate="tanh")


def number_of_an_object(module: Any, patch: pytest.MonkeyPatch) -> None:
    module.model.layers[0].mlp.act_fn.factor = 2.0


def weight_in_a_list(module: Any, patch: pytest.MonkeyPatch) -> None:
    module.model.layers[0].mlp.act_fn.hidden[0].weight.data[0] *= 2


def scaled_forward(factor: float) -> Any:
    def forward(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return hidden_states * factor, None

    return forward


class Factor:
    """What is no module, and holds one in a list."""

    def __init__(self) -> None:
        self.factor, self.hidden = 1.0, [nn.Linear(48, 48)]

    def __call__(self, x: Tensor) -> Tensor:
        return self.hidden[0](x) * self.factor


CODE: dict[str, Any] = {
    edit.__name__: edit
    for edit in (
        rotary_gone, method_replaced, method_on_an_instance, builtin_function, argument_of_a_partial,
        number_of_an_object, weight_in_a_list,
    )
}  # fmt: skip


@pytest.mark.parametrize("edit", CODE)
def test_code_around_a_module_is_part_of_its_name(edit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = build("qwen2")
    mlp = module.model.layers[0].mlp
    del mlp.act_fn
    torch.manual_seed(0)
    mlp.act_fn = Factor()
    before, logits = identity(module), ran(module)
    CODE[edit](module, monkeypatch)
    assert not torch.equal(ran(module), logits)
    assert identity(module) != before


TABLE, TENSOR = {"k": 1.0}, torch.tensor(1.0)


class Reads(nn.Module):
    """An activation times what stands beside it."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x) * TABLE["k"] * TENSOR


class Holds(nn.Module):
    """An activation times an attribute, whatever it is."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x) * float(self.held.a)


class Setting:
    """What a closure may hold."""

    a: Any = 1.0


def closing_over(setting: Any) -> nn.Module:
    class Closed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.silu(x) * setting.a

    return Closed()


def table_beside(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Any]:
    return Reads(), lambda: patch.setitem(TABLE, "k", 0.3)


def tensor_beside(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Any]:
    patch.setitem(globals(), "TENSOR", torch.tensor(1.0))
    return Reads(), lambda: TENSOR.fill_(0.3)


def array_attribute(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Any]:
    held = types.SimpleNamespace(a=np.float32(1))
    return Holds(held), lambda: vars(held).update(a=np.float32(0.3))


def class_attribute(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Any]:
    return Holds(Setting), lambda: patch.setattr(Setting, "a", 0.3)


def closed_over_object(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Any]:
    setting = Setting()
    return closing_over(setting), lambda: vars(setting).update(a=0.3)


def closed_over_tensor(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Any]:
    setting = Setting()
    setting.a = torch.tensor(1.0)
    return closing_over(setting), lambda: setting.a.fill_(0.3)


def function_of_torch(patch: pytest.MonkeyPatch) -> tuple[nn.Module, Any]:
    return Reads(), lambda: patch.setattr(nn.functional, "silu", lambda x, inplace=False: x)


BESIDE: dict[str, Any] = {
    make.__name__: make
    for make in (
        table_beside, tensor_beside, array_attribute, class_attribute, closed_over_object, closed_over_tensor,
        function_of_torch,
    )
}  # fmt: skip


@pytest.mark.parametrize("make", BESIDE)
def test_what_a_part_computes_with_is_part_of_its_name(make: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part, edit = BESIDE[make](monkeypatch)
    x = torch.ones(3)
    before, out = identity(part), part(x)
    assert identity(part) == before
    edit()
    assert not torch.equal(part(x), out)
    assert identity(part) != before


def test_a_mask_function_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = build("qwen2")
    before, logits = identity(module), ran(module)

    def open_mask(*args: Any, **kwargs: Any) -> Tensor:
        return torch.ones(1, 1, IDS.shape[-1], IDS.shape[-1], dtype=torch.bool)

    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping, "sdpa", open_mask)
    assert not torch.equal(ran(module), logits)
    assert identity(module) != before


def test_what_changes_no_logit_keeps_the_name() -> None:
    module = build("qwen2")
    before = identity(module)
    module.config.architectures = ["Another"]
    type(module)._can_set_attn_implementation_cached_value = True
    # A method of a library, bound to a part, as quantisation leaves one to describe it.
    part = module.model.layers[0].mlp.up_proj
    bare = identity(module)
    part.extra_repr = types.MethodType(nn.Linear.extra_repr, part)
    try:
        assert bare == before != identity(module) == identity(module)
    finally:
        del type(module)._can_set_attn_implementation_cached_value


class MatmulLtState:
    """What bitsandbytes keeps of a layer, in the words of its class."""

    def __init__(self) -> None:
        self.idx, self.threshold = None, 6.0


def test_outliers_of_the_last_input_are_no_part_of_a_layer() -> None:
    part = nn.Linear(2, 2)
    part.state = MatmulLtState()  # pyright: ignore
    before = identity(part)
    part.state.idx = torch.tensor([1])  # pyright: ignore
    assert identity(part) == before
    part.state.threshold = 0.0  # pyright: ignore
    assert identity(part) != before


def test_an_outline_tells_what_decides_the_cost() -> None:
    module = build("qwen2")
    outlines = [outline(module)]
    module.model.embed_tokens.weight.data.mul_(2)
    assert outline(module) == outlines[0]
    for edit in (adapted_flag, narrower, block_removed, other_width):
        edit(module)
        outlines.append(outline(module))
    assert len(set(outlines)) == 5


def test_an_outline_leaves_out_what_forwards_write() -> None:
    module = build("qwen2")
    before = outline(module)
    module.model.rotary_emb.max_seq_len_cached = 4096
    assert outline(module) == before


def other_width(module: Any) -> None:
    module.model.layers[0].self_attn.num_key_value_groups = 1


def adapted_flag(module: Any) -> None:
    module.model.layers[0].mlp.enabled = False


def decoder_of_another_kind(tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.decoder = decoders.Fuse()


def another_template(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ messages[0].content }}"


def another_decode(tokenizer: Any) -> None:
    tokenizer.decode = lambda ids, **_: "the same"


def another_end(tokenizer: Any) -> None:
    tokenizer.eos_token = "the"


@pytest.mark.parametrize("edit", [decoder_of_another_kind, another_template, another_decode, another_end])
def test_a_changed_tokenizer_is_another(edit: Any, ar: dlens.Model) -> None:
    tokenizer = copy.deepcopy(ar.tokenizer)
    model = replace(ar, tokenizer=tokenizer)
    assert reading(model) == reading(ar)
    edit(tokenizer)
    assert reading(model) != reading(ar)


def test_rules_of_the_family_and_of_padding_count(diffusion: dlens.Model) -> None:
    changed = (
        *(replace(diffusion.family, **{name: value}) for name, value in FAMILY.items()),
        replace(diffusion.family, inputs=lambda ids, mask: {"input_ids": ids}),
    )
    models = [diffusion, *(replace(diffusion, family=family) for family in changed)]
    models += [replace(diffusion, honours_padding=False), replace(diffusion, tokenizer=None)]
    assert len(set(map(reading, models))) == len(models)


FAMILY: dict[str, Any] = {"mask_token_id": 5, "shift": 1, "end_token_ids": (7,), "name": "mine"}
