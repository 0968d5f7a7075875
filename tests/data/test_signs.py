"""The drawn signs: determined by a seed, balanced, and with no two classes alike."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.data.signs import Signs
from vitexp.data.signs.templates import template
from vitexp.data.source import DataError, SplitName

CLASSES = len(GTSRB_CLASSES)


def on_grey(label: int, *, older: bool = False, side: int = 32) -> NDArray[np.float32]:
    rgba = template(label, older=older, side=side).astype(np.float32)
    return rgba[..., :3] + (255 - rgba[..., 3:]) * np.float32(0.5)


def test_43_classes_with_a_name_each() -> None:
    assert len(GTSRB_CLASSES) == len(set(GTSRB_CLASSES)) == 43
    assert Signs().classes == list(GTSRB_CLASSES)


@pytest.mark.parametrize(("name", "per_class"), [("train", 4), ("test", 2)])
def test_split_is_balanced_and_ungrouped(name: SplitName, per_class: int) -> None:
    split = Signs(train_per_class=4, test_per_class=2).split(name)
    assert len(split) == per_class * CLASSES
    assert split.labels.dtype == split.groups.dtype == np.int64
    assert (np.bincount(split.labels) == per_class).all()
    assert len(np.unique(split.groups)) == len(split)


@pytest.mark.parametrize("size", [16, 48, 65])
def test_images_are_rgb_bytes_of_the_requested_size(size: int) -> None:
    read = Signs(draw_size=size).split("train").read
    for index in range(3):
        image = read(index)
        assert image.shape == (size, size, 3)
        assert image.dtype == np.uint8
        assert image.std() > 0


def test_every_seed_split_and_index_gives_a_different_image() -> None:
    label = 14
    images = [
        Signs(draw_seed=seed).split(name).read(label + CLASSES * i).tobytes()
        for seed in (0, 1)
        for name in ("train", "test")
        for i in range(3)
    ]
    assert len(set(images)) == len(images)


def test_an_image_does_not_depend_on_order_process_or_number_of_images() -> None:
    wanted = [200, 3, 77]
    here = {i: Signs(draw_seed=5).split("train").read(i).tobytes() for i in wanted}
    again = Signs(draw_seed=5, train_per_class=7).split("train").read
    assert {i: again(i).tobytes() for i in reversed(wanted)} == here

    # A new interpreter receives the reader as a worker process does.
    code = (
        "import pickle, sys; read = pickle.load(sys.stdin.buffer); "
        f"sys.stdout.buffer.write(b''.join(read(i).tobytes() for i in {wanted}))"
    )
    child = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(again), capture_output=True, check=True)
    assert child.stdout == b"".join(here[i] for i in wanted)


def test_fingerprint_changes_with_every_parameter() -> None:
    sources = [Signs(), Signs(draw_seed=1), Signs(draw_size=32), Signs(train_per_class=2, test_per_class=2)]
    fingerprints = {source.split(name).fingerprint for source in sources for name in ("train", "test")}
    assert len(fingerprints) == 2 * len(sources)
    assert Signs().split("test").fingerprint == Signs().split("test").fingerprint


@pytest.mark.parametrize("older", [False, True])
def test_templates_are_distinct_at_32_pixels(older: bool) -> None:
    # Blur a little: the picture counts, not the exact position of its edges.
    sheets = np.stack([cv2.GaussianBlur(on_grey(label, older=older), (0, 0), 0.8) for label in range(CLASSES)])
    distance = np.sqrt(((sheets[:, None] - sheets[None]) ** 2).mean((2, 3, 4)))
    distance[np.diag_indices(CLASSES)] = np.inf
    # Root mean square over the whole picture, in gray levels; it is 16 for the most similar pairs.
    assert distance.min() > 12, np.unravel_index(distance.argmin(), distance.shape)


@pytest.mark.parametrize(("left", "right"), [(19, 20), (34, 33), (37, 36), (39, 38)])
def test_left_and_right_are_mirror_images(left: int, right: int) -> None:
    for older in (False, True):
        mirrored = on_grey(left, older=older)[:, ::-1]
        np.testing.assert_array_equal(mirrored, on_grey(right, older=older))
        assert np.abs(mirrored - on_grey(left, older=older)).mean() > 5


def test_arrows_point_as_their_names_say() -> None:
    # White area right of the middle minus left of it: an arrow's head is heavier than its tail.
    for label, right_heavy in ((33, True), (34, False), (36, True), (37, False)):
        white = on_grey(label, side=64)[..., 0] > 180
        inner = white[12:34, 12:52] if label in (33, 34) else white[20:50, 12:52]
        assert (inner[:, 20:].sum() > inner[:, :20].sum()) == right_heavy
    for label, corner in ((38, np.s_[40:54, 40:54]), (39, np.s_[40:54, 10:24])):  # bottom right, bottom left
        white = on_grey(label, side=64)[..., 0] > 180
        opposite = white[::-1, ::-1][corner]
        assert white[corner].sum() > opposite.sum()


def test_light_ranges_from_night_to_glare() -> None:
    read = Signs().split("train").read
    brightness = np.array([read(i).mean() for i in range(10 * CLASSES)])
    assert 0.05 < (brightness < 40).mean() < 0.35
    assert 0.03 < (brightness > 180).mean() < 0.25


@pytest.mark.parametrize(
    "bad", [{"train_per_class": 0}, {"test_per_class": -1}, {"draw_size": 8}, {"draw_size": 1000}, {"draw_seed": -1}]
)
def test_values_out_of_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(bad.values())))):
        Signs(**bad)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="validation"):
        Signs().split("validation")  # type: ignore[arg-type]


def test_the_sheet_is_written(tmp_path: Path) -> None:
    from vitexp.commands.signs import sheet

    path = tmp_path / "sheet.png"
    sheet(path, samples=1, size=24)
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.std() > 20
