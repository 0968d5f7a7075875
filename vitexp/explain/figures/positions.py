"""Position embeddings: what training changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.explain.figures import style

# Lengths are in inches. With more cells per side of all maps together, a cell would be smaller than a pixel on a phone;
# for a finer grid, only every second, third, ... patch is shown.
_CELLS_PER_SIDE: Final = 196
_MAPS_SIDE: Final = 3.4
_MAPS_HEAD: Final = 0.42  # two lines of a title
_MAPS_FOOT: Final = 0.9  # title and scale
_LENGTH_SIDE: Final = 1.6
_LENGTH_GAP: Final = 0.2
# Correlation of the similarities before and after training from which the pattern counts as the same, or as mixed.
_SAME: Final = 0.9
_MIXED: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Position embeddings of a grid of g x g patches, from `vitexp.explain.methods.patches`.

    similarity: cosine similarities [g, g, g, g], in [-1, 1]. norm: Euclidean length of each embedding [g, g].
    """

    similarity: NDArray[np.floating]
    norm: NDArray[np.floating]

    def __post_init__(self) -> None:
        side = self.norm.shape[0]
        if self.norm.shape != (side, side) or self.similarity.shape != (side,) * 4:
            raise ValueError(f"similarity {self.similarity.shape} and norm {self.norm.shape} do not fit one grid")


def position_embedding(
    *,
    after: Positions,
    before: Positions | None = None,
    moved: NDArray[np.floating] | None = None,
    is_fixed: bool = False,
) -> Figure:
    """Draw the position embeddings before and after training and their difference, and say what was learned.

    One small map per patch, at its position, shows the similarity of all position embeddings to its own.

    Args:
        before: None if unknown; then only `after` is drawn.
        moved: Euclidean length of the change of each embedding [g, g], given together with `before`.
        is_fixed: the embeddings are not learned; only `after` is drawn.

    Raises:
        ValueError: the shapes do not match.
    """
    if (before is None) != (moved is None) or (before and before.norm.shape != after.norm.shape):
        raise ValueError("give both before and moved, on the grid of after, or neither")
    title, words = _learned(after, None if is_fixed else before, moved, is_fixed=is_fixed)
    words = style.wrap_each(words, columns=style.columns_in(1.15 * (style.WIDTH - 2 * style.MARGIN), style.TEXT_SIZE))
    top = style.TITLE_HEIGHT + (words.count("\n") + 1) * 1.4 * style.TEXT_SIZE / 72 - 0.1
    step = -(-(len(after.norm) ** 2) // _CELLS_PER_SIDE)
    left, rows = style.MARGIN, (top, top + _MAPS_SIDE + _MAPS_FOOT)
    right = style.WIDTH - style.MARGIN - _MAPS_SIDE
    compared = before is not None and not is_fixed
    figure = style.new_figure(height=rows[compared] + _MAPS_SIDE + _MAPS_FOOT, title=title)
    style.write(figure, words, top=style.TITLE_HEIGHT - 0.04, size=style.TEXT_SIZE, color=style.INK, linespacing=1.4)
    each = "each patch" if step == 1 else f"patches {step} apart"

    def draw(values: NDArray[np.floating], left: float, top: float, title: str, **colors: Any) -> None:
        maps = _tiled(values[::step, ::step])
        _shaded(figure, maps, left=left, top=top, side=_MAPS_SIDE, title=title, **colors)

    def draw_small(values: NDArray[np.floating], column: int, top: float, title: str, **colors: Any) -> None:
        left = right + column * (_LENGTH_SIDE + _LENGTH_GAP)
        _shaded(figure, values, left=left, top=top, side=_LENGTH_SIDE, title=title, **colors)

    if not compared:
        draw(after.similarity, left, top, f"Similarity of {each} to all", cmap="magma", limits=_scale(after.similarity))
        draw_small(after.norm, 0, top, f"Length {_span(after.norm)}", cmap="cividis", limits=_own(after.norm))
        return style.finish(figure)
    assert before is not None and moved is not None
    limits = _scale(before.similarity, after.similarity)
    draw(before.similarity, left, rows[0], f"Before training: similarity of {each} to all", cmap="magma", limits=limits)
    draw(after.similarity, right, rows[0], "After training", cmap="magma", limits=limits)
    change = after.similarity - before.similarity
    most = max(float(np.abs(change).max()), 1e-3)
    title = f"Difference, on its own scale: at most ±{most:.2g}"
    draw(change, left, rows[1], title, cmap="RdBu_r", limits=(-most, most))
    title = f"Length {_span(after.norm)}\n(before {_span(before.norm)})"
    draw_small(after.norm, 0, rows[1], title, cmap="cividis", limits=_own(after.norm))
    title = f"Length of the change\n{_span(moved)}"
    draw_small(moved, 1, rows[1], title, cmap="cividis", limits=_own(moved))
    how = "Before, after: the brighter, the more similar.\nDifference: red is more similar than before, blue is less."
    style.write(
        figure, how, top=rows[1] + _MAPS_HEAD + _LENGTH_SIDE + 0.6, left=right, size=style.SMALL_SIZE, color=style.MUTED
    )
    return style.finish(figure)


def _learned(
    after: Positions, before: Positions | None, moved: NDArray[np.floating] | None, *, is_fixed: bool
) -> tuple[str, str]:
    """Return a title and a text, derived from the numbers, that say whether the embeddings were learned."""
    side = len(after.norm)
    row, column = np.indices((side, side)).reshape(2, -1)
    apart = np.abs(row[:, None] - row) + np.abs(column[:, None] - column)

    def of(positions: Positions, where: NDArray[np.bool_]) -> NDArray[np.floating]:
        return positions.similarity.reshape(side**2, side**2)[where]

    def means(where: NDArray[np.bool_]) -> str:
        parts = [positions for positions in (before, after) if positions is not None]
        return " → ".join(f"{of(positions, where).mean():.2f}" for positions in parts)

    lines = []
    if side > 1:
        lines.append(f"Mean similarity of adjacent patches {means(apart == 1)}, of all other pairs {means(apart > 1)}.")
    if is_fixed:
        return "Position embeddings: fixed, not learned", "\n".join(["Sines and cosines of the position.", *lines])
    if before is None or moved is None:
        unknown = "How they were before training is unknown, so this does not show what was learned."
        return "Position embeddings", "\n".join([unknown, *lines])
    alike = _correlation(of(before, apart > 0), of(after, apart > 0))
    if alike >= _SAME:
        title, verdict = "mostly as before training", "this pattern was there before training"
    elif alike >= _MIXED:
        title, verdict = "partly learned", "part of this pattern was there before training"
    else:
        title, verdict = "mostly learned", "this pattern was made by training"
    share = float(moved.mean()) / max(float(before.norm.mean()), 1e-12)
    lines = [
        f"Similarities before and after training correlate {alike:.2f}: {verdict}.",
        *lines,
        f"On average, an embedding moved by {share:.0%} of its length before training.",
    ]
    return f"Position embeddings: {title}", "\n".join(lines)


def _correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return Pearson's correlation; if one is constant, 1 for equal ones and otherwise 0."""
    first, second = first.astype(np.float64), second.astype(np.float64)
    if min(np.ptp(first), np.ptp(second)) < 1e-9:
        return float(np.allclose(first, second))
    return float(np.corrcoef(first, second)[0, 1])


def _scale(*similarity: NDArray[np.floating]) -> tuple[float, float]:
    """Return limits for similarities, the same for all of these: from the lowest, rounded down, to 1."""
    return min(float(np.floor(10 * min(each.min() for each in similarity)) / 10), 0.9), 1.0


def _own(values: NDArray[np.floating]) -> tuple[float, float]:
    """Return the limits of a map on its own scale, which its title states."""
    low, high = float(values.min()), float(values.max())
    return low, max(high, low + 1e-3 * max(high, 1e-3))  # rounding is not contrast


def _span(values: NDArray[np.floating]) -> str:
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


def _shaded(
    figure: Figure,
    values: NDArray[np.floating],
    *,
    left: float,
    top: float,
    side: float,
    title: str,
    cmap: str,
    limits: tuple[float, float],
) -> None:
    """Draw a square picture of `values` with its title above and its scale below."""
    top += _MAPS_HEAD
    axes = style.place_bare(figure, left=left, top=top, width=side, height=side)
    shades = axes.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest", aspect="auto")
    axes.set_title(title, loc="left", fontsize=style.TEXT_SIZE, color=style.INK)
    # Narrower than the picture, so that the numbers at its ends stay within the figure.
    style.color_bar(figure, shades, left=left + 0.2, top=top + side + 0.12, width=side - 0.4, height=0.12)


def _tiled(similarity: NDArray[np.floating]) -> NDArray[np.floating]:
    """Arrange maps [rows, columns, g, g] side by side, separated by NaN (drawn white)."""
    rows, columns, side, _ = similarity.shape
    padded = np.pad(similarity, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
    return padded.transpose(0, 2, 1, 3).reshape(rows * (side + 1), columns * (side + 1))[:-1, :-1]
