"""Embeddings of training images in a plane, given images as stars among them, and their nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
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
    new_figure,
    one_line,
    place,
    show_image,
    wrap_each,
)

_PLANE: Final = 4.4  # inches
_GAP: Final = 0.08
_LINE: Final = 1.3 * SMALL_SIZE / 72
# Told apart by colour up to here; further classes are grey.
_MARKS: Final = ("o", "s", "^", "D", "v") * 2  # colours that look alike to some eyes have other marks
_COLOURS: Final = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#8c6d31", "#b2182b", "#4d4d4d"),
)


def embedding_map(
    *,
    points: NDArray[np.floating],
    labels: NDArray[np.integer],
    stars: NDArray[np.floating],
    class_names: Sequence[str],
    images: NDArray[np.uint8],
    names: Sequence[str],
    neighbours: NDArray[np.uint8],
    neighbour_labels: NDArray[np.integer],
    alike: NDArray[np.floating],
    method: str,
    truth: Sequence[int | None] = (),
) -> Figure:
    """Training images as points, the classes around the given images in colour; below, each with its neighbours.

    Classes differ in colour and mark: ten colours are more than every eye can tell apart.

    Args:
        points: [N, 2], of training images with `labels` [N].
        stars: [M, 2], of the given `images` uint8 [M, H, W, 3], with `names` below them.
        neighbours: uint8 [M, K, H, W, 3], the most alike first, of `neighbour_labels` [M, K]; `alike`: cosine
            similarities [M, K].
        method: how the plane was made, for the title.
        truth: classes of the given images as far as known, which are in colour as well.

    Raises:
        ValueError: the arguments are not of one length, or empty.
    """
    lengths = [len(stars), len(images), len(names), len(neighbours), len(neighbour_labels), len(alike)]
    if len(set(lengths)) > 1 or not lengths[0] or len(points) != len(labels):
        raise ValueError(f"need as many of everything, and at least one; got {lengths}, {len(points)}, {len(labels)}")
    across = 1 + neighbours.shape[1]
    side = min(1.2, (WIDTH - 2 * MARGIN - (across - 1) * _GAP) / across)
    tall = side * images.shape[1] / images.shape[2]
    texts = [
        [f"★ {row + 1}  {name}", *(f"{each:.3f}\n{class_names[label]}" for each, label in zip(*near, strict=True))]
        for row, (name, near) in enumerate(zip(names, zip(alike, neighbour_labels, strict=True), strict=True))
    ]
    texts = [[wrap_each(text, columns=columns_in(side, SMALL_SIZE)) for text in row] for row in texts]
    heights = [tall + max(text.count("\n") + 1 for text in row) * _LINE + 0.14 for row in texts]
    top = TITLE_HEIGHT + _PLANE + 0.35
    title = f"Embeddings of {len(points):,} training images ({method})"
    figure = new_figure(height=top + sum(heights), title=title, dpi=dpi_for(images))
    plane = place(figure, left=MARGIN + 0.02, top=TITLE_HEIGHT, width=_PLANE, height=_PLANE)
    _draw_plane(plane, points, labels, stars, class_names, _of_interest(neighbour_labels, truth, len(class_names)))
    for row, image in enumerate(images):
        for column, picture in enumerate([image, *neighbours[row]]):
            left = MARGIN + column * (side + _GAP)
            axes = place(figure, left=left, top=top + sum(heights[:row]), width=side, height=tall)
            bare(axes)
            show_image(axes, picture)
            axes.set_xlabel(texts[row][column], fontsize=SMALL_SIZE, color=STYLE["ink"], labelpad=3)
            if column == 0:
                frame(axes, STYLE["ink"], width=1.5)
            if row == 0 and column == 1:
                words = "nearest training images, with cosine similarity"
                axes.set_title(words, loc="left", fontsize=TEXT_SIZE, color=STYLE["ink"], pad=3)
    return finish(figure)


def _of_interest(nearby: NDArray[np.integer], truth: Sequence[int | None], classes: int) -> list[int]:
    """The classes in colour: all where they are few, else the true ones and those of the neighbours, the most frequent
    first."""
    if classes <= len(_COLOURS):
        return list(range(classes))
    found, counts = np.unique(nearby, return_counts=True)
    often = [int(label) for label in found[np.argsort(-counts, kind="stable")]]
    known = [label for label in truth if label is not None]
    return list(dict.fromkeys([*known, *often]))[: len(_COLOURS)]


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
    letters = columns_in(WIDTH - _PLANE - 0.5, SMALL_SIZE)
    for label, colour, mark in zip(chosen, _COLOURS, _MARKS, strict=False):
        of_class = labels == label
        axes.scatter(
            points[of_class, 0],
            points[of_class, 1],
            s=13,
            marker=mark,
            color=colour,
            linewidths=0,
            label=one_line(class_names[label], columns=letters),
        )
    for index, star in enumerate(stars):
        axes.scatter(
            star[0], star[1], s=150, marker="*", color="white", edgecolors=STYLE["ink"], linewidths=1.2, zorder=3
        )
        number = axes.annotate(
            str(index + 1),
            (float(star[0]), float(star[1])),
            xytext=(6, 4),
            textcoords="offset points",
            fontsize=TEXT_SIZE,
            fontweight="bold",
            color=STYLE["ink"],
            zorder=4,
        )
        number.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=STYLE["rule"])
    axes.margins(0.06)
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.01, 1.01),
        fontsize=SMALL_SIZE,
        labelcolor=STYLE["ink"],
        frameon=False,
        markerscale=2,
        handletextpad=0.2,
    )
