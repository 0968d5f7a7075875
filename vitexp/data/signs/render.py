"""A synthetic photograph of one sign: pose, light, scene, obstacles, lens and sensor, in the order of the light path.

The ranges follow the look of the German Traffic Sign Recognition Benchmark (Stallkamp et al., 2012): crops with a
margin of about a tenth, stretched to a square; nearly black signs against a bright sky; images enlarged from 15 pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from vitexp.data.signs.backgrounds import Floats, background, clouds
from vitexp.data.signs.canvas import EXTENT
from vitexp.data.signs.obstacles import obstruct
from vitexp.data.signs.templates import template

_TRIANGLES = frozenset({11, 13, *range(18, 32)})
_TRIANGLE_HEIGHT = 0.875  # of its width


def photograph(label: int, rng: Generator, *, size: int) -> NDArray[np.uint8]:
    """Draw a random picture of the sign `label`: RGB uint8 [size, size, 3]."""
    sheet = template(label, older=bool(rng.random() < 0.4), side=2 * size)
    pose = _pose(rng, size, stretch=_TRIANGLE_HEIGHT if label in _TRIANGLES else 1.0)
    # Warp at twice the size and average down: bilinear sampling alone would break thin strokes.
    warped = cv2.warpPerspective(sheet, pose, (2 * size, 2 * size), flags=cv2.INTER_LINEAR)
    rgba = np.asarray(cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA), np.float32) / np.float32(255)
    alpha = rgba[..., 3:]
    sign = _weather(rng, rgba[..., :3], alpha)

    exposure = float(np.clip(np.exp(rng.normal(-0.75, 0.68)), 0.1, 1.7))
    if rng.random() < 0.35:  # backlit: the brightness of the scene is independent of the sign's
        surroundings = float(rng.uniform(0.1, 1.9)) / exposure
    else:
        surroundings = float(np.exp(rng.normal(-0.1, 0.45)))
    scene: Floats = background(rng, size) * surroundings * (1 - alpha) + sign * _light(rng, size)
    if rng.random() < 0.16:
        obstruct(rng, scene)
    return _camera(rng, scene * np.float32(exposure), veil=exposure * float(rng.exponential(0.07)))


def _pose(rng: Generator, size: int, *, stretch: float) -> NDArray[np.float64]:
    """Draw a homography from the template (2 * size per side) to the picture at twice its size."""
    scale = np.clip(rng.normal(0.78, 0.06, 2) if rng.random() < 0.2 else np.full(2, rng.normal(0.77, 0.055)), 0.58, 0.9)
    scale = scale * (1.0, stretch ** -rng.uniform(0.4, 1.0))
    turn = np.radians(np.clip(rng.normal(0, 5.5), -16, 16))
    tilt = rng.normal(0, 0.055, 2)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * EXTENT
    flat = corners * scale @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    flat *= (rng.uniform(0.86, 1.0), 1.0) if rng.random() < 0.3 else (1.0, 1.0)  # seen from the side
    seen = flat / (1 + flat @ tilt)[:, None] + np.clip(rng.normal(0, 0.035, 2), -0.09, 0.09)
    edge = 2 * size
    sheet = (corners / EXTENT + 1) / 2 * edge - 0.5
    target = (seen + 1) / 2 * edge - 0.5
    return np.asarray(cv2.getPerspectiveTransform(sheet.astype(np.float32), target.astype(np.float32)), np.float64)


def _weather(rng: Generator, sign: Floats, alpha: Floats) -> Floats:
    """Fade the paint and add dirt."""
    if rng.random() < 0.2:
        sign = sign + (alpha * np.array([0.86, 0.66, 0.52], np.float32) - sign) * float(rng.uniform(0.05, 0.3))
    if rng.random() < 0.2:
        dirt = np.clip(clouds(rng, len(sign), 6) - 0.45, 0, 1) * float(rng.uniform(0.3, 0.9))
        sign = sign * (1 - dirt[..., None])
    return sign


def _light(rng: Generator, size: int) -> Floats:
    """Draw the light on the sign, float32 [size, size, 3] around 1: a gradient, a color, sometimes a shadow."""
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    across, down = rng.normal(0, 0.1, 2)
    light = np.clip(1 + across * ramp[None] + down * ramp[:, None], 0.4, 1.6).astype(np.float32)
    if rng.random() < 0.16:
        if rng.random() < 0.4:  # the shadow of a straight edge, such as a roof
            angle = rng.uniform(0, 2 * np.pi)
            form = np.cos(angle) * ramp[None] + np.sin(angle) * ramp[:, None] + rng.uniform(-0.3, 0.3)
        else:
            form = clouds(rng, size, int(rng.integers(3, 7))) - 0.5
        shadow = np.clip(form * 8, 0, 1).astype(np.float32)
        light *= 1 - shadow * float(rng.uniform(0.3, 0.65))
    warmth = float(rng.normal(0, 0.09))
    color = np.array([1 + warmth, 1 + rng.normal(0, 0.025), 1 - warmth], np.float32)
    return np.asarray(light[..., None] * color, np.float32)


def _camera(rng: Generator, image: Floats, *, veil: float) -> NDArray[np.uint8]:
    """Apply stray light, blur, color fringes, low resolution and noise, and convert to 8 bits."""
    size = len(image)
    if rng.random() < 0.07:  # mist or lens flare
        veil += float(rng.uniform(0.1, 0.32))
    tint = np.array([1, 1, rng.uniform(0.75, 1.1)], np.float32)
    image = np.asarray(image * (1 - 0.4 * min(veil, 1.0)) + tint * veil, np.float32)
    sigma = abs(rng.normal(0, 0.013)) * size
    if sigma > 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    if rng.random() < 0.22:
        image = _motion(rng, image)
    if rng.random() < 0.4:
        image = _fringes(rng, image)
    noise = float(rng.uniform(0.004, 0.022)) * (1 + 0.5 * min(veil, 1.0))
    pixels = round(size * rng.uniform(0.36, 0.8)) if rng.random() < 0.5 else size
    if pixels < size:
        image = np.asarray(cv2.resize(image, (pixels, pixels), interpolation=cv2.INTER_AREA), np.float32)
    image = np.clip(image, 0, 1) + rng.standard_normal(image.shape, np.float32) * noise
    if pixels < size:
        image = np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    return np.asarray(np.clip(image * 255 + 0.5, 0, 255), np.uint8)


def _motion(rng: Generator, image: Floats) -> Floats:
    """Blur along a line of up to a tenth of the picture."""
    length = max(2.0, float(rng.uniform(0.03, 0.1)) * len(image))
    angle = float(rng.uniform(0, np.pi))
    half = int(length / 2) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    start, stop = np.round((half - reach) * 16).astype(int), np.round((half + reach) * 16).astype(int)
    cv2.line(kernel, (int(start[0]), int(start[1])), (int(stop[0]), int(stop[1])), 1.0, 1, cv2.LINE_8, 4)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.float32)


def _fringes(rng: Generator, image: Floats) -> Floats:
    """Shift red and blue apart, like the chromatic aberration of a lens."""
    dx, dy = rng.normal(0, 0.011, 2) * len(image)
    red, green, blue = cv2.split(image)
    shifted = [
        cv2.warpAffine(
            channel,
            np.array([[1, 0, sign * dx], [0, 1, sign * dy]], np.float32),
            red.shape[::-1],
            borderMode=cv2.BORDER_REPLICATE,
        )
        for channel, sign in ((red, 1), (blue, -1))
    ]
    return np.asarray(cv2.merge([shifted[0], green, shifted[1]]), np.float32)
