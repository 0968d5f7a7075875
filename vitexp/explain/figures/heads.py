"""How the heads of a transformer differ."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitexp.explain.figures.style import (
    MARGIN,
    SMALL_SIZE,
    STYLE,
    TEXT_SIZE,
    TITLE_HEIGHT,
    WIDTH,
    finish,
    new_figure,
    place,
)

_SIDE = 2.75
_LEFT = 0.6


def head_diversity(
    *,
    distance: NDArray[np.floating],
    entropy: NDArray[np.floating],
    apart: NDArray[np.floating],
    tokens: int,
    even: float | None = None,
    images: int | None = None,
) -> Figure:
    """How far every head looks, how sharply, and how unlike any two of them are.

    Args:
        distance: mean attention distance [layers, heads], in pixels.
        entropy: of the attention [layers, heads], in bits.
        apart: Jensen-Shannon divergence [layers * heads, layers * heads], in [0, 1].
        tokens: how many an image has; entropy can be log2 of it at most.
        even: the distance of attention that is the same for all patches, as a line to compare with.
        images: over how many the means are, for the title.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    layers, heads = distance.shape
    if entropy.shape != (layers, heads) or apart.shape != (layers * heads,) * 2:
        raise ValueError(f"distance {distance.shape}, entropy {entropy.shape} and {apart.shape} are not of one net")
    title = "How the heads differ" + (f", on average over {images:,} images" if images else "")
    figure = new_figure(height=TITLE_HEIGHT + 2 * _SIDE + 0.95, title=title)
    right = WIDTH - MARGIN - _SIDE - 0.1
    top = TITLE_HEIGHT + 0.25
    far = place(figure, left=_LEFT, top=top, width=_SIDE, height=_SIDE)
    _dots(far, distance, "Mean attention distance (pixels)")
    far.set_ylim(0, 1.15 * max(float(distance.max()), even or 0.0, 1e-6))
    if even is not None:
        _line(far, even, "all patches alike")
    sharp = place(figure, left=right, top=top, width=_SIDE, height=_SIDE)
    _dots(sharp, entropy, "Attention entropy (bits)")
    sharp.set_ylim(0, np.log2(tokens) * 1.15)
    _line(sharp, float(np.log2(tokens)), "all tokens alike")
    _matrix(figure, apart, layers, heads, top=top + _SIDE + 0.75, left=_LEFT)
    _histogram(figure, apart, layers, heads, top=top + _SIDE + 0.75, left=right)
    return finish(figure)


def _dots(axes: Axes, values: NDArray[np.floating], title: str) -> None:
    """A dot a head over the layers, and a line through the means."""
    layers, heads = values.shape
    where = np.arange(1, layers + 1)
    axes.plot(where, values.mean(axis=1), color=STYLE["rule"], linewidth=2, zorder=1)
    axes.scatter(where.repeat(heads), values.ravel(), s=22, color=STYLE["train"], alpha=0.8, linewidths=0, zorder=2)
    axes.set_xlim(0.5, layers + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes, title, "layer")


def _line(axes: Axes, height: float, words: str) -> None:
    """What attention would have that prefers nothing; its name stands above the dots."""
    axes.axhline(height, color=STYLE["muted"], linewidth=1, linestyle=":", label=words)
    axes.legend(
        loc="upper right", bbox_to_anchor=(1, 1.03), fontsize=SMALL_SIZE, labelcolor=STYLE["muted"], frameon=False
    )


def _matrix(figure: Figure, apart: NDArray[np.floating], layers: int, heads: int, *, top: float, left: float) -> None:
    axes = place(figure, left=left, top=top, width=_SIDE - 0.45, height=_SIDE - 0.45)
    shades = axes.imshow(apart, cmap="cividis", vmin=0, vmax=max(float(apart.max()), 1e-6), interpolation="nearest")
    for layer in range(1, layers):
        axes.axhline(layer * heads - 0.5, color="white", linewidth=0.8)
        axes.axvline(layer * heads - 0.5, color="white", linewidth=0.8)
    middles = np.arange(layers) * heads + (heads - 1) / 2
    axes.set_xticks(middles, [str(layer + 1) for layer in range(layers)])
    axes.set_yticks(middles, [str(layer + 1) for layer in range(layers)])
    _plain(axes, "Divergence of two heads (bits)", "layer")
    axes.tick_params(length=0)
    scale = place(figure, left=left + _SIDE - 0.38, top=top, width=0.1, height=_SIDE - 0.45)
    figure.colorbar(shades, cax=scale)
    scale.spines[:].set_visible(False)
    scale.tick_params(labelsize=SMALL_SIZE, labelcolor=STYLE["muted"], color=STYLE["rule"])
    scale.locator_params(nbins=4)


def _histogram(
    figure: Figure, apart: NDArray[np.floating], layers: int, heads: int, *, top: float, left: float
) -> None:
    """The divergence between the heads of one layer: near 0, they do the same work."""
    axes = place(figure, left=left, top=top, width=_SIDE, height=_SIDE - 0.45)
    within = [
        apart[layer * heads : (layer + 1) * heads, layer * heads : (layer + 1) * heads][np.triu_indices(heads, 1)]
        for layer in range(layers)
    ]
    where = np.arange(1, layers + 1)
    pairs = len(within[0])
    axes.scatter(where.repeat(pairs), np.concatenate(within), s=22, color=STYLE["val"], alpha=0.8, linewidths=0)
    axes.set_xlim(0.5, layers + 0.5)
    axes.set_ylim(0, max(float(apart.max()), 1e-6) * 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _plain(axes, "Divergence within a layer (bits)", "layer")


def _plain(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title, loc="left", fontsize=TEXT_SIZE, color=STYLE["ink"])
    axes.set_xlabel(x_label, fontsize=SMALL_SIZE, color=STYLE["muted"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(STYLE["rule"])
    axes.tick_params(labelsize=SMALL_SIZE, labelcolor=STYLE["muted"], color=STYLE["rule"])
