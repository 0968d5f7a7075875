"""Embeddings of training images in a plane, with given images as stars, and their nearest neighbors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from vitexp.explain.figures import style

# Inches.
_PLANE: Final = 4.7
_LEFT: Final = 0.28
_NOTES: Final = 0.34
_GAP: Final = 0.08
_LINE: Final = 1.3 * style.SMALL_SIZE / 72
_KEY_COLUMNS: Final = 3
# Colors that most readers can tell apart, and markers for those who cannot.
_COLORS: Final = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#8c6d31", "#b2182b", "#4d4d4d"),
)
_Mark = str | MarkerStyle
# As many as the largest family of traffic signs has classes.
_MARKS: Final[tuple[_Mark, ...]] = (
    *("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "d", "h"),
    *(MarkerStyle((4, 1, 45)), MarkerStyle((6, 1, 0)), MarkerStyle((3, 1, 0))),
)
_NAMED: Final = 10  # classes; more are labelled with their numbers ...
_LABELLED: Final = 100  # ... and of even more, only those near the given images are labelled, and the others gray
_GRAY: Final = "#c3c8cf"
_HALO: Final = withStroke(linewidth=2.5, foreground="white")


@dataclass(frozen=True, kw_only=True)
class _Class:
    label: int
    text: str  # in the key
    family: str
    color: str
    mark: _Mark


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
    shares: tuple[float, float] | None = None,
    families: Mapping[str, Sequence[str]] | None = None,
    truth: Sequence[int | None] = (),
) -> Figure:
    """Draw training images as points, labelled by class, with the given images as stars and their neighbors below.

    Args:
        points: [N, 2], training images with `labels` [N].
        stars: [M, 2], the given `images` uint8 [M, H, W, 3], with `names` below them.
        neighbors: uint8 [M, K, H, W, 3], nearest first, with labels `neighbor_labels` [M, K] and cosine similarities
            `similarity` [M, K].
        method: how the plane was made, for the title.
        shares: the fraction of the variance along each axis, if the axes are principal components.
        families: groups of all classes, by name; with more than ten classes, each group gets one color instead of
            each class.
        truth: known classes of the given images.

    Raises:
        ValueError: the lengths differ or are 0.
    """
    style.check_lengths(stars, images, names, neighbors, neighbor_labels, similarity)
    style.check_lengths(points, labels)
    if len(class_names) <= _NAMED:
        families = None
    across = 1 + neighbors.shape[1]
    side = min(1.2, (style.WIDTH - 2 * style.MARGIN - (across - 1) * _GAP) / across)
    tall = side * images.shape[1] / images.shape[2]
    texts = [
        [f"★ {row + 1}  {name}", *(f"{each:.3f}\n{class_names[label]}" for each, label in zip(*near, strict=True))]
        for row, (name, near) in enumerate(zip(names, zip(similarity, neighbor_labels, strict=True), strict=True))
    ]
    texts = [[style.wrap_each(text, columns=style.columns_in(side, style.SMALL_SIZE)) for text in row] for row in texts]
    heights = [tall + style.line_count(row) * _LINE + 0.14 for row in texts]
    chosen = _classes(labels, class_names, families, _of_interest(neighbor_labels, truth, len(class_names)))
    key = _key(chosen, has_others=bool((~np.isin(labels, [each.label for each in chosen])).any()))
    key_top = style.TITLE_HEIGHT + _NOTES + _PLANE + (0.3 if shares else 0.12)
    top = key_top + -(-len(key) // _KEY_COLUMNS) * _LINE + 0.35
    title = f"Embeddings of {len(points):,} training images ({method})"
    figure = style.new_figure(height=top + sum(heights), title=title, dpi=style.dpi_for(images))
    note = "Nearby points look alike to the model. Distances between groups carry little meaning."
    if shares:
        overlap = "classes that overlap here may be apart in other directions"
        note = f"The plane shows {sum(shares):.0%} of the variance: {overlap if sum(shares) < 0.9 else 'nearly all'}."
    note += f"\n{_what_marks(class_names, families)}. A network separates its training images better than new ones."
    style.write(figure, note, top=style.TITLE_HEIGHT - 0.04, size=style.SMALL_SIZE, color=style.MUTED)
    width = style.WIDTH - _LEFT - style.MARGIN
    plane = style.place(figure, left=_LEFT, top=style.TITLE_HEIGHT + _NOTES, width=width, height=_PLANE)
    _draw_plane(plane, points, labels, stars, chosen, names=class_names if len(class_names) <= _NAMED else None)
    if shares:
        across_words, up_words = (f"component {at}: {share:.1%} of the variance" for at, share in enumerate(shares, 1))
        plane.set_xlabel(across_words, fontsize=style.SMALL_SIZE, color=style.MUTED)
        plane.set_ylabel(up_words, fontsize=style.SMALL_SIZE, color=style.MUTED)
    _draw_key(figure, key, top=key_top)
    for row, image in enumerate(images):
        for column, picture in enumerate([image, *neighbors[row]]):
            left = style.MARGIN + column * (side + _GAP)
            axes = style.place_bare(figure, left=left, top=top + sum(heights[:row]), width=side, height=tall)
            style.show_image(axes, picture)
            axes.set_xlabel(texts[row][column], fontsize=style.SMALL_SIZE, color=style.INK, labelpad=3)
            if column == 0:
                style.frame(axes, style.of_mark(names[row]), width=1.5)
                axes.xaxis.label.set_color(style.of_mark(names[row]))
            if row == 0 and column == 1:
                words = "nearest training images, with cosine similarity"
                axes.set_title(words, loc="left", fontsize=style.TEXT_SIZE, color=style.INK, pad=3)
    return style.finish(figure)


# --- classes ----------------------------------------------------------------------------------------------------------


def _of_interest(nearby: NDArray[np.integer], truth: Sequence[int | None], classes: int) -> list[int]:
    """Return the classes to label: all if possible, else the true ones and the most frequent among the neighbors."""
    if classes <= _LABELLED:
        return list(range(classes))
    found, counts = np.unique(nearby, return_counts=True)
    often = [int(label) for label in found[np.argsort(-counts, kind="stable")]]
    known = [label for label in truth if label is not None]
    return list(dict.fromkeys([*known, *often]))[: len(_COLORS)]


def _classes(
    labels: NDArray[np.integer],
    names: Sequence[str],
    families: Mapping[str, Sequence[str]] | None,
    chosen: Sequence[int],
) -> list[_Class]:
    """Return the chosen classes that have points, by family and number."""
    groups = dict.fromkeys(names, "") if families is None else {name: key for key in families for name in families[key]}
    order = [""] if families is None else list(families)
    seen: dict[str, int] = dict.fromkeys(order, 0)
    made = []
    for place, label in enumerate(chosen):
        if not (labels == label).any():
            continue
        family = groups[names[label]]
        color = place if families is None else order.index(family)
        mark = (place if len(chosen) <= _NAMED else place // len(_COLORS)) if families is None else seen[family]
        seen[family] += 1
        text = names[label] if len(names) <= _NAMED else f"{label}  {names[label]}"
        made.append(
            _Class(
                label=label,
                text=text,
                family=family,
                color=_COLORS[color % len(_COLORS)],
                mark=_MARKS[mark % len(_MARKS)],
            )
        )
    return sorted(made, key=lambda each: order.index(each.family))


def _key(chosen: Sequence[_Class], *, has_others: bool) -> list[_Class | str]:
    """Return the lines of the key: classes, each family below its name."""
    lines: list[_Class | str] = []
    for each in chosen:
        if each.family and each.family not in lines:
            lines.append(each.family)
        lines.append(each)
    if has_others:
        lines.append(_Class(label=-1, text="other classes", family="", color=_GRAY, mark="o"))
    return lines


def _draw_key(figure: Figure, key: Sequence[_Class | str], *, top: float) -> None:
    """Draw the names of the classes with their markers, in columns."""
    lines = -(-len(key) // _KEY_COLUMNS)
    width = style.WIDTH - 2 * style.MARGIN
    axes = style.place_bare(figure, left=style.MARGIN, top=top, width=width, height=lines * _LINE)
    axes.set(xlim=(0, width), ylim=(lines, 0))
    columns = style.columns_in(1.15 * (width / _KEY_COLUMNS - 0.25), style.SMALL_SIZE)
    how: dict[str, Any] = {"va": "center", "fontsize": style.SMALL_SIZE, "color": style.INK}
    for index, each in enumerate(key):
        left, line = index // lines * width / _KEY_COLUMNS, index % lines + 0.5
        if isinstance(each, str):
            axes.text(left, line, style.one_line(each, columns=columns), fontweight="bold", **how)
        else:
            axes.scatter(left + 0.1, line, s=26, marker=each.mark, color=each.color, linewidths=0)
            axes.text(left + 0.22, line, style.one_line(each.text, columns=columns), **how)


def _what_marks(class_names: Sequence[str], families: Mapping[str, Sequence[str]] | None) -> str:
    if len(class_names) <= _NAMED:
        return "Color: the true class"
    return "Number: the true class" + ("; color: its family" if families else "")


# --- plane ------------------------------------------------------------------------------------------------------------


def _draw_plane(
    axes: Axes,
    points: NDArray[np.floating],
    labels: NDArray[np.integer],
    stars: NDArray[np.floating],
    chosen: Sequence[_Class],
    *,
    names: Sequence[str] | None,
) -> None:
    """Draw the points, then the stars as one collection, and the label of each next to it.

    names: the texts of the labels by class; None for numbers.
    """
    others = ~np.isin(labels, [each.label for each in chosen])
    if others.any():
        axes.scatter(points[others, 0], points[others, 1], s=7, color=_GRAY, linewidths=0)
    for each in chosen:
        own = points[labels == each.label]
        axes.scatter(own[:, 0], own[:, 1], s=11, marker=each.mark, color=each.color, linewidths=0)
    # Hollow, so that a star hides no class.
    hollow: dict[str, Any] = {"facecolors": "none", "edgecolors": style.INK, "linewidths": 1.1, "zorder": 3}
    axes.scatter(stars[:, 0], stars[:, 1], s=80, marker="*", **hollow)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=style.RULE)
    axes.margins(0.06)
    axes.autoscale_view()  # before labels are placed in pixels
    centers = [_center(points[labels == each.label]) for each in chosen]
    texts = [str(each.label) if names is None else style.one_line(names[each.label], columns=20) for each in chosen]
    texts += [f"★{index + 1}" for index in range(len(stars))]
    colors = [*(each.color for each in chosen), *[style.INK] * len(stars)]
    _label(axes, np.array([*centers, *stars]), texts, colors, stars=len(stars))


def _center(points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the point nearest to the centroid, because that may be in another class if a class has two groups."""
    distances = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return np.asarray(points[distances.argmin()])


def _label(axes: Axes, where: NDArray[np.floating], texts: Sequence[str], colors: Sequence[str], *, stars: int) -> None:
    """Write each text next to its point, without overlaps, and connect the two if they are apart."""
    within = axes.transAxes
    anchors = axes.transData.transform(where)  # pixels, as the sizes of texts
    how: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": style.SMALL_SIZE, "fontweight": "bold"}
    how |= {"path_effects": [_HALO], "fontfamily": style.fonts(), "parse_math": False, "zorder": 5}
    written = [
        axes.text(0, 0, text, color=color, transform=within, **how) for text, color in zip(texts, colors, strict=True)
    ]
    sizes = np.array([text.get_window_extent().size for text in written]) + 2
    point = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    marks = np.repeat([4 * point, 10 * point], [len(texts) - stars, stars])
    placed = _apart(anchors, sizes, marks=marks, bounds=axes.get_window_extent().get_points())
    gaps = (np.abs(placed - anchors) - (sizes + marks[:, None]) / 2).max(axis=1)
    starts, ends = within.inverted().transform(anchors), within.inverted().transform(placed)
    for text, color, start, end, gap in zip(written, colors, starts, ends, gaps, strict=True):
        text.set_position(tuple(end))
        if gap > 3 * point:
            axes.plot(*zip(start, end, strict=True), transform=within, color=color, linewidth=0.7, zorder=2.5)


def _apart(
    anchors: NDArray[np.floating],
    sizes: NDArray[np.floating],
    *,
    marks: NDArray[np.floating],
    bounds: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Return centers [K, 2] for boxes of `sizes` [K, 2] near `anchors` [K, 2] that cover neither each other nor marks.

    marks: sizes [K] of the marks at the anchors. bounds: lower left and upper right corner. All in pixels.
    """
    count = len(anchors)
    boxes = np.concatenate([sizes, np.repeat(marks[:, None], 2, axis=1)])
    jitter = np.random.default_rng(0).normal(0, 0.5, anchors.shape)
    centers = anchors + np.array([0.0, 0.5]) * (sizes + marks[:, None]) + jitter
    for step in range(600):
        apart = centers[:, None] - np.concatenate([centers, anchors])[None]
        overlap = (sizes[:, None] + boxes[None]) / 2 - np.abs(apart)
        hit = (overlap > 0).all(axis=2)
        hit[np.arange(count), np.arange(count)] = False
        if step >= 300:  # where there is too little space for everything, only small marks may be covered
            hit[:, count:] &= marks > marks.min()
        least = np.eye(2)[overlap.argmin(axis=2)]  # move along the axis that needs less
        centers += 0.4 * np.where(hit[..., None], least * np.sign(apart) * overlap, 0.0).sum(axis=1)
        if step < 300:
            centers += 0.02 * (anchors - centers)
        centers = centers.clip(bounds[0] + sizes / 2, bounds[1] - sizes / 2)
    return np.asarray(centers)
