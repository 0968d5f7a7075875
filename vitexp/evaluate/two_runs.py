"""Figures of two runs on the same images."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.errors import ConfigError
from vitexp.explain import figures
from vitexp.explain.drawing import Shown
from vitexp.explain.explainer import NAMES, Explainer
from vitexp.runs.finished import FinishedRun
from vitexp.runs.predict import predict

Pair = tuple[Explainer[FinishedRun], Explainer[FinishedRun]]


def draw_side_by_side(explainers: Pair, about: tuple[Shown, Shown]) -> Figure:
    """What two nets say of the same images, with their class-specific explanations."""
    names = _run_names(explainers)
    first = about[0]
    columns: list[str] = []
    maps: list[NDArray[np.float32]] = []
    captions: list[list[str]] = [[] for _ in first.images]
    for explainer, seen, name in zip(explainers, about, names, strict=True):
        said = seen.captions(explainer.run.classes, with_truth=False)
        for place, method in enumerate(each for each in explainer.methods if each not in ("attention", "rollout")):
            maps.append(np.maximum(explainer.maps(method, seen.images, seen.explained), 0))
            columns.append(f"{name}: {NAMES[method]}")
            for row, text in zip(captions, said, strict=True):
                row.append(text if place == 0 else "")
    classes = explainers[0].run.classes
    whose = "what each predicts" if first.explained == first.predicted else f"“{classes[first.explained[0]]}”"
    return figures.map_grid(
        title=f"Explanations of two runs, of {whose}",
        images=first.images,
        maps=[[each[index] for each in maps] for index in range(len(first.images))],
        columns=columns,
        rows=["" if truth is None else f"true: {classes[truth]}" for truth in first.truth],
        captions=captions,
    )


def check_same_test(explainers: Pair) -> None:
    """Raises ConfigError where two runs were not tested on the same images, as far as their labels say."""
    first, second = (explainer.run.data.test.labels for explainer in explainers)
    if not np.array_equal(first, second):
        raise ConfigError(f"{explainers[1].run.folder} has another test set; two runs are compared on one.")


def draw_confusions(explainers: Pair) -> Figure:
    """What two nets take for what, over all test images. Raises ConfigError where these differ."""
    check_same_test(explainers)
    first, second = (predict(each.run, each.run.data.test).argmax(dim=1).numpy() for each in explainers)
    return figures.paired_confusions(
        truth=explainers[0].run.data.test.labels,
        predicted=(first, second),
        class_names=explainers[0].run.classes,
        runs=_run_names(explainers),
    )


def _run_names(explainers: Pair) -> tuple[str, str]:
    """Those of their models, or where these are alike of their runs."""
    models = [str(explainer.run.config.model.name) for explainer in explainers]
    runs = [str(explainer.run.config.name or explainer.run.folder.parent.name) for explainer in explainers]
    ids = [explainer.run.folder.name for explainer in explainers]
    first, second = next((pair for pair in (models, runs) if pair[0] != pair[1]), ids)
    return first, second
