"""The position embedding as a picture."""

from __future__ import annotations

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
    finish,
    new_figure,
    place,
)

# Cells of all maps together a side, beyond which they are smaller than a pixel on a phone; of a finer grid every
# second, third, ... patch is shown.
_CELLS_A_SIDE = 224
_MAPS_SIDE = 4.8
_LENGTH_SIDE = 2.0
_BAR_GAP, _BAR_HEIGHT = 0.12, 0.12


def position_embedding(*, similarity: NDArray[np.floating], norm: NDArray[np.floating]) -> Figure:
    """One small map for each patch, lying where the patch lies: how alike the embeddings of all others are to its own.

    Args:
        similarity: cosine similarities [g, g, g, g], in [-1, 1], from `vitexp.explain.position`.
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
