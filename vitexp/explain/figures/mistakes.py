"""The mistakes that a net was surest of: often a wrong label, or an image that nobody can read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures.images import _caption, _check_lengths, _dpi, _grid_height, _image_grid
from vitexp.explain.figures.style import MARGIN, STYLE, TITLE_HEIGHT, finish, new_figure


def confident_mistakes(
    *,
    images: NDArray[np.uint8],
    truth: Sequence[str],
    predicted: Sequence[str],
    confidence: Sequence[float],
    errors: int,
    of: int,
) -> Figure:
    """Wrong predictions with their confidence, in the order given; five a row.

    Args:
        images: uint8 [N, H, W, 3].
        truth, predicted: N class names each.
        confidence: N probabilities of the predicted class.
        errors, of: how many images are wrong, of how many in all.

    Raises:
        ValueError: the arguments are not of one length, or empty.
    """
    _check_lengths(images, truth, predicted, confidence)
    captions = [_caption(*entry) for entry in zip(truth, predicted, confidence, strict=True)]
    height = TITLE_HEIGHT + _grid_height(images, captions) + MARGIN
    title = f"The most confident of the {errors:,} mistakes on {of:,} images"
    figure = new_figure(height=height, title=title, dpi=_dpi(images))
    colour = STYLE["wrong"]
    _image_grid(figure, images, captions, top=TITLE_HEIGHT, text_colour=colour, frame_colour=colour)
    return finish(figure)
