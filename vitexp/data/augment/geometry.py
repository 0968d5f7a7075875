"""Geometric augmentation: one affine map per image, and crops and flips by whole pixels."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitexp.data.augment.draws import chance, check_amount, check_prob, check_range, uniform

Padding = Literal["reflection", "border", "zeros"]


def inverse_affine(
    *, angle: Tensor, scale: Tensor, shear_x: Tensor, shear_y: Tensor, shift_x: Tensor, shift_y: Tensor
) -> Tensor:
    """Return the inverse, from output to input pixels, of "shear, scale, rotate about the center, then shift".

    All arguments are float [B]: angle in radians, clockwise; shear as the tangent of the angle; shift in pixels.
    Returns float [B, 2, 3], acting on (x, y, 1) in pixels from the center of the image.
    """
    cos, sin = scale * angle.cos(), scale * angle.sin()
    a, b = cos - sin * shear_y, cos * shear_x - sin
    c, d = sin + cos * shear_y, sin * shear_x + cos
    inverse = torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / (a * d - b * c).view(-1, 1, 1)
    # Elementwise, not a matrix product, to be exact in float32 on every device, even with TF32.
    offset = -(inverse * torch.stack([shift_x, shift_y], dim=1)[:, None, :]).sum(2)
    return torch.cat([inverse, offset[:, :, None]], dim=2)


def warp(
    images: Tensor, inverse: Tensor, *, padding: Padding, interpolation: Literal["bilinear", "nearest"] = "bilinear"
) -> Tensor:
    """Apply one affine map per image with one interpolation: images float [B, C, H, W], inverse [B, 2, 3]."""
    height, width = images.shape[-2:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    # Ten times faster on a CPU than F.affine_grid, which multiplies matrices.
    x_part, y_part, offset = inverse[:, :, :, None, None].unbind(2)  # each (B, 2, 1, 1)
    source_x, source_y = (x_part * x + y_part * y[:, None] + offset).unbind(1)  # each (B, H, W)
    grid = torch.stack([source_x * (2 / width), source_y * (2 / height)], dim=3)
    return F.grid_sample(images, grid, mode=interpolation, padding_mode=padding, align_corners=False)


class RandomAffine(nn.Module):
    """Rotation, scale, shear and translation per image, in one interpolation.

    rotation: degrees; the angle is drawn from [-rotation, rotation].
    translation: fraction of the side, along x and y.
    scale: range of the factor; above 1 is larger.
    shear: degrees, along x and y.
    padding: what fills the area outside the image.
    """

    def __init__(
        self,
        *,
        rotation: float = 0.0,
        translation: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        padding: Padding = "reflection",
    ) -> None:
        super().__init__()
        check_amount(rotation=rotation, translation=translation, shear=shear)
        check_range(scale=scale)
        if shear >= 45:
            raise ValueError(f"shear={shear} must be below 45 degrees, where the image collapses to a line")
        if padding not in get_args(Padding):
            raise ValueError(f"padding={padding!r} must be one of {', '.join(get_args(Padding))}")
        self.rotation, self.translation, self.shear = math.radians(rotation), translation, math.radians(shear)
        self.scale_low, self.scale_high = scale
        self.padding = padding

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        inverse = inverse_affine(
            angle=uniform(images, -self.rotation, self.rotation),
            scale=uniform(images, self.scale_low, self.scale_high),
            shear_x=uniform(images, -self.shear, self.shear).tan(),
            shear_y=uniform(images, -self.shear, self.shear).tan(),
            shift_x=uniform(images, -self.translation, self.translation) * width,
            shift_y=uniform(images, -self.translation, self.translation) * height,
        )
        return warp(images, inverse, padding=self.padding)


class RandomCropFlip(nn.Module):
    """A crop of the original size from the padded image, and a horizontal flip, in one gather.

    crop_padding: largest shift of the crop along x and y, in whole pixels.
    crop_border: what fills the area outside the image; "reflect" mirrors the image without repeating the edge.
    flip_prob: probability of the flip.
    """

    def __init__(
        self, *, crop_padding: int = 0, crop_border: Literal["reflect", "zeros"] = "reflect", flip_prob: float = 0.0
    ) -> None:
        super().__init__()
        check_amount(crop_padding=crop_padding)
        check_prob(flip_prob=flip_prob)
        if crop_border not in ("reflect", "zeros"):
            raise ValueError(f"crop_border={crop_border!r} must be reflect or zeros")
        self.crop_padding, self.crop_border, self.flip_prob = crop_padding, crop_border, flip_prob

    def forward(self, images: Tensor) -> Tensor:
        batch, channels, height, width = images.shape
        row = torch.arange(height, device=images.device) + self._shift(images)  # (B, H)
        column = torch.arange(width, device=images.device) + self._shift(images)  # (B, W)
        column = torch.where(chance(images, self.flip_prob)[:, None], column.flip(1), column)
        source = (_reflect(row, height)[:, :, None] * width + _reflect(column, width)[:, None, :]).view(batch, 1, -1)
        cropped = images.flatten(2).gather(2, source.expand(-1, channels, -1)).view_as(images)
        if self.crop_border == "zeros":
            inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
            cropped = cropped * inside[:, None]
        return cropped

    def _shift(self, images: Tensor) -> Tensor:
        return torch.randint(-self.crop_padding, self.crop_padding + 1, (len(images), 1), device=images.device)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Mirror out-of-range indices into [0, size); clamp those more than size - 1 outside."""
    return ((size - 1) - ((size - 1) - index.abs()).abs()).clamp(min=0)
