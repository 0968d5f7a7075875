"""The base class of callbacks that draw figures: when they draw, and where the figures go."""

from __future__ import annotations

import io
import logging
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vitexp.data.prepare import Prepared
from vitexp.errors import reason
from vitexp.options import Doc, Field
from vitexp.system.disk import tolerating, write_atomically
from vitexp.training.callbacks.progress import EpochProgress
from vitexp.training.classification import Classifier
from vitexp.training.loggers import log_figure
from vitexp.training.task import data_of

log = logging.getLogger(__name__)

EveryNEpochs = Annotated[
    int, Field(ge=0, le=10**6), Doc("also draw at this interval in epochs, from validation images; 0: only at the end")
]


class FigureCallback(Callback):
    """A callback that draws `figures/<key>.png` in the run folder and passes them to the loggers as `figures/<key>`.

    Figures are drawn from test images at the end of a run, and from validation images every `every_n_epochs` during
    training; the file is replaced each time.

    A subclass implements `draw` and states two facts, which are read without importing the class:
        figures: title and caption in the report by the key of the figure, in the order of the report.
        needs: what drawing requires; each is a fact has_<need> of the task or the model.
    """

    figures: ClassVar[dict[str, tuple[str, str]]]
    needs: ClassVar[tuple[str, ...]] = ()
    can_change_result: ClassVar[bool] = False

    def __init__(self, *, every_n_epochs: EveryNEpochs = 0) -> None:
        self.every_n_epochs = every_n_epochs

    @abstractmethod
    def draw(self, trainer: Trainer, module: Any, images: Prepared) -> Iterator[Figure]:
        """Yield the figures in the order of `figures`, or fewer if they do not apply.

        module: the task, which has just measured `images`.
        """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        in_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if in_training and self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.publish(trainer, pl_module, data_of(trainer).val)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        drawn = [each for each in callbacks if isinstance(each, FigureCallback) and each.is_drawn_at_end(pl_module)]
        if self not in drawn:
            return
        for each in callbacks:
            if isinstance(each, EpochProgress):
                each.drawing(trainer, drawn.index(self) + 1, len(drawn))
        self.publish(trainer, pl_module, data_of(trainer).test)

    def is_drawn_at_end(self, module: Any) -> bool:
        """Return whether there is a figure at the end of a run of the task `module`."""
        return self.applies(module)

    def applies(self, module: Any) -> bool:
        """Return whether the task `module` and its model have everything the figures need."""
        return all(any(getattr(each, f"has_{need}", False) for each in (module, module.model)) for need in self.needs)

    def publish(self, trainer: Trainer, module: LightningModule, images: Prepared) -> bool:
        """Draw, write and log the figures; return whether every figure drawn was written.

        A figure that cannot be drawn, whatever the reason, is skipped with a warning.
        """
        written = True
        if trainer.is_global_zero and self.applies(module):
            modes = {part: part.training for part in module.modules()}
            try:
                for key, figure in zip(self.figures, self.draw(trainer, module, images), strict=False):
                    written &= _publish(trainer, key=key, figure=figure)
            except Exception as error:
                log.warning(
                    "cannot draw figures/%s.png (%s); the run continues", next(iter(self.figures)), reason(error)
                )
                log.debug("%s failed", type(self).__name__, exc_info=error)
                for part, mode in modes.items():
                    part.training = mode
        return written


def _publish(trainer: Trainer, *, key: str, figure: Figure) -> bool:
    path = Path(trainer.default_root_dir) / "figures" / f"{key}.png"
    with tolerating(f"figures/{path.name}"):
        path.parent.mkdir(exist_ok=True)
        png = io.BytesIO()
        figure.savefig(png, format="png")
        write_atomically(path, png.getvalue())
        log_figure(trainer.loggers, key=f"figures/{key}", path=path, step=trainer.global_step)
        return True
    return False


def predictions_of(module: Classifier) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return predicted and true labels, int64 [N], and the probability of the prediction, float32 [N]."""
    probabilities, labels = module.predictions
    confidence, predicted = probabilities.max(dim=1)
    return predicted.cpu().numpy(), labels.cpu().numpy(), confidence.cpu().numpy()
