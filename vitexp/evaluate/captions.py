"""What each table and figure of evaluation.html shows, and how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vitexp.explain.captions import CONFUSION_MATRIX

# Title and text by the name of the figure or table, in the order of the page.
CAPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "metrics": (
        "Metrics",
        "Macro means give every class the same weight; a class without images counts as 0 if it is predicted. The "
        "calibration error compares confidence with accuracy over 15 bins; 0 is perfect. A column result.json holds "
        "the numbers of the run's own test.",
    ),
    "confusion_matrix": CONFUSION_MATRIX,
    "confusions": ("Most costly confusions", "Accuracy points are what each confusion costs over all images."),
    "classes": ("Classes", "The class with the lowest recall comes first."),
    "calibration": (
        "Calibration",
        "Bars above the diagonal: more often right than the confidence says; below it: overconfident. Below them, the "
        "share of the images in each bin; a bin without images has neither bar nor line, and one with a line from 0 "
        "only wrong predictions. The temperature is fitted on validation images, never on test images.",
    ),
    "confident_mistakes": (
        "Most confident mistakes",
        "Look at these first: wrong labels and unreadable images often are among them.",
    ),
    "test_time_augmentation": ("Test-time augmentation", "The mean of the probabilities over several views."),
    "probes": (
        "Probes",
        "How well the classes can be read from the frozen features, the input of the classifier: by a vote of the "
        "nearest training images, and by a logistic regression whose weight decay validation chose.",
    ),
    "corruptions": (
        "Corrupted images",
        "Accuracy on darkened, blurred, noisy, occluded and JPEG-compressed images at five severities. Shaded bands "
        "are 95% intervals (Wilson) for the choice of the images.",
    ),
    "latency": ("Speed", "Time per batch and images per second of the network alone, by batch size."),
}
