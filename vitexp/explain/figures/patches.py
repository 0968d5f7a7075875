"""Patches: images cut into them, and the filters of the first layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures import style

# Lengths are in inches. Patches:
_PER_ROW: Final = 3
_BETWEEN: Final = 0.25
_LINE: Final = 1.3 * style.SMALL_SIZE / 72
_BORDER: Final = 170  # gray value around a patch, of 255
_DOTS: Final = 320  # approximate dots per side of all patches without their gaps
# Filters:
_FILTERS_PER_ROW: Final = 7
_FILTER_GAP: Final = 0.12


def exploded_patches(*, images: NDArray[np.uint8], patches: NDArray[np.uint8], names: Sequence[str]) -> Figure:
    """Draw each image and its patches, moved apart. (A convolutional stem sees slightly beyond a patch.)

    Args:
        images: uint8 [N, H, W, 3].
        patches: uint8 [N, rows, columns, p, p, 3], from `vitexp.explain.methods.patches`.
        names: N texts below the images.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    style.check_lengths(images, patches, names)
    rows, columns, side = patches.shape[1:4]
    beside = len(images) == 1  # otherwise the patches are below their image
    width = (style.WIDTH - 2 * style.MARGIN - (_PER_ROW - 1) * _BETWEEN) / _PER_ROW
    tall = width * images.shape[1] / images.shape[2]
    texts = [style.wrap_each(name, columns=style.columns_in(width, style.SMALL_SIZE)) for name in names]
    said = style.line_count(texts) * _LINE + 0.12
    step = tall + said + (0 if beside else tall + _BETWEEN)
    figure = style.new_figure(
        height=style.TITLE_HEIGHT + -(-len(images) // _PER_ROW) * step - (0 if beside else _BETWEEN) + style.MARGIN,
        title=f"One token for each of {rows} × {columns} patches of {side} × {side} pixels",
        dpi=style.dpi_for(images),
    )
    for index, (image, cut, text) in enumerate(zip(images, patches, texts, strict=True)):
        line, place_in_line = divmod(index, _PER_ROW)
        top, left = style.TITLE_HEIGHT + line * step, style.MARGIN + place_in_line * (width + _BETWEEN)
        whole = style.place_bare(figure, left=left, top=top, width=width, height=tall)
        style.show_image(whole, image)
        whole.set_xlabel(text, fontsize=style.SMALL_SIZE, color=style.INK, labelpad=3)
        if beside:
            left += width + _BETWEEN
        else:
            top += tall + said
        apart = style.place_bare(figure, left=left, top=top, width=width, height=tall)
        apart.imshow(_apart(cut), interpolation="auto")
    return style.finish(figure)


def patch_filters(*, components: NDArray[np.floating], shares: NDArray[np.floating], layer: str) -> Figure:
    """Draw the first principal components of the filters of the first layer, in colors around gray.

    Args:
        components: [K, h, w, 3], from `vitexp.explain.methods.patches`; each is scaled by its largest absolute value.
        shares: [K], fractions of the variance.
        layer: name of the layer, for the title.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    style.check_lengths(components, shares)
    side = (style.WIDTH - 2 * style.MARGIN - (_FILTERS_PER_ROW - 1) * _FILTER_GAP) / _FILTERS_PER_ROW
    step = side + _FILTER_GAP + 0.16
    lines = -(-len(components) // _FILTERS_PER_ROW)
    first = style.TITLE_HEIGHT + 0.2
    figure = style.new_figure(height=first + lines * step, title=f"Principal components of the filters: {layer}")
    words = "each with its fraction of the variance, on its own scale; gray is zero"
    style.write(figure, words, top=style.TITLE_HEIGHT - 0.06, size=style.SMALL_SIZE, color=style.MUTED)
    for index, (component, share) in enumerate(zip(components, shares, strict=True)):
        row, column = divmod(index, _FILTERS_PER_ROW)
        left = style.MARGIN + column * (side + _FILTER_GAP)
        axes = style.place_bare(figure, left=left, top=first + row * step, width=side, height=side)
        axes.imshow(0.5 + 0.5 * component / max(float(np.abs(component).max()), 1e-12), interpolation="nearest")
        axes.set_xlabel(f"{share:.1%}", fontsize=style.SMALL_SIZE, color=style.MUTED, labelpad=2)
    return style.finish(figure)


def _apart(patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return patches [rows, columns, p, p, 3] as one white picture with gaps of about a fifth of a patch.

    Each patch has a thin gray border, because white patches would not be visible otherwise.
    """
    rows, columns, side = patches.shape[:3]
    times = max(1, _DOTS // (side * max(rows, columns)))
    whole = side * times
    gap = max(3, whole // 5)
    step = whole + gap
    picture = np.full((rows * step - gap + 2, columns * step - gap + 2, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            cell = picture[row * step :, column * step :][: whole + 2, : whole + 2]
            cell[:] = _BORDER
            cell[1:-1, 1:-1] = patches[row, column].repeat(times, axis=0).repeat(times, axis=1)
    return picture
