"""What is likely to disappoint about a run, said before it trains or with its result."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from lightning import Trainer
from omegaconf import DictConfig
from torch import Tensor

from vitexp.config.components import argument, facts
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.length import AUTO, measured_images
from vitexp.text import plural, shortened
from vitexp.training.callbacks import Norms

_FEW_STEPS = 500  # a small ViT from random weights has hardly started to separate classes
_ENOUGH_STEPS = 1_500
_MANY_PATCHES = 100
_FEW_PATCHES = 4  # per side; fewer show a ViT hardly anything
_FEW_IMAGES = 100  # to measure an accuracy: it is uncertain by 10 points
IMBALANCED = 3  # minimum ratio of the largest to the smallest class that is mentioned


def concerns(config: DictConfig, trainer: Trainer, datamodule: ImageDataModule) -> Iterator[str]:
    """Yield a sentence for each choice that hardly works, with what would; nothing about a debug run.

    config: as typed. trainer: with its final length. datamodule: already set up.
    """
    if config.trainer.debug:
        return
    per_epoch = max(len(datamodule.train) // datamodule.batch_size, 1)
    steps = per_epoch * int(trainer.max_epochs or 0)
    is_limited = isinstance(trainer.limit_train_batches, int) or trainer.limit_train_batches < 1  # 1 is one batch
    has_weights = config.model.get("weights") or config.model.get("pretrained")
    is_whole = trainer.max_steps == -1 and not is_limited and not has_weights
    if is_whole and config.trainer.max_epochs != AUTO and steps < _FEW_STEPS:
        yield (
            f"{plural(steps, 'optimizer step')} are few for a network with random weights; "
            f"trainer.max_epochs={math.ceil(_ENOUGH_STEPS / per_epoch)} gives {_ENOUGH_STEPS:,}."
        )
    total = steps if trainer.max_steps == -1 else trainer.max_steps
    every = trainer.log_every_n_steps  # type: ignore[attr-defined]
    if total < every and any(isinstance(callback, Norms) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        yield (
            f"the norms are logged every {every} steps, and this run has {total}; trainer.log_every_n_steps=1 logs "
            "those of every step."
        )
    if facts(config.task).get("uses_labels", True):
        counts = {"validation": measured(trainer, datamodule, "val"), "test": measured(trainer, datamodule, "test")}
        few = {name: count for name, count in counts.items() if 0 < count < _FEW_IMAGES}
        if few:
            points = " and ".join(f"{98 / math.sqrt(count):.0f}" for count in few.values())
            yield (
                f"accuracy on {' and '.join(f'{count} {name}' for name, count in few.items())} images is uncertain by "
                f"up to {points} points (95%)."
            )


def measured(trainer: Trainer, datamodule: ImageDataModule, part: Literal["val", "test"]) -> int:
    """Return how many images of a part are measured: all, unless trainer.limit_..._batches says otherwise."""
    limit = trainer.limit_val_batches if part == "val" else trainer.limit_test_batches
    batch_size = datamodule.batch_size // trainer.accumulate_grad_batches
    return measured_images(len(getattr(datamodule, part)), batch_size=batch_size, limit=limit)


def fewer_patches(config: DictConfig) -> str:
    """Return which key would make the steps of a ViT with many patches faster; "" if there is none."""
    patch_size, size = config.model.get("patch_size"), config.model.get("upsample") or config.data.image_size
    if patch_size is None or (patches := (size // patch_size) ** 2) <= _MANY_PATCHES or config.model.get("weights"):
        return ""
    sizes, is_conv = [size, *(config.training.get("image_sizes") or [])], argument(config.model, "stem") == "conv"
    possible = [
        each
        for each in range(patch_size + 1, min(sizes) // _FEW_PATCHES + 1)
        if not any(side % each for side in sizes) and not (is_conv and each & (each - 1))  # see ConvStem
    ]
    if not possible:
        return ""
    larger = next((each for each in possible if size // each <= 2 * _FEW_PATCHES), possible[-1])
    return f"an image has {patches:,} patches, and model.patch_size={larger} makes {(size // larger) ** 2} of them"


def never_predicted(probabilities: Tensor, labels: Tensor, classes: Sequence[str], *, imbalance: float) -> str:
    """Return a sentence about classes that have test images but were never predicted; "" if there are none.

    probabilities: [N, C]. labels: [N]. imbalance: training images of the largest class per image of the smallest.
    """
    missing = sorted(set(labels.tolist()) - set(probabilities.argmax(dim=1).tolist()))
    if not missing:
        return ""
    names = shortened([classes[label] for label in missing])
    weights = ", loss.class_weights=balanced" if imbalance >= IMBALANCED else ""
    return (
        f"never predicted on the test images: {names} ({len(missing)} of {len(classes)} classes); a longer training "
        f"(trainer.max_epochs){weights} or more images may help."
    )


def without_images(labels: Tensor, classes: Sequence[str]) -> str:
    """Return a sentence about classes of which there are no test images; "" if there are none. labels: int64 [N]."""
    present = set(labels.tolist())
    if not (absent := [name for label, name in enumerate(classes) if label not in present]):
        return ""
    return (
        f"no test images of {shortened(absent)} ({len(absent):,} of {len(classes):,} classes): macro means skip such a "
        "class unless it is predicted, which counts as 0."
    )
