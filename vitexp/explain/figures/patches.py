"""Images cut into patches, and the filters that patches first meet."""

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
    new_figure,
    place,
    show_image,
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
        patches: uint8 [N, rows, columns, p, p, 3], from `vitexp.explain.methods.patches`.
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
        components: [K, h, w, 3], from `vitexp.explain.methods.patches`; each is stretched to its own largest value.
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


# Cells of all maps together a side, beyond which they are smaller than a pixel on a phone; of a finer grid every
# second, third, ... patch is shown.
_CELLS_A_SIDE = 224
_MAPS_SIDE = 4.8
_LENGTH_SIDE = 2.0
_BAR_GAP, _BAR_HEIGHT = 0.12, 0.12


def position_embedding(*, similarity: NDArray[np.floating], norm: NDArray[np.floating]) -> Figure:
    """One small map for each patch, lying where the patch lies: how alike the embeddings of all others are to its own.

    Args:
        similarity: cosine similarities [g, g, g, g], in [-1, 1], from `vitexp.explain.methods.patches`.
        norm: length of each embedding [g, g].

    Raises:
        ValueError: the shapes do not fit each other.
    """
    side = norm.shape[0]
    if norm.shape != (side, side) or similarity.shape != (side,) * 4:
        raise ValueError(f"similarity {similarity.shape} and norm {norm.shape} are not of one square grid")
    step = -(-side * side // _CELLS_A_SIDE)
    figure = new_figure(height=TITLE_HEIGHT + 0.3 + _MAPS_SIDE + 0.55, title="Position embeddings")
    shown = "each patch" if step == 1 else f"patches {step} apart"
    left, right = MARGIN, WIDTH - MARGIN - _LENGTH_SIDE
    # Embeddings that all point one way would be one red square on a scale that has room for opposites.
    lowest = float(np.floor(10 * similarity.min()) / 10)
    cmap, limits = ("RdBu_r", (-1.0, 1.0)) if lowest < 0 else ("magma", (min(lowest, 0.9), 1.0))
    maps = _shaded(figure, _tiled(similarity[::step, ::step]), left=left, side=_MAPS_SIDE, cmap=cmap, limits=limits)
    maps.set_title(f"Cosine similarity of {shown} to all others", loc="left", fontsize=TEXT_SIZE, color=STYLE["ink"])
    # From 0 on: lengths that differ by a hundredth should look alike.
    limits = (0.0, max(float(norm.max()), 1e-6))
    lengths = _shaded(figure, norm, left=right, side=_LENGTH_SIDE, cmap="cividis", limits=limits)
    lengths.set_title("Length", loc="left", fontsize=TEXT_SIZE, color=STYLE["ink"])
    return finish(figure)


def _shaded(
    figure: Figure, values: NDArray[np.floating], *, left: float, side: float, cmap: str, limits: tuple[float, float]
) -> Axes:
    """A square picture of `values`, its scale below it."""
    top = TITLE_HEIGHT + 0.25
    axes = place(figure, left=left, top=top, width=side, height=side)
    bare(axes)
    shades = axes.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest", aspect="auto")
    # Narrower than the picture, so that the numbers at its ends stay within the figure.
    scale = place(figure, left=left + 0.2, top=top + side + _BAR_GAP, width=side - 0.4, height=_BAR_HEIGHT)
    figure.colorbar(shades, cax=scale, orientation="horizontal")
    scale.spines[:].set_visible(False)
    scale.tick_params(labelsize=SMALL_SIZE, labelcolor=STYLE["muted"], color=STYLE["rule"])
    scale.locator_params(nbins=4)
    return axes


def _tiled(similarity: NDArray[np.floating]) -> NDArray[np.floating]:
    """Lay maps [rows, columns, g, g] side by side, NaN (drawn white) between them."""
    rows, columns, side, _ = similarity.shape
    padded = np.pad(similarity, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return padded.transpose(0, 2, 1, 3).reshape(rows * (side + 1), columns * (side + 1))[:-1, :-1]
