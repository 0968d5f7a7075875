"""The option `albumentations` of the config group `augment`: any pipeline, image by image, in DataLoader workers."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.fabric.utilities.seed import pl_worker_init_function
from numpy.typing import NDArray

from vitexp.data.transforms import build_transforms

if TYPE_CHECKING:
    from vitexp.data.transforms import Transform


class AlbumentationsAugment:
    """A pipeline of Albumentations transforms, seeded: uint8 [H, W, 3] -> uint8 [H, W, 3].

    transforms: configs of transforms or transforms, see build_transforms, applied in their order.

    The DataLoader needs `worker_init_fn=augment.worker_init_fn`. Then every worker, process and epoch draws other
    numbers, and the same seed with as many workers and processes draws the same again. Without workers, the first image
    seeds the pipeline from torch's seed, and later epochs draw on. Albumentations 2.0.8 by itself heeds no global seed,
    and forked workers repeat each other and, where they do not persist, their first epoch.
    """

    def __init__(self, *, transforms: Sequence[Mapping[str, Any] | Transform]) -> None:
        built = build_transforms(transforms)
        from albumentations import Compose  # takes a second to import

        self._pipeline = Compose(built)
        self._seeded_process: int | None = None

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raises ValueError where the pipeline changes the shape or the type of the image."""
        if self._seeded_process != os.getpid():
            self.reseed(torch.initial_seed())
        augmented = self._pipeline(image=image)["image"]
        if augmented.shape != image.shape or augmented.dtype != image.dtype:
            raise ValueError(
                f"augment.transforms turn {image.dtype} {list(image.shape)} into {augmented.dtype} "
                f"{list(augmented.shape)}, but must keep both: data.prepare sets the size, and the device makes floats"
            )
        return np.ascontiguousarray(augmented)

    def reseed(self, seed: int) -> None:
        """Starts the pipeline's random numbers anew, in this process; every rank gets others from the same seed."""
        sequence = np.random.SeedSequence([seed, getattr(rank_zero_only, "rank", 0)])
        python_seed = int(sequence.generate_state(1, np.uint64)[0])
        # One stream for all transforms. Compose.set_random_seed would give each a stream of its own with the same
        # numbers, so that two transforms with p=0.5 would always come together.
        self._pipeline.set_random_state(np.random.default_rng(sequence), random.Random(python_seed))  # noqa: S311 - dice
        self._seeded_process = os.getpid()

    def worker_init_fn(self, worker_id: int) -> None:
        """For DataLoader(worker_init_fn=...): seeds the worker, and the pipeline in it, by epoch, worker and rank."""
        pl_worker_init_function(worker_id)
        self.reseed(torch.initial_seed())
        import cv2

        # Workers share the cores already; OpenCV's own threads on top only wait for each other.
        cv2.setNumThreads(0)
