"""Published augmentation policies, applied with different operations and magnitudes per image.

Magnitudes are as in torchvision, where factors (brightness, color, contrast, sharpness) go up or down from 1; the first
implementations started at 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vitexp.data.augment.draws import check_amount
from vitexp.data.augment.operations import Operation, apply_operations

LEVELS = 30
"""The strongest level of RandAugment and TrivialAugment."""

_MOVES = (Operation.SHEAR_X, Operation.SHEAR_Y, Operation.TRANSLATE_X, Operation.TRANSLATE_Y, Operation.ROTATE)
_BLENDS = (Operation.BRIGHTNESS, Operation.COLOR, Operation.CONTRAST, Operation.SHARPNESS)


class _Policy(nn.Module):
    """Base of the policies, which converts strengths in [0, 1] to magnitudes: start + strength * span.

    Operations that work in both directions get a random sign.
    """

    start: Tensor
    span: Tensor
    signed: Tensor

    def __init__(
        self, *, shear: float, translate: float, rotate: float, blend: float, posterize: float, fill: float
    ) -> None:
        super().__init__()
        span = {
            Operation.SHEAR_X: shear,
            Operation.SHEAR_Y: shear,
            Operation.TRANSLATE_X: translate,
            Operation.TRANSLATE_Y: translate,
            Operation.ROTATE: rotate,
            **dict.fromkeys(_BLENDS, blend),
            Operation.POSTERIZE: -posterize,
            Operation.SOLARIZE: -1.0,
        }
        start = {**dict.fromkeys(_BLENDS, 1.0), Operation.POSTERIZE: 8.0, Operation.SOLARIZE: 1.0}
        # Buffers move with the module; they are constants, so not part of checkpoints.
        self.register_buffer("start", _by_operation(start), persistent=False)
        self.register_buffer("span", _by_operation(span), persistent=False)
        self.register_buffer("signed", _by_operation(dict.fromkeys((*_MOVES, *_BLENDS), 1.0)), persistent=False)
        self.fill = fill

    def _magnitude(self, operation: Tensor, strength: Tensor) -> Tensor:
        """Return magnitudes float32 [B], in the unit of each operation, for strengths in [0, 1]."""
        sign = torch.randint(2, operation.shape, device=operation.device) * 2 - 1
        sign = torch.where(self.signed[operation] > 0, sign, 1)
        return self.start[operation] + self.span[operation] * strength * sign


def _by_operation(values: Mapping[Operation, float]) -> Tensor:
    return torch.tensor([values.get(operation, 0.0) for operation in Operation])


class RandAugment(_Policy):
    """`num_ops` operations in a row, drawn from 14, with a fixed magnitude (Cubuk et al. 2019, arXiv 1909.13719).

    num_ops: N of the paper.
    magnitude: M of the paper, 0 to 30.
    fill: value outside the image, 0 black to 1 white.
    """

    def __init__(self, *, num_ops: int = 2, magnitude: float = 9, fill: float = 0.5) -> None:
        super().__init__(shear=0.3, translate=150 / 331, rotate=30, blend=0.9, posterize=4, fill=fill)
        check_amount(num_ops=num_ops, magnitude=magnitude)
        if magnitude > LEVELS:
            raise ValueError(f"magnitude={magnitude} must be between 0 and {LEVELS}")
        self.num_ops, self.strength = num_ops, magnitude / LEVELS

    def forward(self, images: Tensor) -> Tensor:
        for _ in range(self.num_ops):
            operation = torch.randint(Operation.INVERT, (len(images),), device=images.device)
            strength = torch.full((len(images),), self.strength, device=images.device)
            images = apply_operations(images, operation, self._magnitude(operation, strength), fill=self.fill)
        return images


class TrivialAugmentWide(_Policy):
    """One operation of 14 with a random magnitude from wide ranges (Müller and Hutter 2021, arXiv 2103.10158).

    fill: value outside the image, 0 black to 1 white.
    """

    _MAX_SHIFT = 32
    """Pixels for every image size: at 32 x 32 the strongest shift leaves nothing, as in the paper."""

    def __init__(self, *, fill: float = 0.5) -> None:
        super().__init__(shear=0.99, translate=1, rotate=135, blend=0.99, posterize=6, fill=fill)

    def forward(self, images: Tensor) -> Tensor:
        operation = torch.randint(Operation.INVERT, (len(images),), device=images.device)
        strength = torch.randint(LEVELS + 1, (len(images),), device=images.device) / LEVELS
        magnitude = self._magnitude(operation, strength)
        height, width = images.shape[-2:]
        magnitude = torch.where(operation == Operation.TRANSLATE_X, magnitude * (self._MAX_SHIFT / width), magnitude)
        magnitude = torch.where(operation == Operation.TRANSLATE_Y, magnitude * (self._MAX_SHIFT / height), magnitude)
        return apply_operations(images, operation, magnitude, fill=self.fill)


class AutoAugment(_Policy):
    """One of the 25 sub-policies found for CIFAR-10, two operations each (Cubuk et al. 2018, arXiv 1805.09501).

    fill: value outside the image, 0 black to 1 white.
    """

    operations: Tensor
    probs: Tensor
    strengths: Tensor

    def __init__(self, *, fill: float = 0.5) -> None:
        super().__init__(shear=0.3, translate=150 / 331, rotate=30, blend=0.9, posterize=4, fill=fill)
        steps = [step for pair in CIFAR10_SUBPOLICIES for step in pair]
        self.register_buffer("operations", torch.tensor([op for op, _, _ in steps]).view(-1, 2), persistent=False)
        self.register_buffer("probs", torch.tensor([prob for _, prob, _ in steps]).view(-1, 2), persistent=False)
        self.register_buffer(
            "strengths", torch.tensor([level / 9 for _, _, level in steps]).view(-1, 2), persistent=False
        )

    def forward(self, images: Tensor) -> Tensor:
        chosen = torch.randint(len(CIFAR10_SUBPOLICIES), (len(images),), device=images.device)
        for step in range(2):
            applied = torch.rand(len(images), device=images.device) < self.probs[chosen, step]
            operation = torch.where(applied, self.operations[chosen, step], Operation.IDENTITY)
            magnitude = self._magnitude(operation, self.strengths[chosen, step])
            images = apply_operations(images, operation, magnitude, fill=self.fill)
        return images


_Step = tuple[Operation, float, int]
CIFAR10_SUBPOLICIES: tuple[tuple[_Step, _Step], ...] = (
    ((Operation.INVERT, 0.1, 0), (Operation.CONTRAST, 0.2, 6)),
    ((Operation.ROTATE, 0.7, 2), (Operation.TRANSLATE_X, 0.3, 9)),
    ((Operation.SHARPNESS, 0.8, 1), (Operation.SHARPNESS, 0.9, 3)),
    ((Operation.SHEAR_Y, 0.5, 8), (Operation.TRANSLATE_Y, 0.7, 9)),
    ((Operation.AUTOCONTRAST, 0.5, 0), (Operation.EQUALIZE, 0.9, 0)),
    ((Operation.SHEAR_Y, 0.2, 7), (Operation.POSTERIZE, 0.3, 7)),
    ((Operation.COLOR, 0.4, 3), (Operation.BRIGHTNESS, 0.6, 7)),
    ((Operation.SHARPNESS, 0.3, 9), (Operation.BRIGHTNESS, 0.7, 9)),
    ((Operation.EQUALIZE, 0.6, 0), (Operation.EQUALIZE, 0.5, 0)),
    ((Operation.CONTRAST, 0.6, 7), (Operation.SHARPNESS, 0.6, 5)),
    ((Operation.COLOR, 0.7, 7), (Operation.TRANSLATE_X, 0.5, 8)),
    ((Operation.EQUALIZE, 0.3, 0), (Operation.AUTOCONTRAST, 0.4, 0)),
    ((Operation.TRANSLATE_Y, 0.4, 3), (Operation.SHARPNESS, 0.2, 6)),
    ((Operation.BRIGHTNESS, 0.9, 6), (Operation.COLOR, 0.2, 8)),
    ((Operation.SOLARIZE, 0.5, 2), (Operation.INVERT, 0.0, 0)),
    ((Operation.EQUALIZE, 0.2, 0), (Operation.AUTOCONTRAST, 0.6, 0)),
    ((Operation.EQUALIZE, 0.2, 0), (Operation.EQUALIZE, 0.6, 0)),
    ((Operation.COLOR, 0.9, 9), (Operation.EQUALIZE, 0.6, 0)),
    ((Operation.AUTOCONTRAST, 0.8, 0), (Operation.SOLARIZE, 0.2, 8)),
    ((Operation.BRIGHTNESS, 0.1, 3), (Operation.COLOR, 0.7, 0)),
    ((Operation.SOLARIZE, 0.4, 5), (Operation.AUTOCONTRAST, 0.9, 0)),
    ((Operation.TRANSLATE_Y, 0.9, 9), (Operation.TRANSLATE_Y, 0.7, 9)),
    ((Operation.AUTOCONTRAST, 0.9, 0), (Operation.SOLARIZE, 0.8, 3)),
    ((Operation.EQUALIZE, 0.8, 0), (Operation.INVERT, 0.1, 0)),
    ((Operation.TRANSLATE_Y, 0.7, 9), (Operation.AUTOCONTRAST, 0.9, 0)),
)
"""Pairs of steps (operation, probability, level from 0 to 9)."""
