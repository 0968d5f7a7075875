"""The masked autoencoding task: a ViT learns from images alone, by completing their covered parts (He et al. 2022)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from vitexp.models.mae import MaskedAutoencoder
from vitexp.models.vit import ViT
from vitexp.options import Doc, Field, Fraction
from vitexp.training.task import Task

_GRAY = 0.5  # of covered pixels in pictures
_MASKS = 1024  # for validation and test: image i has mask i modulo this


class MaskedAutoencoding(Task):
    """A ViT as the encoder of a masked autoencoder; the decoder is discarded after training.

    In training each image gets a mask of its own at every step. The masks of validation and test are the same for every
    epoch, run and number of processes, so that losses can be compared.

    Args:
        net: the encoder. parts: see Task.

    Raises ValueError for a net that is not a ViT, and for sizes that do not fit together.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss",)
    monitor: ClassVar[str] = "val/loss"
    uses_labels: ClassVar[bool] = False
    has_reconstructions: ClassVar[bool] = True

    net: MaskedAutoencoder

    def __init__(
        self,
        *,
        net: ViT,
        mask_ratio: Annotated[Fraction, Doc("fraction of the patches that are covered")] = 0.75,
        decoder_dim: Annotated[int, Field(ge=4, le=8192, multiple_of=4), Doc("channels of the decoder")] = 96,
        decoder_depth: Annotated[int, Field(ge=1, le=100), Doc("blocks of the decoder")] = 2,
        decoder_heads: Annotated[int, Field(ge=1, le=8192), Doc("attention heads of the decoder")] = 3,
        normalize_targets: Annotated[
            bool, Doc("predict each patch with its own mean and standard deviation removed (He et al. 2022, table 1d)")
        ] = True,
        **parts: Any,
    ) -> None:
        if not isinstance(net, ViT):
            raise ValueError(f"it needs patches, but {type(net).__name__} has none; use a Vision Transformer.")
        autoencoder = MaskedAutoencoder(
            encoder=net,
            mask_ratio=mask_ratio,
            decoder_dim=decoder_dim,
            decoder_depth=decoder_depth,
            decoder_heads=decoder_heads,
            normalize_targets=normalize_targets,
        )
        super().__init__(net=autoencoder, **parts)
        self.mask_ratio, self.decoder_depth, self.decoder_dim = mask_ratio, decoder_depth, decoder_dim
        # Not a buffer, because weight averaging would average its indices.
        self._visible = autoencoder.draw_visible(_MASKS, generator=torch.Generator().manual_seed(0))

    def describe(self) -> str:
        decoder = f"decoder of {self.decoder_depth} x {self.decoder_dim} channels"
        return f"masked autoencoder: {self.mask_ratio:.0%} of each image is covered, {decoder}"

    def forward(self, images: Tensor) -> Tensor:
        """Return the losses, float32 [B], of uint8 images [B, S, S, 3] with the first masks of validation."""
        return self.apply_net(self.prepared(images), self.fixed_visible(range(len(images))))

    def learn(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        return (self.apply_net(images, self.net.draw_visible(len(images), device=self.device)).mean(),)

    def measure(self, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        # BatchSampler deals the images of each batch out to the processes in turn.
        before = sum(len(losses) for [losses] in self._measured)
        numbers = [self.trainer.world_size * (before + row) + self.global_rank for row in range(len(images))]
        return (self.apply_net(images, self.fixed_visible(numbers)),)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return uint8 images [B, S, S, 3] as they are cut into patches, as the encoder sees them, and as completed.

        Each is float32 [B, 3, S', S'] in [0, 1], with the first masks of validation; covered pixels are gray.
        """
        net, training = self.net, self.net.training
        net.eval()
        prepared, visible = self.prepared(images), self.fixed_visible(range(len(images)))
        completed = net.complete(prepared, visible)
        net.train(training)
        whole = self._in_unit_range(net.encoder.enlarged(prepared))
        covered = net.covered_pixels(visible).bool()
        return whole, torch.where(covered, _GRAY, whole), self._in_unit_range(completed)

    def _in_unit_range(self, normalized: Tensor) -> Tensor:
        return (normalized * self.std + self.mean).clamp(0, 1)

    def fixed_visible(self, numbers: range | list[int]) -> Tensor:
        """Return the visible patches, int64 [B, V], of images by their numbers in validation or test."""
        # Otherwise the copy would wait until the device has finished its work.
        return self._visible[torch.as_tensor(numbers) % _MASKS].to(self.device, non_blocking=True)

    @property
    def model(self) -> ViT:
        """The encoder."""
        return self.net.encoder
