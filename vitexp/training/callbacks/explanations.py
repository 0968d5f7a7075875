"""Explanations of test images at the end of a run; `vitexp explain` shows more."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Annotated, ClassVar

import numpy as np
import torch
from lightning import Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.data.prepare import Prepared
from vitexp.explain import figures
from vitexp.explain.drawing import draw_embedding, embed, scored, shown
from vitexp.explain.explainer import NAMES, Explainer
from vitexp.explain.pick import mixed
from vitexp.explain.ranking import Faithfulness, measure_faithfulness
from vitexp.models.trained_net import TrainedNet
from vitexp.options import Doc, Field
from vitexp.training.callbacks.figure_callback import FigureCallback, predictions_of
from vitexp.training.classification import Classifier
from vitexp.training.task import Task, data_of

log = logging.getLogger(__name__)

_STEPS = 8  # of a curve: half as many as `vitexp explain` takes, in half the time
_STARS = 3  # images in the map; more would hide it


class Explanations(FigureCallback):
    """Explanations of test images, the most faithful for this net first, and the curves that rank them."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {
        "explanations": (
            "Explanations",
            "Which parts of an image support the model's prediction, whether correct (✓) or wrong (✗): bright "
            "colors mark the most important parts, each map on its own scale. The number above a column says how "
            "faithful that explanation is to this model, on average over more images (see below); the best is on the "
            "left. Attention and rollout do not depend on the class.",
        ),
        "faithfulness": (
            "Which explanation to trust",
            "Deletion covers an image with its mean color, the most important parts first: if the explanation is "
            "right, the probability falls early. Insertion reveals a blurred image, which is why it starts higher than "
            "deletion ends. The numbers are areas under the curves; insertion minus deletion is the number above the "
            "columns of the explanations. ± and bands are 95% intervals; “not clearly better than random order” comes "
            "from the differences image by image, which tell more than two intervals. Occlusion covers parts itself, "
            "as this measure does, which favors it.",
        ),
    }
    needs: ClassVar[tuple[str, ...]] = ("predictions",)

    def __init__(
        self,
        *,
        images: Annotated[
            int, Field(ge=1, le=200), Doc("number of images, two in five misclassified if there are enough")
        ] = 5,
        measured: Annotated[
            int, Field(ge=1, le=10**6), Doc("maximum number of images on which faithfulness is measured")
        ] = 32,
    ) -> None:
        super().__init__()
        self.images, self.measured = images, measured

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Iterator[Figure]:
        drawn: list[Figure] = []
        with as_in_the_test(trainer):
            explainer = explainer_of(trainer, module)
            predicted, truth, _ = predictions_of(module)
            order = np.random.default_rng(0).permutation(len(truth))
            measured = measure_faithfulness(explainer, images.images(order[: self.measured]), steps=_STEPS)
            hit = (predicted == truth)[order]
            chosen = mixed(order, hit, count=self.images) if hit.any() else order[: self.images]
            drawn.append(_side_by_side(explainer, images, chosen, measured))
            drawn.append(figures.faithfulness_curves(deletion=measured.deletion, insertion=measured.insertion))
        yield from drawn


class EmbeddingMap(FigureCallback):
    """A 2D map of training images, as the classifier receives them, with a few test images among them."""

    figures: ClassVar[dict[str, tuple[str, str]]] = {
        "embedding": (
            "What looks alike to the model",
            "Each point is a training image as the classifier receives it, projected onto the two directions of "
            "largest variance (PCA); the axes say how much of the variance they show. Classes that are apart here are "
            "easily told apart; classes that overlap may still be apart in other directions. Stars are test images, "
            "mistakes first (✗), shown below with their nearest training images. Colors and numbers are true classes. "
            "The model separates training images better than test images.",
        )
    }
    needs: ClassVar[tuple[str, ...]] = ("predictions",)

    def __init__(
        self,
        *,
        training: Annotated[int, Field(ge=3, le=10**6), Doc("number of training images, a fixed random sample")] = 1000,
    ) -> None:
        super().__init__()
        self.training = training

    def draw(self, trainer: Trainer, module: Classifier, images: Prepared) -> Iterator[Figure]:
        drawn: list[Figure] = []
        with as_in_the_test(trainer):
            explainer = explainer_of(trainer, module)
            predicted, truth, _ = predictions_of(module)
            order = np.random.default_rng(0).permutation(len(truth))
            stars = order[np.argsort((predicted == truth)[order], kind="stable")][:_STARS]
            about = shown(explainer, images.images(stars), truth[stars].tolist())
            among = embed(explainer, data_of(trainer).train, sample=self.training)
            drawn.append(draw_embedding(explainer, about, among))
        yield from drawn


def explainer_of(trainer: Trainer, module: Task) -> Explainer[TrainedNet]:
    """Build an explainer of a copy of the model, which is not compiled for one batch size and may get hooks."""
    data = data_of(trainer)
    return Explainer(
        TrainedNet(
            net=deepcopy(module.model).eval(),
            classes=data.classes,
            image_size=data.image_size,
            mean=torch.from_numpy(data.mean),
            std=torch.from_numpy(data.std),
        )
    )


@contextmanager
def as_in_the_test(trainer: Trainer) -> Iterator[None]:
    """Compute in the precision of the test, but with gradients, which a test disables."""
    with torch.inference_mode(False), torch.enable_grad(), trainer.precision_plugin.forward_context():
        yield


def _side_by_side(
    explainer: Explainer[TrainedNet], test: Prepared, chosen: NDArray[np.int64], measured: Faithfulness
) -> Figure:
    """Draw one row per image and one column per explanation, with its score."""
    about = shown(explainer, test.images(chosen), test.labels[chosen].tolist())
    scores = measured.scores
    methods = sorted(explainer.methods, key=lambda method: -scores[NAMES[method]])
    maps = [np.maximum(explainer.maps(method, about.images, about.explained), 0) for method in methods]
    return figures.map_grid(
        title="Explanations, the most faithful first",
        images=about.images,
        maps=[[each[index] for each in maps] for index in range(len(chosen))],
        columns=[scored(NAMES[method], measured) for method in methods],
        rows=about.captions(explainer.run.classes),
        note=measured.order,
    )
