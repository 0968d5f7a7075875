"""Pages of figures and tables, each in one file that opens anywhere: explain.html and evaluation.html."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vitexp.system.disk import write_atomically


class Rows(NamedTuple):
    """A table of formatted cells."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]


def data_uri(png: bytes) -> str:
    """Return a PNG file as an address that pages can embed."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def render(template: str, **values: Any) -> str:
    """Return the page that a template of this folder makes, in the common style."""
    import jinja2  # imported only when a page is written

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    folder = Path(__file__).parent
    css, source = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", template))
    return environment.from_string(source).render(css=css, **values)


def write_gallery(
    path: Path,
    *,
    title: str,
    about: Sequence[str],
    captions: Mapping[str, tuple[str, str]],
    figures: Collection[str],
    tables: Mapping[str, Rows],
) -> None:
    """Write a page. Raises OSError if it cannot be written.

    about: lines below its title. captions: title and text of every section, by name, in the order of the page; only
    sections with content are shown. figures: names of sections whose figure is `name`.png next to the page. tables: by
    name of their section.
    """
    sections = [
        {
            "title": heading,
            "text": text,
            "uri": data_uri((path.parent / f"{name}.png").read_bytes()) if name in figures else None,
            "table": tables.get(name),
        }
        for name, (heading, text) in captions.items()
        if name in figures or name in tables
    ]
    write_atomically(path, render("gallery.html.jinja", title=title, about=about, sections=sections))
