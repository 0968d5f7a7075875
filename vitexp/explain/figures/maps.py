"""Maps in rows and columns: explanations of several images, layers, heads or classes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures.pictures import dpi_for, show_image, show_map, show_overlay
from vitexp.explain.figures.style import (
    MARGIN,
    SMALL_SIZE,
    STYLE,
    TITLE_HEIGHT,
    WIDTH,
    bare,
    columns_in,
    finish,
    frame,
    new_figure,
    place,
    wrap,
)

# Inches.
_GAP: Final = 0.06
_LARGEST_CELL: Final = 1.6
_GUTTER: Final = 0.62
_LINE: Final = 1.3 * SMALL_SIZE / 72
_LINES: Final = 4  # of a caption


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
) -> Figure:
    """A row of maps for each image, every map stretched from its own lowest to its own highest value.

    Args:
        images: uint8 [R, H, W, 3]; they stand in the first column unless `show_images` is false, as where all rows
            are of one image.
        maps: R rows of C maps [h, w] each, of any size.
        columns: C names, above.
        rows: R texts, below the images, or left of the maps where the images are not shown. One that begins with ✓
            or ✗ is green or red.
        captions: R rows of C texts below the maps; coloured in the same way.
        overlay: lay the maps over the image, smoothed; else cell by cell.

    Raises:
        ValueError: the numbers of rows or columns do not agree, or there are none.
    """
    _check(images, maps, columns, rows, captions)
    gutter = 0.0 if show_images else _GUTTER
    across = len(columns) + show_images
    width = min(_LARGEST_CELL, (WIDTH - 2 * MARGIN - gutter - (across - 1) * _GAP) / across)
    height = width * images.shape[1] / images.shape[2]
    letters = columns_in(width, SMALL_SIZE)
    below = [["" for _ in columns] for _ in rows] if captions is None else [list(row) for row in captions]
    if show_images:
        below = [[name, *texts] for name, texts in zip(rows, below, strict=True)]
    below = [[wrap(text, columns=letters, lines=_LINES) for text in row] for row in below]
    heads = [wrap(name, columns=letters, lines=3) for name in columns]
    text_heights = [_text_height(row) for row in below]
    top = TITLE_HEIGHT + _text_height(heads)
    total = top + sum(text_heights) + len(rows) * (height + _GAP) + MARGIN
    figure = new_figure(height=total, title=title, dpi=dpi_for(images))
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
    return finish(figure)


def _caption(axes: Axes, text: str) -> None:
    colours = {"✓": STYLE["right"], "✗": STYLE["wrong"]}
    colour = colours.get(text[:1], STYLE["ink"])
    axes.set_xlabel(text, fontsize=SMALL_SIZE, color=colour, labelpad=3)
    if text[:1] in colours:
        frame(axes, colour, width=1.5)


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
