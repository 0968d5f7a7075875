"""Images spoilt in five ways, each in five strengths (after Hendrycks and Dietterich 2019, arXiv 1903.12261).

Dark, blur, noise, occlusion and JPEG, at the size that the net takes. Lengths are given for images of 32 pixels and
grow with the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SEVERITIES: Final = (1, 2, 3, 4, 5)
Image = NDArray[np.uint8]
Corruption = Callable[[Image, int, Generator], Image]

# By severity, 1 to 5.
_LIGHT: Final = (0.5, 0.3, 0.2, 0.12, 0.07)  # share of the light that is left
_SIGMA: Final = (0.5, 0.8, 1.2, 1.7, 2.3)  # pixels of 32
_DEVIATION: Final = (0.04, 0.08, 0.12, 0.18, 0.26)  # of values in [0, 1]; the last four are those of the paper
_AREA: Final = (0.05, 0.1, 0.18, 0.28, 0.4)  # of the image
_QUALITY: Final = (60, 40, 25, 15, 8)  # of JPEG, 100 is best


def dark(image: Image, severity: int, rng: Generator) -> Image:
    """Less light, and what a camera of 8 bits leaves of it: values are rounded, and details lost."""
    return np.asarray(np.rint(image * _LIGHT[severity - 1]), np.uint8)


def blur(image: Image, severity: int, rng: Generator) -> Image:
    """Gaussian."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _SIGMA[severity - 1] * image.shape[0] / 32), np.uint8)


def noise(image: Image, severity: int, rng: Generator) -> Image:
    """Gaussian, independent in every value."""
    spoilt = image + 255 * _DEVIATION[severity - 1] * rng.standard_normal(image.shape)
    return np.asarray(np.rint(spoilt.clip(0, 255)), np.uint8)


def occlusion(image: Image, severity: int, rng: Generator) -> Image:
    """A grey square at a random place."""
    height, width = image.shape[:2]
    side = max(1, round(np.sqrt(_AREA[severity - 1] * height * width)))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    spoilt = image.copy()
    spoilt[top : top + side, left : left + side] = 127
    return spoilt


def jpeg(image: Image, severity: int, rng: Generator) -> Image:
    """Stored as JPEG and read again."""
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY[severity - 1]])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])


CORRUPTIONS: Final[Mapping[str, Corruption]] = {
    "dark": dark,
    "blur": blur,
    "noise": noise,
    "occlusion": occlusion,
    "jpeg": jpeg,
}


def corrupt(images: NDArray[np.uint8], name: str, severity: int) -> NDArray[np.uint8]:
    """uint8 [N, H, W, 3] to the same. Image i is spoilt in the same way every time. severity: 1 to 5."""
    corruption, number = CORRUPTIONS[name], list(CORRUPTIONS).index(name)
    spoilt = np.empty_like(images)
    for index, image in enumerate(images):
        spoilt[index] = corruption(image, severity, np.random.default_rng((number, index)))
    return spoilt
