"""Figures that show images: attention over them, predictions for them, and what augmentation makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

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
    heading,
    new_figure,
    place,
    show_image,
    show_map,
    show_overlay,
    wrap,
)

_A_ROW: Final = 5
# Inches.
_GAP: Final = 0.08
_CELL: Final = (WIDTH - 2 * MARGIN - (_A_ROW - 1) * _GAP) / _A_ROW
_LINE: Final = 1.25 * SMALL_SIZE / 72
_HEADING: Final = 0.25
# Letters of small text below one image.
_COLUMNS: Final = columns_in(_CELL, SMALL_SIZE)


def attention_maps(
    *, images: NDArray[np.uint8], maps: NDArray[np.floating], truth: Sequence[str], predicted: Sequence[str]
) -> Figure:
    """Each image, its attention patch by patch, and both laid over each other; five images a row.

    Every map is stretched from its own lowest to its own highest value: compare maps in shape, not in strength.

    Args:
        images: uint8 [N, H, W, 3].
        maps: [N, g, g], from `vitexp.explain.methods.attention`.
        truth, predicted: N class names each.

    Raises:
        ValueError: the arguments are not of one length, or empty.
    """
    _check_lengths(images, maps, truth, predicted)
    captions = [_caption(*names) for names in zip(truth, predicted, strict=True)]
    cell_height = _cell_height(images)
    rows = [captions[start : start + _A_ROW] for start in range(0, len(captions), _A_ROW)]
    heights = [_text_height(row) + 3 * (cell_height + _GAP) for row in rows]
    figure = new_figure(
        height=TITLE_HEIGHT + sum(heights) + MARGIN, title="Attention of the last layer", dpi=dpi_for(images)
    )
    for index, (image, attention) in enumerate(zip(images, maps, strict=True)):
        row, column = divmod(index, _A_ROW)
        top = TITLE_HEIGHT + sum(heights[:row]) + _text_height(rows[row])
        picture, plain, overlay = (
            _cell(figure, column=column, top=top + step * (cell_height + _GAP), height=cell_height) for step in range(3)
        )
        colour = STYLE["right"] if truth[index] == predicted[index] else STYLE["wrong"]
        picture.set_title(captions[index], fontsize=SMALL_SIZE, color=colour, pad=3)
        show_image(picture, image)
        show_map(plain, attention, size=image.shape[:2])
        show_overlay(overlay, attention, image)
    return finish(figure)


def sample_predictions(
    *, images: NDArray[np.uint8], truth: Sequence[str], predicted: Sequence[str], confidence: Sequence[float]
) -> Figure:
    """Images with what was predicted for them, the right ones and the wrong ones apart; five a row.

    Args:
        images: uint8 [N, H, W, 3].
        truth, predicted: N class names each.
        confidence: N probabilities of the predicted class, in [0, 1].

    Raises:
        ValueError: the arguments are not of one length, or empty.
    """
    _check_lengths(images, truth, predicted, confidence)
    captions = [_caption(*entry) for entry in zip(truth, predicted, confidence, strict=True)]
    right = [index for index, name in enumerate(truth) if name == predicted[index]]
    wrong = [index for index, name in enumerate(truth) if name != predicted[index]]
    groups = [group for group in (("Right", right, STYLE["right"]), ("Wrong", wrong, STYLE["wrong"])) if group[1]]
    grids = [_grid_height(images, [captions[index] for index in members]) for _, members, _ in groups]
    height = TITLE_HEIGHT + sum(grids) + len(grids) * _HEADING + MARGIN
    figure = new_figure(height=height, title="Sample predictions", dpi=dpi_for(images))
    top = TITLE_HEIGHT
    for (words, members, colour), grid_height in zip(groups, grids, strict=True):
        heading(figure, words, top=top, size=TEXT_SIZE, colour=colour)
        top += _HEADING
        chosen = [captions[index] for index in members]
        _image_grid(figure, images[members], chosen, top=top, text_colour=colour, frame_colour=colour)
        top += grid_height
    return finish(figure)


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
    figure = new_figure(height=height, title=title, dpi=dpi_for(images))
    colour = STYLE["wrong"]
    _image_grid(figure, images, captions, top=TITLE_HEIGHT, text_colour=colour, frame_colour=colour)
    return finish(figure)


def augmented_batch(*, images: NDArray[Any], labels: Sequence[str]) -> Figure:
    """Training images as the network gets them, each with its label; five a row.

    Args:
        images: [N, H, W, 3], uint8, or floats: in [0, 1], or normalised, then each channel is stretched from the
            batch's lowest to its highest value.
        labels: N texts; a mixed label has its parts between slashes, "Stop 0.7 / Yield 0.3".

    Raises:
        ValueError: the arguments are not of one length, or empty.
    """
    _check_lengths(images, labels)
    captions = ["\n".join(wrap(part, columns=_COLUMNS) for part in label.split(" / ")) for label in labels]
    height = TITLE_HEIGHT + _grid_height(images, captions) + MARGIN
    figure = new_figure(height=height, title="A batch as the network sees it", dpi=dpi_for(images))
    shown = _displayable(images)
    _image_grid(figure, shown, captions, top=TITLE_HEIGHT, text_colour=STYLE["ink"], frame_colour=STYLE["rule"])
    return finish(figure)


def _check_lengths(images: NDArray[Any], *others: Sequence[Any] | NDArray[Any]) -> None:
    lengths = [len(images), *map(len, others)]
    if len(set(lengths)) > 1 or lengths[0] == 0:
        raise ValueError(f"need as many of everything, and at least one; got {lengths}")


def _caption(truth: str, predicted: str, confidence: float | None = None) -> str:
    """A mark that needs no colour, the prediction, and the truth where it differs."""
    mark = "✓" if truth == predicted else "✗"
    said = wrap(f"{mark} {predicted}", columns=_COLUMNS)
    if confidence is not None:
        said = f"{mark} {confidence:.1%}\n" + wrap(predicted, columns=_COLUMNS)
    return said if truth == predicted else said + "\n" + wrap(f"true: {truth}", columns=_COLUMNS)


def _cell_height(images: NDArray[Any]) -> float:
    """Inches, for images as wide as a cell."""
    return float(_CELL * images.shape[1] / images.shape[2])


def _text_height(captions: Sequence[str]) -> float:
    """Inches of the tallest caption in a row, and the gaps around it."""
    return max(caption.count("\n") + 1 for caption in captions) * _LINE + 0.1


def _grid_height(images: NDArray[Any], captions: Sequence[str]) -> float:
    """Inches that `_image_grid` fills."""
    rows = [captions[start : start + _A_ROW] for start in range(0, len(captions), _A_ROW)]
    return sum(_cell_height(images) + _text_height(row) + _GAP for row in rows)


def _image_grid(
    figure: Figure,
    images: NDArray[Any],
    captions: Sequence[str],
    *,
    top: float,
    text_colour: str,
    frame_colour: str,
) -> None:
    """Images in rows, their captions below them, from `top` inches on."""
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, _A_ROW)
        above = _grid_height(images, captions[: row * _A_ROW])
        axes = _cell(figure, column=column, top=top + above, height=_cell_height(images))
        show_image(axes, image)
        frame(axes, frame_colour, width=1.5)
        axes.set_xlabel(caption, fontsize=SMALL_SIZE, color=text_colour, labelpad=3)


def _cell(figure: Figure, *, column: int, top: float, height: float) -> Axes:
    axes = place(figure, left=MARGIN + column * (_CELL + _GAP), top=top, width=_CELL, height=height)
    bare(axes)
    return axes


def _displayable(images: NDArray[Any]) -> NDArray[Any]:
    """Images that matplotlib shows as they are: uint8, or floats in [0, 1]."""
    if images.dtype == np.uint8:
        return images
    values = images.astype(np.float64)
    if values.min() >= 0 and values.max() <= 1:
        return values
    low = values.min(axis=(0, 1, 2))
    high = values.max(axis=(0, 1, 2))
    return np.asarray((values - low) / np.maximum(high - low, 1e-12))


_MASKED_A_ROW: Final = 8
# Inches.
_MASKED_GAP: Final = 0.08
_MASKED_CELL: Final = (WIDTH - 2 * MARGIN - (_MASKED_A_ROW - 1) * _MASKED_GAP) / _MASKED_A_ROW
_MASKED_HEADING: Final = 0.18
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
    if not images.shape == seen.shape == completed.shape or not 0 < len(images) <= _MASKED_A_ROW:
        raise ValueError(
            f"need as many of each, 1 to {_MASKED_A_ROW}; got {images.shape}, {seen.shape}, {completed.shape}"
        )
    rows = {
        "Original": images,
        f"Seen by the encoder: {visible} of {patches} patches": seen,
        "Completed by the decoder": completed,
    }
    height = TITLE_HEIGHT + len(rows) * (_MASKED_HEADING + _MASKED_CELL + _BETWEEN)
    figure = new_figure(height=height, title="Reconstructions", dpi=dpi_for(images))
    top = TITLE_HEIGHT
    for words, row in rows.items():
        heading(figure, words, top=top, size=TEXT_SIZE, colour=STYLE["muted"])
        top += _MASKED_HEADING
        for column, image in enumerate(row):
            axes = place(
                figure,
                left=MARGIN + column * (_MASKED_CELL + _MASKED_GAP),
                top=top,
                width=_MASKED_CELL,
                height=_MASKED_CELL,
            )
            bare(axes)
            show_image(axes, image)
        top += _MASKED_CELL + _BETWEEN
    return finish(figure)
