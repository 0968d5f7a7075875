"""Photometric augmentation: brightness, contrast and saturation in one pass, blur, and random erasing.

Each module maps float32 [B, C, H, W] in [0, 1] to the same, with random parameters per image. Constructors raise
ValueError for values out of range.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitexp.data.augment.draws import chance, check_amount, check_prob, check_range, uniform

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue for gray (ITU-R BT.601), as in Pillow and torchvision."""


def gray(images: Tensor) -> Tensor:
    """Return the brightness of each pixel: float [B, 3, H, W] -> float [B, 1, H, W]."""
    red, green, blue = images.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


class RandomColor(nn.Module):
    """Brightness, then contrast, then saturation of RGB images, each by a factor from [1 - amount, 1 + amount].

    Contrast blends with the mean brightness of the image, saturation with the gray image, as in torchvision. All three
    are linear, so they take one pass, and the result is clamped to [0, 1] once.
    """

    def __init__(self, *, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0) -> None:
        super().__init__()
        check_amount(brightness=brightness, contrast=contrast, saturation=saturation)
        for name, amount in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if amount > 1:
                raise ValueError(f"{name}={amount} must be at most 1; a negative factor would invert the image")
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def forward(self, images: Tensor) -> Tensor:
        brightness, contrast, saturation = (
            uniform(images, 1 - amount, 1 + amount).view(-1, 1, 1, 1)
            for amount in (self.brightness, self.contrast, self.saturation)
        )
        gray_images = gray(images)
        gain = brightness * contrast
        offset = (1 - contrast) * brightness * gray_images.mean((2, 3), keepdim=True)
        return (gain * saturation * images + (gain * (1 - saturation) * gray_images + offset)).clamp(0, 1)


class RandomBlur(nn.Module):
    """Gaussian blur of random images.

    prob: probability that an image is blurred.
    sigma: range of the standard deviation in pixels; the kernel radius is twice the largest, rounded up, and must be
    smaller than the sides of the images.
    """

    def __init__(self, *, prob: float = 0.0, sigma: tuple[float, float] = (0.5, 1.0)) -> None:
        super().__init__()
        check_prob(blur_prob=prob)
        check_range(blur_sigma=sigma)
        self.prob = prob
        self.sigma_low, self.sigma_high = sigma
        self.radius = math.ceil(2 * self.sigma_high)

    def forward(self, images: Tensor) -> Tensor:
        batch, channels = images.shape[:2]
        sigma = uniform(images, self.sigma_low, self.sigma_high)
        distance = torch.arange(-self.radius, self.radius + 1, device=images.device)
        kernel = (-0.5 * (distance / sigma[:, None]).square()).softmax(dim=1)  # (B, K)
        # Each channel of each image is a group with its own kernel: two convolutions for the whole batch.
        kernel = kernel.repeat_interleave(channels, dim=0)
        padded = F.pad(images, [self.radius] * 4, mode="reflect").flatten(0, 1)
        blurred = F.conv2d(padded, kernel[:, None, None, :], groups=batch * channels)
        blurred = F.conv2d(blurred, kernel[:, None, :, None], groups=batch * channels).view_as(images)
        # Rounding may make the sum of a kernel exceed 1, and white must not exceed 1.
        return torch.where(chance(images, self.prob).view(-1, 1, 1, 1), blurred.clamp(0, 1), images)


class RandomErasing(nn.Module):
    """A box of a random color over random images (Random Erasing, Zhong et al. 2017, arXiv 1708.04896).

    prob: probability that an image gets a box.
    area: range of the area as a fraction of the image.
    aspect: range of height over width, drawn on a logarithmic scale: 1/2 and 2 are equally likely.

    The box is always inside the image; one that is too long is shortened to the side of the image.
    """

    def __init__(
        self, *, prob: float = 0.0, area: tuple[float, float] = (0.02, 0.2), aspect: tuple[float, float] = (0.3, 3.3)
    ) -> None:
        super().__init__()
        check_prob(erase_prob=prob)
        check_range(erase_area=area, erase_aspect=aspect)
        if area[1] > 1:
            raise ValueError(f"erase_area={list(area)} must be fractions of the image, at most 1")
        self.prob, self.area = prob, area
        self.log_aspect = (math.log(aspect[0]), math.log(aspect[1]))

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        area = uniform(images, *self.area) * (height * width)
        stretch = uniform(images, *self.log_aspect).exp().sqrt()
        in_rows = _inside(images, area.sqrt() * stretch, height)
        in_columns = _inside(images, area.sqrt() / stretch, width)
        box = in_rows[:, None, :, None] & in_columns[:, None, None, :] & chance(images, self.prob).view(-1, 1, 1, 1)
        color = torch.rand(len(images), images.shape[1], 1, 1, device=images.device)
        return torch.where(box, color, images)


def _inside(images: Tensor, length: Tensor, side: int) -> Tensor:
    """Place an interval of `length` pixels (float [B]) at random in `side` pixels: bool [B, side]."""
    length = length.round().clamp(1, side)
    start = (uniform(images, 0, 1) * (side - length + 1)).floor()
    pixel = torch.arange(side, device=images.device)
    return (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
