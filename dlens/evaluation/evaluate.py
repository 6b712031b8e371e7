"""Scores of a model, with whatever operations it has, on tasks of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, final

from dlens.axes import respell
from dlens.checks import as_flag, as_path, quoted, refuse, several, whole
from dlens.evaluation.likelihood import Bound
from dlens.evaluation.shipped import shipped_file, write_task
from dlens.findings.scores.decoding import Decoding
from dlens.samplers import Sampler
from dlens.tables import table_text
from dlens.tasks.running_code import require_permission
from dlens.tracing.chain import Trace, trace

__all__ = ["Evaluation", "TaskScore", "evaluate", "require_lm_eval"]


@final
@dataclass(frozen=True)
class TaskScore:
    """One number of one task.

    Args:
        task: its name.
        metric: what was measured, such as "acc" or "exact_match".
        filter: how the answer was read off the text; "none" where it is the text.
        value: the number.
        stderr: its standard error over documents, as lm-eval computes it; NaN where it does not.
        n: documents.
    """

    task: str
    metric: str
    filter: str
    value: float
    stderr: float
    n: int


@final
@dataclass(frozen=True, eq=False)
class Evaluation:
    """What lm-eval found of a model.

    Args:
        model: its name.
        plan: the operations, in words.
        scores: every number of every task.
        results: all that lm-eval returned; the answers are under "samples".

    Examples:
        >>> import dlens, json, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "test.jsonl")
        >>> lines = [{"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in range(7)]
        >>> with open(path, "w") as file:
        ...     print(*map(json.dumps, lines), sep="\\n", file=file)
        >>> found = dlens.evaluate("trio/ar", [f"gsm8k:{path}"], shots=0, max_new_tokens=4)
        >>> found.value("gsm8k", filter="strict-match")
        0.0
        >>> [(row["task"], row["metric"], row["filter"], row["n"]) for row in found.table()]
        [('gsm8k', 'exact_match', 'strict-match', 2), ('gsm8k', 'exact_match', 'flexible-extract', 2)]
        >>> print(found)
        trio/ar
        task   metric       filter            value  stderr  n
        gsm8k  exact_match  strict-match          0       0  2
        gsm8k  exact_match  flexible-extract      0       0  2
    """

    model: str
    plan: tuple[str, ...]
    scores: tuple[TaskScore, ...]
    results: dict[str, Any] = field(repr=False)

    def value(self, task: str, metric: str | None = None, filter: str | None = None) -> float:
        """One number: the first of a task, or that of a metric and a filter.

        Raises:
            KeyError: there is none.
        """
        for each in self.scores:
            if each.task == task and metric in (None, each.metric) and filter in (None, each.filter):
                return each.value
        raise KeyError(
            f"no number of {task!r} with metric {metric!r} and filter {filter!r}; expected one of those that were "
            f"found; see .table()"
        )

    def table(self) -> list[dict[str, Any]]:
        """One row a number: "task", "metric", "filter", "value", "stderr" and "n"."""
        return [vars(each) for each in self.scores]

    def __str__(self) -> str:
        head = "; ".join([self.model, *self.plan])
        columns = ("task", "metric", "filter", "value", "stderr", "n")
        return f"{head}\n{table_text(columns, [list(row.values()) for row in self.table()])}"


def evaluate(
    model: Any,
    tasks: Sequence[str],
    *,
    include_path: str | Path | Sequence[str | Path] | None = None,
    limit: int | None = None,
    shots: int | None = None,
    sampler: Sampler | None = None,
    max_new_tokens: int | None = None,
    draws: int = 128,
    guidance: float = 0.0,
    check_greedy: bool = False,
    batch_size: int = 8,
    seed: int = 0,
    chat: bool = False,
    allow_code: bool = False,
    progress: bool = True,
) -> Evaluation:
    """Score a model on tasks of lm-evaluation-harness, which the extra `eval` brings.

    An AR model's likelihoods are exact. A diffusion model's are Monte-Carlo bounds from below, as LLaDA's evaluation
    draws them (arXiv 2502.09992, equation 6), so a number that rests on them is no exact likelihood: perplexities are
    bounds from above, and the choice with the largest bound need not be the likeliest.

    Args:
        model: anything `dlens.trace` takes, or a trace with operations.
        tasks: names that lm-eval knows, yaml files, or a benchmark with its file, such as "gsm8k:test.jsonl": gsm8k,
            math500, humaneval, mbpp, mbpp_sanitized. These read no network.
        include_path: a folder of further tasks, or several.
        limit: only the first documents of each task.
        shots: worked examples in each prompt, where a task has any; the task's own number by default.
        sampler: one of `dlens.samplers`; the family's default by default. Requests that draw set its temperature.
        max_new_tokens: length of answers; the task's by default. For diffusion models exactly so many are decoded.
        draws: how many times each continuation is masked, of diffusion models.
        guidance: classifier-free guidance of those likelihoods; that of answers is the sampler's.
        check_greedy: for diffusion models, find out whether greedy decoding gives each continuation: a forward a token.
        batch_size: rows of a forward, and prompts decoded together.
        seed: of draws and samplers.
        chat: write prompts with the tokenizer's chat template.
        allow_code: programs that the model writes may be run; see `dlens.tasks.running_code.passes`: no sandbox.
        progress: show progress bars when it takes longer than a second.

    Returns:
        `.value(task)`, `.table()`, and all that lm-eval returned in `.results`.

    Raises:
        ImportError: lm-eval is not installed.
        ValueError: an unknown task or a setting that does not fit; before anything is computed.
        NeverFired: an operation found nothing to act on.

    Examples:
        >>> import dlens
        >>> dlens.evaluate(dlens.trace("trio/ar").skip([3]), [])
        Traceback (most recent call last):
        ValueError: tasks=[]; expected names of tasks, at least one; write for example ['gsm8k:test.jsonl']
    """
    chat, allow_code = as_flag(chat, "chat"), as_flag(allow_code, "allow_code")
    bound = Bound(draws, guidance, check_greedy)
    decoding = Decoding(sampler, max_new_tokens, batch_size=batch_size, seed=seed, progress=progress)
    names, folders = _names(tasks), _folders(include_path)
    _check_count("limit", limit, 1)
    _check_count("shots", shots, 0)
    require_lm_eval()
    chain = model if isinstance(model, Trace) else trace(model)
    from lm_eval import simple_evaluate

    from dlens.evaluation.lm import TraceLM

    lm = TraceLM(chain, bound, decoding)
    _refuse_chat(chain, chat)
    manager, loaded = _loaded(names, folders)
    for task in loaded:
        if task.config.unsafe_code:
            require_permission(task.task_name, allow_code)
    # Its decorator hides from type checkers what it takes.
    run: Any = simple_evaluate
    results = run(
        lm,
        tasks=loaded,
        num_fewshot=shots,
        limit=limit,
        bootstrap_iters=1000,
        apply_chat_template=chat,
        random_seed=None,
        numpy_random_seed=None,
        torch_random_seed=None,
        confirm_run_unsafe_code=allow_code,
        # Without one, lm-eval reads all of its thousands of yaml files.
        task_manager=manager,
    )
    assert results is not None
    return Evaluation(chain.model.name, tuple(op.words() for op in chain.ops), _scores(results), dict(results))


def require_lm_eval() -> None:
    """Refuse what needs lm-eval where it is not installed.

    Raises:
        ImportError: says how to get it.
    """
    if find_spec("lm_eval") is None:
        raise ImportError("lm-eval is not installed; expected it beside dlens; pip install 'dlens[eval]'")


def _names(tasks: Any) -> list[str]:
    names = list(tasks) if several(tasks) else []
    if not names or not all(isinstance(name, str) for name in names):
        refuse("tasks", tasks, "names of tasks, at least one", "write for example ['gsm8k:test.jsonl']")
    return names


def _check_count(what: str, number: Any, least: int) -> None:
    if number is not None and (whole(number) is None or number < least):
        refuse(what, number, f"a whole number, {least} or more", "leave it out for the task's own")


def _folders(include_path: Any) -> list[Path]:
    folders = include_path if several(include_path) else [] if include_path is None else [include_path]
    paths = [as_path(folder, "include_path") for folder in folders]
    if missing := [path for path in paths if not path.is_dir()]:
        refuse("include_path", str(missing[0]), "a folder with yaml files of tasks", "check the path")
    return paths


def _refuse_chat(chain: Trace, chat: bool) -> None:
    if chat and not chain.model.tokenizer.chat_template:
        raise ValueError(
            f"chat=True with {chain.model.name}, whose tokenizer has no chat template; expected one that has; "
            f"leave chat out"
        )


def _loaded(names: Sequence[str], folders: Sequence[Path]) -> tuple[Any, list[Any]]:
    """lm-eval's manager and the tasks; its own are looked through only where a name is not found before."""
    from lm_eval.tasks import TaskManager

    with TemporaryDirectory() as own:
        files = {name: found for name in names if (found := shipped_file(name))}
        for name, path in files.values():
            write_task(Path(own), name, path)
        asked = [files[name][0] if name in files else name for name in names]
        if len(set(asked)) < len(asked):
            refuse("tasks", list(names), "each task once", "evaluate other files of one benchmark one after the other")
        known = [str(folder) for folder in folders] + [own]
        manager = TaskManager(include_path=known, include_defaults=False)  # pyright: ignore
        if any(not _found(name, manager) for name in asked):
            manager = TaskManager(include_path=known)  # pyright: ignore
        if missing := [name for name in asked if not _found(name, manager)]:
            raise ValueError(
                f"task {quoted(missing[0])}; expected a task of lm-eval or of include_path, a yaml file, or a "
                f"benchmark with its file, such as gsm8k:test.jsonl; {respell(missing[0], manager.all_tasks)}"
            )
        return manager, list(manager.load(asked)["tasks"].values())


def _found(name: str, manager: Any) -> bool:
    return name in manager.all_tasks or (name.endswith((".yaml", ".yml")) and Path(name).is_file())


def _scores(results: Any) -> tuple[TaskScore, ...]:
    """Every number of lm-eval's results, whose keys are a metric and a filter with a comma between them."""
    found = []
    for task, row in results["results"].items():
        counts = results["n-samples"].get(task, {})
        for key, value in row.items():
            metric, comma, filter = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                stderr = row.get(f"{metric}_stderr,{filter}")
                known = float(stderr) if isinstance(stderr, (int, float)) else nan
                found.append(TaskScore(task, metric, filter, float(value), known, counts.get("effective", 0)))
    return tuple(found)
