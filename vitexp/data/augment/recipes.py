"""Augmentations of whole batches on the training device: the config group `augment` without albumentations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from vitexp.data.augment.geometry import Padding, RandomAffine, RandomCropFlip
from vitexp.data.augment.photometry import RandomBlur, RandomColor, RandomErasing
from vitexp.data.augment.policies import AutoAugment, RandAugment, TrivialAugmentWide
from vitexp.options import Doc, Field, FractionRange, Probability, Range

PolicyName = Literal["none", "randaugment", "autoaugment", "trivialaugment"]
EraseProb = Annotated[Probability, Doc("probability per image that a box is erased")]
EraseArea = Annotated[FractionRange, Doc("erased fraction of the image")]
EraseAspect = Annotated[Range, Doc("height of the erased box over its width")]


class BatchAugment(nn.Sequential):
    """Steps with random parameters per image: float32 [B, 3, H, W] in [0, 1] -> the same.

    Random numbers come from the global generator of the images' device, and the host never waits for the device. There
    is no state to save in a checkpoint.
    """

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        # Under autocast, convolutions would run in bfloat16, whose resolution near white is only 1/256.
        with torch.autocast(images.device.type, enabled=False):
            for step in self:
                images = step(images)
        return images


class SignsAugment(BatchAugment):
    """Traffic signs seen from a moving car: tilt, distance, position, light, focus and dirt.

    There is no flip, and rotation should be well below 45 degrees: a mirrored "keep right" is "keep left", and a
    rotated arrow points elsewhere. By default everything is off.
    """

    def __init__(
        self,
        *,
        rotation: Annotated[float, Field(ge=0, le=180), Doc("degrees, in either direction")] = 0.0,
        translation: Annotated[Probability, Doc("fraction of the side, along x and y, in either direction")] = 0.0,
        scale: Annotated[Range, Doc("factor; above 1 is larger")] = (1.0, 1.0),
        shear: Annotated[float, Field(ge=0, lt=45), Doc("degrees, along x and y, in either direction")] = 0.0,
        padding: Annotated[Padding, Doc("what fills the area outside a moved image")] = "reflection",
        brightness: Annotated[Probability, Doc("factor from [1 - this, 1 + this]")] = 0.0,
        contrast: Annotated[Probability, Doc("factor from [1 - this, 1 + this]")] = 0.0,
        saturation: Annotated[Probability, Doc("factor from [1 - this, 1 + this]")] = 0.0,
        blur_prob: Annotated[Probability, Doc("probability per image of a Gaussian blur")] = 0.0,
        blur_sigma: Annotated[Range, Doc("standard deviation of the Gaussian, in pixels")] = (0.5, 1.0),
        erase_prob: EraseProb = 0.0,
        erase_area: EraseArea = (0.02, 0.2),
        erase_aspect: EraseAspect = (0.3, 3.3),
    ) -> None:
        affine = RandomAffine(
            rotation=rotation, translation=translation, scale=_pair(scale, "scale"), shear=shear, padding=padding
        )
        color = RandomColor(brightness=brightness, contrast=contrast, saturation=saturation)
        blur = RandomBlur(prob=blur_prob, sigma=_pair(blur_sigma, "blur_sigma"))
        erasing = RandomErasing(
            prob=erase_prob, area=_pair(erase_area, "erase_area"), aspect=_pair(erase_aspect, "erase_aspect")
        )
        moves = rotation or translation or shear or tuple(scale) != (1, 1)
        steps = (
            (affine, moves),
            (color, brightness or contrast or saturation),
            (blur, blur_prob),
            (erasing, erase_prob),
        )
        super().__init__(*(step for step, wanted in steps if wanted))


class NaturalAugment(BatchAugment):
    """The usual augmentation of small natural images: crop, horizontal flip, a published policy, random erasing.

    By default everything is off.
    """

    def __init__(
        self,
        *,
        crop_padding: Annotated[
            int, Field(ge=0, le=4096), Doc("largest shift of the crop along x and y, in pixels")
        ] = 0,
        crop_border: Annotated[Literal["reflect", "zeros"], Doc("what fills the area outside the image")] = "reflect",
        flip_prob: Annotated[Probability, Doc("probability per image of a horizontal flip")] = 0.0,
        policy: Annotated[PolicyName, Doc("published policy of operations")] = "none",
        num_ops: Annotated[int, Field(ge=1, le=100), Doc("randaugment only: operations in a row")] = 2,
        magnitude: Annotated[float, Field(ge=0, le=30), Doc("randaugment only: strength of each operation")] = 9,
        fill: Annotated[Probability, Doc("value outside an image moved by a policy: 0 black to 1 white")] = 0.5,
        erase_prob: EraseProb = 0.0,
        erase_area: EraseArea = (0.02, 0.2),
        erase_aspect: EraseAspect = (0.3, 3.3),
    ) -> None:
        crop = RandomCropFlip(crop_padding=crop_padding, crop_border=crop_border, flip_prob=flip_prob)
        erasing = RandomErasing(
            prob=erase_prob, area=_pair(erase_area, "erase_area"), aspect=_pair(erase_aspect, "erase_aspect")
        )
        policies = {
            "none": nn.Identity(),
            "randaugment": RandAugment(num_ops=num_ops, magnitude=magnitude, fill=fill),
            "autoaugment": AutoAugment(fill=fill),
            "trivialaugment": TrivialAugmentWide(fill=fill),
        }
        if policy not in policies:
            raise ValueError(f"policy={policy!r} must be one of {', '.join(policies)}")
        steps = ((crop, crop_padding or flip_prob), (policies[policy], policy != "none"), (erasing, erase_prob))
        super().__init__(*(step for step, wanted in steps if wanted))


def _pair(values: Sequence[float], name: str) -> tuple[float, float]:
    if len(values) != 2:
        raise ValueError(f"{name}={list(values)} must be a range of two numbers, [low, high]")
    return float(values[0]), float(values[1])
