"""The cache of prepared arrays."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vitexp.data.prepare import CHUNK, Prepared, prepare
from vitexp.data.source import BrokenImage, DataError, Split


@dataclass(frozen=True)
class Noise:
    """Images of noise; those of `broken` cannot be read."""

    broken: tuple[int, ...] = ()

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        if index in self.broken:
            raise BrokenImage(f"image {index} is broken")
        side = 8 + index % 5
        return np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)


def noise(length: int, *, broken: tuple[int, ...] = (), fingerprint: str = "noise") -> Split:
    numbers = np.arange(length)
    return Split(labels=numbers % 3, groups=numbers, read=Noise(broken), fingerprint=fingerprint)


def resize(size: int = 8, **more: Any) -> list[Any]:
    configs = [{"_target_": "albumentations.Resize", "height": size, "width": size}]
    return configs + ([more] if more else [])


def prepared(split: Split, cache: Path, **changes: Any) -> Prepared:
    arguments: dict[str, Any] = {"name": "noise", "image_size": 8, "num_workers": 0, "on_broken": "refuse", **changes}
    transforms = arguments.pop("transforms", None) or resize()
    return prepare(split, transforms, cache_dir=cache, **arguments)


def entries(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_second_time_comes_from_the_cache(tmp_path: Path) -> None:
    first = prepared(noise(10), tmp_path)
    assert first.stored.shape == (10, 8, 8, 3)
    # were it read again, the broken images would show
    again = prepared(noise(10, broken=tuple(range(10))), tmp_path)
    assert np.array_equal(first.stored, again.stored)
    assert np.array_equal(first.moments, again.moments)
    assert len(entries(tmp_path)) == 1


def test_moments_are_those_of_the_images(tmp_path: Path) -> None:
    made = prepared(noise(4), tmp_path)
    unit = made.stored / 255.0
    assert np.allclose(made.moments[:, 0], unit.mean(axis=(1, 2)))
    assert np.allclose(made.moments[:, 1], (unit**2).mean(axis=(1, 2)))


def test_whatever_changes_the_result_makes_another_entry(tmp_path: Path) -> None:
    clahe = {"_target_": "albumentations.CLAHE", "clip_limit": (2.0, 2.0), "p": 1.0}
    prepared(noise(4), tmp_path)
    prepared(noise(4, fingerprint="other files"), tmp_path)
    prepared(noise(5), tmp_path)
    prepared(noise(4), tmp_path, transforms=resize(**clahe))
    prepared(noise(4), tmp_path, transforms=resize(**{**clahe, "clip_limit": (3.0, 3.0)}))
    assert len(entries(tmp_path)) == 5


@pytest.mark.parametrize("file", ["images.npy", "moments.npy", "entry.json"])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
    first = np.array(prepared(noise(10), tmp_path).stored)  # a copy: the file is mapped, and damaged below
    [entry] = entries(tmp_path)
    content = bytearray((entry / file).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (entry / file).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        again = prepared(noise(10), tmp_path)
    assert "damaged" in caplog.text
    assert np.array_equal(first, again.stored)


def test_processes_give_the_same_as_none(tmp_path: Path) -> None:
    split = noise(4 * CHUNK + 3)
    alone = prepared(split, tmp_path / "alone")
    together = prepared(split, tmp_path / "together", num_workers=2)
    assert np.array_equal(alone.stored, together.stored)


def test_broken_image_refused_by_name_or_skipped(tmp_path: Path) -> None:
    split = noise(10, broken=(3, 7))
    with pytest.raises(BrokenImage, match="image 3"):
        prepared(split, tmp_path)
    assert entries(tmp_path) == []
    kept = [0, 1, 2, 4, 5, 6, 8, 9]
    for _ in range(2):  # made, then from the cache
        made = prepared(split, tmp_path, on_broken="skip")
        assert made.groups.tolist() == kept
        assert np.array_equal(made.stored, prepared(noise(10), tmp_path).stored[kept])


def test_transforms_must_end_in_the_image_size(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="8x8x3"):
        prepared(noise(3), tmp_path, transforms=resize(12))


def test_unwritable_cache_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"data\.cache_dir"):
        prepared(noise(3), tmp_path / "file" / "cache")
