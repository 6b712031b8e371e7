import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from dlens.html import rendered

WORDS = "<b>&\"'"
ESCAPED = "&lt;b&gt;&amp;&#34;&#39;"


def test_text_is_escaped_and_html_is_not() -> None:
    assert rendered("widgets/output.html.j2", name=WORDS, picture=WORDS) == (
        f'<div data-dlens-picture="{ESCAPED}">{ESCAPED}</div>'
    )
    assert rendered("widgets/output.html.j2", name="a", picture=Markup("<i></i>")) == (
        '<div data-dlens-picture="a"><i></i></div>'
    )


def test_what_one_template_gave_another_takes_as_it_is() -> None:
    inner = rendered("widgets/output.html.j2", name="a", picture="<")
    assert f">{inner}<" in rendered("widgets/output.html.j2", name="b", picture=inner)


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'picture' is undefined"):
        rendered("widgets/output.html.j2", name="a")
