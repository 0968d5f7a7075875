"""Pages of figures and tables, each in one file that opens anywhere: explain.html and evaluation.html."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitexp.system.disk import write_atomically


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page: what it shows and how to read it, with figures (PNG files), a table, or both."""

    title: str
    text: str
    figures: Sequence[Path] = ()
    heading: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    @property
    def uris(self) -> list[str]:
        """The figures as data URIs."""
        return [f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}" for path in self.figures]


def render(template: str, **values: Any) -> str:
    """Return the page that a template of this folder makes, in the common style."""
    import jinja2  # imported only when a page is written

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    folder = Path(__file__).parent
    css, source = ((folder / name).read_text(encoding="utf-8") for name in ("page.css", template))
    return environment.from_string(source).render(css=css, **values)


def write_gallery(path: Path, *, title: str, about: Sequence[str], sections: Sequence[Section]) -> None:
    """Write a page. about: lines below its title. Raises OSError if it cannot be written."""
    write_atomically(path, render("gallery.html.jinja", title=title, about=about, sections=sections))
