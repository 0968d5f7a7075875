"""A table of test images in Weights & Biases: mistakes first, each with the map that explains its prediction."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from vitexp.errors import reason
from vitexp.explain.explainer import NAMES
from vitexp.explain.figures.style import overlaid
from vitexp.training.background_wandb import BackgroundWandbLogger
from vitexp.training.callbacks.explanations import as_in_the_test, explainer_of
from vitexp.training.callbacks.figure_callback import predictions_of
from vitexp.training.classification import Classifier
from vitexp.training.faults import is_on, turning_off
from vitexp.training.task import data_of

log = logging.getLogger(__name__)

_ROWS = 64
_METHODS = ("relevance", "grad_cam")  # take one backward pass; the first that applies. Occlusion takes hundreds


class WandbTestImages(Callback):
    """A callback that logs the table `test_images` after the figures: a random sample, mistakes first."""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [each for each in trainer.loggers if isinstance(each, BackgroundWandbLogger) and is_on(each)]
        if not (loggers and trainer.is_global_zero and isinstance(pl_module, Classifier)):
            return
        with turning_off(loggers[0]):
            classes, test = data_of(trainer).classes, data_of(trainer).test
            predicted, truth, confidence = predictions_of(pl_module)
            order = np.random.default_rng(0).permutation(len(truth))
            chosen = order[np.argsort((predicted == truth)[order], kind="stable")][:_ROWS]
            images = test.images(chosen)
            columns = {
                "image": list(images),
                "truth": [classes[label] for label in truth[chosen]],
                "prediction": [classes[label] for label in predicted[chosen]],
                "confidence": confidence[chosen].tolist(),
                **_explained(trainer, pl_module, images, predicted[chosen]),
            }
            for logger in loggers:
                logger.log_extra("the table of test images", lambda run: run.log({"test_images": _table(columns)}))


def _explained(
    trainer: Trainer, module: Classifier, images: NDArray[np.uint8], predicted: NDArray[np.int64]
) -> dict[str, list[Any]]:
    """Return a column of maps over their images, under the name of the method; none if no method applies."""
    try:
        with as_in_the_test(trainer):
            explainer = explainer_of(trainer, module)
            method = next((each for each in _METHODS if each in explainer.methods), None)
            if method is None:
                return {}
            maps = explainer.maps(method, images, predicted.tolist())
    except Exception as error:  # the net may be of a user's class, and the device may be out of memory
        log.warning("cannot explain test images for W&B (%s); the run continues", reason(error))
        return {}
    return {NAMES[method]: [overlaid(each, image) for each, image in zip(maps, images, strict=True)]}


def _table(columns: dict[str, list[Any]]) -> Any:
    import wandb

    cells = [
        [wandb.Image(each) if isinstance(each, np.ndarray) else each for each in column] for column in columns.values()
    ]
    return wandb.Table(columns=list(columns), data=list(map(list, zip(*cells, strict=True))))
