"""How the attention heads of a transformer differ."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vitexp.explain.figures import style

# Inches.
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
    """Draw how far each head attends, how sharply, and how much any two heads differ.

    Args:
        distance: mean attention distance [layers, heads], in pixels.
        entropy: entropy of the attention [layers, heads], in bits.
        apart: Jensen-Shannon divergence [layers * heads, layers * heads], in [0, 1].
        tokens: number of tokens per image; entropy is at most its log2.
        even: distance of uniform attention, drawn as a line for comparison.
        images: number of images that were averaged, for the title.

    Raises:
        ValueError: the shapes do not match.
    """
    layers, heads = distance.shape
    if entropy.shape != (layers, heads) or apart.shape != (layers * heads,) * 2:
        raise ValueError(f"distance {distance.shape}, entropy {entropy.shape} and apart {apart.shape} do not match")
    title = "Attention of all tokens, by head" + (f": average over {images:,} images" if images else "")
    figure = style.new_figure(height=style.TITLE_HEIGHT + 2 * _SIDE + 0.95, title=title)
    right = style.WIDTH - style.MARGIN - _SIDE - 0.1
    top = style.TITLE_HEIGHT + 0.25
    far = style.place(figure, left=_LEFT, top=top, width=_SIDE, height=_SIDE)
    _dots(far, distance, "Mean attention distance of each head (pixels)")
    far.set_ylim(0, 1.15 * max(float(distance.max()), even or 0.0, 1e-6))
    if even is not None:
        _line(far, even, "uniform attention")
    sharp = style.place(figure, left=right, top=top, width=_SIDE, height=_SIDE)
    _dots(sharp, entropy, "Attention entropy of each head (bits)")
    sharp.set_ylim(0, np.log2(tokens) * 1.15)
    _line(sharp, float(np.log2(tokens)), "uniform attention")
    _matrix(figure, apart, layers, heads, top=top + _SIDE + 0.75, left=_LEFT)
    _within_layers(figure, apart, layers, heads, top=top + _SIDE + 0.75, left=right)
    return style.finish(figure)


def _dots(axes: Axes, values: NDArray[np.floating], title: str) -> None:
    """Draw one dot per head over the layers, and a line through the means."""
    layers, heads = values.shape
    where = np.arange(1, layers + 1)
    axes.plot(where, values.mean(axis=1), color=style.RULE, linewidth=2, zorder=1, label="mean of the layer")
    axes.scatter(where.repeat(heads), values.ravel(), s=22, color=style.BLUE, alpha=0.8, linewidths=0, zorder=2)
    axes.set_xlim(0.5, layers + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.dress(axes, title=title, x_label="layer")


def _line(axes: Axes, height: float, words: str) -> None:
    """Draw the value of uniform attention, with its name above the dots."""
    axes.axhline(height, color=style.MUTED, linewidth=1, linestyle=":", label=words)
    axes.legend(
        loc="upper right",
        bbox_to_anchor=(1.03, 1.04),
        ncols=2,
        fontsize=style.SMALL_SIZE,
        labelcolor=style.MUTED,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.0,
    )


def _matrix(figure: Figure, apart: NDArray[np.floating], layers: int, heads: int, *, top: float, left: float) -> None:
    axes = style.place(figure, left=left, top=top, width=_SIDE - 0.45, height=_SIDE - 0.45)
    # Without the diagonal, which is always 0.
    others = np.where(np.eye(len(apart), dtype=bool), np.nan, apart)
    # The whole range, so that colors mean the same for every network.
    shades = axes.imshow(others, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
    for layer in range(1, layers):
        axes.axhline(layer * heads - 0.5, color="white", linewidth=0.8)
        axes.axvline(layer * heads - 0.5, color="white", linewidth=0.8)
    middles = np.arange(layers) * heads + (heads - 1) / 2
    axes.set_xticks(middles, [str(layer + 1) for layer in range(layers)])
    axes.set_yticks(middles, [str(layer + 1) for layer in range(layers)])
    style.dress(axes, title="Jensen-Shannon divergence of any two heads", x_label="layer")
    axes.tick_params(length=0)
    style.color_bar(figure, shades, left=left + _SIDE - 0.38, top=top, width=0.1, height=_SIDE - 0.45)


def _within_layers(
    figure: Figure, apart: NDArray[np.floating], layers: int, heads: int, *, top: float, left: float
) -> None:
    """Draw the divergence between heads of the same layer; near 0, they do the same work."""
    axes = style.place(figure, left=left, top=top, width=_SIDE, height=_SIDE - 0.45)
    within = [
        apart[layer * heads : (layer + 1) * heads, layer * heads : (layer + 1) * heads][np.triu_indices(heads, 1)]
        for layer in range(layers)
    ]
    where = np.arange(1, layers + 1)
    pairs = len(within[0])
    axes.scatter(where.repeat(pairs), np.concatenate(within), s=22, color=style.ORANGE, alpha=0.8, linewidths=0)
    axes.set_xlim(0.5, layers + 0.5)
    axes.set_ylim(-0.03, 1.1)
    for height, words in ((0.0, "equal"), (1.0, "disjoint")):
        axes.axhline(height, color=style.MUTED, linewidth=1, linestyle=":")
        axes.text(layers + 0.4, height, words, ha="right", va="bottom", fontsize=style.SMALL_SIZE, color=style.MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.dress(axes, title="The same, of heads of the same layer", x_label="layer")
