"""The docs site: it builds strictly and offline, and every public name is in it once, with an example that runs."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from pydoc import locate
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

import dlens
import dlens.caches
import dlens.measures
import dlens.samplers
import dlens.tasks
import dlens.widgets
from tests.browser import faults

ROOT = Path(__file__).parents[1]
MODULES = (dlens, dlens.caches, dlens.measures, dlens.samplers, dlens.tasks, dlens.widgets)
DIRECTIVE = re.compile(r"^::: (\S+)$", re.MULTILINE)
# An alias has no docstring that is tested; its example is another's.
ALIASES = {"dlens.samplers.Draw": dlens.samplers.Denoiser}


def documented() -> list[str]:
    """The names that the API pages show, in their order."""
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    return [name for page in pages for name in DIRECTIVE.findall(page.read_text(encoding="utf-8"))]


def methods(found: Any) -> dict[str, str]:
    """The public methods that a class documents itself, with their docstrings; properties need no example."""
    if not inspect.isclass(found):
        return {}
    plain = {name: getattr(value, "__func__", value) for name, value in vars(found).items() if name[0] != "_"}
    inherited = {name for base in found.__mro__[1:] for name in vars(base)}
    known = {*inherited, *getattr(found, "__dataclass_fields__", {})}
    functions = {name: value for name, value in plain.items() if inspect.isfunction(value) and name not in known}
    return {name: inspect.cleandoc(value.__doc__) for name, value in functions.items() if value.__doc__}


def examples(doc: str | None) -> str:
    """The lines of a docstring that run as tests."""
    return "\n".join(re.findall(r"^\s*(?:>>>|\.\.\.) (.*)$", doc or "", re.MULTILINE))


def test_every_public_name_is_on_one_page() -> None:
    counts = Counter(id(locate(name)) for name in documented())
    public = {f"{module.__name__}.{name}": getattr(module, name) for module in MODULES for name in module.__all__}
    wrong = {name: counts[id(value)] for name, value in public.items() if not isinstance(value, ModuleType)}
    assert {name: count for name, count in wrong.items() if count != 1} == {}
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("name", documented())
def test_every_name_has_an_example(name: str) -> None:
    found = ALIASES.get(name) or locate(name)
    own = examples(found.__doc__)
    assert own
    without = [key for key, doc in methods(found).items() if not examples(doc) and not re.search(rf"\b{key}\b", own)]
    assert without == []


@pytest.mark.parametrize("name", documented())
def test_every_field_is_explained(name: str) -> None:
    found = locate(name)
    fields = dataclasses.fields(found) if inspect.isclass(found) and dataclasses.is_dataclass(found) else ()
    assert [field.name for field in fields if not re.search(rf"\b{field.name}\b", found.__doc__ or "")] == []


def test_links_of_the_readme_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8"))
        assert [target for target in targets if not (ROOT / target).exists()] == []


class _Links(HTMLParser):
    """What a page loads, and the places in it that can be linked to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids.add(given.get("id") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(given.get("href") or "")
        elif tag in ("script", "img", "iframe", "source"):
            self.loads.append(given.get("src") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly from the tree, with the tutorials as notebooks that did not run."""
    import jupytext

    source = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "mkdocs.yml", source)
    shutil.copytree(ROOT / "docs", source / "docs", ignore=shutil.ignore_patterns("tutorials"))
    (source / "dlens").symlink_to(ROOT / "dlens")
    (source / "docs" / "tutorials").mkdir()
    for script in (ROOT / "tutorials").glob("[0-9]*.py"):
        notebook = source / "docs" / "tutorials" / f"{script.stem}.ipynb"
        jupytext.write(jupytext.read(script, fmt="py:percent"), notebook)
    quiet = {"NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    built = subprocess.run(command, cwd=source, env=os.environ | quiet, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return source / "site"


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    handler = functools.partial(_Silent, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_the_site_shows_every_name_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {path.relative_to(site).as_posix(): _Links(path.read_text("utf-8")) for path in site.rglob("*.html")}
    shown = set().union(*(page.ids for name, page in pages.items() if name.startswith("api/")))
    wanted = {f"{name}.{method}" for name in documented() for method in methods(locate(name))} | set(documented())
    assert wanted - shown == set()
    outside = {name: [url for url in page.loads if urlsplit(url).netloc] for name, page in pages.items()}
    assert {name: urls for name, urls in outside.items() if urls} == {}


def test_pages_and_search_work_in_a_browser(site: Path, address: str, page: Any) -> None:
    # The page itself takes note of errors, and of what each of them asks of other machines.
    names = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    assert {"404.html", "index.html", "api/traces.html", "tutorials/1_first_trace.html"} <= set(names)
    for name in names:
        page.goto(f"{address}/{name}")
    page.goto(f"{address}/index.html")
    page.wait_for_load_state("networkidle")
    page.keyboard.press("/")
    page.keyboard.type("outlier channel")
    page.locator(".md-search-result__link").first.wait_for()


SEEN = ("index", "404", "widgets", "gallery", "report", "api/index", "api/traces", "tutorials/1_first_trace")


@pytest.mark.parametrize("name", SEEN)
def test_axe_finds_no_fault(name: str, address: str, page: Any) -> None:
    page.goto(f"{address}/{name}.html")
    page.locator(".md-content").wait_for()
    # The search changes its colours slowly where the page becomes wide, and axe would see it on the way.
    page.add_style_tag(content="*, *::before, *::after { transition: none !important }")
    assert faults(page) == []
