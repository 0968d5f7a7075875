"""The operations of AutoAugment and its successors on a whole batch, with a different operation per image.

Fifteen operations take three passes: one affine map for those that move pixels, one blend for those that mix the image
with a plainer one, and one table of 256 entries per channel for those that only change pixel values. Each pass runs
over the whole batch and leaves the images of the other passes unchanged, so that the host never waits for the device.
"""

from __future__ import annotations

from enum import IntEnum

import torch
import torch.nn.functional as F
from torch import Tensor

from vitexp.data.augment.geometry import inverse_affine, warp
from vitexp.data.augment.photometry import gray


class Operation(IntEnum):
    """An operation, with the unit of its magnitude; names as in AutoAugment (arXiv 1805.09501)."""

    IDENTITY = 0
    SHEAR_X = 1  # pixels to the left per pixel below the upper edge
    SHEAR_Y = 2  # pixels up per pixel right of the left edge
    TRANSLATE_X = 3  # fraction of the width, to the right
    TRANSLATE_Y = 4  # fraction of the height, down
    ROTATE = 5  # degrees, counter-clockwise
    BRIGHTNESS = 6  # factor; 0 is black
    COLOR = 7  # factor; 0 is gray
    CONTRAST = 8  # factor; 0 is the mean brightness everywhere
    SHARPNESS = 9  # factor; 0 is smoothed, above 1 sharper
    POSTERIZE = 10  # bits kept, rounded to a whole number
    SOLARIZE = 11  # threshold in [0, 1]; pixels at or above it are inverted
    AUTOCONTRAST = 12  # none: each channel is stretched to [0, 1]
    EQUALIZE = 13  # none: the histogram of each channel is equalized
    INVERT = 14  # none


def apply_operations(images: Tensor, operation: Tensor, magnitude: Tensor, *, fill: float = 0.5) -> Tensor:
    """Apply one operation per image.

    images: float32 [B, 3, H, W] in [0, 1].
    operation: int64 [B] of Operation.
    magnitude: float32 [B], in the unit of the operation.
    fill: value outside the image.

    Returns float32 [B, 3, H, W] in [0, 1]. Operations that use tables work on 256 levels, as the published policies
    do, and round their images to these levels.
    """
    images = _move(images, operation, magnitude, fill)
    images = _blend(images, operation, magnitude)
    return _look_up(images, operation, magnitude)


def _per_image(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _move(images: Tensor, operation: Tensor, magnitude: Tensor, fill: float) -> Tensor:
    height, width = images.shape[-2:]

    def amount(kind: Operation) -> Tensor:
        return torch.where(operation == kind, magnitude, 0.0)

    shear_x, shear_y = amount(Operation.SHEAR_X), amount(Operation.SHEAR_Y)
    inverse = inverse_affine(
        angle=-amount(Operation.ROTATE).deg2rad(),
        scale=torch.ones_like(magnitude),
        shear_x=-shear_x,
        shear_y=-shear_y,
        # The published shear fixes the upper left corner, not the center.
        shift_x=amount(Operation.TRANSLATE_X) * width - shear_x * height / 2,
        shift_y=amount(Operation.TRANSLATE_Y) * height - shear_y * width / 2,
    )
    moved = warp(images - fill, inverse, padding="zeros", interpolation="nearest") + fill
    moves = (operation >= Operation.SHEAR_X) & (operation <= Operation.ROTATE)
    # Subtracting and adding the fill rounds, and the result must stay in [0, 1].
    return torch.where(_per_image(moves), moved.clamp(0, 1), images)


def _blend(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    kind = _per_image(operation)
    gray_images = gray(images)
    plain = torch.where(kind == Operation.COLOR, gray_images, 0.0)
    plain = torch.where(kind == Operation.CONTRAST, gray_images.mean((2, 3), keepdim=True), plain)
    plain = torch.where(kind == Operation.SHARPNESS, _smooth(images), plain)
    blends = (kind >= Operation.BRIGHTNESS) & (kind <= Operation.SHARPNESS)
    return torch.lerp(plain, images, torch.where(blends, _per_image(magnitude), 1.0)).clamp(0, 1)


def _smooth(images: Tensor) -> Tensor:
    """Apply Pillow's SMOOTH filter: the mean of 3 x 3 pixels with weight 5 for the center; edges are unchanged."""
    if min(images.shape[-2:]) < 3:  # only edges
        return images
    kernel = torch.full((1, 1, 3, 3), 1 / 13, device=images.device)
    kernel[:, :, 1, 1] = 5 / 13
    channels = images.flatten(0, 1)
    # One group per channel of the batch: on a CPU three times as fast as three groups.
    inner = F.conv2d(channels, kernel.expand(len(channels), -1, -1, -1), groups=len(channels))
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = inner.view(*images.shape[:2], *inner.shape[1:])
    return smooth


def _look_up(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    kind, amount = operation.view(-1, 1, 1), magnitude.view(-1, 1, 1)
    pixels = (images * 255).round().long().flatten(2)  # (B, 3, H * W)
    level = torch.arange(256, device=images.device, dtype=images.dtype)

    step = torch.exp2(8 - torch.where(kind == Operation.POSTERIZE, amount.round(), 8.0))
    table = (level / step).floor() * step  # (B, 1, 256), the identity without posterization
    table = torch.where((kind == Operation.SOLARIZE) & (level >= amount * 255), 255 - level, table)
    table = torch.where(kind == Operation.INVERT, 255 - level, table)
    table = torch.where(kind == Operation.AUTOCONTRAST, _stretched(pixels, level), table)
    table = torch.where(kind == Operation.EQUALIZE, _equalized(pixels, level), table)  # (B, 3, 256)

    looked_up = (table.gather(2, pixels) / 255).view_as(images)
    return torch.where(_per_image(operation >= Operation.POSTERIZE), looked_up, images)


def _stretched(pixels: Tensor, level: Tensor) -> Tensor:
    low, high = pixels.amin(2, keepdim=True), pixels.amax(2, keepdim=True)
    stretched = ((level - low) * 255 / (high - low).clamp(min=1)).clamp(0, 255).floor()
    return torch.where(high > low, stretched, level)


def _equalized(pixels: Tensor, level: Tensor) -> Tensor:
    """Equalize like Pillow: a level becomes the fraction of darker pixels, not counting the brightest level."""
    histogram = torch.zeros(*pixels.shape[:2], 256, dtype=torch.int64, device=pixels.device)
    histogram.scatter_add_(2, pixels, torch.ones_like(pixels))
    brightest = histogram.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - brightest) // 255
    darker = histogram.cumsum(2) - histogram
    equalized = ((darker + step // 2) // step.clamp(min=1)).clamp(0, 255)
    # With fewer pixels than levels there is nothing to spread.
    return torch.where(step > 0, equalized.to(level.dtype), level)
