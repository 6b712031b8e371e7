import base64
import csv
import re
from html.parser import HTMLParser

from dlens.findings.layers.profile import Profile
from dlens.show.report.page import profile_page, save_page


class Loads(HTMLParser):
    """Collects what a browser would fetch, the headings and the tables."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        # Links lead somewhere when a reader follows them; everything else is fetched.
        held = [] if tag == "a" else [value for name, value in attrs if name in ("src", "href") and value]
        self.fetched += [value for value in held if not value.startswith("data:")]


def test_the_page_asks_for_nothing_and_is_small(profiles: list[Profile]) -> None:
    html = profile_page(profiles)
    page = Loads()
    page.feed(html)
    assert page.fetched == []
    assert "@import" not in html.split("</style>")[0] and "url(" not in html.split("</style>")[0]
    assert "plotly" not in html and len(html) < 500_000


def test_every_figure_has_its_numbers(profiles: list[Profile]) -> None:
    page = Loads()
    page.feed(profile_page(profiles))
    # Two figures of all models, one of the first model, three of the one with noise levels.
    assert page.tags.count("figure") == page.tags.count("table") == 6
    rows = profiles[0].table()
    assert f"<td>{rows[3]['cosine']:.4g}</td>" in profile_page(profiles)


def test_it_says_how_it_was_measured(profiles: list[Profile]) -> None:
    html = profile_page(profiles).split("How it was measured")[1]
    assert "trio/diffusion read 2 prompts" in html
    assert "cosine of resid_pre with resid_post" in html


def test_names_are_escaped(profiles: list[Profile]) -> None:
    from dataclasses import replace

    html = profile_page([replace(profiles[0], model="<script>x")])
    assert "<h2><script>x" not in html and "&lt;script&gt;x" in html


def test_a_page_is_written_with_its_folder(tmp_path) -> None:
    assert save_page("<p>", tmp_path / "a" / "b.html").read_text() == "<p>"


def test_every_heading_has_its_anchor_in_the_contents(profiles: list[Profile]) -> None:
    html = profile_page(profiles)
    listed = re.findall(r'<li><a href="#([^"]+)">', html)
    assert len(listed) == len(set(listed)) == 7
    assert listed == re.findall(r'<section id="([^"]+)">', html)


def test_numbers_come_as_a_file_with_all_their_digits(profiles: list[Profile]) -> None:
    held = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)"', profile_page(profiles))
    rows = list(csv.reader(base64.b64decode(held[0]).decode().splitlines()))
    assert rows[0] == ["layer", "trio/ar cosine", "trio/diffusion cosine"]
    assert float(rows[4][1]) == profiles[0].table()[3]["cosine"]


def test_each_figure_is_drawn_for_wide_and_for_narrow_pages(profiles: list[Profile]) -> None:
    html = profile_page(profiles)
    assert html.count('<div class="wide"><svg') == html.count('<div class="narrow"><svg') == 6
