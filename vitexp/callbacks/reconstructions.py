"""What a masked autoencoder makes of images of which it sees a part."""

from __future__ import annotations

import numpy as np
import torch
from lightning import Trainer
from matplotlib.figure import Figure

from vitexp.callbacks.figure_callback import FigureCallback, data_of
from vitexp.data.prepare import Prepared
from vitexp.explain import figures
from vitexp.training.masked_autoencoder import MaskedAutoencoding


class Reconstructions(FigureCallback):
    """The first validation images, what the encoder sees of them, and what is drawn; the same ones every time."""

    key = "reconstructions"

    def __init__(self, *, every_n_epochs: int = 0, images: int = 8) -> None:
        super().__init__(every_n_epochs=every_n_epochs)
        self.images = images

    def draw(self, trainer: Trainer, module: MaskedAutoencoding, images: Prepared) -> Figure:
        val = data_of(trainer).val
        chosen = np.arange(min(self.images, len(val.labels)))
        with trainer.precision_plugin.forward_context():
            drawn = module.reconstructed(torch.from_numpy(val.images(chosen)).to(module.device))
        original, seen, completed = (each.permute(0, 2, 3, 1).cpu().numpy() for each in drawn)
        return figures.reconstructions(
            images=original,
            seen=seen,
            completed=completed,
            visible=module.net.visible,
            patches=module.net.patches,
        )
