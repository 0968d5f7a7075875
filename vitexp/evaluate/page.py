"""evaluation.html: the tables and figures of an evaluation on one page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from vitexp.evaluate.tables import Table
from vitexp.runs.gallery import Section, write_gallery

# Title and text of every part of evaluation.html, in its order, by the name of its figure or table.
_SECTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "metrics": (
        "Metrics",
        "Macro means give every class the same weight. The calibration error compares confidence with accuracy over 15 "
        "bins; 0 is perfect. The column result.json holds the numbers of the run's own test.",
    ),
    "confusion_matrix": (
        "Confusion matrix",
        "Rows are true classes, columns are predicted ones. Off the diagonal are mistakes.",
    ),
    "confusions": ("Most costly confusions", "Accuracy points are what each confusion costs over all images."),
    "classes": ("Classes", "The class with the lowest recall comes first."),
    "calibration": (
        "Calibration",
        "Bars above the diagonal: more often right than the confidence says; below it: overconfident. The temperature "
        "is fitted on validation images, never on test images.",
    ),
    "confident_mistakes": (
        "Most confident mistakes",
        "Look at these first: wrong labels and unreadable images often are among them.",
    ),
    "test_time_augmentation": ("Test-time augmentation", "The mean of the probabilities over several views."),
    "corruptions": (
        "Corrupted images",
        "Accuracy on darkened, blurred, noisy, occluded and JPEG-compressed images at five severities.",
    ),
    "latency": ("Speed", "Time per batch and images per second of the network alone, by batch size."),
}


def write_page(
    folder: Path, name: str, about: Sequence[str], *, drawn: Collection[str], shown: Mapping[str, Table]
) -> Path:
    """Write `folder`/evaluation.html about the run `name`, and return its path. Raises OSError.

    about: lines below the title. drawn: the figures in `folder`, shown: the tables, by the names of their sections.
    """
    sections = [
        Section(
            title=title,
            text=text,
            figures=[folder / f"{key}.png"] if key in drawn else [],
            heading=shown[key].heading if key in shown else (),
            rows=shown[key].rows if key in shown else (),
        )
        for key, (title, text) in _SECTIONS.items()
        if key in drawn or key in shown
    ]
    path = folder / "evaluation.html"
    write_gallery(path, title=f"Evaluation of {name}", about=about, sections=sections)
    return path
