"""Predictions of a finished run for images without labels, and files of predictions."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from vitexp.data.imagefile import as_rgb, read_image
from vitexp.data.prepare import Prepared
from vitexp.data.source import BrokenImage, printable
from vitexp.errors import UserError, one_line
from vitexp.runs.finished import FinishedRun
from vitexp.runs.image_folder import images_in
from vitexp.system.disk import write_atomically
from vitexp.system.terminal import plain_console
from vitexp.text import shortened

TOP = 5  # classes listed per image
ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | NDArray[np.uint8]"


@dataclass(frozen=True)
class Prediction:
    """What a run predicts for one image.

    file: where the image came from; None for an image in memory. probabilities: float32 [C].
    """

    file: str | None
    classes: Sequence[str]
    probabilities: NDArray[np.float32]

    @cached_property
    def ranking(self) -> list[int]:
        """The labels, most probable first."""
        return [int(label) for label in np.argsort(-self.probabilities, kind="stable")]

    @property
    def label(self) -> int:
        """The predicted label."""
        return self.ranking[0]

    @property
    def name(self) -> str:
        """The name of the predicted class."""
        return self.classes[self.label]

    @property
    def probability(self) -> float:
        """The probability of the predicted class, in [0, 1]."""
        return float(self.probabilities[self.label])

    def top(self, count: int = TOP) -> list[tuple[str, float]]:
        """Return the `count` most probable classes with their probabilities."""
        return [(self.classes[label], float(self.probabilities[label])) for label in self.ranking[:count]]

    def __repr__(self) -> str:
        return f"Prediction({self.name!r}, {self.probability:.1%}{f', {self.file}' if self.file else ''})"


def predict(run: FinishedRun, images: Iterable[ImageLike], *, skip_broken: bool = False) -> Iterator[Prediction]:
    """Yield a prediction for each image, prepared exactly as the run prepared its own.

    images: paths, PIL images or uint8 arrays [H, W, 3], of any size.
    skip_broken: skip files that cannot be decoded, which otherwise raise BrokenImage.
    """
    waiting: list[tuple[str | None, NDArray[np.uint8]]] = []
    for image in images:
        file = os.fspath(image) if isinstance(image, str | os.PathLike) else None
        try:
            waiting.append((file, run.prepare_image(as_array(image))))
        except BrokenImage:
            if not skip_broken:
                raise
        if len(waiting) == run.batch_size:
            yield from _predicted(run, waiting)
            waiting = []
    if waiting:
        yield from _predicted(run, waiting)


def _predicted(run: FinishedRun, images: Sequence[tuple[str | None, NDArray[np.uint8]]]) -> Iterator[Prediction]:
    probabilities = run.logits(np.stack([image for _, image in images])).softmax(dim=1).cpu().numpy()
    for (file, _), each in zip(images, probabilities, strict=True):
        yield Prediction(file, run.classes, each)


def as_array(image: ImageLike) -> NDArray[np.uint8]:
    """Return an image as uint8 [H, W, 3]. Raises BrokenImage for a file, UserError for a wrong dtype or shape."""
    if isinstance(image, str | os.PathLike):
        return read_image(Path(image).expanduser())
    if isinstance(image, Image.Image):
        try:
            return as_rgb(image)
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot convert an image of mode {image.mode}: {one_line(str(error)).rstrip('.')}."
            ) from error
    if not isinstance(image, np.ndarray):
        raise UserError(f"an image must be a path, a PIL image or a NumPy array, not a {type(image).__name__}.")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f"an image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}.")
    return image


def predict_all(run: FinishedRun, folder: Path, *, show_bar: bool = False) -> tuple[list[Prediction], list[Path]]:
    """Return predictions for the images of a folder, and the files that were not read: broken or of another type.

    Raises UserError if no image could be read.
    """
    images, others = images_in(folder)
    hidden = not show_bar or not plain_console().is_terminal
    predictions = list(predict(run, track(images, "predicting", transient=True, disable=hidden), skip_broken=True))
    done = {each.file for each in predictions}
    broken = [file for file in images if str(file) not in done]
    if not predictions:
        named = shortened([printable(path.relative_to(folder)) for path in broken])
        raise UserError(f"no image in {folder} could be decoded: {named}.")
    return predictions, sorted([*broken, *others])


def predict_folder(run: FinishedRun, folder: Path, out: Path) -> tuple[list[Prediction], list[Path]]:
    """Write predictions.csv for the images of a folder; return the predictions and the files that were not read.

    folder: or a single image file.
    Columns: file, class, probability, then classes and probabilities of ranks 2 to 5. Raises UserError if no image
    could be read.
    """
    predictions, unread = predict_all(run, folder, show_bar=True)
    count = min(TOP, len(run.classes))
    ranks = ["", *(f"_{rank}" for rank in range(2, count + 1))]
    header = ["file", *(f"{name}{rank}" for rank in ranks for name in ("class", "probability"))]
    rows = [
        [
            os.path.relpath(str(each.file), folder if folder.is_dir() else folder.parent),
            *(cell for name, share in each.top(count) for cell in (name, f"{share:.6f}")),
        ]
        for each in predictions
    ]
    write_csv(out, header, rows)
    return predictions, unread


def write_test_predictions(
    path: Path,
    *,
    classes: Sequence[str],
    images: Prepared,
    probabilities: torch.Tensor,
    labels: torch.Tensor,
) -> None:
    """Write predictions.csv for a test set: file (or index), true class, predicted class, probability.

    probabilities: float [N, C]; labels: int64 [N]; images: N or more, whose first N they belong to.
    """
    confidence, predicted = probabilities.max(dim=1)
    where = images.rows if images.paths is None else images.paths
    rows = zip(where, labels.tolist(), predicted.tolist(), confidence.tolist(), strict=False)
    write_csv(
        path,
        ["index" if images.paths is None else "file", "true", "predicted", "probability"],
        [[place, classes[true], classes[label], f"{share:.6f}"] for place, true, label, share in rows],
    )


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as CSV, replacing the file in one step."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))
