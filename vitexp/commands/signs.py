"""python -m vitexp signs SHEET.png: every sign as drawn, next to a few random pictures of it."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.data.signs.source import DrawSign
from vitexp.data.signs.templates import template

_COLUMNS = 3


def sheet(path: Path, *, samples: int = 7, size: int = 64) -> None:
    """Writes the sheet as PNG; `samples` pictures of each class, `size` pixels each."""
    rows = -(-len(GTSRB_CLASSES) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * (samples + 1) * 0.78, rows * 1.02), dpi=110, layout="constrained")
    axes = figure.subplots(rows, _COLUMNS).T.flat
    draw = DrawSign(split="train", size=size, seed=0)
    for label, (axis, name) in enumerate(zip(axes, GTSRB_CLASSES, strict=False)):
        pictures = [draw(label + i * len(GTSRB_CLASSES)) for i in range(samples)]
        axis.imshow(np.hstack([_on_grey(template(label, older=False, side=size)), *pictures]))
        axis.set_title(f"{label}  {name}", fontsize=9, loc="left", pad=2)
    for axis in figure.axes:
        axis.set_axis_off()
    figure.savefig(path)


def _on_grey(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    ground = (255 - rgba[..., 3:]) * 0.5
    return np.asarray(rgba[..., :3] + ground, np.uint8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="PNG file to write")
    sheet(parser.parse_args().path)
