"""How much accuracy corruptions cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from omegaconf import OmegaConf
from rich.progress import track

from vitexp.data.datamodule import available_workers
from vitexp.data.prepare import Prepared, prepare
from vitexp.data.transforms import build_transforms
from vitexp.runs.finished import FinishedRun
from vitexp.runs.predict import predict
from vitexp.runs.test_set import TestSet


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """accuracy: by corruption, for severities 1 to 5. clean: of the same images as they are. images: how many.

    examples: uint8 [corruptions, 1 + severities, S, S, 3], one image as it is and spoilt; before what follows in
    data.prepare (CLAHE).
    """

    clean: float
    accuracy: dict[str, list[float]]
    images: int
    examples: NDArray[np.uint8]


def measure_robustness(run: FinishedRun, test: TestSet, *, images: int) -> Robustness:
    """Over `images` test images, spread evenly; all, where there are no more.

    They are spoilt at the size that the net takes but before the other steps of data.prepare, as a camera would: what
    evens out contrast (CLAHE) then gets dark images to work on.
    """
    data = test.config.data
    steps: list[Any] = OmegaConf.to_container(data.prepare, resolve=True)  # type: ignore[assignment]
    sized = next((at + 1 for at, step in enumerate(steps) if step.get("height") == run.image_size), len(steps))
    plain = prepare(
        test.source.split("test"),
        steps[:sized],
        name=f"{data.name}-test",
        image_size=run.image_size,
        cache_dir=Path(data.cache_dir).expanduser(),
        num_workers=available_workers(data.num_workers),
        on_broken=data.on_broken,
    )
    chosen = np.linspace(0, len(plain) - 1, min(images, len(plain))).round().astype(np.int64)
    pictures, labels = plain.images(chosen), torch.from_numpy(test.labels[chosen])
    rest = build_transforms(steps[sized:])

    def accuracy(spoilt: NDArray[np.uint8]) -> float:
        logits = predict(run, _as_prepared(plain.part(chosen), _through(rest, spoilt)))
        return float((logits.argmax(dim=1) == labels).float().mean())

    clean = accuracy(pictures)
    conditions = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    measured = {
        condition: accuracy(corrupt(pictures, *condition))
        for condition in track(conditions, "corruptions", transient=True)
    }
    example = pictures[_example(pictures)][None]
    return Robustness(
        clean=clean,
        accuracy={name: [measured[name, severity] for severity in SEVERITIES] for name in CORRUPTIONS},
        images=len(chosen),
        examples=np.stack(
            [
                np.concatenate([example, *(corrupt(example, name, severity) for severity in SEVERITIES)])
                for name in CORRUPTIONS
            ]
        ),
    )


def _through(transforms: Sequence[Any], images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    done = images.copy()
    for index, image in enumerate(images):
        for transform in transforms:
            image = transform(image=image)["image"]
        done[index] = image
    return done


def _as_prepared(part: Prepared, images: NDArray[np.uint8]) -> Prepared:
    return replace(part, stored=images, rows=np.arange(len(images)))


def _example(images: NDArray[np.uint8]) -> int:
    """An image to show: a bright one, with much contrast, among the first."""
    return int(images[:200].reshape(min(len(images), 200), -1).std(axis=1).argmax())


def as_numbers(robustness: Robustness) -> dict[str, Any]:
    """For JSON."""
    means = {name: float(np.mean(each)) for name, each in robustness.accuracy.items()}
    return {
        "images": robustness.images,
        "clean": robustness.clean,
        "accuracy": robustness.accuracy,
        "mean": means,
        "mean_of_all": float(np.mean(list(means.values()))),
    }


def as_markdown(robustness: Robustness) -> str:
    """Accuracy by corruption and severity."""
    heading = ["corruption", *(f"severity {each}" for each in SEVERITIES), "mean"]
    rows = [
        [name, *(f"{each:.2%}" for each in (*line, float(np.mean(line))))] for name, line in robustness.accuracy.items()
    ]
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{robustness.images:,} test images; {robustness.clean:.2%} are right as they are.\n\n{table}\n"


def as_csv(robustness: Robustness) -> str:
    """A line a measurement; severity 0 is the image as it is."""
    lines = ["corruption,severity,accuracy", f"none,0,{robustness.clean}"]
    for name, line in robustness.accuracy.items():
        lines += [f"{name},{severity},{each}" for severity, each in zip(SEVERITIES, line, strict=True)]
    return "\n".join(lines) + "\n"


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
