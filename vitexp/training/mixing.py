"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), one draw per batch, on the training device."""

from __future__ import annotations

import torch
from torch import Tensor


class Mixing:
    """A blend of each image with a partner from the same batch, and of their targets in the same proportion.

    mixup_alpha, cutmix_alpha: the share of an image that remains is drawn from Beta(alpha, alpha); 0 turns it off.
    mix_prob: fraction of batches that are mixed. mix_switch_prob: fraction of these that use CutMix, if both are on.
    mix_until: fraction of training, in (0, 1], after which nothing is mixed.
    """

    def __init__(
        self,
        *,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        mix_prob: float = 1.0,
        mix_switch_prob: float = 0.5,
        mix_until: float = 1.0,
    ) -> None:
        self.mixup_alpha, self.cutmix_alpha = mixup_alpha, cutmix_alpha
        self.mix_prob, self.mix_switch_prob, self.mix_until = mix_prob, mix_switch_prob, mix_until

    def __call__(self, images: Tensor, targets: Tensor, *, progress: float) -> tuple[Tensor, Tensor]:
        """Return mixed images and targets.

        images: float [B, C, H, W]; targets: float [B, num_classes], rows sum to 1; progress: fraction of training
        that is done, in [0, 1]. Partners are drawn on the device, and the numbers that all images share on the CPU, so
        that nothing waits for the device.
        """
        on = self.mixup_alpha > 0 or self.cutmix_alpha > 0
        if not on or progress >= self.mix_until or torch.rand(()).item() >= self.mix_prob:
            return images, targets
        both = self.mixup_alpha > 0 and self.cutmix_alpha > 0
        cut = torch.rand(()).item() < self.mix_switch_prob if both else self.cutmix_alpha > 0
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        partner = torch.randperm(len(images), device=images.device)
        if cut:
            images, share = cutmix(images, partner, share)
        else:
            images = mixup(images, partner, share)
        return images, share * targets + (1.0 - share) * targets[partner]


def mixup(images: Tensor, partner: Tensor, share: float) -> Tensor:
    """Return share * image + (1 - share) * partner. images: float [B, C, H, W]; partner: int64 [B]."""
    return share * images + (1.0 - share) * images[partner]


def cutmix(images: Tensor, partner: Tensor, share: float) -> tuple[Tensor, float]:
    """Replace a rectangle of about 1 - share of the area, at a random place, with the partner's.

    images: float [B, C, H, W]; partner: int64 [B]. Returns the images and the share that actually remained, because
    the rectangle is clipped at the border and rounded to whole pixels.
    """
    height, width = images.shape[-2:]
    side = (1.0 - share) ** 0.5
    half_h, half_w = int(height * side) // 2, int(width * side) // 2
    y, x = (int(torch.randint(size, ()).item()) for size in (height, width))
    top, bottom = max(y - half_h, 0), min(y + half_h, height)
    left, right = max(x - half_w, 0), min(x + half_w, width)
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return mixed, 1.0 - (bottom - top) * (right - left) / (height * width)
