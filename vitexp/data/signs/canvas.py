"""Polygons, discs and strokes: the primitives that every sign is drawn with.

Coordinates are in half widths of the sign: x to the right, y down, the center at (0, 0), the rim at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Color = tuple[int, int, int]
Path = Sequence[Point] | NDArray[np.float64]

EXTENT = 1.04  # the canvas extends slightly beyond the rim, so that the rim is anti-aliased
_OVERSAMPLING = 4
_SUBPIXEL_BITS = 6


def arc(center: Point, radius: Point | float, start: float, stop: float) -> list[Point]:
    """Return points on an ellipse from angle `start` to `stop` in degrees; 0 is right, 90 is down."""
    rx, ry = radius if isinstance(radius, tuple) else (radius, radius)
    angles = np.radians(np.linspace(start, stop, max(3, int(abs(stop - start) / 6) + 1)))
    return [(center[0] + rx * float(np.cos(a)), center[1] + ry * float(np.sin(a))) for a in angles]


def moved(path: Path, shift: Point, scale: float = 1.0, turn: float = 0.0) -> NDArray[np.float64]:
    """Return the path scaled and rotated (degrees, clockwise) about the origin, then shifted."""
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return np.asarray(np.asarray(path, np.float64) @ np.array([[cos, sin], [-sin, cos]]) * scale + shift, np.float64)


class Canvas:
    """A square RGB canvas that is cut out along an outline at the end.

    side: pixels per side of the finished picture.
    """

    def __init__(self, *, side: int) -> None:
        self._side = side
        self._sheet = np.zeros((side * _OVERSAMPLING, side * _OVERSAMPLING, 3), np.uint8)

    def polygon(self, path: Path, color: Color) -> None:
        cv2.fillPoly(self._sheet, [self._grid(path)], color, shift=_SUBPIXEL_BITS)

    def disc(self, center: Point, radius: Point | float, color: Color) -> None:
        self.polygon(arc(center, radius, 0, 360), color)

    def stroke(self, path: Path, width: float | tuple[float, float], color: Color) -> None:
        """Draw a line with flat ends and round joints; a pair of widths tapers it from first to last point."""
        points = np.asarray(path, np.float64)
        first, last = width if isinstance(width, tuple) else (width, width)
        half = np.linspace(first, last, len(points)) / 2
        for i, (a, b) in enumerate(pairwise(points)):
            along = (b - a) / (np.hypot(*(b - a)) or 1.0)
            across = np.array([-along[1], along[0]])
            corners = [a + across * half[i], b + across * half[i + 1], b - across * half[i + 1], a - across * half[i]]
            self.polygon(np.array(corners), color)
            if i:
                self.disc((float(a[0]), float(a[1])), float(half[i]), color)

    def cut(self, outline: Path) -> NDArray[np.uint8]:
        """Return the canvas inside the outline: RGBA uint8 [side, side, 4], colors premultiplied by alpha."""
        mask = np.zeros(self._sheet.shape[:2], np.uint8)
        cv2.fillPoly(mask, [self._grid(outline)], 255, shift=_SUBPIXEL_BITS)
        self._sheet[mask == 0] = 0
        rgba = np.dstack([self._sheet, mask])
        return np.asarray(cv2.resize(rgba, (self._side, self._side), interpolation=cv2.INTER_AREA), np.uint8)

    def _grid(self, path: Path) -> NDArray[np.int32]:
        pixels = (np.asarray(path, np.float64) / EXTENT + 1) / 2 * self._sheet.shape[0] - 0.5
        return np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
