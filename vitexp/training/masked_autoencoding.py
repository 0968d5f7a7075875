"""Pretraining by a masked autoencoder: images alone, of which the net completes what is covered."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from vitexp.models.mae import MaskedAutoencoder
from vitexp.training.task import Batch, ImageTraining, seed_draws, to_unit_range

_GREY = 0.5  # of what is covered, in pictures
_MASKS = 1024  # of validation and test: image i has the mask i modulo this


class MaskedAutoencoding(ImageTraining):
    """Trains and measures a MaskedAutoencoder; the arguments are those of ImageTraining.

    At every training step each image gets a mask of its own. Those of validation and test are the same in every epoch,
    run and number of processes, so that their losses can be compared; all in all a thousand.
    """

    metrics = ("loss",)
    epoch_sums = ("loss_epoch",)
    net: MaskedAutoencoder

    def __init__(self, *, net: MaskedAutoencoder, **arguments: Any) -> None:
        super().__init__(net=net, **arguments)
        # no buffer, for averages of the weights would take in its numbers
        self._visible = net.draw_visible(_MASKS, generator=torch.Generator().manual_seed(0))

    def forward(self, images: Tensor) -> Tensor:
        """The loss of each, float32 [B], of uint8 images, [B, S, S, 3], with the first masks of validation."""
        return self._losses(self.prepared(images), self.fixed_visible(range(len(images))))

    def _losses(self, images: Tensor, visible: Tensor) -> Tensor:
        return cast(Tensor, self.net(images.contiguous(memory_format=torch.channels_last), visible))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        seed_draws(self.device, self.seed, self.current_epoch, batch_index, self.global_rank)
        images = self.normalize(self.augment(to_unit_range(batch[0])))
        visible = self.net.draw_visible(len(images), device=self.device)
        loss = self._losses(images, visible).mean()
        self.train_loss = loss.detach()
        count = torch.full_like(self.train_loss, len(images))
        self.train_sums += torch.stack([self.train_loss * count, count])
        return loss

    def _measure(self, batch: Batch) -> None:
        images = batch[0]
        filled = self._filled(images)
        # BatchSampler deals the images of each batch out to the processes one by one.
        before = sum(len(losses) for [losses] in self._measured)
        numbers = [self.trainer.world_size * (before + row) + self.global_rank for row in range(len(filled))]
        losses = self._losses(self.prepared(filled), self.fixed_visible(numbers))
        self._measured.append((losses[: len(images)],))

    def _log_measured(self, part: str) -> None:
        [losses] = self._all_measured()
        self.log(f"{part}/loss", losses.mean())

    @torch.no_grad()
    def reconstructed(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """uint8 images [B, S, S, 3] as they are cut into patches, as the encoder sees them, and as they are completed.

        Each float32 [B, 3, S', S'] in [0, 1], with the first masks of validation; what is covered is grey.
        """
        net, training = self.net, self.net.training
        net.eval()
        prepared, visible = self.prepared(images), self.fixed_visible(range(len(images)))
        completed = net.complete(prepared, visible)
        net.train(training)
        whole = self._in_unit_range(net.encoder.enlarged(prepared))
        covered = net.covered_pixels(visible).bool()
        return whole, torch.where(covered, _GREY, whole), self._in_unit_range(completed)

    def _in_unit_range(self, normalized: Tensor) -> Tensor:
        return (normalized * self.std + self.mean).clamp(0, 1)

    def fixed_visible(self, numbers: range | list[int]) -> Tensor:
        """The visible patches, int64 [B, V], of the images of these numbers in validation or test."""
        return self._visible[torch.as_tensor(numbers) % _MASKS].to(self.device)

    def weights(self) -> dict[str, Tensor]:
        """The encoder's, under the names of a ViT."""
        return self.net.encoder.state_dict()
