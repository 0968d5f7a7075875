"""Images that a masked autoencoder completes."""

from __future__ import annotations

from typing import Any, Final

from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures.pictures import dpi_for, show_image
from vitexp.explain.figures.style import (
    MARGIN,
    STYLE,
    TEXT_SIZE,
    TITLE_HEIGHT,
    WIDTH,
    bare,
    finish,
    heading,
    new_figure,
    place,
)

_A_ROW: Final = 8
# Inches.
_GAP: Final = 0.08
_CELL: Final = (WIDTH - 2 * MARGIN - (_A_ROW - 1) * _GAP) / _A_ROW
_HEADING: Final = 0.18
_BETWEEN: Final = 0.16  # a row and the heading of the next


def reconstructions(
    *, images: NDArray[Any], seen: NDArray[Any], completed: NDArray[Any], visible: int, patches: int
) -> Figure:
    """Images, what is seen of them, and what is made of that; a row each, an image a column.

    Args:
        images, seen, completed: [N, H, W, 3], N from 1 to 8, uint8 or floats in [0, 1].
        visible, patches: how many patches of how many are seen.

    Raises:
        ValueError: they are not of one shape, or not so many.
    """
    if not images.shape == seen.shape == completed.shape or not 0 < len(images) <= _A_ROW:
        raise ValueError(f"need as many of each, 1 to {_A_ROW}; got {images.shape}, {seen.shape}, {completed.shape}")
    rows = {
        "Original": images,
        f"Seen by the encoder: {visible} of {patches} patches": seen,
        "Completed by the decoder": completed,
    }
    height = TITLE_HEIGHT + len(rows) * (_HEADING + _CELL + _BETWEEN)
    figure = new_figure(height=height, title="Reconstructions", dpi=dpi_for(images))
    top = TITLE_HEIGHT
    for words, row in rows.items():
        heading(figure, words, top=top, size=TEXT_SIZE, colour=STYLE["muted"])
        top += _HEADING
        for column, image in enumerate(row):
            axes = place(figure, left=MARGIN + column * (_CELL + _GAP), top=top, width=_CELL, height=_CELL)
            bare(axes)
            show_image(axes, image)
        top += _CELL + _BETWEEN
    return finish(figure)
