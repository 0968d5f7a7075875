"""The one look of all figures: colours, sizes, fonts, and how names given by a data set are written."""

from __future__ import annotations

import textwrap
from functools import cache
from typing import Any, Final
from unicodedata import east_asian_width

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

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


_COLOURS: Final = "magma"
_OPAQUE: Final = 0.55  # a map over an image
# Larger images are photographs, whose PNG grows with every dot.
_SMALL_IMAGE: Final = 64


def show_image(axes: Axes, image: NDArray[Any]) -> None:
    """[H, W, 3], uint8 or in [0, 1]."""
    axes.imshow(image, interpolation=_interpolation(image))


def show_map(axes: Axes, values: NDArray[np.floating], *, size: tuple[int, int]) -> None:
    """A map [h, w] cell by cell, from its own lowest to its own highest value, as large as an image of `size`."""
    axes.imshow(values, cmap=_COLOURS, extent=(0, size[1], size[0], 0), interpolation="nearest")
    _say_if_flat(axes, values)


def show_overlay(axes: Axes, values: NDArray[np.floating], image: NDArray[np.uint8]) -> None:
    """A map [h, w], smoothed, over the image."""
    extent = (0, image.shape[1], image.shape[0], 0)
    # Grey below, so that all colour is the map; stretched, because many street photographs are nearly black.
    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    axes.imshow(grey, cmap="gray", extent=extent, interpolation=_interpolation(image))
    axes.imshow(values, cmap=_COLOURS, extent=extent, interpolation="bicubic", alpha=_OPAQUE)
    _say_if_flat(axes, values)


def show_scale(axes: Axes, *, overlay: bool) -> None:
    """The colours of maps from the lowest value, left, to the highest; as they look over a grey image, or bare."""
    if overlay:
        axes.imshow([[0.5]], cmap="gray", vmin=0, vmax=1, extent=(0, 1, 0, 1), aspect="auto")
    shades = np.linspace(0, 1, 256)[None]
    axes.imshow(shades, cmap=_COLOURS, extent=(0, 1, 0, 1), aspect="auto", alpha=_OPAQUE if overlay else 1.0)


def _say_if_flat(axes: Axes, values: NDArray[np.floating]) -> None:
    """A map without a highest value looks like one of low values."""
    if np.ptp(values) == 0:
        within = axes.transAxes
        axes.text(0.5, 0.05, "flat", transform=within, ha="center", va="bottom", fontsize=SMALL_SIZE, color="white")


def dpi_for(images: NDArray[Any]) -> int:
    """Dots an inch for a figure of images [N, H, W, 3]."""
    return DPI if images.shape[1] <= _SMALL_IMAGE else 115


def _interpolation(image: NDArray[Any]) -> str:
    """Small images keep their pixels; large ones are scaled down without aliasing."""
    return "nearest" if image.shape[0] <= _SMALL_IMAGE else "auto"
