"""HTML from templates: every text that goes into one is escaped, whoever wrote it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["rendered"]


def rendered(template: str, **values: Any) -> Markup:
    """Fill a template of the package.

    Args:
        template: its path below dlens/, with the ending .html.j2.
        values: what it names; text is escaped, what another template gave is not escaped again.

    Returns:
        Text that other templates take as HTML.

    Raises:
        jinja2.UndefinedError: the template names a value that is not given.

    Examples:
        >>> print(rendered("widgets/output.html.j2", name="a", picture="1 < 2"))
        <div data-dlens-picture="a">1 &lt; 2</div>
    """
    from markupsafe import Markup

    return Markup(_environment().get_template(template).render(**values))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("dlens", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
