"""Faithfulness of the explanations of a network: deletion and insertion over a sample, as curves and as a table."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitexp.explain.explainer import NAMES, Explainer, Images
from vitexp.explain.methods.faithfulness import area_under, deletion, insertion
from vitexp.models.trained_net import TrainedNet
from vitexp.text import markdown_table, plural

RANDOM = "random order"
_BATCH = 64  # images


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """Curves float32 [N, steps + 1] by name of the explanation, for the predicted classes of N images."""

    deletion: dict[str, NDArray[np.float32]]
    insertion: dict[str, NDArray[np.float32]]

    @property
    def scores(self) -> dict[str, float]:
        """Area under insertion minus area under deletion, averaged over images; the most faithful first."""
        gains = {
            name: float((area_under(self.insertion[name]) - area_under(low)).mean())
            for name, low in self.deletion.items()
        }
        return dict(sorted(gains.items(), key=lambda gain: -gain[1]))

    def beats_random(self, name: str) -> bool:
        """Return whether an explanation is clearly better than random order."""
        return self._beats(name, RANDOM)

    @property
    def order(self) -> str:
        """What the scores are, and whether the first explanation is clearly better than the second, in sentences."""
        first, second, *_ = self.scores
        clearly = "clearly" if self._beats(first, second) else "not clearly"
        images = plural(len(self.deletion[first]), "image")
        favored = ", which this measure favors," if first == NAMES["occlusion"] else ""
        order = (
            f"Numbers: faithfulness (insertion - deletion), mean over {images}; {RANDOM} {self.scores[RANDOM]:.2f}. "
            f"{first[0].upper()}{first[1:]}{favored} is {clearly} better than {second}."
        )
        if NAMES["rollout"] in self.scores:
            order += " Attention and rollout do not depend on the class."
        return order

    def _beats(self, name: str, other: str) -> bool:
        """Return whether the 95 % interval of the mean difference, image by image, is above 0."""
        mine, theirs = (area_under(self.insertion[each]) - area_under(self.deletion[each]) for each in (name, other))
        mean, half = _mean(mine - theirs)
        return len(mine) > 1 and mean - half > 0

    def rows(self) -> list[dict[str, str]]:
        """Return one row per explanation: mean areas ± half of the 95 % interval; the most faithful first."""
        rows = []
        for name in self.scores:
            low, high = area_under(self.deletion[name]), area_under(self.insertion[name])
            rows.append(
                {
                    "explanation": name,
                    "deletion AUC (low is good)": _interval(low),
                    "insertion AUC (high is good)": _interval(high),
                    "insertion - deletion": _interval(high - low),
                    "images": str(len(low)),
                }
            )
        return rows

    def as_csv(self) -> str:
        """Return the rows as plain numbers, with one column per mean and per half interval."""
        file = io.StringIO()
        write = csv.writer(file, lineterminator="\n")
        names = ("deletion_auc", "insertion_auc", "insertion_minus_deletion")
        write.writerow(["explanation", *(column for name in names for column in (name, f"{name}_ci95")), "images"])
        for row in self.rows():
            name = row["explanation"]
            low, high = area_under(self.deletion[name]), area_under(self.insertion[name])
            numbers = [f"{number:.5f}" for values in (low, high, high - low) for number in _mean(values)]
            write.writerow([name, *numbers, len(low)])
        return file.getvalue()

    def as_markdown(self) -> str:
        """Return the rows as a Markdown table."""
        rows = self.rows()
        cells = [list(row.values()) for row in rows]
        return markdown_table(list(rows[0]), cells, ("left", "right", "right", "right", "right"))


def measure_faithfulness(
    explainer: Explainer[TrainedNet], images: Images, *, steps: int = 16, seed: int = 0
) -> Faithfulness:
    """Measure every applicable method over `images`, and a random order as the baseline.

    steps: points of a curve after its start; at most one per cell.
    """
    maps = {NAMES[method]: method for method in explainer.methods}
    curves: dict[str, dict[str, list[NDArray[np.float32]]]] = {
        kind: {name: [] for name in [*maps, RANDOM]} for kind in ("deletion", "insertion")
    }
    random, cells = np.random.default_rng(seed), explainer.cells
    steps = min(steps, cells**2)
    for start in range(0, len(images), _BATCH):
        some = images[start : start + _BATCH]
        classes = explainer.probabilities(some).argmax(axis=1).tolist()
        floats = explainer.run.prepared(some)
        for name in [*maps, RANDOM]:
            if name == RANDOM:
                order = random.random((len(some), cells, cells), dtype=np.float32)
            else:
                order = explainer.maps(maps[name], some, classes)
            for kind, measure in (("deletion", deletion), ("insertion", insertion)):
                curve = measure(explainer.net, floats, order, classes=classes, cells=cells, steps=steps, seed=seed)
                curves[kind][name].append(curve)
    together = {kind: {name: np.concatenate(parts) for name, parts in of.items()} for kind, of in curves.items()}
    return Faithfulness(deletion=together["deletion"], insertion=together["insertion"])


def _mean(values: NDArray[np.float32]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval."""
    return float(values.mean()), float(1.96 * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def _interval(values: NDArray[np.float32]) -> str:
    return "{:.3f} ± {:.3f}".format(*_mean(values))
