"""Embeddings of training images in a plane, with given images as stars, and their nearest neighbors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from vitexp.explain.figures import style

_PLANE: Final = 4.4  # inches
_GAP: Final = 0.08
_LINE: Final = 1.3 * style.SMALL_SIZE / 72
# All other classes are gray. Markers differ too, because not every reader can tell ten colors apart.
_COLORS: Final = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#8c6d31", "#b2182b", "#4d4d4d"),
)
_MARKS: Final = ("o", "s", "^", "D", "v") * 2


def embedding_map(
    *,
    points: NDArray[np.floating],
    labels: NDArray[np.integer],
    stars: NDArray[np.floating],
    class_names: Sequence[str],
    images: NDArray[np.uint8],
    names: Sequence[str],
    neighbors: NDArray[np.uint8],
    neighbor_labels: NDArray[np.integer],
    similarity: NDArray[np.floating],
    method: str,
    truth: Sequence[int | None] = (),
) -> Figure:
    """Draw training images as points, with the classes near the given images in color, and the neighbors below.

    Args:
        points: [N, 2], training images with `labels` [N].
        stars: [M, 2], the given `images` uint8 [M, H, W, 3], with `names` below them.
        neighbors: uint8 [M, K, H, W, 3], nearest first, with labels `neighbor_labels` [M, K] and cosine similarities
            `similarity` [M, K].
        method: how the plane was made, for the title.
        truth: known classes of the given images, which are in color too.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    style.check_lengths(stars, images, names, neighbors, neighbor_labels, similarity)
    style.check_lengths(points, labels)
    across = 1 + neighbors.shape[1]
    side = min(1.2, (style.WIDTH - 2 * style.MARGIN - (across - 1) * _GAP) / across)
    tall = side * images.shape[1] / images.shape[2]
    texts = [
        [f"★ {row + 1}  {name}", *(f"{each:.3f}\n{class_names[label]}" for each, label in zip(*near, strict=True))]
        for row, (name, near) in enumerate(zip(names, zip(similarity, neighbor_labels, strict=True), strict=True))
    ]
    texts = [[style.wrap_each(text, columns=style.columns_in(side, style.SMALL_SIZE)) for text in row] for row in texts]
    heights = [tall + style.line_count(row) * _LINE + 0.14 for row in texts]
    top = style.TITLE_HEIGHT + _PLANE + 0.35
    title = f"Embeddings of {len(points):,} training images ({method})"
    figure = style.new_figure(height=top + sum(heights), title=title, dpi=style.dpi_for(images))
    plane = style.place(figure, left=style.MARGIN + 0.02, top=style.TITLE_HEIGHT, width=_PLANE, height=_PLANE)
    _draw_plane(plane, points, labels, stars, class_names, _of_interest(neighbor_labels, truth, len(class_names)))
    for row, image in enumerate(images):
        for column, picture in enumerate([image, *neighbors[row]]):
            left = style.MARGIN + column * (side + _GAP)
            axes = style.place_bare(figure, left=left, top=top + sum(heights[:row]), width=side, height=tall)
            style.show_image(axes, picture)
            axes.set_xlabel(texts[row][column], fontsize=style.SMALL_SIZE, color=style.INK, labelpad=3)
            if column == 0:
                style.frame(axes, style.INK, width=1.5)
            if row == 0 and column == 1:
                words = "nearest training images, with cosine similarity"
                axes.set_title(words, loc="left", fontsize=style.TEXT_SIZE, color=style.INK, pad=3)
    return style.finish(figure)


def _of_interest(nearby: NDArray[np.integer], truth: Sequence[int | None], classes: int) -> list[int]:
    """Return the classes to draw in color: all if few, else the true ones and the most frequent among neighbors."""
    if classes <= len(_COLORS):
        return list(range(classes))
    found, counts = np.unique(nearby, return_counts=True)
    often = [int(label) for label in found[np.argsort(-counts, kind="stable")]]
    known = [label for label in truth if label is not None]
    return list(dict.fromkeys([*known, *often]))[: len(_COLORS)]


def _draw_plane(
    axes: Axes,
    points: NDArray[np.floating],
    labels: NDArray[np.integer],
    stars: NDArray[np.floating],
    class_names: Sequence[str],
    chosen: Sequence[int],
) -> None:
    others = ~np.isin(labels, chosen)
    if others.any():
        axes.scatter(points[others, 0], points[others, 1], s=7, color="#c3c8cf", linewidths=0, label="other classes")
    letters = style.columns_in(style.WIDTH - _PLANE - 0.5, style.SMALL_SIZE)
    for label, color, mark in zip(chosen, _COLORS, _MARKS, strict=False):
        of_class = labels == label
        axes.scatter(
            points[of_class, 0],
            points[of_class, 1],
            s=13,
            marker=mark,
            color=color,
            linewidths=0,
            label=style.one_line(class_names[label], columns=letters),
        )
    for index, star in enumerate(stars):
        axes.scatter(star[0], star[1], s=150, marker="*", color="white", edgecolors=style.INK, linewidths=1.2, zorder=3)
        number = axes.annotate(
            str(index + 1),
            (float(star[0]), float(star[1])),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=style.TEXT_SIZE,
            fontweight="bold",
            color=style.INK,
            zorder=4,
        )
        number.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=style.RULE)
    axes.margins(0.06)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.01),
        fontsize=style.SMALL_SIZE,
        labelcolor=style.INK,
        frameon=False,
        markerscale=2,
        handletextpad=0.2,
    )
