"""What a user may give instead of a module, and what is named instead of being misread."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import disk_offload
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from torch import Tensor

import dlens
from dlens.models.given import module_of
from tests.models.conftest import build
from tests.whole.operations import CHECKS, LLAMA, Pair

IDS = torch.arange(3, 15)[None]
# Of peft and torch.compile, about their own insides.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),
]


def logits(trace: dlens.Trace) -> Tensor:
    return trace.capture("logits").forward(IDS)["logits"]


def plain(module: Any) -> Tensor:
    with torch.no_grad():
        return module(input_ids=IDS, use_cache=False).logits


def adapted() -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    return get_peft_model(build("qwen2"), config).eval()


def test_a_peft_model_is_traced_with_its_adapter_on_and_off() -> None:
    peft = adapted()
    trace = dlens.trace(peft)
    assert trace.model.module is peft.get_base_model()
    assert torch.equal(logits(trace), plain(peft))
    cost = trace.forward(IDS).flops
    with peft.disable_adapter():
        assert torch.equal(logits(trace), plain(build("qwen2")))
        without = trace.forward(IDS).flops
    layers, rank, tokens = 4, 2, 12
    assert cost - without == 2 * tokens * rank * layers * ((32 + 32) + (32 + 48))
    assert torch.equal(logits(trace), plain(peft))


@pytest.mark.parametrize("state", ["on", "off", "merged"])
def test_operations_on_a_model_with_an_adapter_equal_hooks(state: str) -> None:
    traced, plain = adapted(), adapted()
    with ExitStack() as stack:
        if state == "off":
            for peft in (traced, plain):
                stack.enter_context(peft.disable_adapter())
        bases = [peft.merge_and_unload() if state == "merged" else peft.get_base_model() for peft in (traced, plain)]
        pair = Pair(dlens.load(bases[0]), bases[1], LLAMA, use_cache=False)
        for check in ("captures", "within halves", "without a head and a neuron", "skip", "skip of a half", "steer"):
            CHECKS[check](pair)


def test_skips_equal_those_of_the_merged_model() -> None:
    peft = adapted()
    skipped = logits(dlens.trace(peft).skip([1]))
    merged = peft.merge_and_unload()
    torch.testing.assert_close(logits(dlens.trace(merged).skip([1])), skipped, atol=1e-5, rtol=0)


def test_a_folder_of_an_adapter(tmp_path: Path) -> None:
    peft = adapted()
    build("qwen2").save_pretrained(tmp_path / "base")
    peft.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    peft.save_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits(dlens.trace(str(tmp_path / "adapter"))), plain(peft), atol=1e-6, rtol=0)
    assert isinstance(peft, PeftModel)


def test_adapters_outside_the_layers_are_named() -> None:
    peft = get_peft_model(build("qwen2"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="a PEFT model with PROMPT_TUNING, .*; expected adapters within .*; give its"):
        dlens.load(peft)


def test_compiled_modules_are_named() -> None:
    block, method = build("qwen2"), build("qwen2")
    block.model.layers[1] = torch.compile(block.model.layers[1])
    method.model.layers[2].compile()
    for module, name in ((torch.compile(build("qwen2")), "OptimizedModule"), (block, "layers.1"), (method, "layers.2")):
        with pytest.raises(ValueError, match=f"{name} is compiled by torch.compile; expected .*; give the module as"):
            dlens.load(module)


def test_weights_that_stay_on_disk(tmp_path: Path) -> None:
    module = build("qwen2")
    disk_offload(module, tmp_path, execution_device=torch.device("cpu"))
    model = dlens.load(module)
    assert (model.device.type, model.d_model) == ("cpu", 32)
    assert torch.equal(logits(dlens.trace(model)), plain(build("qwen2")))
    other = build("qwen2")
    with torch.no_grad():
        other.model.norm.weight[3] *= 2
    disk_offload(other, tmp_path / "other", execution_device=torch.device("cpu"))
    assert model.fingerprint() == model.fingerprint() != dlens.load(other).fingerprint()


def test_what_is_no_model() -> None:
    for source, error in ((5, TypeError), (torch.nn.Linear(2, 2), TypeError)):
        with pytest.raises(error, match="is no model; expected a name"):
            module_of(source)
