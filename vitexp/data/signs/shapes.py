"""Colors and boards: the painted plates, without a number or pictogram."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vitexp.data.signs.canvas import Canvas, Color, Path, arc

# As in daylight photographs, not as in the specification of the paint.
WHITE: Color = (226, 228, 228)
BLACK: Color = (22, 22, 26)
GRAY: Color = (96, 97, 100)
LIGHT_GRAY: Color = (120, 121, 123)
RED: Color = (172, 33, 30)
BLUE: Color = (22, 74, 158)
YELLOW: Color = (228, 160, 24)
GREEN: Color = (10, 120, 92)

DISC = arc((0, 0), 1, 0, 360)
OCTAGON = [(float(np.cos(a)) / 0.9239, float(np.sin(a)) / 0.9239) for a in np.radians(np.arange(22.5, 360, 45))]


def triangle(inset: float = 0.0, radius: float = 0.07, *, upright: bool = True) -> NDArray[np.float64]:
    """Return an equilateral triangle with rounded corners, 2 wide and 1.75 high, its edges moved inward by `inset`."""
    inner = 0.606  # inradius of the triangle that is 2 wide after rounding
    reach = 2 * (inner - inset - radius)
    corners = [(reach * float(np.cos(a)), 0.269 + reach * float(np.sin(a))) for a in np.radians([-90, 30, 150])]
    outline = np.concatenate([arc(corner, radius, 0, 360) for corner in corners]).astype(np.float32)
    hull = np.asarray(cv2.convexHull(outline)[:, 0], np.float64)
    return hull if upright else hull * (1, -1)


def diamond(size: float) -> NDArray[np.float64]:
    """Return a square on its corner with slightly rounded corners; `size` is half its diagonal."""
    radius = 0.05 * size
    reach = size - radius
    ends = [(reach, 0.0), (0.0, reach), (-reach, 0.0), (0.0, -reach)]
    outline = np.concatenate([arc(end, radius, 0, 360) for end in ends]).astype(np.float32)
    return np.asarray(cv2.convexHull(outline)[:, 0], np.float64)


def prohibition(canvas: Canvas) -> Path:
    """Draw a red ring around white (signs 251 to 277 of the German road traffic regulations)."""
    canvas.polygon(DISC, WHITE)
    canvas.disc((0, 0), 0.97, RED)
    canvas.disc((0, 0), 0.76, WHITE)
    return DISC


def warning(canvas: Canvas) -> Path:
    """Draw an upright triangle, red border around white (signs 101 to 162)."""
    canvas.polygon(triangle(), WHITE)
    canvas.polygon(triangle(0.025, 0.055), RED)
    canvas.polygon(triangle(0.17, 0.03), WHITE)
    return triangle()


def mandatory(canvas: Canvas) -> Path:
    """Draw a blue disc with a thin white rim (signs 209 to 222)."""
    canvas.polygon(DISC, WHITE)
    canvas.disc((0, 0), 0.955, BLUE)
    return DISC


def end_of_limit(canvas: Canvas) -> Path:
    """Draw a white disc with a thin black line inside its rim (signs 278 to 282)."""
    canvas.polygon(DISC, WHITE)
    canvas.disc((0, 0), 0.985, BLACK)
    canvas.disc((0, 0), 0.945, WHITE)
    return DISC
