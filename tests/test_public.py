"""What `import dlens` gives: every public name, and nothing loaded before one is used."""

import subprocess
import sys

import dlens
import dlens.public


def run(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_nothing_is_loaded_before_it_is_used() -> None:
    assert run("import sys, dlens; print('torch' in sys.modules, hasattr(dlens, '__wrapped__'))") == ["False", "False"]
    help_alone = (
        "import sys\nfrom dlens.cli import main\ntry: main(['skip', '--help'])\nfinally: print('torch' in sys.modules)"
    )
    assert run(help_alone)[-1] == "False"
    assert run("from dlens import *; print(trace.__name__, len(report.__name__))") == ["trace", "6"]


def test_every_public_name_is_there() -> None:
    assert dlens.__all__ == dlens.public.__all__ and set(dlens.__all__) <= set(dir(dlens))
    for name in dlens.__all__:
        assert getattr(dlens, name) is getattr(dlens.public, name)
