"""The shape of the house: who imports whom, what `import dlens` loads, how long files are."""

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import dlens
from dlens.show.report import report as reports
from tests.evaluation.harness import small_tasks
from tests.features.published import identity
from tests.reference import shallow

PACKAGE = Path(dlens.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})
LEVELS = {
    "arguments": 0,
    "axes": 0,
    "named": 0,
    "digest": 1,
    "errors": 0,
    "devices": 0,
    "files": 0,
    "html": 0,
    "tables": 0,
    "checks": 1,
    "features": 2,
    "metrics": 2,
    "caches": 3,
    "models": 3,
    "ops": 3,
    "measures": 3,
    "samplers": 3,
    "tasks": 3,
    "tracing": 4,
    "workers": 4,
    "compression": 5,
    "findings": 6,
    "evaluation": 7,
    "sweeps": 7,
    "widgets": 8,
    "show": 9,
    "public": 10,
    "commands": 10,
    "cli": 11,
    "__main__": 12,
    "__init__": 12,
}
# The floors of a room: each may import those before it, and what stands in the room itself is on top.
FLOORS = {
    "tracing": ("planning", "records", "streams", "step", "replay", "engine", "probes"),
    "findings": ("scores", "layers", "skipping", "effects", "circuits", "features", "study"),
    "measures": ("base",),
    "ops": ("base",),
    "show": ("figures", "report"),
}
# The rooms whose tests mirror them one to one; the files directly in dlens/ are a room too.
MIRRORED = (
    "",
    "caches",
    "commands",
    "compression",
    "evaluation",
    "features",
    "findings",
    "measures",
    "models",
    "ops",
    "samplers",
    "show",
    "sweeps",
    "tasks",
    "tracing",
    "widgets",
    "workers",
)
TESTS = Path(__file__).parent
# Tests of the whole, which no single module has.
WHOLE = (
    "measures/test_together.py",
    "show/report/test_browser.py",
    "test_docs.py",
    "test_house.py",
    "test_release.py",
    "test_site.py",
    "test_traps.py",
    "test_tutorials.py",
    "widgets/test_jupyterlab.py",
    "widgets/test_keyboard.py",
    "widgets/test_printed.py",
    "widgets/test_saved.py",
)
HEAVY = (
    "nnsight",
    "transformers",
    "xarray",
    "sklearn",
    "plotly",
    "tyro",
    "ipywidgets",
    "anywidget",
    "pandas",
    "scipy",
    "jinja2",
    "submitit",
    "ray",
    "cloudpickle",
    "lm_eval",
    "math_verify",
    "datasets",
)


def room(path: Path) -> str:
    """The package or module directly under dlens/ that a file is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            # `from dlens import samplers` names a room, `from dlens.axes import Resid` does not.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported when the file is, so not those under TYPE_CHECKING or in functions."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imported(node)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_room_has_its_level() -> None:
    assert {room(path) for path in FILES} <= set(LEVELS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    here = room(path)
    for name in imported(parse(path)):
        parts = name.split(".")
        if parts[0] != "dlens":
            continue
        there = parts[1] if len(parts) > 1 and parts[1] in LEVELS else "__init__"
        if there == here:
            continue
        # The command line may call what a user calls.
        assert LEVELS[there] < LEVELS[here] or (here == "commands" and there == "__init__"), f"{here} imports {name}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in FLOORS], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_floors_of_a_room_go_down(path: Path) -> None:
    floors = FLOORS[room(path)]
    order = {name: level for level, name in enumerate(floors)}
    here = order.get(path.relative_to(PACKAGE / room(path)).parts[0].removesuffix(".py"), len(floors))
    for name in imported(parse(path)):
        parts = name.split(".")
        if parts[:2] == ["dlens", room(path)]:
            assert order.get(parts[2], len(floors)) <= here, f"{path.name} imports {name}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_folder_says_what_lives_there_and_is_small(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= 15, "14 files beside __init__.py"
    assert ast.get_docstring(parse(folder / "__init__.py")), "an introduction in __init__.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nnsight_stays_in_the_engine_and_models(path: Path) -> None:
    where = path.relative_to(PACKAGE).as_posix()
    uses = {name.split(".")[0] for name in imported(parse(path))}
    assert "nnsight" not in uses or where == "tracing/engine.py" or where.startswith("models/")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_load_when_used(path: Path) -> None:
    # Nothing loads the widgets but `import dlens.widgets`, and lm-eval's model only what needs lm-eval.
    heavy = set(HEAVY) - ({"anywidget", "ipywidgets"} if room(path) == "widgets" else set())
    heavy -= {"lm_eval"} if path.relative_to(PACKAGE).as_posix() == "evaluation/lm.py" else set()
    assert not {name.split(".")[0] for name in imported_at_once(parse(path))} & heavy


def test_import_loads_no_heavy_library() -> None:
    code = "import sys, dlens.public; print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "dlens" in output.split()
    assert not {name.split(".")[0] for name in output.split()} & set(HEAVY)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


def mirrored(path: Path) -> bool:
    """Whether a file of dlens/ or tests/, relative to it, is in one of the rooms that are held to this."""
    return ("" if len(path.parts) == 1 else path.parts[0]) in MIRRORED


def modules() -> set[str]:
    """Where the tests of every module are expected."""
    paths = (path.relative_to(PACKAGE) for path in FILES if not path.name.startswith("__"))
    return {path.with_name(f"test_{path.name}").as_posix() for path in paths if mirrored(path)}


def written() -> set[str]:
    """Every file of tests but those of the whole."""
    paths = (path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))
    return {path.as_posix() for path in paths if mirrored(path)} - set(WHOLE)


def test_every_module_has_its_tests_and_every_test_its_module() -> None:
    assert sorted(modules() - written()) == [], "modules without a test file of their name"
    assert sorted(written() - modules()) == [], "tests of no module: move them, or name them in WHOLE"


def test_tests_of_recipes_have_their_module() -> None:
    recipes = TESTS.parent / "recipes"
    modules = {f"test_{path.name}" for path in (recipes / "trio").glob("*.py")}
    modules |= {f"test_{path.parent.name}.py" for path in recipes.glob("*/__init__.py")}
    assert {path.name for path in (TESTS / "recipes").glob("test_*.py")} <= modules


def test_every_trap_has_a_test() -> None:
    names = [node.name for node in parse(TESTS / "test_traps.py").body if isinstance(node, ast.FunctionDef)]
    numbers = {int(name.split("_")[2]) for name in names if name.startswith("test_trap_")}
    assert numbers >= {*range(1, 38)}


def test_the_face_has_no_logic() -> None:
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    others = [node for node in parse(PACKAGE / "__init__.py").body if not isinstance(node, allowed)]
    # What loads the widgets when they are first used; type checkers read an import instead.
    assert [ast.unparse(node).splitlines()[0] for node in others] == ["if TYPE_CHECKING:"]


def test_widgets_load_when_first_used() -> None:
    code = (
        "import sys, dlens\n"
        "assert 'widgets' in dir(dlens) and 'anywidget' not in sys.modules\n"
        "print(dlens.widgets.Denoising.__name__, dlens.tasks.names()[0], 'anywidget' in sys.modules)\n"
        "dlens.wigdets"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["Denoising", "trio-math", "True"]
    assert run.stderr.splitlines()[-1].startswith("AttributeError: module 'dlens' has no attribute 'wigdets'")


def public_functions() -> dict[str, Callable[..., Any]]:
    return {name: getattr(dlens, name) for name in dlens.__all__ if inspect.isfunction(getattr(dlens, name))}


def test_no_module_shadows_a_public_function() -> None:
    modules = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    assert not modules & set(public_functions())


def test_each_public_function_can_be_called_twice(
    ar: dlens.Model, diffusion: dlens.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "QUICK", replace(reports.QUICK, texts=2, draws=1))
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda storage: None)
    ar, diffusion = shallow(ar, 4), shallow(diffusion, 4)
    dlens.trace(ar).forward("Once upon a time").save(tmp_path / "record")
    dlens.trace(ar).capture("embed").stream("Once upon a time", tmp_path / "stream")
    denoised = (
        dlens.trace(diffusion).capture("pattern").capture("blocks.1.hook_resid_post").generate("Once upon a time", 2)
    )
    family = dlens.Family(name="called-twice", objective="autoregressive", shift=1)
    calls: dict[str, tuple[Any, ...]] = {
        "load": ("trio/ar",),
        "trace": (ar,),
        "load_activations": (tmp_path / "stream",),
        "load_record": (tmp_path / "record",),
        "similarity": (denoised["pattern"].flatten(2), denoised["pattern"].flatten(2)),
        "text_statistics": (["Once upon a time there was a fox."],),
        "register_family": (family,),
        "profile": (ar, ["Once upon a time"]),
        "attention_flow": (denoised,),
        "pattern_stability": (denoised,),
        "plan_skip": (ar, 1),
        "plan_schedule": (diffusion, 1 / 4, 1),
        "probe_layers": (ar,),
        "spectral_alpha": (ar,),
        "compress": (ar, "rtn"),
        "robustness": ([ar], "trio-math", [dlens.Recipe(method="rtn", bits=3)], 2),
        "evaluate": (ar, ["small_choice"]),
        "retention": (ar, [2]),
        "disruption": (ar, [2], ["Once upon a time"]),
        "phases": (ar, [2]),
        "collapse": (ar,),
        "compare": ({"ar": ar}, ["Once upon a time"]),
        "attribute": (ar, [[5, 6, 7]], [[5, 9, 7]], dlens.metrics.log_prob(8)),
        "logit_attribution": (ar, [[5, 6, 7]], 8, 9),
        "part_lens": (ar, [[5, 6, 7]]),
        "report": ([ar], tmp_path / "report.html"),
        "load_sae": ("trio/diffusion",),
        "train_sae": (torch.randn(64, 4), 8),
        "activation_rows": (ar, ["Once upon a time"], "blocks.1.hook_resid_post"),
        "splice_loss": (diffusion, identity(192, "blocks.1.hook_resid_post"), ["Once upon a time"]),
        "feature_steps": (denoised, identity(192, "blocks.1.hook_resid_post")),
        "probe": (torch.randn(8, 4), [0, 1] * 4),
        "direction": (torch.randn(8, 4), [0, 1] * 4),
        "plan_steering": ([0.5, 1.0],),
        "steering": (diffusion, [0.0] * 192, 1, dlens.plan_steering([0.5, 1.0]), ["Once upon a time"], len),
        "view_metrics": (diffusion, ["Once upon a time", "The dog ran to the house"]),
        "pairs": ("trio-code", ar, 1),
        "circuit": (ar, dlens.pairs("trio-code", ar, 1)),
        "grid": (ar,),
        "sweep": (ar,),
        "load_sweep": (tmp_path / "sweep",),
    }
    named: dict[str, Any] = {name: {"prompts": ["Once upon a time"]} for name in ("plan_skip", "plan_schedule")}
    named["plan_skip"] |= {"threshold": 0.0}
    named["probe_layers"] = {"prompts": ["Once upon a time", "The dog ran"], "folds": 2}
    named |= {"train_sae": {"k": 2}, "probe": {"folds": 2}, "steering": {"max_new_tokens": 2}}
    named |= {"retention": {"n": 2, "max_new_tokens": 2}, "phases": {"n": 2, "max_new_tokens": 3}}
    named |= {"compress": {"bits": 3}, "robustness": {"max_new_tokens": 2}}
    named["attribute"] = {"method": "attribution"}
    named["disruption"] = {"max_new_tokens": 2}
    named["collapse"] = named["retention"] | {"n_random": 0, "texts": ["Once upon a time"], "prompts": ["Once"]}
    named["evaluate"] = {"include_path": small_tasks(tmp_path)}
    named |= {"report": {"quick": True, "problems": 2}, "circuit": {"method": "eap"}}
    named["sweep"] = {"texts": ["Once upon a time"], "out": tmp_path / "sweep", "workers": 0}
    assert set(calls) == set(public_functions())
    for name, arguments in calls.items():
        first, second = (getattr(dlens, name)(*arguments, **named.get(name, {})) for _ in range(2))
        assert type(first) is type(second)
