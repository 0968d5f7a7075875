"""Figures of images: attention over them, predictions, augmentation and reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures import style
from vitexp.text import plural

# Inches, for five images per row.
_PER_ROW: Final = 5
_GAP: Final = 0.08
_CELL: Final = (style.WIDTH - 2 * style.MARGIN - (_PER_ROW - 1) * _GAP) / _PER_ROW
_LINE: Final = 1.25 * style.SMALL_SIZE / 72
_HEADING: Final = 0.25
_NOTE_LINE: Final = 1.4 * style.TEXT_SIZE / 72
_COLUMNS: Final = style.columns_in(_CELL, style.SMALL_SIZE)  # characters of small text below one image
# Inches, for the eight images per row of reconstructions.
_MASKED_PER_ROW: Final = 8
_MASKED_CELL: Final = (style.WIDTH - 2 * style.MARGIN - (_MASKED_PER_ROW - 1) * _GAP) / _MASKED_PER_ROW
_MASKED_HEADING: Final = 0.18
_BETWEEN: Final = 0.16  # a row and the heading of the next


def attention_maps(
    *, images: NDArray[np.uint8], maps: NDArray[np.floating], truth: Sequence[str], predicted: Sequence[str]
) -> Figure:
    """Draw each image, its attention patch by patch, and both overlaid; five images per row.

    Every map is stretched from its lowest to its highest value: compare the shapes of maps, not their strengths.

    Args:
        images: uint8 [N, H, W, 3].
        maps: [N, g, g], from `vitexp.explain.methods.attention`.
        truth, predicted: N class names each.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    style.check_lengths(images, maps, truth, predicted)
    captions = [_caption(*names) for names in zip(truth, predicted, strict=True)]
    cell_height = _cell_height(images)
    rows = [captions[start : start + _PER_ROW] for start in range(0, len(captions), _PER_ROW)]
    heights = [_text_height(row) + 3 * (cell_height + _GAP) for row in rows]
    height = style.TITLE_HEIGHT + sum(heights) + style.MARGIN
    figure = style.new_figure(
        height=height, title="Attention of the last layer, mean of the heads", dpi=style.dpi_for(images)
    )
    for index, (image, attention) in enumerate(zip(images, maps, strict=True)):
        row, column = divmod(index, _PER_ROW)
        top = style.TITLE_HEIGHT + sum(heights[:row]) + _text_height(rows[row])
        picture, plain, overlay = (
            _cell(figure, column=column, top=top + step * (cell_height + _GAP), height=cell_height) for step in range(3)
        )
        color = style.GREEN if truth[index] == predicted[index] else style.RED
        picture.set_title(captions[index], fontsize=style.SMALL_SIZE, color=color, pad=3)
        style.show_image(picture, image)
        style.show_map(plain, attention, size=image.shape[:2])
        style.show_overlay(overlay, attention, image)
    return style.finish(figure)


def sample_predictions(
    *,
    images: NDArray[np.uint8],
    truth: Sequence[str],
    predicted: Sequence[str],
    confidence: Sequence[float],
    right: int,
    wrong: int,
    part: str = "",
) -> Figure:
    """Draw images with their predictions, first the correct ones, then the wrong ones; five per row.

    Args:
        images: uint8 [N, H, W, 3].
        truth, predicted: N class names each.
        confidence: N probabilities of the predicted class, in [0, 1].
        right, wrong: number of correct and of wrong predictions that the images were drawn from.
        part: "test" or "validation", for the title.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    style.check_lengths(images, truth, predicted, confidence)
    captions = [_caption(*entry) for entry in zip(truth, predicted, confidence, strict=True)]
    hit = [true == guess for true, guess in zip(truth, predicted, strict=True)]
    groups = [
        (f"{words}: {len(members):,} of {total:,}, drawn at random, with confidence", members, color)
        for words, wanted, color, total in (("Right", True, style.GREEN, right), ("Wrong", False, style.RED, wrong))
        if (members := [index for index, right in enumerate(hit) if right is wanted])
    ]
    grids = [_grid_height(images, [captions[index] for index in members]) for _, members, _ in groups]
    height = style.TITLE_HEIGHT + sum(grids) + len(grids) * _HEADING + style.MARGIN
    which = f"{right + wrong:,} {part} images" if part else f"{right + wrong:,} images"
    title = f"Sample predictions; accuracy {right / (right + wrong):.2%} on {which}"
    figure = style.new_figure(height=height, title=title, dpi=style.dpi_for(images))
    top = style.TITLE_HEIGHT
    for (words, members, color), grid_height in zip(groups, grids, strict=True):
        style.heading(figure, words, top=top, size=style.TEXT_SIZE, color=color)
        top += _HEADING
        _image_grid(figure, images[members], [captions[index] for index in members], top=top, text=color, border=color)
        top += grid_height
    return style.finish(figure)


def confident_mistakes(
    *,
    images: NDArray[np.uint8],
    truth: Sequence[str],
    predicted: Sequence[str],
    confidence: Sequence[float],
    errors: int,
    of: int,
    medians: tuple[float, float],
) -> Figure:
    """Draw wrong predictions with their confidence, in the given order; five per row.

    Args:
        images: uint8 [N, H, W, 3].
        truth, predicted: N class names each.
        confidence: N probabilities of the predicted class.
        errors, of: number of wrong predictions and of all predictions.
        medians: median confidence of all correct and of all wrong predictions; NaN if there are none.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    style.check_lengths(images, truth, predicted, confidence)
    captions = [_caption(*entry) for entry in zip(truth, predicted, confidence, strict=True)]
    note = "The most confident ones first. Several of them may show the same object."
    if not np.isnan(medians).any():
        note += f"\nMedian confidence of all correct predictions: {medians[0]:.1%}; of all mistakes: {medians[1]:.1%}."
    title = f"{len(images):,} of the {errors:,} mistakes on {of:,} images"
    top = style.TITLE_HEIGHT + _NOTE_LINE * style.line_count([note]) + 0.1
    figure = style.new_figure(
        height=top + _grid_height(images, captions) + style.MARGIN, title=title, dpi=style.dpi_for(images)
    )
    style.write(figure, note, top=style.TITLE_HEIGHT, size=style.TEXT_SIZE, color=style.INK, linespacing=1.4)
    _image_grid(figure, images, captions, top=top, text=style.RED, border=style.RED)
    return style.finish(figure)


def augmented_batch(*, originals: NDArray[np.uint8], images: NDArray[Any], labels: Sequence[str]) -> Figure:
    """Draw training images and, below each, what the network sees of it, with its label; five per row.

    Args:
        originals: uint8 [N, H, W, 3], before augmentation.
        images: [N, h, w, 3], uint8, or floats in [0, 1], or normalized floats, each channel of which is stretched
            from its lowest to its highest value in the batch.
        labels: N texts; the parts of a mixed label are separated by slashes, "Stop 0.7 / Yield 0.3".

    Raises:
        ValueError: the lengths differ or are 0.
    """
    style.check_lengths(originals, images, labels)
    captions = ["\n".join(style.wrap(part, columns=_COLUMNS) for part in label.split(" / ")) for label in labels]
    above = _cell_height(originals) + _GAP / 2
    rows = [captions[start : start + _PER_ROW] for start in range(0, len(captions), _PER_ROW)]
    heights = [above + _grid_height(images, row) for row in rows]
    them = "it, below the original" if len(images) == 1 else "them, below the originals"
    title = f"{plural(len(images), 'training image')} as the network sees {them}"
    height = style.TITLE_HEIGHT + sum(heights) + style.MARGIN
    figure = style.new_figure(height=height, title=title, dpi=style.dpi_for(images))
    seen = _displayable(images)
    for row, words in enumerate(rows):
        top = style.TITLE_HEIGHT + sum(heights[:row])
        members = slice(row * _PER_ROW, row * _PER_ROW + len(words))
        for column, original in enumerate(originals[members]):
            style.show_image(_cell(figure, column=column, top=top, height=_cell_height(originals)), original)
        _image_grid(figure, seen[members], words, top=top + above, text=style.INK, border=style.RULE)
    return style.finish(figure)


def reconstructions(
    *, images: NDArray[Any], seen: NDArray[Any], completed: NDArray[Any], visible: int, patches: int
) -> Figure:
    """Draw images, their visible patches and their reconstructions: one row each, one column per image.

    Args:
        images, seen, completed: [N, H, W, 3], N from 1 to 8, uint8 or floats in [0, 1].
        visible, patches: number of visible patches and of all patches.

    Raises:
        ValueError: the shapes differ, or N is out of range.
    """
    if not images.shape == seen.shape == completed.shape or not 0 < len(images) <= _MASKED_PER_ROW:
        raise ValueError(
            f"need the same number of each, 1 to {_MASKED_PER_ROW}; got {images.shape}, {seen.shape}, {completed.shape}"
        )
    rows = {
        "Original": images,
        f"Seen by the encoder: {visible} of {patches} patches": seen,
        "Completed by the decoder": completed,
    }
    height = style.TITLE_HEIGHT + len(rows) * (_MASKED_HEADING + _MASKED_CELL + _BETWEEN)
    figure = style.new_figure(height=height, title="Reconstructions", dpi=style.dpi_for(images))
    top, side = style.TITLE_HEIGHT, _MASKED_CELL
    for words, row in rows.items():
        style.heading(figure, words, top=top, size=style.TEXT_SIZE, color=style.MUTED)
        top += _MASKED_HEADING
        for column, image in enumerate(row):
            left = style.MARGIN + column * (side + _GAP)
            style.show_image(style.place_bare(figure, left=left, top=top, width=side, height=side), image)
        top += side + _BETWEEN
    return style.finish(figure)


def _caption(truth: str, predicted: str, confidence: float | None = None) -> str:
    """Return a mark that needs no color, the prediction, and the ground truth if it differs."""
    mark = "✓" if truth == predicted else "✗"
    said = style.wrap(f"{mark} {predicted}", columns=_COLUMNS)
    if confidence is not None:
        said = f"{mark} {confidence:.1%}\n" + style.wrap(predicted, columns=_COLUMNS)
    return said if truth == predicted else said + "\n" + style.wrap(f"true: {truth}", columns=_COLUMNS)


def _cell_height(images: NDArray[Any]) -> float:
    """Return the height in inches of images as wide as a cell."""
    return float(_CELL * images.shape[1] / images.shape[2])


def _text_height(captions: Sequence[str]) -> float:
    """Return the height in inches of a row of captions with the gaps around it."""
    return style.line_count(captions) * _LINE + 0.1


def _grid_height(images: NDArray[Any], captions: Sequence[str]) -> float:
    """Return the height in inches that `_image_grid` fills."""
    rows = [captions[start : start + _PER_ROW] for start in range(0, len(captions), _PER_ROW)]
    return sum(_cell_height(images) + _text_height(row) + _GAP for row in rows)


def _image_grid(
    figure: Figure, images: NDArray[Any], captions: Sequence[str], *, top: float, text: str, border: str
) -> None:
    """Draw images in rows with their captions below, starting at `top` inches, in the colors `text` and `border`."""
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, _PER_ROW)
        above = _grid_height(images, captions[: row * _PER_ROW])
        axes = _cell(figure, column=column, top=top + above, height=_cell_height(images))
        style.show_image(axes, image)
        style.frame(axes, border, width=1.5)
        axes.set_xlabel(caption, fontsize=style.SMALL_SIZE, color=text, labelpad=3)


def _cell(figure: Figure, *, column: int, top: float, height: float) -> Axes:
    return style.place_bare(figure, left=style.MARGIN + column * (_CELL + _GAP), top=top, width=_CELL, height=height)


def _displayable(images: NDArray[Any]) -> NDArray[Any]:
    """Return images that matplotlib shows unchanged: uint8, or floats in [0, 1]."""
    if images.dtype == np.uint8:
        return images
    values = images.astype(np.float64)
    if values.min() >= 0 and values.max() <= 1:
        return values
    low = values.min(axis=(0, 1, 2))
    high = values.max(axis=(0, 1, 2))
    return np.asarray((values - low) / np.maximum(high - low, 1e-12))
