"""The batch size and the number of epochs where the configuration leaves them to the data set ("auto").

Small sets need many epochs: what counts is the number of optimizer steps and of images seen, and a default of a few
epochs over 200 images would end before the network has learned anything. Both numbers depend only on the number of
training images, so a command gives the same result on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

AUTO: Literal["auto"] = "auto"
EPOCHS = 8  # at least
IMAGES = 60_000  # at least, counting each image once per epoch: as many as the default run sees
STEPS = 1_500  # at least, if the batch size is chosen too
LARGEST = 128


def lengths(config: Mapping[str, Any], *, images: int) -> tuple[int, int]:
    """Return data.batch_size and trainer.max_epochs of a configuration as numbers, for `images` training images."""
    batch_size, trainer = config["data"]["batch_size"], config["trainer"]
    epochs, steps = trainer["max_epochs"], trainer["max_steps"]
    if batch_size == AUTO:
        batch_size = automatic_batch_size(images)
    if epochs == AUTO:
        epochs = automatic_epochs(images, batch_size=batch_size)
        if steps != -1:  # given explicitly, so that it decides
            limit, accumulated = trainer["limit_train_batches"], trainer["accumulate_grad_batches"]
            per_epoch = steps_per_epoch(images, batch_size=batch_size, limit=limit, accumulated=accumulated)
            epochs = math.ceil(steps / max(per_epoch, 1))
    return batch_size, epochs


def steps_per_epoch(images: int, *, batch_size: int, limit: int | float, accumulated: int) -> int:
    """Return the number of optimizer steps per epoch.

    limit, accumulated: trainer.limit_train_batches and trainer.accumulate_grad_batches.
    """
    batches = images // batch_size * accumulated
    return math.ceil((min(limit, batches) if isinstance(limit, int) else int(limit * batches)) / accumulated)


def measured_images(images: int, *, batch_size: int, limit: int | float) -> int:
    """Return how many of `images` are measured. limit: trainer.limit_val_batches or trainer.limit_test_batches."""
    batches = math.ceil(images / batch_size)
    return min(images, batch_size * (min(limit, batches) if isinstance(limit, int) else int(limit * batches)))


def automatic_batch_size(images: int) -> int:
    """Return the largest power of two up to 128 with which `images` training images give 1,500 optimizer steps."""
    seen = max(IMAGES, EPOCHS * images)
    batch_size = LARGEST
    while batch_size > 1 and (batch_size > images or seen < STEPS * batch_size):
        batch_size //= 2
    return batch_size


def automatic_epochs(images: int, *, batch_size: int) -> int:
    """Return the number of epochs, at least 8, after which 60,000 of the `images` training images have been seen."""
    seen_per_epoch = max(images - images % batch_size, 1)  # the rest is dropped, others in each epoch
    return max(EPOCHS, math.ceil(IMAGES / seen_per_epoch))
