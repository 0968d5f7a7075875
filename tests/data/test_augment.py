"""Augmentation on whole batches: ranges, randomness, and agreement with torchvision operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from tests.data.pictures import pictures, to_uint8
from vitexp.data.augment import AlbumentationsAugment, BatchAugment, NaturalAugment, SignsAugment
from vitexp.data.augment.geometry import RandomCropFlip, inverse_affine, warp
from vitexp.data.augment.photometry import RandomBlur, RandomColor, RandomErasing
from vitexp.data.augment.policies import RandAugment

CONF = Path(__file__).parents[2] / "conf" / "augment"

ALL_SIGNS: dict[str, Any] = dict(
    rotation=15, translation=0.1, scale=[0.8, 1.2], shear=8, brightness=0.5, contrast=0.5, saturation=0.5,
    blur_prob=0.5, blur_sigma=[0.3, 1.0], erase_prob=0.5,
)  # fmt: skip
AUGMENTS: dict[str, Callable[[], BatchAugment]] = {
    "signs": lambda: SignsAugment(**ALL_SIGNS),
    "crop_flip": lambda: NaturalAugment(crop_padding=4, flip_prob=0.5, erase_prob=0.25),
    "randaugment": lambda: NaturalAugment(policy="randaugment", magnitude=20),
    "autoaugment": lambda: NaturalAugment(policy="autoaugment"),
    "trivialaugment": lambda: NaturalAugment(policy="trivialaugment"),
}
every_augment = pytest.mark.parametrize("make", AUGMENTS.values(), ids=AUGMENTS.keys())


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@every_augment
def test_shape_type_and_range_are_kept(make: Callable[[], BatchAugment]) -> None:
    # Extremes: all black, all white, and noise of exactly 0 and 1.
    images = torch.cat([pictures(20), torch.zeros(4, 3, 32, 32), torch.ones(4, 3, 32, 32)])
    images[:4] = images[:4].round()
    before = images.clone()
    torch.manual_seed(0)
    for _ in range(5):
        augmented = make()(images)
        assert augmented.shape == images.shape
        assert augmented.dtype == torch.float32
        assert augmented.min() >= 0
        assert augmented.max() <= 1
    assert torch.equal(images, before), "the images were changed in place"


@every_augment
def test_draws_differ_per_image_and_repeat_with_the_seed(make: Callable[[], BatchAugment]) -> None:
    augment = make()
    images = pictures(1).expand(64, -1, -1, -1)
    torch.manual_seed(3)
    first = augment(images)
    torch.manual_seed(3)
    assert torch.equal(augment(images), first)
    assert not torch.equal(augment(images), first)
    assert len(np.unique(first.flatten(1).numpy(), axis=0)) > 16


@every_augment
@pytest.mark.parametrize("size", [(24, 40), (40, 24)])
def test_images_need_not_be_square(make: Callable[[], BatchAugment], size: tuple[int, int]) -> None:
    assert make()(pictures(4, *size)).shape == (4, 3, *size)


@every_augment
def test_autocast_does_not_change_the_result(make: Callable[[], BatchAugment]) -> None:
    images = pictures()
    torch.manual_seed(0)
    exact = make()(images)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(make()(images), exact)


@every_augment
def test_augmentation_has_no_state_in_checkpoints(make: Callable[[], BatchAugment]) -> None:
    assert make().state_dict() == {}
    assert list(make().parameters()) == []


def test_augmentation_that_is_off_is_the_identity() -> None:
    images = pictures()
    assert torch.equal(SignsAugment()(images), images)
    assert torch.equal(NaturalAugment()(images), images)
    # Not only because the steps are omitted: neutral parameters change nothing either.
    for step in (RandomColor(), RandomCropFlip(), RandomBlur(), RandomErasing()):
        torch.testing.assert_close(step(images), images, rtol=0, atol=1e-6)
    assert torch.equal(RandAugment(num_ops=0)(images), images)


def test_signs_are_never_flipped() -> None:
    """A mark on the left stays on the left for any draw at the strongest settings."""
    images = torch.zeros(512, 3, 32, 32)
    images[:, :, 12:20, 6:10] = 1
    config = {**ALL_SIGNS, "brightness": 0, "contrast": 0, "saturation": 0, "erase_prob": 0, "padding": "zeros"}
    augmented = SignsAugment(**config)(images)
    assert (augmented[..., :16].sum((1, 2, 3)) > 5 * augmented[..., 16:].sum((1, 2, 3))).all()
    images = images.transpose(2, 3)  # nor upside down
    augmented = SignsAugment(**config)(images)
    assert (augmented[:, :, :16].sum((1, 2, 3)) > 5 * augmented[:, :, 16:].sum((1, 2, 3))).all()


def constants(images: Tensor, **changes: float) -> dict[str, Tensor]:
    neutral = {"angle": 0.0, "scale": 1.0, "shear_x": 0.0, "shear_y": 0.0, "shift_x": 0.0, "shift_y": 0.0}
    return {name: torch.full((len(images),), value) for name, value in (neutral | changes).items()}


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
@pytest.mark.parametrize("degrees", [-30.0, 7.5, 90.0])
def test_rotation_matches_torchvision(degrees: float, size: tuple[int, int]) -> None:
    images = pictures(2, *size)
    angle = torch.tensor(degrees).deg2rad().item()
    ours = warp(images, inverse_affine(**constants(images, angle=-angle)), padding="zeros")
    theirs = tv.rotate(images, degrees, interpolation=InterpolationMode.BILINEAR)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_scale_and_translation_match_torchvision() -> None:
    images = pictures(2, 24, 40)
    inverse = inverse_affine(**constants(images, scale=1.3, shift_x=3, shift_y=-2, angle=0.3))
    ours = warp(images, inverse, padding="zeros")
    theirs = tv.affine(
        images, torch.tensor(0.3).rad2deg().item(), [3, -2], 1.3, [0.0], interpolation=InterpolationMode.BILINEAR
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_color_matches_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures() * 0.5 + 0.2  # away from 0 and 1, where torchvision clamps after each of the three
    factors = iter([1.2, 0.8, 1.3])
    monkeypatch.setattr(
        "vitexp.data.augment.photometry.uniform", lambda images, *_: torch.full((len(images),), next(factors))
    )
    ours = RandomColor(brightness=0.5, contrast=0.5, saturation=0.5)(images)
    theirs = tv.adjust_saturation(tv.adjust_contrast(tv.adjust_brightness(images, 1.2), 0.8), 1.3)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_blur_matches_torchvision() -> None:
    images = pictures()
    ours = RandomBlur(prob=1.0, sigma=(0.8, 0.8))(images)
    torch.testing.assert_close(ours, tv.gaussian_blur(images, [5, 5], [0.8, 0.8]), rtol=0, atol=1e-5)


def test_crops_shift_the_padded_image_by_whole_pixels() -> None:
    images = pictures(800, 16, 12)
    for border, pad_mode in (("reflect", "reflect"), ("zeros", "constant")):
        cropped = RandomCropFlip(crop_padding=2, crop_border=border, flip_prob=0.5)(images)  # type: ignore[arg-type]
        padded = F.pad(images, [2] * 4, mode=pad_mode)
        windows = padded.unfold(2, 16, 1).unfold(3, 12, 1).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)  # (B, 25, C, H, W)
        candidates = torch.cat([windows, windows.flip(-1)], dim=1)
        matches = (candidates == cropped[:, None]).flatten(2).all(2)
        assert matches.any(1).all()
        assert matches.any(0).sum() == 50, "every shift occurs, flipped and not"
        assert 300 < matches[:, 25:].any(1).sum() < 500


def test_erasing_covers_the_requested_area_with_one_box() -> None:
    images = torch.full((400, 3, 32, 32), -1.0)
    erased = RandomErasing(prob=0.5, area=(0.1, 0.2), aspect=(0.5, 2.0))(images)[:, 0] >= 0
    touched = erased.flatten(1).any(1)
    assert 150 < touched.sum() < 250
    erased = erased[touched]
    share = erased.float().mean((1, 2))
    assert share.min() > 0.08
    assert share.max() < 0.22
    assert share.std() > 0.02
    height, width = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(height * width, erased.sum((1, 2))), "the erased pixels fill a box"
    assert erased.any(0).any(0).all(), "boxes reach every column"
    assert erased.any(0).any(1).all(), "boxes reach every row"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SignsAugment(rotation=-1), "rotation"),
        (lambda: SignsAugment(scale=[1.1, 0.9]), "scale"),
        (lambda: SignsAugment(scale=[0.9]), "scale"),
        (lambda: SignsAugment(shear=50), "shear"),
        (lambda: SignsAugment(brightness=1.5), "brightness"),
        (lambda: SignsAugment(blur_prob=2), "blur_prob"),
        (lambda: SignsAugment(blur_sigma=[0, 1]), "blur_sigma"),
        (lambda: SignsAugment(erase_area=[0.5, 1.5]), "erase_area"),
        (lambda: SignsAugment(padding="mirror"), "padding"),  # type: ignore[arg-type]
        (lambda: NaturalAugment(crop_border="mirror"), "crop_border"),  # type: ignore[arg-type]
        (lambda: NaturalAugment(policy="rand"), "policy"),  # type: ignore[arg-type]
        (lambda: NaturalAugment(magnitude=31), "magnitude"),
    ],
)
def test_errors_name_the_wrong_value(make: Callable[[], BatchAugment], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("option", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_option_of_the_config_can_be_built(option: str) -> None:
    augment = hydra.utils.instantiate(OmegaConf.load(CONF / f"{option}.yaml"))
    images = pictures(4)
    if isinstance(augment, AlbumentationsAugment):
        pixels = to_uint8(images[0]).permute(1, 2, 0).contiguous().numpy()
        assert augment(pixels).shape == (32, 32, 3)
    else:
        assert isinstance(augment, BatchAugment)
        assert augment(images).shape == images.shape
        assert torch.equal(augment(images), images) == (option == "none")
