"""The metrics that runs report: their labels, units and directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True)
class Metric:
    """A number that a test reports.

    label: the displayed name. is_percent: whether it is a fraction shown as a percentage. direction: whether larger
    ("max") or smaller ("min") values are better.
    """

    label: str
    is_percent: bool = True
    direction: Literal["max", "min"] = "max"

    def format(self, value: float | None) -> str:
        """Return "97.63%" or "0.1913", and "–" for None."""
        if value is None:
            return "–"
        return f"{value:.2%}" if self.is_percent else f"{value:.4f}"

    def gain(self, difference: float) -> float:
        """Return `difference`, negated if lower values are better: positive is an improvement."""
        return difference if self.direction == "max" else -difference


# In the order of result.json.
METRICS: Final[Mapping[str, Metric]] = {
    "accuracy": Metric("accuracy"),
    "accuracy_top5": Metric("top-5 accuracy"),
    "precision_macro": Metric("macro precision"),
    "recall_macro": Metric("macro recall"),
    "f1_macro": Metric("macro F1"),
    "f1_weighted": Metric("weighted F1"),
    "ece": Metric("calibration error (ECE)", direction="min"),
    "loss": Metric("loss", is_percent=False, direction="min"),
}


_OF_PRETRAINING: Final[Mapping[str, Metric]] = {"knn_accuracy": Metric("k-NN accuracy")}


def metric(name: str) -> Metric:
    """Return the metric of this name in result.json; one that a user's task adds is a plain number."""
    return METRICS.get(name) or _OF_PRETRAINING.get(name) or Metric(name.replace("_", " "), is_percent=False)
