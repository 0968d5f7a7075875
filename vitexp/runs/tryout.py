"""Try out the parts of a run before any data is read, so that errors are reported within a second."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import Optimizer

from vitexp.config.components import facts
from vitexp.data.augment import AlbumentationsAugment, per_image
from vitexp.data.prepare import ever_prepared
from vitexp.data.transforms import build_transforms
from vitexp.errors import ConfigError, one_line
from vitexp.runs.build import build, build_a, build_loss, build_net, build_task, misfit
from vitexp.runs.weights import StartingWeights
from vitexp.training.parameter_groups import parameter_groups
from vitexp.training.schedules import Schedule


def try_out(config: DictConfig, weights: StartingWeights | None = None) -> None:
    """Raise ConfigError for parts of the configuration that cannot be built or do not do what their group requires.

    weights: the weights that the network starts from; ConfigError if they belong to a different network.
    """
    net, size = build_net(config, num_classes=2), config.data.image_size
    if weights is not None:
        weights.load_into(net, classes=[])
    # vitexp's own networks are known to work; one that wraps others does not state `any_image_size`.
    is_ours = type(net).__module__.startswith("vitexp.models.") and "any_image_size" in facts(config.model)
    for side in () if is_ours else (size, *(config.training.image_sizes or ())):
        with _refused("model", config.model, f" on images of {side} pixels"), torch.no_grad():
            logits = net.eval()(torch.zeros(1, 3, side, side))
        if not isinstance(logits, Tensor) or logits.shape != (1, 2):
            raise misfit("model", config.model, f"returned {_kind_of(logits)} for one image and two classes")
    loss = build_loss(config, weights=None)
    with _refused("loss", config.loss):
        mean = loss(torch.zeros(2, 2), torch.full((2, 2), 0.5))
    if not isinstance(mean, Tensor) or mean.ndim or not mean.is_floating_point():
        raise misfit("loss", config.loss, f"returned {_kind_of(mean)}")
    if isinstance(loss, nn.Module) and any(each.requires_grad for each in loss.parameters()):
        raise misfit("loss", config.loss, "has parameters, but only those of the network are trained")
    schedule = build_a(Schedule, config.schedule, "schedule")
    with _refused("schedule", config.schedule):
        length = {"total_steps": 10, "steps_per_epoch": 5, "peak_lr": config.optim.lr}
        rates = [float(schedule(step, **length)) for step in (0, 5, 9)]
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        raise misfit("schedule", config.schedule, f"returned the learning rates {', '.join(map(str, rates))}")
    _try_augment(config)
    task = build_task(config, net=net, num_classes=2, loss=loss, schedule=schedule)
    if "loss" not in task.metrics:
        raise misfit("task", config.task, f"has the metrics {', '.join(task.metrics)} without loss")
    make_optimizer = build(config.optim, "optim", _partial_=True)
    with _refused("optim", config.optim):
        optimizer = make_optimizer(parameter_groups(task.net, layer_decay=config.training.layer_decay))
    if not isinstance(optimizer, Optimizer):
        raise misfit("optim", config.optim, f"makes a {type(optimizer).__name__}")
    _try_transforms(config)


@contextmanager
def _refused(group: str, node: DictConfig, doing: str = "") -> Iterator[None]:
    """Turn any exception from a component into a ConfigError that says what it must be."""
    try:
        yield
    except Exception as error:  # user code may raise anything
        raise misfit(group, node, f"failed{doing} ({one_line(str(error))})") from error


def _kind_of(made: object) -> str:
    return f"a {type(made).__name__}" + (f" of shape {list(made.shape)}" if isinstance(made, Tensor) else "")


def _try_augment(config: DictConfig) -> None:
    """Raise ConfigError for an augmentation of the user that does not map images to images of the same kind."""
    augment: Any = build_a((nn.Module, AlbumentationsAugment), config.augment, "augment")
    if not isinstance(augment, nn.Module) or type(augment).__module__.startswith("vitexp.data.augment."):
        return
    size = config.data.image_size
    images = torch.linspace(0, 1, 2 * 3 * size**2).view(2, 3, size, size)
    with _refused("augment", config.augment, f" on images of {size} pixels"):
        changed = per_image(augment)(images.clone())
    if not isinstance(changed, Tensor) or changed.shape != images.shape or not changed.is_floating_point():
        raise misfit("augment", config.augment, f"returned {_kind_of(changed)} for images {list(images.shape)}")
    low, high = changed.aminmax()
    if not (low >= -1 and high <= 2):  # not strictly from 0 to 1: noise may go a little further
        raise misfit("augment", config.augment, f"returned values from {low:.3g} to {high:.3g}")


def _try_transforms(config: DictConfig) -> None:
    """Raise ConfigError for transforms that cannot be built, or whose result training cannot use."""
    data, image_size = config.data, config.data.image_size
    transforms: Any = OmegaConf.to_container(data.prepare, resolve=True)
    is_sized = any(transform.get("height") == image_size for transform in transforms)
    if is_sized and ever_prepared(transforms, cache_dir=Path(data.cache_dir).expanduser()):
        return  # without importing Albumentations, which is slow
    try:
        built = build_transforms(transforms)
    except ValueError as error:
        raise ConfigError(f"data.prepare: {one_line(str(error))}") from error
    known = data.source.get("draw_size")  # pixels per side, if known before the images are read
    image = np.zeros((known or 48, known or 64, 3), np.uint8)
    try:
        for transform in built:
            image = transform(image=image)["image"]
    except Exception as error:  # for example because it needs larger images
        if known is None:
            return  # such an error appears when the data are read
        raise ConfigError(f"data.prepare cannot take images of {known} pixels: {one_line(str(error))}") from error
    if image.shape != (image_size, image_size, 3) or image.dtype != np.uint8:
        raise ConfigError(
            f"data.prepare must end in uint8 images of {image_size}x{image_size}x3 (data.image_size={image_size}), "
            f"but ends in {image.dtype} images of {'x'.join(map(str, image.shape))}."
        )
