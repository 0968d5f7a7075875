"""Splits of noise images for the cache of prepared arrays. As a script, prepares one of them."""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitexp.data.prepare import Prepared, prepare
from vitexp.data.source import BrokenImage, Split


@dataclass(frozen=True)
class Noise:
    """Noise images, each of which takes `seconds` to read; those in `broken` cannot be read."""

    broken: tuple[int, ...] = ()
    seconds: float = 0.0

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        time.sleep(self.seconds)
        if index in self.broken:
            raise BrokenImage(f"image {index} is broken")
        side = 8 + index % 5
        return np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)


def noise(length: int, *, broken: tuple[int, ...] = (), seconds: float = 0.0, fingerprint: str = "noise") -> Split:
    numbers = np.arange(length)
    return Split(labels=numbers % 3, groups=numbers, read=Noise(broken, seconds), fingerprint=fingerprint)


def resize(size: int = 8, **more: Any) -> list[Any]:
    configs = [{"_target_": "albumentations.Resize", "height": size, "width": size}]
    return configs + ([more] if more else [])


def prepared(split: Split, cache: Path, **changes: Any) -> Prepared:
    arguments: dict[str, Any] = {"name": "noise", "image_size": 8, "num_workers": 0, "on_broken": "refuse", **changes}
    transforms = arguments.pop("transforms", None) or resize()
    return prepare(split, transforms, cache_dir=cache, **arguments)


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if not path.name.startswith("."))


def leftovers(cache: Path) -> list[str]:
    """Return what the cache contains besides entries and their locks."""
    return [path.name for path in cache.iterdir() if path.name.startswith(".") and path.suffix != ".lock"]


if __name__ == "__main__":  # CACHE LENGTH SECONDS WORKERS
    from tests.data.noise import noise, prepared  # so that worker processes can import what they receive

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    print(f"process {os.getpid()}", flush=True)
    split = noise(int(sys.argv[2]), seconds=float(sys.argv[3]))
    images = prepared(split, Path(sys.argv[1]), num_workers=int(sys.argv[4])).stored
    print(f"sum {images.sum(dtype=np.int64)}", flush=True)
