"""Why the net decides as it does, at the end of a run; `python -m vitexp explain` shows more of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.data.prepare import Prepared
from vitexp.errors import one_line
from vitexp.explain import figures
from vitexp.explain.drawing import draw_embedding, embed, shown
from vitexp.explain.explainer import NAMES, Explainer
from vitexp.explain.pick import mixed
from vitexp.explain.ranking import RANDOM, Faithfulness, measure_faithfulness
from vitexp.models.trained_net import TrainedNet
from vitexp.training.callbacks.figure_callback import FigureCallback, data_of, predictions_of, publish
from vitexp.training.classification import Classifier

log = logging.getLogger(__name__)

_STEPS = 8  # of a curve: half of those of the command, at half the time
_STARS = 3  # images in the map; more make the figure a wall


class Explanations(Callback):
    """Explanations of test images, the most faithful on this net first; and the curves that say so.

    images: shown, two of five of them mistakes where there are as many. measured: test images over which deletion and
    insertion are measured, all where these are fewer.
    """

    keys = ("explanations", "faithfulness")
    needs = ("predictions",)

    def __init__(self, *, images: int = 5, measured: int = 32) -> None:
        self.images, self.measured = images, measured

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        drawn: list[Figure] = []
        with _of_any_net(trainer, "explanations"):
            drawn += self._draw(trainer, cast(Classifier, pl_module))
        for key, figure in zip(self.keys, drawn, strict=False):
            publish(trainer, key=key, figure=figure)

    def _draw(self, trainer: Trainer, module: Classifier) -> Iterator[Figure]:
        test = data_of(trainer).test
        explainer = _explainer(trainer, module)
        predicted, truth, _ = predictions_of(module)
        order = np.random.default_rng(0).permutation(len(truth))
        measured = measure_faithfulness(explainer, test.images(order[: self.measured]), steps=_STEPS)
        hit = (predicted == truth)[order]
        chosen = mixed(order, hit, count=self.images) if hit.any() else order[: self.images]
        yield _side_by_side(explainer, test, chosen, measured)
        yield figures.faithfulness_curves(deletion=measured.deletion, insertion=measured.insertion)


class EmbeddingMap(FigureCallback):
    """Training images as the classifier receives them, in a plane; test images among them, mistakes first.

    training: how many training images, drawn at random (always the same ones).
    """

    key = "embedding"
    needs = ("predictions",)

    def __init__(self, *, training: int = 1000) -> None:
        super().__init__()
        self.training = training

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Figure | None:
        with _of_any_net(trainer, self.key):
            explainer = _explainer(trainer, module)
            predicted, truth, _ = predictions_of(module)
            order = np.random.default_rng(0).permutation(len(truth))
            stars = order[np.argsort((predicted == truth)[order], kind="stable")][:_STARS]
            about = shown(explainer, images.images(stars), truth[stars].tolist())
            return draw_embedding(explainer, about, embed(explainer, data_of(trainer).train, sample=self.training))
        return None


def _explainer(trainer: Trainer, module: Classifier) -> Explainer[TrainedNet]:
    """Of a copy of the net: one that is not compiled for batches of one size, and that may be looked into."""
    data = data_of(trainer)
    return Explainer(
        TrainedNet(
            net=deepcopy(module.net).eval(),
            classes=data.classes,
            image_size=data.image_size,
            mean=torch.from_numpy(data.mean),
            std=torch.from_numpy(data.std),
        )
    )


@contextmanager
def _of_any_net(trainer: Trainer, what: str) -> Iterator[None]:
    """Go on without `what` where a net of the user's own does not stand being looked into, or memory does not suffice.

    Inside, the net computes in the precision of the test, and gradients can be taken, which a test forbids.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad(), trainer.precision_plugin.forward_context():
            yield
    except Exception as error:  # somebody else's code may raise anything
        log.warning("cannot draw figures/%s.png (%s); the run goes on", what, one_line(str(error)))


def _side_by_side(
    explainer: Explainer[TrainedNet], test: Prepared, chosen: NDArray[np.int64], measured: Faithfulness
) -> Figure:
    """A row an image, a column an explanation with its score."""
    about = shown(explainer, test.images(chosen), test.labels[chosen].tolist())
    scores = measured.scores
    methods = sorted(explainer.methods, key=lambda method: -scores[NAMES[method]])
    maps = [np.maximum(explainer.maps(method, about.images, about.explained), 0) for method in methods]
    return figures.map_grid(
        title=f"Explanations, the most faithful first (random order: {scores[RANDOM]:.2f})",
        images=about.images,
        maps=[[each[index] for each in maps] for index in range(len(chosen))],
        columns=[f"{NAMES[method]} {scores[NAMES[method]]:.2f}" for method in methods],
        rows=about.captions(explainer.run.classes),
    )
