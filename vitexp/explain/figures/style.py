"""The common look of all figures: colors, sizes, fonts, and how names from a data set are written."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import cache
from typing import Any, Final
from unicodedata import east_asian_width

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image

# Blue, orange, green and red that color-blind readers can tell apart (after Okabe and Ito 2008).
INK: Final = "#22272e"
MUTED: Final = "#66707c"
RULE: Final = "#d9dde2"
EMPTY: Final = "#eef0f2"
BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREEN: Final = "#00795c"
RED: Final = "#c2362b"
DASHES: Final = (0, (4, 3))
# Inches. At 150 dots per inch this is 1080 pixels, slightly more than the column of a page.
WIDTH: Final = 7.2
MARGIN: Final = 0.08
TITLE_HEIGHT: Final = 0.4
DPI: Final = 150
# Points.
TITLE_SIZE: Final = 12.0
TEXT_SIZE: Final = 9.0
SMALL_SIZE: Final = 8.0

_MAP_COLORS: Final = "magma"
_OPAQUE: Final = 0.55  # a map over an image
_OVERLAY = (192, 192)  # pixels of a smoothed map
# Larger images are photographs, whose PNG grows with every dot.
_SMALL_IMAGE: Final = 64
# DejaVu Sans comes with matplotlib but lacks Chinese, Japanese and Korean; these fill in if installed.
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


# --- figures and their texts -----------------------------------------------------------------------------------------


@cache
def fonts() -> list[str]:
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed)]


def new_figure(*, height: float, title: str, dpi: int = DPI) -> Figure:
    """Return an empty figure, `height` inches tall, with its title in the top `TITLE_HEIGHT` inches."""
    figure = Figure(figsize=(WIDTH, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    heading(figure, title, top=MARGIN, size=TITLE_SIZE, color=INK)
    return figure


def heading(figure: Figure, words: str, *, top: float, size: float, color: str) -> None:
    """Write bold words at the left edge, `top` inches below the upper edge."""
    write(figure, words, top=top, size=size, color=color, fontweight="bold")


def write(figure: Figure, words: str, *, top: float, left: float = MARGIN, size: float, color: str, **how: Any) -> None:
    """Write `words` at a position in inches from the upper left corner."""
    width, height = figure.get_size_inches()
    figure.text(left / width, 1 - top / height, words, fontsize=size, color=color, **{"va": "top", **how})


def finish(figure: Figure) -> Figure:
    """Set every text literally: in a font that has its letters, and with `$` as a character, not as mathematics."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontfamily(fonts())
        text.set_parse_math(False)
    return figure


def one_line(name: str, *, columns: int) -> str:
    """Return `name` on one line, at most `columns` Latin letters wide, shortened with an ellipsis."""
    return wrap(name, columns=columns, lines=1)


def wrap(name: str, *, columns: int, lines: int = 4) -> str:
    """Return `name` broken into at most `lines` lines of `columns` Latin letters, shortened with an ellipsis."""
    if any(east_asian_width(character) in "WF" for character in name):
        columns //= 2
    words = " ".join(name.split())
    rows = textwrap.wrap(words, max(columns, 2), max_lines=lines, placeholder="…", break_on_hyphens=False)
    if rows == ["…"]:  # one word that is longer than the line
        rows = [words[: max(columns - 1, 1)] + "…"]
    return "\n".join(rows)


def wrap_each(text: str, *, columns: int, lines: int = 4) -> str:
    """Wrap each line of `text` separately (see `wrap`)."""
    return "\n".join(wrap(line, columns=columns, lines=lines) for line in text.split("\n"))


def columns_in(inches: float, size: float) -> int:
    """Return how many average letters of `size` points fit into `inches`."""
    return int(inches * 72 / (0.6 * size))


def line_count(texts: Sequence[str]) -> int:
    """Return the number of lines of the tallest of several texts."""
    return max(text.count("\n") + 1 for text in texts)


def check_lengths(*parts: Sequence[Any] | NDArray[Any]) -> None:
    """Raise ValueError unless all `parts` have the same length, at least 1."""
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(f"need the same number of everything, and at least one; got {lengths}")


# --- axes ------------------------------------------------------------------------------------------------------------


def place(figure: Figure, *, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a position in inches; `top` counts from the upper edge of the figure."""
    figure_width, figure_height = figure.get_size_inches()
    bottom = figure_height - top - height
    return figure.add_axes((left / figure_width, bottom / figure_height, width / figure_width, height / figure_height))


def place_bare(figure: Figure, *, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes without ticks or a frame (see `place`)."""
    axes = place(figure, left=left, top=top, width=width, height=height)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def of_mark(text: str) -> str:
    """Return the color of a text that starts with ✓, with ✗, or with neither."""
    return {"✓": GREEN, "✗": RED}.get(text[:1], INK)


def frame(axes: Axes, color: str, *, width: float) -> None:
    """Draw a frame of `width` points around a picture that has no ticks."""
    axes.spines[:].set(visible=True, color=color, linewidth=width)


def dress(axes: Axes, *, title: str = "", x_label: str = "", grid: bool = False) -> None:
    """Give the axes of a plot the common look."""
    if title:
        axes.set_title(title, loc="left", fontsize=TEXT_SIZE, color=INK)
    if x_label:
        axes.set_xlabel(x_label, fontsize=SMALL_SIZE, color=MUTED)
    if grid:
        axes.grid(color=EMPTY, linewidth=0.8)
        axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(labelsize=SMALL_SIZE, labelcolor=MUTED, color=RULE)


def color_bar(figure: Figure, shades: Any, *, left: float, top: float, width: float, height: float) -> None:
    """Draw the scale of an image, along its longer side."""
    axes = place(figure, left=left, top=top, width=width, height=height)
    figure.colorbar(shades, cax=axes, orientation="horizontal" if width > height else "vertical")
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=SMALL_SIZE, labelcolor=MUTED, color=RULE)
    axes.ticklabel_format(style="plain", useOffset=False)  # a factor or an offset is easily overlooked
    axes.locator_params(nbins=4 if max(width, height) > 1.5 else 2)


# --- images and maps -------------------------------------------------------------------------------------------------


def show_image(axes: Axes, image: NDArray[Any]) -> None:
    """Show an image [H, W, 3], uint8 or floats in [0, 1]."""
    axes.imshow(image, interpolation=_interpolation(image))


def show_map(axes: Axes, values: NDArray[np.floating], *, size: tuple[int, int], highest: float | None = None) -> None:
    """Show a map [h, w] cell by cell, as large as an image of `size`.

    highest: the value of the last color; the first is 0, and colors follow the square root, so that a hundredth can
    still be seen. None: from the lowest to the highest value of this map.
    """
    scale = None if highest is None else PowerNorm(0.5, vmin=0, vmax=max(highest, 1e-12))
    axes.imshow(values, cmap=_MAP_COLORS, norm=scale, extent=(0, size[1], size[0], 0), interpolation="nearest")
    if highest is None:
        _mark_if_flat(axes, values)


def show_overlay(axes: Axes, values: NDArray[np.floating], image: NDArray[np.uint8]) -> None:
    """Show a map [h, w], smoothed, over the image."""
    extent = (0, image.shape[1], image.shape[0], 0)
    # Gray, so that all color is from the map; stretched, because many street photographs are nearly black.
    gray = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    axes.imshow(gray, cmap="gray", extent=extent, interpolation=_interpolation(image))
    # Scaled after smoothing, which lowers peaks: the highest value has the last color, as in `show_map`.
    axes.imshow(_smooth(values, _OVERLAY), cmap=_MAP_COLORS, extent=extent, alpha=_OPAQUE)
    _mark_if_flat(axes, values)


def overlaid(values: NDArray[np.floating], image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what `show_overlay` shows, at the size of the image [H, W, 3]."""
    smooth = _smooth(values, image.shape[:2])
    colors = colormaps[_MAP_COLORS](Normalize()(smooth))[..., :3]
    gray = image @ np.array((0.299, 0.587, 0.114))
    gray = Normalize()(gray)[..., None]
    return np.asarray((255 * ((1 - _OPAQUE) * gray + _OPAQUE * colors)).round().astype(np.uint8))


def _smooth(values: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return a map [h, w] at another size (height, width), smoothed if it is enlarged."""
    height, width = size
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC))


def show_scale(axes: Axes, *, overlay: bool) -> None:
    """Show the colors of maps from the lowest value, left, to the highest; over gray if `overlay`."""
    if overlay:
        axes.imshow([[0.5]], cmap="gray", vmin=0, vmax=1, extent=(0, 1, 0, 1), aspect="auto")
    shades = np.linspace(0, 1, 256)[None]
    axes.imshow(shades, cmap=_MAP_COLORS, extent=(0, 1, 0, 1), aspect="auto", alpha=_OPAQUE if overlay else 1.0)


def _mark_if_flat(axes: Axes, values: NDArray[np.floating]) -> None:
    """Write "flat" on a constant map, which would look like a map of low values."""
    if np.ptp(values) == 0:
        within = axes.transAxes
        axes.text(0.5, 0.05, "flat", transform=within, ha="center", va="bottom", fontsize=SMALL_SIZE, color="white")


def dpi_for(images: NDArray[Any]) -> int:
    """Return the dots per inch for a figure of images [N, H, W, 3]."""
    return DPI if images.shape[1] <= _SMALL_IMAGE else 115


def _interpolation(image: NDArray[Any]) -> str:
    """Keep the pixels of small images; scale large ones down without aliasing."""
    return "nearest" if image.shape[0] <= _SMALL_IMAGE else "auto"
