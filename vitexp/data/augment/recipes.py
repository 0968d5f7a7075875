"""The options of the config group `augment` that work on whole batches on the training device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from vitexp.data.augment.geometry import Padding, RandomAffine, RandomCropFlip
from vitexp.data.augment.photometry import RandomBlur, RandomColor, RandomErasing
from vitexp.data.augment.policies import AutoAugment, RandAugment, TrivialAugmentWide

PolicyName = Literal["none", "randaugment", "autoaugment", "trivialaugment"]


class BatchAugment(nn.Sequential):
    """Steps that each change every image of a batch by random parameters of its own.

    float32 [B, 3, H, W] in [0, 1] -> the same. Random numbers come from the global generator of the images' device, and
    nothing waits for the device. There are no parameters, and there is nothing for a checkpoint.
    """

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        # Under autocast, convolutions would run in bfloat16, whose steps near white are as large as a level of 256.
        with torch.autocast(images.device.type, enabled=False):
            for step in self:
                images = step(images)
        return images


class SignsAugment(BatchAugment):
    """What a camera in a moving car does to a traffic sign: tilt, distance, place, light, focus, and dirt.

    There is no flip, and rotation should stay well below 45 degrees: a mirrored "keep right" is a "keep left", and a
    turned arrow points elsewhere. Every default is off; for units see RandomAffine, RandomColor, RandomBlur and
    RandomErasing.
    """

    def __init__(
        self,
        *,
        rotation: float = 0.0,
        translation: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        shear: float = 0.0,
        padding: Padding = "reflection",
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        blur_prob: float = 0.0,
        blur_sigma: Sequence[float] = (0.5, 1.0),
        erase_prob: float = 0.0,
        erase_area: Sequence[float] = (0.02, 0.2),
        erase_aspect: Sequence[float] = (0.3, 3.3),
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
    """What small natural images are trained with: crop, flip left to right, a published policy, erased boxes.

    Every default is off; see RandomCropFlip, RandAugment and RandomErasing for units. `num_ops` and `magnitude` belong
    to the policy randaugment alone.
    """

    def __init__(
        self,
        *,
        crop_padding: int = 0,
        crop_border: Literal["reflect", "zeros"] = "reflect",
        flip_prob: float = 0.0,
        policy: PolicyName = "none",
        num_ops: int = 2,
        magnitude: float = 9,
        fill: float = 0.5,
        erase_prob: float = 0.0,
        erase_area: Sequence[float] = (0.02, 0.2),
        erase_aspect: Sequence[float] = (0.3, 3.3),
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
            raise ValueError(f"policy is one of {', '.join(policies)}, not {policy!r}")
        steps = ((crop, crop_padding or flip_prob), (policies[policy], policy != "none"), (erasing, erase_prob))
        super().__init__(*(step for step, wanted in steps if wanted))


def _pair(values: Sequence[float], name: str) -> tuple[float, float]:
    if len(values) != 2:
        raise ValueError(f"{name} is a range of two numbers, [low, high], not {list(values)}")
    return float(values[0]), float(values[1])
