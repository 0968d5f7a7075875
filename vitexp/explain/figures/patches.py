"""Images cut into patches, and the filters that patches first meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures.pictures import show_image
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
    wrap,
)

# Inches.
_IMAGE: Final = 1.6
_EXPLODED: Final = 2.4
_BETWEEN: Final = 0.3
_FILTERS_A_ROW: Final = 7
_FILTER_GAP: Final = 0.12


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
    pair = _IMAGE + _BETWEEN + _EXPLODED * min(1.0, columns / rows)
    figure = new_figure(
        height=TITLE_HEIGHT + len(images) * (_EXPLODED + _BETWEEN),
        title=f"A token for each of {rows} × {columns} patches of {side} × {side} pixels",
    )
    letters = columns_in(_IMAGE, SMALL_SIZE)
    for index, (image, cut, name) in enumerate(zip(images, patches, names, strict=True)):
        top = TITLE_HEIGHT + index * (_EXPLODED + _BETWEEN)
        left = (WIDTH - pair) / 2
        whole = place(figure, left=left, top=top + (_EXPLODED - _IMAGE) / 2, width=_IMAGE, height=_IMAGE)
        bare(whole)
        show_image(whole, image)
        whole.set_xlabel(wrap(name, columns=letters), fontsize=SMALL_SIZE, color=STYLE["ink"], labelpad=3)
        apart = place(figure, left=left + _IMAGE + _BETWEEN, top=top, width=_EXPLODED, height=_EXPLODED)
        bare(apart)
        apart.imshow(_apart(cut), interpolation="nearest")
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
    title = f"Principal components of the filters: {layer}"
    figure = new_figure(height=TITLE_HEIGHT + lines * step, title=title)
    for index, (component, share) in enumerate(zip(components, shares, strict=True)):
        row, column = divmod(index, _FILTERS_A_ROW)
        left = MARGIN + column * (side + _FILTER_GAP)
        axes = place(figure, left=left, top=TITLE_HEIGHT + row * step, width=side, height=side)
        bare(axes)
        axes.imshow(0.5 + 0.5 * component / max(float(np.abs(component).max()), 1e-12), interpolation="nearest")
        axes.set_xlabel(f"{share:.1%}", fontsize=SMALL_SIZE, color=STYLE["muted"], labelpad=2)
    return finish(figure)


def _apart(patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[rows, columns, p, p, 3] as one white picture with gaps of about a fifth of a patch."""
    rows, columns, side = patches.shape[:3]
    times = max(1, 20 // side)  # so that a gap may be less than a pixel of the patch
    gap = max(1, side * times // 5)
    step = side * times + gap
    picture = np.full((rows * step - gap, columns * step - gap, 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            large = patches[row, column].repeat(times, axis=0).repeat(times, axis=1)
            picture[row * step :, column * step :][: side * times, : side * times] = large
    return picture
