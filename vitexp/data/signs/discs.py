"""Pictograms of the round signs: vehicles, the bar that ends a limit, and white arrows on blue."""

from __future__ import annotations

import numpy as np

from vitexp.data.signs.canvas import Canvas, Color, Point, arc, moved
from vitexp.data.signs.shapes import BLACK, LIGHT_GRAY, WHITE


def car(canvas: Canvas, center: Point, color: Color, scale: float = 1.0) -> None:
    """Draw a car from behind, 0.6 wide."""
    body = [(-0.3, -0.03), (-0.26, -0.09), (0.26, -0.09), (0.3, -0.03), (0.3, 0.08), (-0.3, 0.08)]
    roof = [(-0.25, -0.06), (-0.2, -0.25), (0.2, -0.25), (0.25, -0.06)]
    canvas.polygon(moved(body, center, scale), color)
    canvas.stroke(moved(roof, center, scale), 0.042 * scale, color)
    for x in (-0.21, 0.21):
        canvas.stroke(moved([(x, 0.06), (x, 0.2)], center, scale), 0.1 * scale, color)


def truck(canvas: Canvas, center: Point, color: Color) -> None:
    """Draw a truck from behind, 0.56 wide."""
    canvas.polygon(moved([(-0.28, -0.38), (0.28, -0.38), (0.28, 0.23), (-0.28, 0.23)], center), color)
    canvas.stroke(moved([(-0.22, 0.28), (0.22, 0.28)], center), 0.05, color)
    for x in (-0.2, 0.2):
        canvas.stroke(moved([(x, 0.22), (x, 0.4)], center), 0.12, color)


def no_passing(canvas: Canvas, left: Color, right: Color, scale: float = 1.0) -> None:
    car(canvas, (-0.34 * scale, 0.0), left, scale)
    car(canvas, (0.34 * scale, 0.0), right, scale)


def no_passing_for_trucks(canvas: Canvas, left: Color, right: Color) -> None:
    truck(canvas, (-0.34, 0.0), left)
    car(canvas, (0.33, 0.2), right, 0.92)


def no_trucks(canvas: Canvas) -> None:
    canvas.polygon([(-0.22, -0.36), (0.63, -0.36), (0.63, 0.1), (-0.22, 0.1)], BLACK)
    cab = [(-0.64, 0.22), (-0.64, 0.08), (-0.56, 0.02), (-0.52, -0.2), (-0.27, -0.2), (-0.27, 0.14)]
    canvas.polygon([*cab, (0.63, 0.14), (0.63, 0.22)], BLACK)
    canvas.polygon([(-0.51, 0.0), (-0.48, -0.14), (-0.37, -0.14), (-0.37, 0.0)], WHITE)
    for x in (-0.42, 0.38):
        canvas.disc((x, 0.25), 0.135, WHITE)
        canvas.disc((x, 0.25), 0.11, BLACK)


_ALONG, _ACROSS = np.array([0.669, -0.743]), np.array([0.743, 0.669])  # the diagonal of the end signs


def end_band(canvas: Canvas) -> None:
    """Draw the gray band of older signs from bottom left to top right, under the pictogram."""
    canvas.stroke(np.array([-_ALONG, _ALONG]) * 0.96, 0.34, LIGHT_GRAY)


def end_lines(canvas: Canvas) -> None:
    """Draw five thin black lines from bottom left to top right, over the pictogram."""
    for offset in (-0.16, -0.08, 0.0, 0.08, 0.16):
        reach = _ALONG * float(np.sqrt(0.945**2 - offset**2))
        canvas.stroke(np.array([_ACROSS * offset - reach, _ACROSS * offset + reach]), 0.043, BLACK)


def _arrow(canvas: Canvas, path: list[Point], *, reach: float, solid: bool, pen: float = 0.17) -> None:
    """Draw a white arrow along `path` with its tip at the last point; the barbs extend `reach` back and out.

    The head is open (two barbs as wide as the shaft); on older signs it is a filled triangle (`solid`).
    """
    tip = np.asarray(path[-1])
    before = np.asarray(path[-2])
    along = (tip - before) / np.hypot(*(tip - before))
    out = np.array([-along[1], along[0]])
    ends = [tip - along * reach + out * reach, tip - along * reach - out * reach]
    if solid:
        head = [tip, ends[0], tip - along * reach * 0.85, ends[1]]
    else:
        back = along * 1.45 * pen
        head = [tip, ends[0], ends[0] - back, tip - back, ends[1] - back, ends[1]]
    canvas.polygon(np.array(head), WHITE)
    shaft = [*path[:-1], tuple(tip - along * pen)]
    canvas.stroke(np.array(shaft), pen, WHITE)


def turn_right(canvas: Canvas, *, solid: bool) -> None:
    bend = arc((0.12, 0.0), 0.27, 180, 270)
    _arrow(canvas, [(-0.15, 0.62), *bend, (0.4, -0.27), (0.66, -0.27)], reach=0.32, solid=solid)


def ahead_only(canvas: Canvas, *, solid: bool) -> None:
    _arrow(canvas, [(0, 0.76), (0, 0.0), (0, -0.76)], reach=0.4, solid=solid, pen=0.19)


def straight_or_right(canvas: Canvas, *, solid: bool) -> None:
    _arrow(canvas, [(-0.16, 0.78), (-0.16, 0.0), (-0.16, -0.76)], reach=0.29, solid=solid)
    bend = arc((0.14, 0.46), 0.3, 180, 270)
    _arrow(canvas, [(-0.16, 0.7), *bend, (0.5, 0.16), (0.76, 0.16)], reach=0.29, solid=solid)


def keep_right(canvas: Canvas, *, solid: bool) -> None:
    _arrow(canvas, [(-0.55, -0.55), (0, 0), (0.56, 0.56)], reach=0.4, solid=solid, pen=0.19)


def roundabout(canvas: Canvas, *, solid: bool) -> None:
    """Draw three counterclockwise arrows."""
    for start in (5, 125, 245):
        path = arc((0, 0), 0.58, start, start - 76)
        tip = arc((0, 0), 0.58, start - 94, start - 95)[0]
        _arrow(canvas, [*path, tip], reach=0.22, solid=solid, pen=0.14)
