"""The one look of all figures: colours, sizes, fonts, and how names given by a data set are written."""

from __future__ import annotations

import textwrap
from functools import cache
from typing import Final
from unicodedata import east_asian_width

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

# Blue, orange, green and red that stay apart for colour-blind eyes (after Okabe and Ito 2008).
STYLE: Final = {
    "ink": "#22272e",
    "muted": "#66707c",
    "rule": "#d9dde2",
    "empty": "#eef0f2",
    "train": "#0072b2",
    "val": "#d55e00",
    "right": "#00795c",
    "wrong": "#c2362b",
}
# Inches. At 150 dots an inch this is 1080 pixels, a little more than the column of a page.
WIDTH: Final = 7.2
MARGIN: Final = 0.08
TITLE_HEIGHT: Final = 0.4
DPI: Final = 150
# Points.
TITLE_SIZE: Final = 12.0
TEXT_SIZE: Final = 9.0
SMALL_SIZE: Final = 8.0

# DejaVu Sans comes with matplotlib but has no Chinese, Japanese or Korean; these fill in where installed.
_FALLBACK_FONTS: Final = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "Malgun Gothic",
    "WenQuanYi Zen Hei",
    "Arial Unicode MS",
)


@cache
def _fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


def new_figure(*, height: float, title: str, dpi: int = DPI) -> Figure:
    """An empty figure, `height` inches tall, its title in the topmost `TITLE_HEIGHT` inches."""
    figure = Figure(figsize=(WIDTH, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    heading(figure, title, top=MARGIN, size=TITLE_SIZE, colour=STYLE["ink"])
    return figure


def heading(figure: Figure, words: str, *, top: float, size: float, colour: str) -> None:
    """Bold words at the left edge, `top` inches below the upper one."""
    y = 1 - top / figure.get_size_inches()[1]
    figure.text(MARGIN / WIDTH, y, words, va="top", fontsize=size, fontweight="bold", color=colour)


def place(figure: Figure, *, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches, `top` counted from the figure's upper edge."""
    figure_width, figure_height = figure.get_size_inches()
    bottom = figure_height - top - height
    return figure.add_axes((left / figure_width, bottom / figure_height, width / figure_width, height / figure_height))


def finish(figure: Figure) -> Figure:
    """Set every text as it stands: in a font that has its letters, and with `$` as a character, not as mathematics."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontfamily(_fonts())
        text.set_parse_math(False)
    return figure


def bare(axes: Axes) -> None:
    """Take away ticks and frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def frame(axes: Axes, colour: str, *, width: float) -> None:
    """A frame of `width` points around a picture that has no ticks."""
    axes.spines[:].set(visible=True, color=colour, linewidth=width)


def one_line(name: str, *, columns: int) -> str:
    """`name` on one line, at most `columns` Latin letters wide; what does not fit ends in an ellipsis."""
    return wrap(name, columns=columns, lines=1)


def wrap(name: str, *, columns: int, lines: int = 4) -> str:
    """`name` broken into at most `lines` lines of `columns` Latin letters; what does not fit ends in an ellipsis."""
    if any(east_asian_width(character) in "WF" for character in name):
        columns //= 2
    words = " ".join(name.split())
    rows = textwrap.wrap(words, max(columns, 2), max_lines=lines, placeholder="…", break_on_hyphens=False)
    if rows == ["…"]:  # one word that is longer than the line
        rows = [words[: max(columns - 1, 1)] + "…"]
    return "\n".join(rows)


def wrap_each(text: str, *, columns: int, lines: int = 4) -> str:
    """Every line of `text` by itself as by `wrap`."""
    return "\n".join(wrap(line, columns=columns, lines=lines) for line in text.split("\n"))


def columns_in(inches: float, size: float) -> int:
    """How many average letters of `size` points fit into `inches`."""
    return int(inches * 72 / (0.6 * size))
