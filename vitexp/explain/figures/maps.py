"""Maps in rows and columns: explanations of several images, layers, heads or classes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures import style

_PER_LINE: Final = 6  # maps; more would be too small to read
# Inches.
_GAP: Final = 0.06
_LARGEST_CELL: Final = 1.6
_LINE: Final = 1.3 * style.SMALL_SIZE / 72
_NOTE_LINE: Final = 1.4 * style.TEXT_SIZE / 72
_LINES: Final = 4  # that one line of a caption may be broken into
_BETWEEN: Final = 0.14  # images whose maps fill several lines
_SCALE: Final = 0.3  # the strip that shows the colors


def map_grid(
    *,
    title: str,
    images: NDArray[np.uint8],
    maps: Sequence[Sequence[NDArray[np.floating]]],
    columns: Sequence[str],
    rows: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    overlay: bool = True,
    one_scale: str = "",
    show_images: bool = True,
    about: str = "",
    note: str = "",
) -> Figure:
    """Draw one row of maps per image, each map stretched from its lowest to its highest value unless `one_scale`.

    More than six columns continue on further lines: below each image, or below all rows if they share one image. All
    maps and images of a figure have the same size.

    Args:
        images: uint8 [R, H, W, 3], shown in the first column. If `show_images` is false, all rows belong to one image,
            which is shown above the maps with the text `about` next to it.
        maps: R rows of C maps [h, w] each, of any size.
        columns: C names, above the maps.
        rows: R texts, below the images, or left of the maps if the images are not shown. A text that starts with ✓
            is green, with ✗ red; line breaks are kept.
        captions: R rows of C texts below the maps, colored in the same way.
        overlay: draw the maps smoothed over the image instead of cell by cell.
        one_scale: draw all maps, which are not overlays, from 0 to the largest value of all; a format of values, for
            example "{:.0%}".
        note: what a reader must know about the images, below the title.

    Raises:
        ValueError: the numbers of rows or columns differ or are 0.
    """
    _check(images, maps, columns, rows, captions)
    blocks = [range(len(columns))[start : start + _PER_LINE] for start in range(0, len(columns), _PER_LINE)]
    across = len(blocks[0]) + 1  # the first column has the images, or the names of the rows
    tall = images.shape[1] / images.shape[2]
    width = min(_LARGEST_CELL, (style.WIDTH - 2 * style.MARGIN - (across - 1) * _GAP) / across)
    height = width * tall
    letters = style.columns_in(width, style.SMALL_SIZE)
    texts = [style.wrap_each(name, columns=letters, lines=_LINES) for name in rows]
    below = [["" for _ in columns] for _ in rows]
    if captions is not None:
        below = [[style.wrap_each(text, columns=letters, lines=_LINES) for text in row] for row in captions]
    heads = [style.wrap(name, columns=letters, lines=_LINES) for name in columns]
    if show_images:
        lines = [(row, block) for row in range(len(rows)) for block in blocks]
    else:
        lines = [(row, block) for block in blocks for row in range(len(rows))]

    def above(row: int, block: range) -> float:
        """Return the height of the names of the columns, which stand where a reader needs them."""
        is_first = row == 0 or (show_images and len(blocks) > 1)
        return _text_height([heads[column] for column in block]) if is_first else 0.0

    def under(row: int, block: range) -> float:
        """Return the height of the texts below a line; that of an image is next to its second line, if it has one."""
        said = [below[row][column] for column in block]
        if show_images and len(blocks) == 1:
            said.append(texts[row])
        between = _BETWEEN if len(blocks) > 1 and block == blocks[-1] and (show_images or row == len(rows) - 1) else 0.0
        return _GAP + _text_height(said) + between

    note = style.wrap_each(note, columns=style.columns_in(style.WIDTH - 2 * style.MARGIN, style.TEXT_SIZE), lines=4)
    top = head_top = style.TITLE_HEIGHT + (_NOTE_LINE * style.line_count([note]) + 0.1 if note else 0.0)
    if not show_images:
        top += height + style.MARGIN
    total = top + sum(above(*line) + height + under(*line) for line in lines) + _SCALE
    figure = style.new_figure(height=total, title=title, dpi=style.dpi_for(images))
    highest = max(float(each.max()) for row_of_maps in maps for each in row_of_maps) if one_scale else None
    style.write(figure, note, top=style.TITLE_HEIGHT, size=style.TEXT_SIZE, color=style.INK, linespacing=1.4)
    if not show_images:
        _head(figure, images[0], about, top=head_top, width=width, height=height)
    for row, block in lines:
        top += above(row, block)
        if show_images and block.start == 0:
            axes = style.place_bare(figure, left=style.MARGIN, top=top, width=width, height=height)
            style.show_image(axes, images[row])
            _caption(axes, texts[row])
        for place, column in enumerate(block, start=1):
            left = style.MARGIN + place * (width + _GAP)
            axes = style.place_bare(figure, left=left, top=top, width=width, height=height)
            if overlay:
                style.show_overlay(axes, maps[row][column], images[row])
            else:
                style.show_map(axes, maps[row][column], size=images.shape[1:3], highest=highest)
            if above(row, block):
                axes.set_title(heads[column], fontsize=style.SMALL_SIZE, color=style.INK, pad=3)
            _caption(axes, below[row][column])
            if place == 1 and not show_images:
                label = axes.set_ylabel(rows[row], fontsize=style.SMALL_SIZE, color=style.INK)
                label.set(rotation=0, ha="right", va="center")
        top += height + under(row, block)
    words = "from the lowest to the highest value of each map" + (", over the image" if overlay else ", cell by cell")
    if highest is not None:
        words = f"from 0 to {one_scale.format(highest)}, the same for all maps; the color follows the square root"
    _scale(figure, words, top=top, overlay=overlay)
    return style.finish(figure)


def _caption(axes: Axes, text: str) -> None:
    axes.set_xlabel(text, fontsize=style.SMALL_SIZE, color=style.of_mark(text), labelpad=3)
    if style.of_mark(text) != style.INK:
        style.frame(axes, style.of_mark(text), width=1.5)


def _head(figure: Figure, image: NDArray[np.uint8], about: str, *, top: float, width: float, height: float) -> None:
    """Draw the one image of all maps, as large as them, and its text."""
    axes = style.place_bare(figure, left=style.MARGIN, top=top, width=width, height=height)
    style.show_image(axes, image)
    if style.of_mark(about) != style.INK:
        style.frame(axes, style.of_mark(about), width=1.5)
    left = style.MARGIN + width + 0.12
    text = style.wrap_each(about, columns=style.columns_in(style.WIDTH - left - style.MARGIN, style.TEXT_SIZE), lines=1)
    middle = top + height / 2
    how = {"va": "center", "linespacing": 1.4}
    style.write(figure, text, top=middle, left=left, size=style.TEXT_SIZE, color=style.of_mark(about), **how)


def _scale(figure: Figure, words: str, *, top: float, overlay: bool) -> None:
    axes = style.place_bare(figure, left=style.MARGIN, top=top + 0.1, width=1.2, height=0.1)
    style.show_scale(axes, overlay=overlay)
    left = style.MARGIN + 1.3
    style.write(figure, words, top=top + 0.15, left=left, size=style.SMALL_SIZE, color=style.MUTED, va="center")


def _text_height(texts: Sequence[str]) -> float:
    """Return the height in inches of a row of texts; 0 if all are empty."""
    return style.line_count(texts) * _LINE + 0.06 if any(texts) else 0.0


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
