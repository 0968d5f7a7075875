"""How much accuracy corruptions cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from rich.progress import track

from vitexp.data.datamodule import available_workers
from vitexp.data.prepare import Prepared, prepare
from vitexp.data.transforms import build_transforms
from vitexp.evaluate.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from vitexp.evaluate.predict import predict
from vitexp.evaluate.test_set import TestSet
from vitexp.finished_run import FinishedRun


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
