"""Images with strokes drawn on them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from vitexp.app.picture import Picture, enlarged, read_strokes
from vitexp.data.prepare import Prepared
from vitexp.data.transforms import build_transforms
from vitexp.errors import UserError
from vitexp.runs.finished import FinishedRun

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def run() -> FinishedRun:
    rows = np.arange(3)
    part = Prepared(stored=IMAGES, rows=rows, labels=np.array([0, 1, 1]), groups=rows, moments=np.zeros((3, 2, 3)))
    [resize] = build_transforms([{"_target_": "albumentations.Resize", "height": 8, "width": 8}])
    made: Any = SimpleNamespace(
        data=SimpleNamespace(test=part, train=part),
        classes=["stop", "yield"],
        prepare_image=lambda image: resize(image=image)["image"],
    )
    return cast(FinishedRun, made)


def layer(opacity: float, color: tuple[int, int, int], *, columns: slice) -> np.ndarray:
    """Return a canvas of 32 x 32 pixels with some columns painted."""
    made = np.zeros((32, 32, 4), np.uint8)
    made[:, columns, :3] = color
    made[:, columns, 3] = round(255 * opacity)
    return made


def test_nothing_drawn_is_no_strokes() -> None:
    assert read_strokes([]) is None
    assert read_strokes([layer(0.0, (9, 9, 9), columns=slice(0, 32))]) is None


def test_pixels_without_strokes_keep_their_values(run: FinishedRun) -> None:
    strokes = read_strokes([layer(1.0, (128, 0, 255), columns=slice(0, 8))])
    seen = Picture(kind="test", row=2, strokes=strokes).image(run)
    assert (seen[:, :2] == (128, 0, 255)).all()
    assert (seen[:, 2:] == IMAGES[2][:, 2:]).all()


def test_half_covered_and_half_opaque_pixels_are_mixed(run: FinishedRun) -> None:
    half_a_pixel = read_strokes([layer(1.0, (200, 200, 200), columns=slice(0, 2))])
    seen = Picture(kind="train", row=0, strokes=half_a_pixel).image(run)
    assert np.abs(seen[:, 0].astype(int) - (IMAGES[0][:, 0].astype(int) + 200) / 2).max() <= 1
    faint = read_strokes([layer(0.2, (0, 0, 0), columns=slice(0, 32))])
    seen = Picture(kind="train", row=0, strokes=faint).image(run)
    assert np.abs(seen - 0.8 * IMAGES[0]).max() <= 1


def test_later_layers_cover_earlier_ones(run: FinishedRun) -> None:
    both = read_strokes([layer(1.0, (255, 0, 0), columns=slice(0, 32)), layer(1.0, (0, 0, 255), columns=slice(0, 16))])
    seen = Picture(kind="test", row=1, strokes=both).image(run)
    assert (seen[:, :4] == (0, 0, 255)).all() and (seen[:, 4:] == (255, 0, 0)).all()


def test_descriptions(run: FinishedRun, tmp_path: Path) -> None:
    assert Picture(kind="test", row=1).describe(run) == "Test image 1, “yield”"
    assert Picture(kind="train", row=0).describe(run) == "Training image 0, “stop”"
    mine = tmp_path / "mine.png"
    Image.fromarray(IMAGES[0]).resize((40, 20)).save(mine)
    picture = Picture(kind="file", file=str(mine))
    assert picture.describe(run) == "Your image mine.png"
    assert picture.truth(run) is None and Picture(kind="test", row=2).truth(run) == 1
    assert picture.image(run).shape == (8, 8, 3)


def test_a_broken_upload_is_reported_by_its_name(run: FinishedRun, tmp_path: Path) -> None:
    wrong = tmp_path / "poem.png"
    wrong.write_text("roses are red")
    with pytest.raises(UserError, match=r"poem\.png") as caught:
        Picture(kind="file", file=str(wrong)).image(run)
    assert str(tmp_path) not in str(caught.value)


def test_small_images_are_enlarged_by_whole_pixels() -> None:
    large = enlarged(IMAGES[0], side=20)
    assert large.shape == (24, 24, 3)
    assert (large[::3, 1::3] == IMAGES[0]).all()
    assert enlarged(IMAGES[0], side=4) is not None and enlarged(IMAGES[0], side=4).shape == (8, 8, 3)
