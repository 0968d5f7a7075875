"""Maps in rows and columns: explanations of several images, layers, heads or classes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures.style import (
    MARGIN,
    SMALL_SIZE,
    STYLE,
    TEXT_SIZE,
    TITLE_HEIGHT,
    WIDTH,
    bare,
    columns_in,
    dpi_for,
    finish,
    frame,
    new_figure,
    place,
    show_image,
    show_map,
    show_overlay,
    show_scale,
    wrap,
    wrap_each,
)

# Inches.
_GAP: Final = 0.06
_LARGEST_CELL: Final = 1.6
_GUTTER: Final = 0.62
_LINE: Final = 1.3 * SMALL_SIZE / 72
_LINES: Final = 4  # of one line of a caption, broken
_TALLEST: Final = 7.5  # of all maps of one image, which belong on one page
_PICTURE: Final = 0.9  # of that image
_SCALE: Final = 0.3  # of the strip that shows the colours


def map_grid(
    *,
    title: str,
    images: NDArray[np.uint8],
    maps: Sequence[Sequence[NDArray[np.floating]]],
    columns: Sequence[str],
    rows: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    overlay: bool = True,
    show_images: bool = True,
    about: str = "",
) -> Figure:
    """A row of maps for each image, every map stretched from its own lowest to its own highest value.

    Args:
        images: uint8 [R, H, W, 3]; they stand in the first column unless `show_images` is false: then all rows are
            of one image, which stands above the maps with the text `about` beside it.
        maps: R rows of C maps [h, w] each, of any size.
        columns: C names, above.
        rows: R texts, below the images, or left of the maps where the images are not shown. One that begins with ✓
            or ✗ is green or red; line breaks stay.
        captions: R rows of C texts below the maps; coloured in the same way.
        overlay: lay the maps over the image, smoothed; else cell by cell.

    Raises:
        ValueError: the numbers of rows or columns do not agree, or there are none.
    """
    _check(images, maps, columns, rows, captions)
    gutter = 0.0 if show_images else _GUTTER
    across = len(columns) + show_images
    tall = images.shape[1] / images.shape[2]
    width = min(_LARGEST_CELL, (WIDTH - 2 * MARGIN - gutter - (across - 1) * _GAP) / across)
    if not show_images:
        width = min(width, (_TALLEST / len(rows) - _GAP) / tall)
    height = width * tall
    letters = columns_in(width, SMALL_SIZE)
    below = [["" for _ in columns] for _ in rows] if captions is None else [list(row) for row in captions]
    if show_images:
        below = [[name, *texts] for name, texts in zip(rows, below, strict=True)]
    below = [[wrap_each(text, columns=letters, lines=_LINES) for text in row] for row in below]
    heads = [wrap(name, columns=letters, lines=3) for name in columns]
    text_heights = [_text_height(row) for row in below]
    above = TITLE_HEIGHT if show_images else TITLE_HEIGHT + _PICTURE * tall + MARGIN
    top = above + _text_height(heads)
    total = top + sum(text_heights) + len(rows) * (height + _GAP) + _SCALE
    figure = new_figure(height=total, title=title, dpi=dpi_for(images))
    if not show_images:
        _head(figure, images[0], about, height=_PICTURE * tall)
    for row, image in enumerate(images):
        for column in range(across):
            left = MARGIN + gutter + column * (width + _GAP)
            axes = place(figure, left=left, top=top, width=width, height=height)
            bare(axes)
            which = column - show_images
            if which < 0:
                show_image(axes, image)
            elif overlay:
                show_overlay(axes, maps[row][which], image)
            else:
                show_map(axes, maps[row][which], size=image.shape[:2])
            if row == 0 and which >= 0:
                axes.set_title(heads[which], fontsize=SMALL_SIZE, color=STYLE["ink"], pad=3)
            _caption(axes, below[row][column])
            if column == 0 and not show_images:
                axes.set_ylabel(rows[row], fontsize=SMALL_SIZE, color=STYLE["ink"], rotation=0, ha="right", va="center")
        top += height + _GAP + text_heights[row]
    _scale(figure, top=top, overlay=overlay)
    return finish(figure)


def _caption(axes: Axes, text: str) -> None:
    axes.set_xlabel(text, fontsize=SMALL_SIZE, color=_colour(text), labelpad=3)
    if _colour(text) != STYLE["ink"]:
        frame(axes, _colour(text), width=1.5)


def _colour(text: str) -> str:
    return {"✓": STYLE["right"], "✗": STYLE["wrong"]}.get(text[:1], STYLE["ink"])


def _head(figure: Figure, image: NDArray[np.uint8], about: str, *, height: float) -> None:
    """The one image of all maps, and what is said of it."""
    axes = place(figure, left=MARGIN, top=TITLE_HEIGHT, width=_PICTURE, height=height)
    bare(axes)
    show_image(axes, image)
    if _colour(about) != STYLE["ink"]:
        frame(axes, _colour(about), width=1.5)
    left = MARGIN + _PICTURE + 0.12
    text = wrap_each(about, columns=columns_in(WIDTH - left - MARGIN, TEXT_SIZE), lines=1)
    y = 1 - (TITLE_HEIGHT + height / 2) / figure.get_size_inches()[1]
    figure.text(left / WIDTH, y, text, va="center", fontsize=TEXT_SIZE, color=_colour(about), linespacing=1.4)


def _scale(figure: Figure, *, top: float, overlay: bool) -> None:
    axes = place(figure, left=MARGIN, top=top + 0.1, width=1.2, height=0.1)
    bare(axes)
    show_scale(axes, overlay=overlay)
    words = "from the lowest to the highest value of each map by itself"
    y = 1 - (top + 0.15) / figure.get_size_inches()[1]
    figure.text((MARGIN + 1.3) / WIDTH, y, words, va="center", fontsize=SMALL_SIZE, color=STYLE["muted"])


def _text_height(texts: Sequence[str]) -> float:
    """Inches of the tallest of texts side by side; nothing where all are empty."""
    return max(text.count("\n") + 1 for text in texts) * _LINE + 0.06 if any(texts) else 0.0


def _check(
    images: NDArray[np.uint8],
    maps: Sequence[Sequence[NDArray[np.floating]]],
    columns: Sequence[str],
    rows: Sequence[str],
    captions: Sequence[Sequence[str]] | None,
) -> None:
    tables = [maps] if captions is None else [maps, captions]
    shapes = {(len(table), *{len(row) for row in table}) for table in tables}
    if not len(images) or not columns or len(images) != len(rows) or shapes != {(len(rows), len(columns))}:
        raise ValueError(
            f"{len(images)} images, {len(rows)} rows and {len(columns)} columns do not fit tables of {sorted(shapes)}"
        )
