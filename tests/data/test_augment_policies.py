"""The operations and policies of AutoAugment, RandAugment and TrivialAugment against torchvision's, one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy, v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from tests.data.pictures import pictures, to_uint8
from vitexp.data.augment.operations import Operation, apply_operations
from vitexp.data.augment.policies import CIFAR10_SUBPOLICIES, AutoAugment, RandAugment, TrivialAugmentWide


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


TORCHVISION: dict[Operation, tuple[float, Callable[[Tensor], Tensor]]] = {
    Operation.IDENTITY: (0.0, lambda images: images),
    Operation.BRIGHTNESS: (1.6, lambda images: tv.adjust_brightness(images, 1.6)),
    Operation.COLOR: (0.3, lambda images: tv.adjust_saturation(images, 0.3)),
    Operation.CONTRAST: (1.7, lambda images: tv.adjust_contrast(images, 1.7)),
    Operation.SHARPNESS: (1.9, lambda images: tv.adjust_sharpness(images, 1.9)),
    Operation.POSTERIZE: (3.0, lambda images: tv.posterize(images, 3)),
    Operation.SOLARIZE: (128 / 255, lambda images: tv.solarize(images, 128)),
    Operation.AUTOCONTRAST: (0.0, tv.autocontrast),
    Operation.EQUALIZE: (0.0, tv.equalize),
    Operation.INVERT: (0.0, tv.invert),
}


@pytest.mark.parametrize("operation", TORCHVISION)
def test_operation_matches_torchvision(operation: Operation) -> None:
    images = pictures()
    images[0] = 0.4  # a plain image has no contrast and no histogram to stretch
    magnitude, theirs = TORCHVISION[operation]
    ours = apply_operations(images, torch.full((6,), operation.value), torch.full((6,), magnitude))
    if operation < Operation.POSTERIZE:
        torch.testing.assert_close(ours, theirs(images), rtol=0, atol=1e-3)
    else:
        assert torch.equal(to_uint8(ours), theirs(to_uint8(images)))
        torch.testing.assert_close(ours * 255, to_uint8(ours).float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("operation", "name", "magnitude", "argument"),
    [
        (Operation.SHEAR_X, "ShearX", 0.27, 0.27),
        (Operation.SHEAR_Y, "ShearY", -0.27, -0.27),
        (Operation.TRANSLATE_X, "TranslateX", 7 / 40, 7),
        (Operation.TRANSLATE_Y, "TranslateY", -5 / 24, -5),
        (Operation.ROTATE, "Rotate", 25.0, 25.0),
    ],
)
def test_geometric_operation_matches_torchvision(
    operation: Operation, name: str, magnitude: float, argument: float
) -> None:
    images = pictures(2, 24, 40)
    ours = apply_operations(images, torch.full((2,), operation.value), torch.full((2,), magnitude), fill=0.0)
    theirs = v2.AutoAugment()._apply_image_or_video_transform(
        images, name, argument, interpolation=InterpolationMode.NEAREST, fill={Tensor: None}
    )
    assert not torch.equal(ours, images)
    # Nearest pixels: where a source lies halfway between two, rounding may choose either.
    assert ((ours - theirs).abs() > 1e-5).float().mean() < 0.02


def test_operations_in_a_batch_do_not_affect_each_other() -> None:
    """A batch of all operations gives the same result as applying them one by one."""
    images = pictures(15) * 0.5 + 0.2
    operation = torch.tensor([kind.value for kind in Operation])
    magnitude = torch.tensor([0, 0.2, 0.2, 0.2, 0.2, 20, 1.5, 1.5, 1.5, 1.5, 4, 0.5, 0, 0, 0])
    together = apply_operations(images, operation, magnitude)
    for i in range(15):
        alone = apply_operations(images[i : i + 1], operation[i : i + 1], magnitude[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)
        assert torch.equal(alone[0], images[i]) == (i == Operation.IDENTITY)


def test_autoaugment_matches_the_published_table() -> None:
    theirs = v2.AutoAugment()._get_policies(AutoAugmentPolicy.CIFAR10)
    spelled = [
        tuple((op.name.replace("_", "").lower(), prob, level) for op, prob, level in pair)
        for pair in CIFAR10_SUBPOLICIES
    ]
    assert spelled == [tuple((name.lower(), prob, level or 0) for name, prob, level in pair) for pair in theirs]


@pytest.mark.parametrize(
    ("policy", "theirs"), [(RandAugment(magnitude=30), v2.RandAugment), (TrivialAugmentWide(), v2.TrivialAugmentWide)]
)
def test_strongest_magnitudes_match_torchvision(policy: Any, theirs: Any) -> None:
    names = {kind.name.replace("_", "").lower(): kind for kind in Operation}
    for name, (magnitudes, signed) in theirs._AUGMENTATION_SPACE.items():
        kind = names[name.lower()]
        ours = policy._magnitude(torch.full((200,), kind.value), torch.ones(200))
        strongest = magnitudes(31, 32, 32)
        if strongest is None:
            continue
        expected = float(strongest[-1])
        if kind in (Operation.TRANSLATE_X, Operation.TRANSLATE_Y):
            expected /= 32
        values = {round(value, 4) for value in ours.tolist()}
        offset = 1 if Operation.BRIGHTNESS <= kind <= Operation.SHARPNESS else 0
        signs = (-1, 1) if signed else (1,)
        assert values == {round(offset + sign * expected, 4) for sign in signs}, name


def test_every_operation_is_drawn() -> None:
    drawn: list[Tensor] = []

    def record(images: Tensor, operation: Tensor, magnitude: Tensor, *, fill: float) -> Tensor:
        drawn.append(operation)
        return images

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitexp.data.augment.policies.apply_operations", record)
        for policy, kinds in ((RandAugment(), 14), (TrivialAugmentWide(), 14), (AutoAugment(), 14)):
            drawn.clear()
            policy(torch.zeros(2000, 3, 2, 2))
            assert len(set(torch.cat(drawn).tolist())) == kinds


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sharpness_does_not_change_images_that_are_all_edge(size: int) -> None:
    images = torch.rand(4, 3, size, size)
    operation, magnitude = torch.full((4,), Operation.SHARPNESS), torch.full((4,), 1.9)
    done = apply_operations(images, operation, magnitude)
    assert done.shape == images.shape
    assert torch.equal(done, images) == (size < 3)
