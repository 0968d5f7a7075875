"""The test probabilities of a run on one fold, from which a sweep averages the predictions of all folds."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitexp.system.disk import write_atomically

_FILE = "test_probabilities.npz"


def write_probabilities(folder: Path, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Write probabilities [N, C] and labels [N], in the order of predictions.csv, into a run folder."""
    content = io.BytesIO()
    np.savez(content, probabilities=probabilities, labels=labels)
    write_atomically(folder / _FILE, content.getvalue())


def read_probabilities(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
    """Return probabilities float32 [N, C] and labels int64 [N] of a run; None if they are missing or unreadable."""
    try:
        with np.load(folder / _FILE) as content:
            return content["probabilities"], content["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
