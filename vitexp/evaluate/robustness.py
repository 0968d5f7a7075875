"""Accuracy on corrupted images: five corruptions at five severities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from omegaconf import OmegaConf
from rich.progress import track

from vitexp.data.transforms import build_transforms
from vitexp.runs.finished import FinishedRun
from vitexp.runs.test_set import TestSet, prepare_test_images
from vitexp.system.terminal import plain_console

SEVERITIES: Final = (1, 2, 3, 4, 5)
Image = NDArray[np.uint8]
Corruption = Callable[[Image, int, Generator], Image]

# By severity.
_BRIGHTNESS: Final = (0.5, 0.3, 0.2, 0.12, 0.07)  # factor
_SIGMA: Final = (0.5, 0.8, 1.2, 1.7, 2.3)  # pixels, for an image of 32 pixels
# Of values in [0, 1]; severities 2 to 5 are 1 to 4 of ImageNet-C (Hendrycks & Dietterich 2019, arXiv:1903.12261).
_DEVIATION: Final = (0.04, 0.08, 0.12, 0.18, 0.26)
_AREA: Final = (0.05, 0.1, 0.18, 0.28, 0.4)  # fraction of the image
_QUALITY: Final = (60, 40, 25, 15, 8)  # JPEG, 100 is best
_SEARCHED: Final = 1000  # images, for an example


def dark(image: Image, severity: int, rng: Generator) -> Image:
    """Darken the image and round to 8 bits, which loses details."""
    return np.asarray(np.rint(image * _BRIGHTNESS[severity - 1]), np.uint8)


def blur(image: Image, severity: int, rng: Generator) -> Image:
    """Apply a Gaussian blur."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _SIGMA[severity - 1] * image.shape[0] / 32), np.uint8)


def noise(image: Image, severity: int, rng: Generator) -> Image:
    """Add Gaussian noise, independent for each pixel and channel."""
    noisy = image + 255 * _DEVIATION[severity - 1] * rng.standard_normal(image.shape)
    return np.asarray(np.rint(noisy.clip(0, 255)), np.uint8)


def occlusion(image: Image, severity: int, rng: Generator) -> Image:
    """Cover a random place with a gray square."""
    height, width = image.shape[:2]
    side = max(1, round(np.sqrt(_AREA[severity - 1] * height * width)))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    covered = image.copy()
    covered[top : top + side, left : left + side] = 127
    return covered


def jpeg(image: Image, severity: int, rng: Generator) -> Image:
    """Compress the image as JPEG."""
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
    """Corrupt images, uint8 [N, H, W, 3]. Random numbers depend only on corruption and index. severity: 1 to 5."""
    corruption, number = CORRUPTIONS[name], list(CORRUPTIONS).index(name)
    return np.stack(
        [corruption(image, severity, np.random.default_rng((number, index))) for index, image in enumerate(images)]
    )


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Accuracy on `images` corrupted test images.

    clean: accuracy on the same images uncorrupted. accuracy: by corruption, for each severity.
    examples: uint8 [corruptions, 1 + severities, S, S, 3], one image, uncorrupted and corrupted.
    """

    images: int
    clean: float
    accuracy: dict[str, list[float]]
    examples: NDArray[np.uint8]

    @property
    def means(self) -> dict[str, float]:
        """The mean accuracy over the severities, by corruption."""
        return {name: float(np.mean(each)) for name, each in self.accuracy.items()}

    def as_json(self) -> dict[str, Any]:
        """Return the numbers for evaluation.json."""
        return {
            "images": self.images,
            "clean": self.clean,
            "accuracy": self.accuracy,
            "mean": self.means,
            "mean_of_all": float(np.mean(list(self.means.values()))),
        }

    def rows(self) -> list[tuple[str, int, float]]:
        """Return corruption, severity and accuracy of each measurement; severity 0 is uncorrupted."""
        measured = [
            (name, severity, each)
            for name, line in self.accuracy.items()
            for severity, each in zip(SEVERITIES, line, strict=True)
        ]
        return [("none", 0, self.clean), *measured]


def legibility(image: Image) -> float:
    """Return how well the middle of an image can be read: bold sharp edges, neither dark, bright nor clipped."""
    gray = image.mean(axis=2)
    bold = cv2.GaussianBlur(gray, (0, 0), len(gray) / 32)  # thin lines are lost to the first corruption
    border = len(gray) // 4  # the edges of a background say nothing about the sign
    edges = cv2.Laplacian(bold, cv2.CV_64F)[border : len(gray) - border, border : len(gray) - border]
    exposed = 1 - abs(gray.mean() / 127.5 - 1)
    clipped = ((image <= 8) | (image >= 247)).mean()
    return float(edges.std() * exposed * (1 - clipped) ** 2)


def measure_robustness(run: FinishedRun, test: TestSet, *, images: int) -> Robustness:
    """Measure the accuracy on at most `images` test images, evenly spaced.

    They are corrupted after resizing but before the remaining steps of data.prepare, as if by a camera: CLAHE, which
    equalizes contrast, then receives dark images.
    """
    steps: list[Any] = OmegaConf.to_container(test.config.data.prepare, resolve=True)  # type: ignore[assignment]
    resized = next((at + 1 for at, step in enumerate(steps) if step.get("height") == run.image_size), len(steps))
    plain = prepare_test_images(test.split, test.config, steps[:resized])
    chosen = np.linspace(0, len(plain) - 1, min(images, len(plain))).round().astype(np.int64)
    part, originals, labels = plain.part(chosen), plain.images(chosen), torch.from_numpy(test.labels[chosen])
    remaining = build_transforms(steps[resized:])

    def accuracy(corrupted: NDArray[np.uint8]) -> float:
        stored = _transformed(corrupted, remaining)
        logits = run.all_logits(replace(part, stored=stored, rows=np.arange(len(stored))))
        return float((logits.argmax(dim=1) == labels).float().mean())

    clean = accuracy(originals)
    conditions = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    measured = {
        condition: accuracy(corrupt(originals, *condition))
        for condition in track(conditions, "corruptions", transient=True, disable=not plain_console().is_terminal)
    }
    example = originals[[max(range(min(len(originals), _SEARCHED)), key=lambda row: legibility(originals[row]))]]
    examples = [
        np.concatenate([example, *(corrupt(example, name, severity) for severity in SEVERITIES)])
        for name in CORRUPTIONS
    ]
    return Robustness(
        images=len(chosen),
        clean=clean,
        accuracy={name: [measured[name, severity] for severity in SEVERITIES] for name in CORRUPTIONS},
        examples=np.stack(examples),
    )


def _transformed(images: NDArray[np.uint8], transforms: Sequence[Any]) -> NDArray[np.uint8]:
    done = images.copy()
    for index, image in enumerate(images):
        for transform in transforms:
            image = transform(image=image)["image"]
        done[index] = image
    return done
