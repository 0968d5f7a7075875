"""The surroundings of a sign: sky, leaves, walls, streets, its post and neighboring signs.

Images are float32 RGB [size, size, 3] with white at 1; values above 1 saturate the sensor.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vitexp.data.signs.canvas import EXTENT, Color, Path, moved
from vitexp.data.signs.shapes import BLUE, DISC, RED, WHITE, YELLOW, triangle

Floats = NDArray[np.float32]

_LEAVES = np.array([(0.24, 0.32, 0.13), (0.36, 0.40, 0.18), (0.48, 0.34, 0.16), (0.30, 0.24, 0.16)], np.float32)
_WALLS = np.array([(0.55, 0.30, 0.22), (0.70, 0.64, 0.52), (0.62, 0.62, 0.62), (0.40, 0.38, 0.36)], np.float32)
_SKIES = np.array([(0.92, 0.94, 0.98), (0.62, 0.76, 0.96), (0.80, 0.82, 0.86), (1.05, 1.0, 0.94)], np.float32)
_DARK_GRAY: Color = (60, 60, 64)


def clouds(rng: Generator, size: int, cells: int) -> Floats:
    """Draw smooth noise, float32 [size, size], approximately in [0, 1], with `cells` bumps per side."""
    coarse = rng.random((cells, cells), np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def background(rng: Generator, size: int) -> Floats:
    """Draw a random scene without the sign."""
    kind = rng.choice(5, p=(0.22, 0.3, 0.16, 0.16, 0.16))
    image = (_sky, _foliage, _branches, _wall, _street)[kind](rng, size)
    _neighbors(rng, image)
    return image


def _sky(rng: Generator, size: int) -> Floats:
    slope = np.linspace(0, float(rng.uniform(-0.2, 0.2)), size, dtype=np.float32)[:, None]
    light = 0.95 + slope + 0.25 * (clouds(rng, size, 3) - 0.5)
    image = light[..., None] * _SKIES[rng.integers(len(_SKIES))]
    if rng.random() < 0.5:  # a dark horizon: roofs or a forest
        horizon = size * rng.uniform(0.45, 1.0) + size * 0.35 * (clouds(rng, size, 5)[0] - 0.5)
        image[np.arange(size)[:, None] > horizon] *= float(rng.uniform(0.15, 0.5))
    return np.asarray(image, np.float32)


def _foliage(rng: Generator, size: int) -> Floats:
    shade = 0.12 + 1.3 * clouds(rng, size, 4) * clouds(rng, size, int(rng.integers(10, 22)))
    hue = clouds(rng, size, 7)[..., None]
    first, second = _LEAVES[rng.integers(len(_LEAVES), size=2)]
    image = shade[..., None] * (first * hue + second * (1 - hue)) * 1.5
    gaps = clouds(rng, size, int(rng.integers(8, 16))) + clouds(rng, size, max(16, size // 2)) > rng.uniform(1.2, 1.9)
    image[gaps] = _SKIES[rng.integers(len(_SKIES))] * float(rng.uniform(0.8, 1.8))
    return np.asarray(image, np.float32)


def _branches(rng: Generator, size: int) -> Floats:
    image = _sky(rng, size)
    wood = _LEAVES[rng.integers(len(_LEAVES))] * float(rng.uniform(0.3, 0.9))
    for _ in range(int(rng.integers(6, 22))):
        ends = (rng.uniform(-0.2, 1.2, (3, 2)) * size).astype(np.int32)
        cv2.polylines(image, [ends], False, wood.tolist(), max(1, int(size * rng.uniform(0.01, 0.05))), cv2.LINE_AA)
    return image


def _wall(rng: Generator, size: int) -> Floats:
    base = _WALLS[rng.integers(len(_WALLS))]
    image = base * (0.85 + 0.3 * clouds(rng, size, 6)[..., None])
    if rng.random() < 0.5:  # courses of brick
        course = max(3, int(size * rng.uniform(0.07, 0.16)))
        joint = float(rng.uniform(0.6, 1.3))
        image[int(rng.integers(course)) :: course] *= joint
        for row in range(0, size, course):
            image[row : row + course, (row // course % 2) * course :: 2 * course] *= joint
    else:  # windows
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.integers(-size // 3, size, 2)
            width, height = (size * rng.uniform(0.15, 0.5, 2)).astype(int)
            pane = float(rng.choice([0.15, 0.3, 1.0]))
            cv2.rectangle(image, (int(x), int(y)), (int(x + width), int(y + height)), (pane, pane, pane * 1.1), -1)
    return np.asarray(image, np.float32)


def _street(rng: Generator, size: int) -> Floats:
    """Draw a street out of focus: large soft patches."""
    image = np.dstack([clouds(rng, size, 4) for _ in range(3)])
    gray = image.mean(2, keepdims=True)
    image = gray + (image - gray) * float(rng.uniform(0.03, 0.18))
    return np.asarray(np.clip((image - 0.2) * float(rng.uniform(0.4, 1.6)), 0, None), np.float32)


def _neighbors(rng: Generator, image: Floats) -> None:
    """Paint the post and, in some images, a plate or another sign above or below."""
    size = len(image)
    if rng.random() < 0.7:
        x, width, metal = size * rng.normal(0.5, 0.03), size * rng.uniform(0.05, 0.11), float(rng.uniform(0.25, 0.8))
        start = 0 if rng.random() < 0.4 else size // 2
        image[start:, max(0, int(x - width / 2)) : int(x + width / 2) + 1] = metal
    draw = rng.random()
    if draw < 0.18:  # supplementary plate below
        half = float(rng.uniform(0.5, 0.95))
        top = float(rng.uniform(0.9, 0.98))
        paint = _DARK_GRAY if rng.random() < 0.3 else WHITE
        _paint(image, [(-half, top), (half, top), (half, 1.6), (-half, 1.6)], paint)
    elif draw < 0.32:  # another sign on the same post
        below = rng.random() < 0.5
        reach = float(rng.uniform(1.78, 1.95)) * (1 if below else -1)
        round_ = rng.random() < 0.5
        outline = DISC if round_ else triangle(upright=below)
        color = (RED, RED, BLUE, YELLOW)[rng.integers(4)] if round_ else RED
        _paint(image, moved(outline, (0, reach)), WHITE)
        _paint(image, moved(outline, (0, reach), 0.95), color)
        if color == RED:
            _paint(image, moved(outline, (0, reach), 0.7), WHITE)


def _paint(image: Floats, path: Path, color: Color) -> None:
    """Fill a path given in half widths of the image."""
    grid = (np.asarray(path) / EXTENT + 1) / 2 * len(image) * 16
    cv2.fillPoly(image, [np.round(grid).astype(np.int32)], [c / 255 for c in color], cv2.LINE_8, 4)
