"""Images cut into patches, and the filters that patches first meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures.pictures import dpi_for, show_image
from vitexp.explain.figures.style import (
    MARGIN,
    SMALL_SIZE,
    STYLE,
    TITLE_HEIGHT,
    WIDTH,
    bare,
    columns_in,
    finish,
    new_figure,
    place,
    wrap_each,
)

# Inches.
_A_ROW: Final = 3
_BETWEEN: Final = 0.25
_LINE: Final = 1.3 * SMALL_SIZE / 72
_FILTERS_A_ROW: Final = 7
_FILTER_GAP: Final = 0.12
_LINE_AROUND: Final = 170  # the grey of 255
_DOTS: Final = 320  # a side of all patches without their gaps, about


def exploded_patches(*, images: NDArray[np.uint8], patches: NDArray[np.uint8], names: Sequence[str]) -> Figure:
    """Each image, and the patches that its tokens stand for, moved apart. (A convolutional stem sees a little beyond.)

    Args:
        images: uint8 [N, H, W, 3].
        patches: uint8 [N, rows, columns, p, p, 3], from `vitexp.explain.patches`.
        names: N texts below the images.

    Raises:
        ValueError: the arguments are not of one length, or empty.
    """
    if not len(images) or len({len(images), len(patches), len(names)}) > 1:
        raise ValueError(
            f"need as many of everything, and at least one; got {len(images)}, {len(patches)}, {len(names)}"
        )
    rows, columns, side = patches.shape[1:4]
    beside = len(images) == 1  # else the patches stand below their image
    width = (WIDTH - 2 * MARGIN - (_A_ROW - 1) * _BETWEEN) / _A_ROW
    tall = width * images.shape[1] / images.shape[2]
    texts = [wrap_each(name, columns=columns_in(width, SMALL_SIZE)) for name in names]
    said = max(text.count("\n") + 1 for text in texts) * _LINE + 0.12
    step = tall + said + (0 if beside else tall + _BETWEEN)
    figure = new_figure(
        height=TITLE_HEIGHT + -(-len(images) // _A_ROW) * step - (0 if beside else _BETWEEN) + MARGIN,
        title=f"A token for each of {rows} × {columns} patches of {side} × {side} pixels",
        dpi=dpi_for(images),
    )
    for index, (image, cut, text) in enumerate(zip(images, patches, texts, strict=True)):
        line, place_in_line = divmod(index, _A_ROW)
        top, left = TITLE_HEIGHT + line * step, MARGIN + place_in_line * (width + _BETWEEN)
        whole = place(figure, left=left, top=top, width=width, height=tall)
        bare(whole)
        show_image(whole, image)
        whole.set_xlabel(text, fontsize=SMALL_SIZE, color=STYLE["ink"], labelpad=3)
        if beside:
            left += width + _BETWEEN
        else:
            top += tall + said
        apart = place(figure, left=left, top=top, width=width, height=tall)
        bare(apart)
        apart.imshow(_apart(cut), interpolation="auto")
    return finish(figure)


def patch_filters(*, components: NDArray[np.floating], shares: NDArray[np.floating], layer: str) -> Figure:
    """The first principal components of the first layer's filters, in colours around grey.

    Args:
        components: [K, h, w, 3], from `vitexp.explain.patches`; each is stretched to its own largest value.
        shares: [K], of the variance.
        layer: what the filters are of, for the title.

    Raises:
        ValueError: the two are not of one length, or empty.
    """
    if not len(components) or len(components) != len(shares):
        raise ValueError(f"need as many shares as components, and at least one; got {len(shares)}, {len(components)}")
    side = (WIDTH - 2 * MARGIN - (_FILTERS_A_ROW - 1) * _FILTER_GAP) / _FILTERS_A_ROW
    step = side + _FILTER_GAP + 0.16
    lines = -(-len(components) // _FILTERS_A_ROW)
    first = TITLE_HEIGHT + 0.2
    figure = new_figure(height=first + lines * step, title=f"Principal components of the filters: {layer}")
    y = 1 - (TITLE_HEIGHT - 0.06) / figure.get_size_inches()[1]
    words = "each with its share of the variance, and stretched by itself; grey is zero"
    figure.text(MARGIN / WIDTH, y, words, va="top", fontsize=SMALL_SIZE, color=STYLE["muted"])
    for index, (component, share) in enumerate(zip(components, shares, strict=True)):
        row, column = divmod(index, _FILTERS_A_ROW)
        left = MARGIN + column * (side + _FILTER_GAP)
        axes = place(figure, left=left, top=first + row * step, width=side, height=side)
        bare(axes)
        axes.imshow(0.5 + 0.5 * component / max(float(np.abs(component).max()), 1e-12), interpolation="nearest")
        axes.set_xlabel(f"{share:.1%}", fontsize=SMALL_SIZE, color=STYLE["muted"], labelpad=2)
    return finish(figure)


def _apart(patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[rows, columns, p, p, 3] as one white picture with gaps of about a fifth of a patch.

    A thin grey line runs around each patch: white ones would have no border.
    """
    rows, columns, side = patches.shape[:3]
    times = max(1, _DOTS // (side * max(rows, columns)))  # so that gap and line may be less than a pixel of the patch
    whole = side * times
    gap = max(3, whole // 5)
    step = whole + gap
    picture = np.full((rows * step - gap + 2, columns * step - gap + 2, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            cell = picture[row * step :, column * step :][: whole + 2, : whole + 2]
            cell[:] = _LINE_AROUND
            cell[1:-1, 1:-1] = patches[row, column].repeat(times, axis=0).repeat(times, axis=1)
    return picture
