"""The net for other programs, in the formats that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitexp.evaluate.export_onnx import export_onnx, refuse_without_onnx
from vitexp.evaluate.export_timm import export_timm, refuse_unknown_to_timm
from vitexp.finished_run import FinishedRun


def refuse_impossible(run: FinishedRun, kinds: Sequence[str]) -> None:
    """Raise UserError for the first of `kinds` in which the net of `run` cannot be exported here."""
    if "onnx" in kinds:
        refuse_without_onnx()
    if "timm" in kinds:
        refuse_unknown_to_timm(run)


def export(run: FinishedRun, kind: str, folder: Path, *, images: NDArray[np.uint8]) -> dict[str, Any]:
    """Write the net into `folder`, check it on `images`, and tell of both."""
    if kind == "onnx":
        return export_onnx(run, folder / "model.onnx", images=images)
    return export_timm(run, folder / "timm", images=images)
