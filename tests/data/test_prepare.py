"""The cache of prepared arrays."""

from __future__ import annotations

import dataclasses
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.data.noise import entries, leftovers, noise, prepared, resize
from vitexp.data.prepare import CHUNK, PARALLEL_FROM
from vitexp.data.source import BrokenImage, BrokenImages, DataError


def test_second_time_comes_from_the_cache(tmp_path: Path) -> None:
    first = prepared(noise(10), tmp_path)
    assert first.stored.shape == (10, 8, 8, 3)
    # if it were read again, the broken images would raise an error
    again = prepared(noise(10, broken=tuple(range(10))), tmp_path)
    assert np.array_equal(first.stored, again.stored)
    assert np.array_equal(first.moments, again.moments)
    assert len(entries(tmp_path)) == 1


def test_moments_are_those_of_the_images(tmp_path: Path) -> None:
    made = prepared(noise(4), tmp_path)
    unit = made.stored / 255.0
    assert np.allclose(made.moments[:, 0], unit.mean(axis=(1, 2)))
    assert np.allclose(made.moments[:, 1], (unit**2).mean(axis=(1, 2)))


def test_anything_that_changes_the_result_creates_another_entry(tmp_path: Path) -> None:
    clahe = {"_target_": "albumentations.CLAHE", "clip_limit": (2.0, 2.0), "p": 1.0}
    prepared(noise(4), tmp_path)
    prepared(noise(4, fingerprint="other files"), tmp_path)
    prepared(noise(5), tmp_path)
    prepared(noise(4), tmp_path, transforms=resize(**clahe))
    prepared(noise(4), tmp_path, transforms=resize(**{**clahe, "clip_limit": (3.0, 3.0)}))
    assert len(entries(tmp_path)) == 5


@pytest.mark.slow
def test_worker_processes_do_not_change_the_result(tmp_path: Path) -> None:
    split = noise(4 * CHUNK + 3)
    alone = prepared(split, tmp_path / "alone")
    together = prepared(split, tmp_path / "together", num_workers=2)
    assert np.array_equal(alone.stored, together.stored)


@dataclass(frozen=True)
class Deadly:
    """A reader that kills its process, as the kernel does when memory runs out."""

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.slow
def test_a_killed_worker_gives_a_one_line_error(tmp_path: Path) -> None:
    split = dataclasses.replace(noise(PARALLEL_FROM), read=Deadly())
    with pytest.raises(DataError, match=r"was killed, perhaps because memory ran out; try data\.num_workers=1"):
        prepared(split, tmp_path, num_workers=2)
    assert entries(tmp_path) == leftovers(tmp_path) == []


def test_broken_image_refused_by_name_or_skipped(tmp_path: Path) -> None:
    split = noise(10, broken=(3, 7))
    with pytest.raises(BrokenImage, match="image 3"):
        prepared(split, tmp_path)
    assert entries(tmp_path) == []
    kept = [0, 1, 2, 4, 5, 6, 8, 9]
    for _ in range(2):  # created, then from the cache
        made = prepared(split, tmp_path, on_broken="skip")
        assert made.groups.tolist() == kept
        assert np.array_equal(made.stored, prepared(noise(10), tmp_path).stored[kept])


def test_broken_images_are_counted_and_named_every_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split = noise(10, broken=(3, 7))
    with pytest.raises(BrokenImages, match=r"2 of 10 images cannot .*data\.on_broken=skip: image 3.*; image 7"):
        prepared(split, tmp_path)
    with pytest.raises(BrokenImages, match=r"5 of 10 .*: image 0 is broken; image 1 is .*; image 2 .*; and 2 more\.$"):
        prepared(noise(10, broken=(0, 1, 2, 3, 4)), tmp_path)
    for _ in range(2):  # created, then from the cache
        caplog.clear()
        prepared(split, tmp_path, on_broken="skip")
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
        *named, counted = caplog.messages
        assert counted == "2 of 10 images skipped"
        for number, message in zip((3, 7), named, strict=True):
            assert message.startswith("Skipped: ")
            assert f"image {number}" in message


def test_skipping_all_images_gives_an_empty_set(tmp_path: Path) -> None:
    for _ in range(2):
        assert prepared(noise(3, broken=(0, 1, 2)), tmp_path, on_broken="skip").stored.shape == (0, 8, 8, 3)


def test_transforms_must_end_in_the_image_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="8x8x3"):
        prepared(noise(3), tmp_path, transforms=resize(12))


def test_an_unwritable_cache_gives_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"data\.cache_dir"):
        prepared(noise(3), tmp_path / "file" / "cache")
