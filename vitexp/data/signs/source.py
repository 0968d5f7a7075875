"""Drawn traffic signs: nothing to download, the same images on every machine, any number of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray

from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.data.signs.render import photograph
from vitexp.data.source import DataError, Source, Split, SplitName
from vitexp.options import Doc, Field

VERSION = 1  # of the drawings; increment it when images change
_SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class DrawSign:
    """A function that draws image `index` of a split; labels cycle through the classes."""

    split: SplitName
    size: int
    seed: int

    def __call__(self, index: int, /) -> NDArray[np.uint8]:
        """Draw an RGB image, uint8 [size, size, 3], that depends on seed, split and index only."""
        entropy = np.random.SeedSequence((self.seed, _SPLITS.index(self.split), index))
        rng = np.random.Generator(np.random.PCG64(entropy))
        return photograph(index % len(GTSRB_CLASSES), rng, size=self.size)


class Signs(Source):
    """The 43 German signs of GTSRB, drawn in random poses and random light.

    Raises ValueError for a value out of range.
    """

    reads_files: ClassVar[bool] = False
    identity: ClassVar[tuple[str, ...]] = ("draw_seed",)
    split_by: ClassVar[tuple[str, ...] | None] = ("train_per_class",)
    classes_made: ClassVar[int] = 43  # so that the number of images is known before they are drawn

    def __init__(
        self,
        *,
        train_per_class: Annotated[
            int, Field(ge=2, le=100_000), Doc("training images per class, from which validation is split")
        ] = 200,
        test_per_class: Annotated[int, Field(ge=1, le=100_000), Doc("test images per class")] = 50,
        draw_size: Annotated[
            int, Field(ge=16, le=512), Doc("pixels per side of a drawing, before it is resized to image_size")
        ] = 48,
        draw_seed: Annotated[
            int, Field(ge=0, le=2**32 - 1), Doc("seed of the drawings, independent of the seed of the run")
        ] = 0,
    ) -> None:
        if train_per_class < 1 or test_per_class < 1:
            raise ValueError(
                f"train_per_class={train_per_class} and test_per_class={test_per_class} must be 1 or more."
            )
        if not 16 <= draw_size <= 512:
            raise ValueError(f"draw_size={draw_size} must be between 16 and 512 pixels.")
        if draw_seed < 0:
            raise ValueError(f"draw_seed={draw_seed} must be 0 or more.")
        self._per_class: dict[SplitName, int] = {"train": train_per_class, "test": test_per_class}
        self._draw_size = draw_size
        self._seed = draw_seed

    @property
    def classes(self) -> list[str]:
        return list(GTSRB_CLASSES)

    def split(self, name: SplitName) -> Split:
        """Return a split with balanced classes; each image is its own group. Raises DataError for another name."""
        if name not in self._per_class:
            raise DataError(f"split {name!r} must be train or test.")
        index = np.arange(self._per_class[name] * len(GTSRB_CLASSES))
        return Split(
            labels=index % len(GTSRB_CLASSES),
            groups=index,
            read=DrawSign(split=name, size=self._draw_size, seed=self._seed),
            fingerprint=f"signs-v{VERSION}-{name}-{len(index)}x{self._draw_size}-seed{self._seed}",
        )

    def describe(self) -> str:
        return f"drawn by vitexp, {self._draw_size} pixels"
