"""From a configuration to the objects of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.datamodule import ImageDataModule, available_workers
from vitexp.data.prepare import ever_prepared
from vitexp.data.transforms import build_transforms
from vitexp.errors import ConfigError, UserError
from vitexp.training.mixing import Mixing
from vitexp.training.module import Classifier


def build(node: DictConfig | Any, **arguments: Any) -> Any:
    """hydra.utils.instantiate, with a ConfigError of one sentence for what a constructor refuses."""
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, ValueError | TypeError | ModuleNotFoundError | MisconfigurationException):
            words = ", ".join(f"{key!s}={value}" for key, value in node.items() if isinstance(value, str))
            given = f" (given {words})" if isinstance(cause, TypeError) else ""
            raise ConfigError(f"{node.get('_target_', 'the configuration')}: {cause}{given}") from error
        raise


def build_datamodule(config: DictConfig) -> tuple[ImageDataModule, nn.Module]:
    """The data, and the augmentation that runs on the training device (an identity where it runs while loading)."""
    data, augment = config.data, build(config.augment)
    cache_dir = Path(data.cache_dir).expanduser()
    transforms: Any = OmegaConf.to_container(data.prepare, resolve=True)
    if not ever_prepared(transforms, cache_dir=cache_dir):  # else known to be right, and Albumentations is not imported
        try:
            build_transforms(transforms)
        except ValueError as error:
            raise ConfigError(f"data.prepare: {error}") from error
    sample = augment if isinstance(augment, AlbumentationsAugment) else None
    if sample is not None and data.resident == "device":
        raise ConfigError(
            "data.resident=device needs an augmentation of whole batches; augment=albumentations works image by image "
            "in memory, so take data.resident=auto or another augment."
        )
    datamodule = ImageDataModule(
        name=data.name,
        source=build(data.source),
        prepare=transforms,
        image_size=data.image_size,
        batch_size=data.batch_size,
        val_fraction=data.val_fraction,
        num_workers=available_workers(data.num_workers),
        resident=data.resident,
        cache_dir=cache_dir,
        on_broken=data.on_broken,
        seed=config.seed,
        sample_augment=sample,
    )
    return datamodule, nn.Identity() if sample is not None else augment


def build_net(config: DictConfig, *, num_classes: int) -> nn.Module:
    """The net of config.model, float [B, 3, S, S] to logits [B, num_classes]."""
    arguments = OmegaConf.masked_copy(config.model, [key for key in config.model if key != "name"])
    net = build(arguments, num_classes=num_classes, image_size=config.data.image_size)
    assert isinstance(net, nn.Module)
    return net


def build_module(config: DictConfig, datamodule: ImageDataModule, augment: nn.Module) -> Classifier:
    """The training step around the net of config.model. `datamodule` is set up."""
    training, num_classes = config.training, len(datamodule.classes)
    return Classifier(
        net=build_net(config, num_classes=num_classes),
        num_classes=num_classes,
        augment=augment,
        mixing=Mixing(
            num_classes=num_classes,
            mixup_alpha=training.mixup_alpha,
            cutmix_alpha=training.cutmix_alpha,
            mix_prob=training.mix_prob,
            mix_switch_prob=training.mix_switch_prob,
            mix_until=training.mix_until,
        ),
        optimizer=build(config.optim),
        schedule=build(config.schedule),
        label_smoothing=training.label_smoothing,
        seed=config.seed,
        mean=datamodule.mean,
        std=datamodule.std,
    )
