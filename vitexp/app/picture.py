"""The image that a visitor looks at: its origin, and the strokes drawn on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.data.imagefile import read_image
from vitexp.data.prepare import Prepared
from vitexp.data.signs.source import DrawSign
from vitexp.errors import UserError
from vitexp.runs.finished import FinishedRun

_draw_sign = DrawSign(split="test", size=48, seed=0)
Strokes = NDArray[np.float32]  # [H, W, 4] in [0, 1]: RGB premultiplied by opacity, and opacity


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Image `row` of the test or training images or of the drawn signs, or the one in `file`; strokes cover parts."""

    kind: Literal["test", "train", "drawn", "file"]
    row: int = 0
    file: str = ""
    strokes: Strokes | None = None

    def truth(self, run: FinishedRun) -> int | None:
        """Return the label; None for an uploaded image."""
        if self.kind == "drawn":
            return self.row % len(GTSRB_CLASSES)
        return None if self.kind == "file" else int(self._split(run).labels[self.row])

    def describe(self, run: FinishedRun) -> str:
        """Return, for example, "Test image 1,204, “Stop”"."""
        if self.kind == "file":
            return f"Your image {Path(self.file).name}"
        kind = {"test": "Test image", "train": "Training image", "drawn": "Drawn sign"}[self.kind]
        label = self.truth(run)
        return f"{kind} {self.row:,}, “{'' if label is None else run.classes[label]}”"

    def bare(self, run: FinishedRun) -> NDArray[np.uint8]:
        """Return the image as `run` prepares it, without strokes: uint8 [S, S, 3].

        Raises BrokenImage, a UserError, for a file that cannot be decoded.
        """
        if self.kind == "file":
            try:
                return run.prepare_image(read_image(Path(self.file)))
            except UserError as error:  # the visitor does not know where the server stores uploads
                raise UserError(str(error).replace(self.file, Path(self.file).name)) from error
        if self.kind == "drawn":
            return run.prepare_image(_draw_sign(self.row))
        return np.asarray(self._split(run).images(np.array([self.row]))[0])

    def image(self, run: FinishedRun) -> NDArray[np.uint8]:
        """Return the image with its strokes: uint8 [S, S, 3]. Pixels that no stroke touches keep their values."""
        image = self.bare(run)
        if self.strokes is None:
            return image
        # The canvas is larger than the image; a pixel gets the mean of its part of the canvas.
        strokes = cv2.resize(self.strokes, image.shape[1::-1], interpolation=cv2.INTER_AREA)
        mixed = image * (1.0 - strokes[:, :, 3:]) + 255.0 * strokes[:, :, :3]
        return np.asarray(np.clip(mixed.round(), 0, 255), np.uint8)

    def _split(self, run: FinishedRun) -> Prepared:
        return run.data.test if self.kind == "test" else run.data.train


def read_strokes(layers: list[NDArray[np.uint8]]) -> Strokes | None:
    """Merge the layers of a drawing, uint8 [H, W, 4], bottom layer first; return None if nothing is drawn."""
    merged: Strokes | None = None
    for layer in layers:
        opacity = layer[:, :, 3:].astype(np.float32) / 255.0
        if not opacity.any():
            continue
        above = np.concatenate([layer[:, :, :3].astype(np.float32) / 255.0 * opacity, opacity], axis=2)
        merged = above if merged is None else above + merged * (1.0 - opacity)
    return merged


def enlarged(image: NDArray[np.uint8], *, side: int) -> NDArray[np.uint8]:
    """Repeat the pixels of an image until it is at least `side` pixels wide."""
    times = max(1, -(-side // image.shape[0]))
    return image.repeat(times, axis=0).repeat(times, axis=1)
