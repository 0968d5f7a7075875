"""What all figures of a run have in common: when they are drawn, and where they go."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.data.datamodule import ImageDataModule
from vitexp.data.prepare import Prepared
from vitexp.system.disk import tolerating
from vitexp.training.classification import Classifier
from vitexp.training.loggers import log_figure


class FigureCallback(Callback):
    """Draws one figure into `figures/<key>.png` of the run folder and hands it to the loggers under `<key>`.

    every_n_epochs: how often it is drawn during training, after validation; 0 is only at the end. The file is replaced
    each time, so that it ends with the figure of the test.
    """

    key: str
    needs: ClassVar[tuple[str, ...]] = ()  # facts `has_...` of the model or task without which there is nothing to draw

    def __init__(self, *, every_n_epochs: int = 0) -> None:
        self.every_n_epochs = every_n_epochs

    @abstractmethod
    def draw(self, trainer: Trainer, module: Any, images: Prepared) -> Figure | None:
        """The figure, or None where it does not apply. `images` are those that `module` has just measured.

        module: an Task, of the kind that has such a figure.
        """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        in_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if in_training and self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module, data_of(trainer).val)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, data_of(trainer).test)

    def _draw(self, trainer: Trainer, module: LightningModule, images: Prepared) -> bool:
        """Whether there is a new picture."""
        figure = self.draw(trainer, module, images) if trainer.is_global_zero else None
        return figure is not None and publish(trainer, key=self.key, figure=figure)


def publish(trainer: Trainer, *, key: str, figure: Figure) -> bool:
    """Write `figures/<key>.png` and hand it to the loggers; whether the disk took it."""
    path = Path(trainer.default_root_dir) / "figures" / f"{key}.png"
    with tolerating(f"figures/{path.name}"):
        _save(figure, path)
        log_figure(trainer.loggers, key=key, path=path, step=trainer.global_step)
        return True
    return False


def _save(figure: Figure, path: Path) -> None:
    """As PNG, under a temporary name first: where the disk is full, the picture of before stays."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    try:
        figure.savefig(unfinished, format="png")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def data_of(trainer: Trainer) -> ImageDataModule:
    return cast(ImageDataModule, trainer.datamodule)  # type: ignore[attr-defined]


def predictions_of(module: Classifier) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Predicted and true labels, int64 [N], and the confidence in the prediction, float32 [N]."""
    probabilities, labels = module.predictions
    confidence, predicted = probabilities.max(dim=1)
    return predicted.cpu().numpy(), labels.cpu().numpy(), confidence.cpu().numpy()
