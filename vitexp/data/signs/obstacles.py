"""Obstacles that hide part of a sign: leaves, twigs, a post, stickers, snow. Images are float32 RGB, white at 1."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vitexp.data.signs.backgrounds import Floats, clouds
from vitexp.data.signs.canvas import arc, moved


def obstruct(rng: Generator, image: Floats) -> None:
    """Paint one random obstacle over the image, in place."""
    kind = rng.choice(5, p=(0.3, 0.25, 0.1, 0.2, 0.15))
    (_leaves, _twigs, _post, _sticker, _snow)[kind](rng, image)


def _leaves(rng: Generator, image: Floats) -> None:
    """Paint a few leaves that hang in from one side."""
    size = len(image)
    color = np.array([0.30, 0.38, 0.14]) * rng.uniform(0.4, 1.3) + rng.uniform(0, 0.12, 3)
    angle = rng.uniform(0, 2 * np.pi)
    side = 0.5 + 0.42 * np.array([np.cos(angle), np.sin(angle)])
    for _ in range(int(rng.integers(2, 7))):
        x, y = side + rng.normal(0, 0.1, 2)
        leaf = moved(arc((0, 0), (0.11, 0.05), 0, 360), (x, y), rng.uniform(0.6, 1.4), rng.uniform(0, 180))
        shade = color * rng.uniform(0.7, 1.2)
        cv2.fillPoly(image, [(leaf * size * 16).astype(np.int32)], shade.tolist(), cv2.LINE_8, 4)


def _twigs(rng: Generator, image: Floats) -> None:
    size = len(image)
    for _ in range(int(rng.integers(1, 4))):
        line = (rng.uniform(-0.2, 1.2, (3, 2)) * size).astype(np.int32)
        shade = rng.uniform(0.06, 0.3)
        width = max(1, round(size * rng.uniform(0.012, 0.035)))
        cv2.polylines(image, [line], False, [shade, shade * 0.9, shade * 0.75], width, cv2.LINE_AA)


def _post(rng: Generator, image: Floats) -> None:
    """Paint a lamp post in front of the sign, left or right of its center."""
    size = len(image)
    x = size * (0.5 + rng.choice([-1, 1]) * rng.uniform(0.24, 0.4))
    half = size * rng.uniform(0.03, 0.06)
    image[:, max(0, int(x - half)) : max(1, int(x + half))] = rng.uniform(0.2, 0.6)


def _sticker(rng: Generator, image: Floats) -> None:
    """Paint a sticker or a patch of graffiti."""
    size = len(image)
    x, y = rng.uniform(0.28, 0.72, 2)
    right, bottom = rng.uniform(0.04, 0.09, 2)
    angle = rng.uniform(0, 90)
    sticker = moved([(-right, -bottom), (right, -bottom), (right, bottom), (-right, bottom)], (x, y), 1, angle)
    color = rng.uniform(0.1, 1.0, 3) if rng.random() < 0.5 else np.full(3, 0.9)
    cv2.fillPoly(image, [(sticker * size * 16).astype(np.int32)], color.tolist(), cv2.LINE_8, 4)


def _snow(rng: Generator, image: Floats) -> None:
    """Paint snow on the upper or lower edge."""
    size = len(image)
    depth = size * (rng.uniform(0.14, 0.3) + 0.25 * (clouds(rng, size, 6)[0] - 0.5))
    rows = np.arange(size)[:, None]
    covered = rows < depth if rng.random() < 0.5 else rows > size - 1 - depth
    image[covered] = rng.uniform(0.8, 1.0)
