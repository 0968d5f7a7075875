"""Albumentations pipelines, applied per image in DataLoader workers: `augment=albumentations`."""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from vitexp.data.transforms import build_transforms
from vitexp.options import Doc, Node
from vitexp.system.signals import die_with


class AlbumentationsAugment:
    """A pipeline of Albumentations transforms, seeded: uint8 [H, W, 3] -> uint8 [H, W, 3].

    transforms: configs of transforms, or transforms (see `build_transforms`).

    Call `reseed` before each batch, and pass `worker_init_fn=augment.worker_init_fn` to the DataLoader. Albumentations
    2.0.8 ignores global seeds: forked workers draw the same numbers as each other and, unless they are persistent, the
    same numbers in every epoch.
    """

    def __init__(
        self, *, transforms: Annotated[list[Node], Doc("Albumentations transforms, applied in this order")]
    ) -> None:
        built = build_transforms(transforms)
        from albumentations import Compose  # takes a second to import

        self._pipeline = Compose(built)

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Augment one image. Raises ValueError if the pipeline changes the shape or dtype."""
        augmented = self._pipeline(image=image)["image"]
        if augmented.shape != image.shape or augmented.dtype != image.dtype:
            raise ValueError(
                f"augment.transforms turn {image.dtype} {list(image.shape)} into {augmented.dtype} "
                f"{list(augmented.shape)}; they must keep shape and dtype (data.prepare sets the size)"
            )
        return np.ascontiguousarray(augmented)

    def reseed(self, key: Sequence[int]) -> None:
        """Seed the pipeline. key: integers of 0 or more; the same key gives the same draws."""
        sequence = np.random.SeedSequence(key)
        python_seed = int(sequence.generate_state(1, np.uint64)[0])
        # One stream for all transforms. Compose.set_random_seed would give each its own stream with the same numbers:
        # two transforms with p=0.5 would always be applied together.
        self._pipeline.set_random_state(np.random.default_rng(sequence), random.Random(python_seed))  # noqa: S311

    @staticmethod
    def worker_init_fn(worker_id: int) -> None:
        """Initialize a DataLoader worker: set threads and signals, and exit with the parent."""
        import cv2

        # Workers share the cores already; OpenCV's own threads would only compete.
        cv2.setNumThreads(0)
        # Ctrl-C and cluster schedulers also signal the workers, but the run needs them until its step is finished.
        # After SIGTERM a worker exits within a minute, so that a hung one ends too.
        for name in ("SIGINT", "SIGUSR1", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        if sys.platform != "win32":  # there, SIGTERM cannot be handled
            signal.signal(signal.SIGTERM, lambda *_: signal.alarm(60))
        if (parent := multiprocessing.parent_process()) is not None and parent.pid is not None:
            die_with(parent.pid)  # otherwise it would keep the lock of the run folder after the run was killed
