"""Fill the templates of generated pages; their text is escaped unless it is markup already."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


def render(template: str, **values: Any) -> str:
    """Fill a template of the folder `templates`; a name without a value is an error."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # the Markdown pages hold their text as HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["number"] = lambda value: f"{value:.3g}"
    found.filters["typographic"] = lambda text: text.replace("'", "’")
    return found
