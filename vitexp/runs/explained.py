"""Explainers of finished runs, alone and two side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.errors import ConfigError
from vitexp.explain import figures
from vitexp.explain.drawing import Shown
from vitexp.explain.explainer import NAMES, Explainer
from vitexp.runs.finished import FinishedRun, load_run
from vitexp.runs.predict import predict
from vitexp.runs.test_set import open_test_set

Pair = tuple[Explainer[FinishedRun], Explainer[FinishedRun]]


def load_explainer(
    folder: Path | str, data: Sequence[str] = (), *, beside: Explainer[FinishedRun] | None = None
) -> Explainer[FinishedRun]:
    """Load a run for explanations.

    data: overrides for the location of its data set (data.root=..., data.download=true).
    beside: the run to compare with; `data` then applies only to a run on the same data set.
    Raises ConfigError if the two runs have different classes, UserError if the run or its data cannot be loaded.
    """
    run = load_run(folder)
    if beside and run.classes != beside.run.classes:
        raise ConfigError(
            f"{run.folder} has other classes than {beside.run.folder}; only runs with the same classes can be compared."
        )
    same_data = not beside or run.config.data.name == beside.run.config.data.name
    return Explainer[FinishedRun](open_test_set(run, data)[0] if data and same_data else run)


def check_same_test(pair: Pair) -> None:
    """Raise ConfigError if the test labels of two runs differ, so that they were not tested on the same images."""
    first, second = (explainer.run.data.test.labels for explainer in pair)
    if not np.array_equal(first, second):
        raise ConfigError(f"{pair[1].run.folder} has another test set; only runs with the same one can be compared.")


def draw_confusions(pair: Pair) -> Figure:
    """Compare the confusions of two runs on all test images. Raises ConfigError if their test sets differ."""
    check_same_test(pair)
    first, second = (predict(each.run, each.run.data.test).argmax(dim=1).numpy() for each in pair)
    return figures.paired_confusions(
        truth=pair[0].run.data.test.labels,
        predicted=(first, second),
        class_names=pair[0].run.classes,
        runs=_run_names(pair),
    )


def draw_side_by_side(pair: Pair, about: tuple[Shown, Shown]) -> Figure:
    """Draw the predictions and class-specific explanations of two runs for the same images."""
    first, classes = about[0], pair[0].run.classes
    columns: list[str] = []
    maps: list[NDArray[np.float32]] = []
    captions: list[list[str]] = [[] for _ in first.images]
    for explainer, seen, name in zip(pair, about, _run_names(pair), strict=True):
        predictions = seen.captions(classes, with_truth=False)
        for place, method in enumerate(each for each in explainer.methods if each not in ("attention", "rollout")):
            maps.append(np.maximum(explainer.maps(method, seen.images, seen.explained), 0))
            columns.append(f"{name}: {NAMES[method]}")
            for row, text in zip(captions, predictions, strict=True):
                row.append(text if place == 0 else "")
    explained = "what each predicts" if first.explained == first.predicted else f"“{classes[first.explained[0]]}”"
    return figures.map_grid(
        title=f"Explanations of two runs, of {explained}",
        images=first.images,
        maps=[[each[index] for each in maps] for index in range(len(first.images))],
        columns=columns,
        rows=["" if truth is None else f"true: {classes[truth]}" for truth in first.truth],
        captions=captions,
    )


def _run_names(pair: Pair) -> tuple[str, str]:
    """Return the names of the models; if they are equal, those of the runs or their folders."""
    models = [str(explainer.run.config.model.name) for explainer in pair]
    runs = [str(explainer.run.config.name or explainer.run.folder.parent.name) for explainer in pair]
    folders = [explainer.run.folder.name for explainer in pair]
    first, second = next((names for names in (models, runs) if names[0] != names[1]), folders)
    return first, second
