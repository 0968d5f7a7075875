"""Draw a sheet of the synthetic traffic signs: each template, next to random images of it.

vitexp signs SHEET.png
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vitexp.commands.words import run_command
from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.data.signs.source import DrawSign
from vitexp.data.signs.templates import template
from vitexp.errors import ConfigError

_COLUMNS = 3


def main(words: Sequence[str]) -> None:
    if len(words) != 1:
        raise ConfigError("give the name of one PNG file to write, such as signs.png.")
    sheet(Path(words[0]))


def sheet(path: Path, *, samples: int = 7, size: int = 64) -> None:
    """Write the sheet as a PNG file, with `samples` images of `size` pixels per class."""
    rows = -(-len(GTSRB_CLASSES) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * (samples + 1) * 0.78, rows * 1.02), dpi=110, layout="constrained")
    draw = DrawSign(split="train", size=size, seed=0)
    for label, (axes, name) in enumerate(zip(figure.subplots(rows, _COLUMNS).T.flat, GTSRB_CLASSES, strict=False)):
        images = [draw(label + number * len(GTSRB_CLASSES)) for number in range(samples)]
        rgba = template(label, older=False, side=size)
        on_gray = np.asarray(rgba[..., :3] + (255 - rgba[..., 3:]) * 0.5, np.uint8)
        axes.imshow(np.hstack([on_gray, *images]))
        axes.set_title(f"{label}  {name}", fontsize=9, loc="left", pad=2)
    for axes in figure.axes:
        axes.set_axis_off()
    figure.savefig(path)


if __name__ == "__main__":
    run_command(main, __doc__)
