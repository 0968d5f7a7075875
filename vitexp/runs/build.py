"""Build the objects of a run from its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from vitexp.config.check import check_lengths
from vitexp.config.components import facts
from vitexp.config.rules import mixing_complaints
from vitexp.config.schema import CONTRACTS, OF_FACTS
from vitexp.data.augment import AlbumentationsAugment
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.length import AUTO, lengths
from vitexp.data.source import Source
from vitexp.errors import ConfigError, UserError, one_line
from vitexp.models.trained_net import TrainedNet
from vitexp.runs.launcher import cluster_environment, refuse_other_number
from vitexp.runs.record import data_set
from vitexp.runs.weights import StartingWeights, normalization
from vitexp.system.hardware import resolve_precision
from vitexp.training.checkpoints import CheckedCheckpointIO
from vitexp.training.distillation import Distillation
from vitexp.training.losses import balanced_weights
from vitexp.training.mixing import Mixing
from vitexp.training.task import Task

Made = TypeVar("Made")
_MIXING = ("mixup_alpha", "cutmix_alpha", "mix_prob", "mix_switch_prob", "mix_until")  # of config.training
_DATA = (  # of config.data
    *("name", "image_size", "batch_size", "val_fraction", "folds", "fold", "sampler"),
    *("num_workers", "resident", "cache_dir", "on_broken"),
)


def build(node: DictConfig | Any, group: str = "", **arguments: Any) -> Any:
    """Build the component that a node names. group: its config group, for error messages.

    Lists and dictionaries are passed as plain ones, because a checkpoint with OmegaConf's would not be loaded.

    Raises ConfigError if the class refuses its arguments; MemoryError propagates.
    """
    try:
        return instantiate(node, **{"_convert_": "all", **arguments})
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from error
        if isinstance(cause, MemoryError | torch.OutOfMemoryError):
            raise cause from error
        words = ", ".join(
            f"{key!s}={value}" for key, value in node.items() if isinstance(value, str) and not str(key).startswith("_")
        )
        given = f" (given {words})" if words and isinstance(cause, TypeError) else ""
        reason = str(error) if cause is None else str(cause)
        if "Error locating" in str(error):
            reason = f"cannot be imported ({reason}); run in the folder that contains its package, or install it."
        contract = f"; it must be {CONTRACTS[group]}." if group and isinstance(cause, TypeError) else ""
        raise ConfigError(
            f"{node.get('_target_', 'the configuration')}: {one_line(reason)}{given}{contract}"
        ) from error


def build_a(kind: type[Made] | tuple[type[Made], ...], node: DictConfig, group: str, **arguments: Any) -> Made:
    """Build a component and check that it is of this kind. Raises ConfigError otherwise."""
    made = build(node, group, **arguments)
    if not isinstance(made, kind):
        raise misfit(group, node, f"makes a {type(made).__name__}")
    return made


def misfit(group: str, node: DictConfig, problem: str) -> ConfigError:
    """Return an error that says what is wrong with the class of `node` and what its group requires."""
    return ConfigError(f"{node.get('_target_')} {problem}; {group} must be {CONTRACTS[group]}.")


def build_datamodule(config: DictConfig, weights: StartingWeights | None = None) -> tuple[ImageDataModule, nn.Module]:
    """Return the data, and the augmentation that runs on the training device (an identity if it runs while loading).

    weights: the weights that the network starts from, which may require their own normalization.
    """
    data = config.data
    augment: Any = build_a((nn.Module, AlbumentationsAugment), config.augment, "augment")
    sample = augment if isinstance(augment, AlbumentationsAugment) else None
    if sample is not None and data.resident == "device":
        raise ConfigError(
            "data.resident=device needs an augmentation that works on whole batches, but augment=albumentations works "
            "per image on the CPU; use data.resident=auto or another augment."
        )
    datamodule = ImageDataModule(
        source=build_a(Source, data.source, "data.source"),
        prepare=OmegaConf.to_container(data.prepare, resolve=True),  # type: ignore[arg-type]
        seed=config.seed,
        sample_augment=sample,
        normalization=normalization(data.normalize, weights),
        **{key: data[key] for key in _DATA},
    )
    return datamodule, nn.Identity() if sample is not None else augment


def build_net(config: DictConfig, *, num_classes: int) -> nn.Module:
    """Return the network of config.model: float [B, 3, S, S] to logits [B, num_classes]."""
    # The weights to start from are not arguments of its class.
    ours = {"name", *(key for fact, keys in OF_FACTS.items() if facts(config.model).get(fact) for key in keys)}
    arguments = OmegaConf.masked_copy(config.model, [key for key in config.model if key not in ours])
    return build_a(nn.Module, arguments, "model", num_classes=num_classes, image_size=config.data.image_size)


def task_class(config: DictConfig) -> type[Task]:
    """Return the class of config.task. Raises ConfigError if it is not a Task."""
    try:
        found = get_class(config.task._target_)
    except Exception as error:  # importing user code may raise anything
        raise ConfigError(f"task._target_={config.task._target_} cannot be imported: {one_line(str(error))}") from error
    if not issubclass(found, Task):
        raise misfit("task", config.task, "is not a Task")
    return found


def build_task(config: DictConfig, **parts: Any) -> Task:
    """Build config.task from the `parts` that its constructor takes."""
    taken = _keyword_arguments(task_class(config))
    # In two steps, because Hydra would copy the parts.
    make = build(config.task, "task", _partial_=True)
    try:
        return make(**{name: part for name, part in parts.items() if name in taken})  # type: ignore[no-any-return]
    except UserError:
        raise
    except Exception as error:  # user code may raise anything
        raise misfit("task", config.task, f"failed ({one_line(str(error))})") from error


def _keyword_arguments(kind: type) -> set[str]:
    """Return the names of the constructor's arguments, including those of base classes if it has **kwargs."""
    taken: set[str] = set()
    for each in kind.__mro__:
        if "__init__" not in vars(each):
            continue
        parameters = inspect.signature(each.__init__).parameters.values()  # type: ignore[misc]
        taken |= {parameter.name for parameter in parameters}
        if each is Task or not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return taken


def build_loss(config: DictConfig, *, weights: list[float] | None) -> Callable[[Tensor, Tensor], Tensor]:
    """Build config.loss; `weights` replace its class_weights if it has that option."""
    given = {"class_weights": weights} if "class_weights" in config.loss else {}
    return build(config.loss, "loss", **given)  # type: ignore[no-any-return]


def _class_weights(config: DictConfig, labels: NDArray[np.int64], num_classes: int) -> list[float] | None:
    weights: Any = config.loss.get("class_weights")
    if weights == "balanced":
        return balanced_weights(labels, num_classes)
    if weights is not None and len(weights) != num_classes:
        raise ConfigError(
            f"loss.class_weights has {len(weights)} weights, but {data_set(config.data)} has {num_classes} classes; "
            "give one per class, or balanced."
        )
    if weights is not None and not any(weights):
        raise ConfigError("loss.class_weights are all 0, so that nothing would be learned; increase one.")
    return weights if weights is None else list(weights)


def build_module(
    config: DictConfig,
    datamodule: ImageDataModule,
    augment: nn.Module,
    weights: StartingWeights | None = None,
    teacher: TrainedNet | None = None,
) -> Task:
    """Return the task of config.task with the network of config.model, which starts from `weights`.

    datamodule: already set up. teacher: a network to distill, with the same classes.

    Raises ConfigError if the configuration asks for more batches than there are.
    """
    check_lengths(config, **{part: len(getattr(datamodule, part).labels) for part in ("train", "val", "test")})
    training, num_classes = config.training, len(datamodule.classes)
    net = build_net(config, num_classes=num_classes)
    if weights is not None:
        weights.load_into(net, classes=datamodule.classes)
    return build_task(
        config,
        net=net,
        num_classes=num_classes,
        augment=augment,
        loss=build_loss(config, weights=_class_weights(config, datamodule.train.labels, num_classes)),
        mixing=Mixing(**{key: training[key] for key in _MIXING}),
        optimizer=build(config.optim, "optim", _partial_=True),
        schedule=build(config.schedule, "schedule"),
        seed=config.seed,
        mean=datamodule.mean,
        std=datamodule.std,
        layer_decay=training.layer_decay,
        image_sizes=training.image_sizes,
        distillation=None
        if teacher is None
        else Distillation(
            teacher=teacher,
            kind=training.distillation,
            weight=training.teacher_weight,
            temperature=training.temperature,
        ),
    )


def build_trainer(
    config: DictConfig, *, device: torch.device, callbacks: list[Callback], loggers: list[Logger], folder: Path
) -> Trainer:
    """Return Lightning's Trainer with the arguments of config.trainer and checksummed checkpoint files."""
    environment = cluster_environment()
    ours = ("debug", "compile", "precision", "float32_matmul_precision", "plugins")
    arguments = {key: value for key, value in config.trainer.items() if key not in ours}
    trainer: Trainer = build(
        OmegaConf.create({"_target_": "lightning.Trainer", **arguments}),
        max_epochs=-1 if config.trainer.max_epochs == AUTO else config.trainer.max_epochs,  # see `settle`
        precision=resolve_precision(config.trainer.precision, device),
        plugins=[*(config.trainer.plugins or []), CheckedCheckpointIO(), environment],
        logger=loggers,
        callbacks=callbacks,
        enable_progress_bar=False,  # ours is among the callbacks
        default_root_dir=str(folder),
        use_distributed_sampler=False,  # our sampler neither pads nor repeats images
    )
    refuse_other_number(environment, trainer.world_size)
    if config.data.batch_size != AUTO:
        _refuse_uneven_shares(config, trainer)
    return trainer


def settle(config: DictConfig, trainer: Trainer, datamodule: ImageDataModule) -> DictConfig:
    """Return the configuration with the lengths that it leaves to the data set, and tell the trainer.

    datamodule: already set up. Raises ConfigError if the batch cannot be split evenly among the devices.
    """
    settled_config = config.copy()
    batch_size, epochs = lengths(config, images=len(datamodule.train))
    settled_config.data.batch_size, settled_config.trainer.max_epochs = batch_size, epochs
    if not config.trainer.fast_dev_run:  # which has a length of its own
        trainer.fit_loop.max_epochs = epochs
    _refuse_uneven_shares(settled_config, trainer)
    return settled_config


def _refuse_uneven_shares(config: DictConfig, trainer: Trainer) -> None:
    """Raise ConfigError if the batch cannot be split evenly, or its parts not mixed: devices=-1 is known only now."""
    batch, shares = config.data.batch_size, trainer.world_size * trainer.accumulate_grad_batches
    if batch % shares:
        raise ConfigError(
            f"data.batch_size={batch} is the batch of one optimizer step and cannot be split evenly over "
            f"{trainer.world_size} devices and trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}; "
            f"use a multiple of {shares}."
        )
    for complaint in mixing_complaints(config.training, batch=batch, shares=shares):
        raise ConfigError(complaint)
