"""The option `albumentations` of the config group `augment`: any pipeline, image by image, in DataLoader workers."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray

from vitexp.data.transforms import build_transforms
from vitexp.options import Doc, Node
from vitexp.system.signals import die_with_parent

if TYPE_CHECKING:
    pass


class AlbumentationsAugment:
    """A pipeline of Albumentations transforms, seeded: uint8 [H, W, 3] -> uint8 [H, W, 3].

    transforms: configs of transforms or transforms, see build_transforms, applied in their order.

    Call `reseed` before every batch; the DataLoader needs `worker_init_fn=augment.worker_init_fn`. Albumentations 2.0.8
    by itself heeds no global seed, forked workers repeat each other and, where they do not persist, their first epoch.
    """

    def __init__(
        self, *, transforms: Annotated[list[Node], Doc("Albumentations transforms, applied in this order")]
    ) -> None:
        built = build_transforms(transforms)
        from albumentations import Compose  # takes a second to import

        self._pipeline = Compose(built)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Raises ValueError where the pipeline changes the shape or the type of the image."""
        augmented = self._pipeline(image=image)["image"]
        if augmented.shape != image.shape or augmented.dtype != image.dtype:
            raise ValueError(
                f"augment.transforms turn {image.dtype} {list(image.shape)} into {augmented.dtype} "
                f"{list(augmented.shape)}, but must keep both: data.prepare sets the size, and the device makes floats"
            )
        return np.ascontiguousarray(augmented)

    def reseed(self, key: Sequence[int]) -> None:
        """Start the pipeline's random numbers anew; `key`: integers of 0 or more, the same key draws the same."""
        sequence = np.random.SeedSequence(key)
        python_seed = int(sequence.generate_state(1, np.uint64)[0])
        # One stream for all transforms. Compose.set_random_seed would give each a stream of its own with the same
        # numbers, so that two transforms with p=0.5 would always come together.
        self._pipeline.set_random_state(np.random.default_rng(sequence), random.Random(python_seed))  # noqa: S311 - dice

    @staticmethod
    def worker_init_fn(worker_id: int) -> None:
        """For DataLoader(worker_init_fn=...): what a worker does not share with the process that trains."""
        import cv2

        # Workers share the cores already; OpenCV's own threads on top only wait for each other.
        cv2.setNumThreads(0)
        # Ctrl-C and clusters signal workers too, but the run needs them until it has finished its step; SIGTERM leaves
        # a minute for that, because a worker that hangs is ended with it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
        die_with_parent()  # else it would hold the lock of the folder of a run that was killed
