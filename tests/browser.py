"""Widgets and pages in a real browser: Chromium, no server, and no request to any other machine."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import pytest

REQUIRED = "DLENS_REQUIRE_BROWSER"
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

# A model of the AFM kind: state, listeners, and a way to Python that answers with what changed there.
_SHIM = """
<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,"><body style="margin:8px"><div id="host"></div>
<script>
const decode = (value) => {
  if (Array.isArray(value)) return value.map(decode);
  if (value && typeof value === "object") {
    if ("$bytes" in value) return new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer);
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, decode(v)]));
  }
  return value;
};
const state = {}, listeners = {}, changed = {};
const tell = (name) => {
  for (const call of listeners[`change:${name}`] ?? []) call();
  for (const call of listeners.change ?? []) call();
};
const receive = (text) => {
  const names = Object.entries(JSON.parse(text)).map(([name, value]) => { state[name] = decode(value); return name; });
  names.forEach(tell);
};
const model = {
  get: (name) => state[name],
  set(name, value) { state[name] = value; changed[name] = value; tell(name); },
  on(name, call) { (listeners[name] ??= []).push(call); },
  off(name, call) { listeners[name] = (listeners[name] ?? []).filter((other) => other !== call); },
  send() {},
  async save_changes() {
    const text = JSON.stringify(changed);
    for (const name of Object.keys(changed)) delete changed[name];
    receive(await window.pysync(text));
  },
};
async function start(source, style, text) {
  receive(text);
  const sheet = document.createElement("style");
  sheet.textContent = style;
  document.head.append(sheet);
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const module = await import(url);
  window.end = await module.default.render({ model, el: document.getElementById("host") });
}
</script>
"""


def browser_path() -> str | None:
    """Where Chromium is, if it is installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Chromium, started once; without it the test is skipped, or fails where DLENS_REQUIRE_BROWSER=1."""
    path = browser_path()
    if path is None:
        assert os.environ.get(REQUIRED) != "1", f"{REQUIRED}=1 and no Chromium; apt-get install chromium"
        pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """An empty page that fails its test on a script error or a request to any other machine."""
    context = chromium.new_context(viewport={"width": 900, "height": 900})
    page = context.new_page()
    page.set_default_timeout(10_000)
    problems: list[str] = []
    page.on("request", lambda request: problems.extend(outside(request.url)))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    assert problems == []


def outside(url: str) -> list[str]:
    """What to say of a request that leaves the machine; nothing of others."""
    parts = urlsplit(url)
    local = parts.scheme in ("data", "blob", "about", "file") or parts.hostname in ("localhost", "127.0.0.1")
    return [] if local else [f"request of {url}"]


def faults(page: Any, part: str | None = None) -> list[str]:
    """What axe finds on an open page, wide on light and narrow on dark, a line each; the page stays dark and narrow.

    Args:
        page: it.
        part: a selector of what is looked at; the whole page by default, its title and landmarks included.
    """
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = []
    for width, scheme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        result = page.evaluate("(part) => axe.run(part ?? document, { resultTypes: ['violations'] })", part)
        for fault in result["violations"]:
            places = [" ".join(map(str, node["target"])) for node in fault["nodes"][:3]]
            found.append(f"{width}, {scheme}: {fault['help']}: {'; '.join(places)}")
    return found


class Shown:
    """A widget shown on a page: what either side changes, the other has.

    Args:
        page: an empty page.
        widget: a real widget.
    """

    def __init__(self, page: Any, widget: Any) -> None:
        self.page, self.widget = page, widget
        self._changed: set[str] = set()
        from anywidget import AnyWidget

        own = widget.traits(sync=True).keys() - AnyWidget.class_traits()
        self._names = sorted(name for name in own if not name.startswith("_"))
        widget.observe(lambda change: self._changed.add(change.name), self._names)
        page.set_content(_SHIM)
        page.expose_function("pysync", self._sync)
        source = [widget._esm, widget._css, self._state(self._names)]
        page.evaluate("([source, style, text]) => start(source, style, text)", source)

    def push(self) -> None:
        """Tell the page what Python changed."""
        names, self._changed = self._changed, set()
        page_state = self._state(sorted(names))
        self.page.evaluate("(text) => receive(text)", page_state)

    def set(self, **traits: Any) -> None:
        """Set traits as a user does in a notebook."""
        for name, value in traits.items():
            setattr(self.widget, name, value)
        self.push()

    def _sync(self, text: str) -> str:
        given = json.loads(text)
        for name, value in given.items():
            setattr(self.widget, name, value)
        kept = {name for name in given if getattr(self.widget, name) == given[name]}
        names, self._changed = self._changed - kept, set()
        return self._state(sorted(names | (given.keys() - kept)))

    def _state(self, names: list[str]) -> str:
        return json.dumps({name: _encoded(getattr(self.widget, name)) for name in names})


def _encoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _encoded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encoded(each) for each in value]
    return {"$bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
