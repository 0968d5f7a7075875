"""Polygons, discs and strokes on a sheet of metal: the ink that every sign is drawn with.

Coordinates are in half widths of the sign: x to the right, y downwards, the centre at (0, 0), the rim at 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Colour = tuple[int, int, int]
Path = Sequence[Point] | NDArray[np.float64]

EXTENT = 1.04  # the sheet reaches a little beyond the rim, so that the rim is anti-aliased too
_OVERSAMPLING = 4
_SUBPIXEL_BITS = 6


def arc(centre: Point, radius: Point | float, start: float, stop: float) -> list[Point]:
    """Points on an ellipse from angle `start` to `stop` in degrees; 0 is right, 90 is down."""
    rx, ry = radius if isinstance(radius, tuple) else (radius, radius)
    angles = np.radians(np.linspace(start, stop, max(3, int(abs(stop - start) / 6) + 1)))
    return [(centre[0] + rx * float(np.cos(a)), centre[1] + ry * float(np.sin(a))) for a in angles]


def moved(path: Path, shift: Point, scale: float = 1.0, turn: float = 0.0) -> NDArray[np.float64]:
    """The path scaled and turned (degrees, clockwise) about the origin, then shifted."""
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return np.asarray(np.asarray(path, np.float64) @ np.array([[cos, sin], [-sin, cos]]) * scale + shift, np.float64)


class Canvas:
    """A square sheet, painted in RGB and cut out along an outline at the end."""

    def __init__(self, *, side: int) -> None:
        """side: edge of the finished picture in pixels."""
        self._side = side
        self._sheet = np.zeros((side * _OVERSAMPLING, side * _OVERSAMPLING, 3), np.uint8)

    def polygon(self, path: Path, colour: Colour) -> None:
        cv2.fillPoly(self._sheet, [self._grid(path)], colour, shift=_SUBPIXEL_BITS)

    def disc(self, centre: Point, radius: Point | float, colour: Colour) -> None:
        self.polygon(arc(centre, radius, 0, 360), colour)

    def stroke(self, path: Path, width: float | tuple[float, float], colour: Colour) -> None:
        """A line with flat ends and round joints; a pair of widths tapers it from the first point to the last."""
        points = np.asarray(path, np.float64)
        first, last = width if isinstance(width, tuple) else (width, width)
        half = np.linspace(first, last, len(points)) / 2
        for i, (a, b) in enumerate(pairwise(points)):
            along = (b - a) / (np.hypot(*(b - a)) or 1.0)
            across = np.array([-along[1], along[0]])
            corners = [a + across * half[i], b + across * half[i + 1], b - across * half[i + 1], a - across * half[i]]
            self.polygon(np.array(corners), colour)
            if i:
                self.disc((float(a[0]), float(a[1])), float(half[i]), colour)

    def cut(self, outline: Path) -> NDArray[np.uint8]:
        """The sheet inside the outline: RGBA uint8 [side, side, 4], colours already multiplied by alpha."""
        mask = np.zeros(self._sheet.shape[:2], np.uint8)
        cv2.fillPoly(mask, [self._grid(outline)], 255, shift=_SUBPIXEL_BITS)
        self._sheet[mask == 0] = 0
        rgba = np.dstack([self._sheet, mask])
        return np.asarray(cv2.resize(rgba, (self._side, self._side), interpolation=cv2.INTER_AREA), np.uint8)

    def _grid(self, path: Path) -> NDArray[np.int32]:
        pixels = (np.asarray(path, np.float64) / EXTENT + 1) / 2 * self._sheet.shape[0] - 0.5
        return np.round(pixels * (1 << _SUBPIXEL_BITS)).astype(np.int32)
