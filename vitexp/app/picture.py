"""The picture that somebody looks at: where it comes from, and what is drawn over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from vitexp.data.prepare import Prepared
from vitexp.errors import UserError
from vitexp.runs.finished import FinishedRun, read_prepared

Kind = Literal["test", "train", "file"]
Strokes = NDArray[np.float32]  # [H, W, 4]: colour, multiplied by opacity, and opacity, all in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Image `row` of a split, or the one in `file`; strokes cover parts of it."""

    kind: Kind
    row: int = 0
    file: str = ""
    strokes: Strokes | None = None

    def truth(self, run: FinishedRun) -> int | None:
        """Its class; None where nobody knows."""
        return None if self.kind == "file" else int(self._split(run).labels[self.row])

    def describe(self, run: FinishedRun) -> str:
        if self.kind == "file":
            return f"your picture {Path(self.file).name}"
        name = run.classes[self._split(run).labels[self.row]]
        return f"{'test' if self.kind == 'test' else 'training'} image {self.row:,}, which is “{name}”"

    def bare(self, run: FinishedRun) -> NDArray[np.uint8]:
        """As `run` prepares it, without the strokes: uint8 [S, S, 3]. Raises BrokenImage, a UserError, for a file."""
        if self.kind == "file":
            try:
                return np.asarray(read_prepared(run, Path(self.file))[0])
            except UserError as error:  # where the upload lies means nothing to who sent it
                raise UserError(str(error).replace(self.file, Path(self.file).name)) from error
        return np.asarray(self._split(run).images(np.array([self.row]))[0])

    def image(self, run: FinishedRun) -> NDArray[np.uint8]:
        """As `run` sees it: uint8 [S, S, 3]. What no stroke touches keeps its values."""
        image = self.bare(run)
        if self.strokes is None:
            return image
        # each pixel takes the mean of what is drawn on its part of the canvas
        strokes = cv2.resize(self.strokes, image.shape[1::-1], interpolation=cv2.INTER_AREA)
        mixed = image * (1.0 - strokes[:, :, 3:]) + 255.0 * strokes[:, :, :3]
        return np.asarray(np.clip(mixed.round(), 0, 255), np.uint8)

    def _split(self, run: FinishedRun) -> Prepared:
        return run.data.test if self.kind == "test" else run.data.train


def read_strokes(layers: list[NDArray[np.uint8]]) -> Strokes | None:
    """Layers uint8 [H, W, 4] of a drawing, each above the one before it, as one; None where nothing is drawn."""
    together: Strokes | None = None
    for layer in layers:
        opacity = layer[:, :, 3:].astype(np.float32) / 255.0
        if not opacity.any():
            continue
        above = np.concatenate([layer[:, :, :3].astype(np.float32) / 255.0 * opacity, opacity], axis=2)
        together = above if together is None else above + together * (1.0 - opacity)
    return together


def enlarged(image: NDArray[np.uint8], *, side: int) -> NDArray[np.uint8]:
    """Pixels become squares, so that the picture is at least `side` pixels a side."""
    times = max(1, -(-side // image.shape[0]))
    return image.repeat(times, axis=0).repeat(times, axis=1)
