"""What the averaged test predictions of the trials of a row reach, which were trained on different folds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from vitexp.runs.probabilities import read_probabilities
from vitexp.sweeps.tables.results import Outcome
from vitexp.sweeps.tables.statistics import Summary


def ensembles(outcomes: Iterable[Outcome], *, metric: str) -> dict[str, Summary]:
    """Return the test metric of the mean probabilities of the n completed trials of each row, by row.

    A row is left out if no trial has probabilities, if the trials were tested on different images, or if the metric is
    not measured.
    """
    by_row: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.status == "completed":
            by_row.setdefault(outcome.row, []).append(outcome)
    return {row: found for row, trials in by_row.items() if (found := _ensemble(trials, metric)) is not None}


def _ensemble(trials: Sequence[Outcome], metric: str) -> Summary | None:
    read = [(trial, *pair) for trial in trials if (pair := read_probabilities(trial.folder)) is not None]
    if not read:
        return None
    (first, total, labels), *others = read
    images = first.get("data", "fingerprints", "test")
    for trial, probabilities, theirs in others:
        if trial.get("data", "fingerprints", "test") != images or not np.array_equal(theirs, labels):
            return None
        total = total + probabilities
    value = _measured(total / np.float32(len(read)), labels, metric)
    return None if value is None else Summary(mean=value, sd=None, n=len(read))


def _measured(probabilities: NDArray[np.float32], labels: NDArray[np.int64], metric: str) -> float | None:
    import torch  # here, because it takes seconds, and only a sweep over folds needs it

    from vitexp.training.classification import classification_metrics

    mean, true = torch.from_numpy(probabilities), torch.from_numpy(labels)
    if metric == "loss":
        return float(torch.nn.functional.nll_loss(mean.clamp_min(torch.finfo(mean.dtype).tiny).log(), true))
    value = classification_metrics(mean, true).get(metric)
    return None if value is None else float(value)
