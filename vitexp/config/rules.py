"""Rules across keys: values that are valid individually but do not fit together, or have no effect.

Each rule protects a result or hours of training, and yields one sentence: what is wrong and how to fix it. Rules know
components by their facts and options (components.py), never by name.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vitexp.config import network_rules
from vitexp.config.components import MISSING, argument, component, facts
from vitexp.config.conf import CONF
from vitexp.config.validate import as_typed, listed
from vitexp.data.length import AUTO, LARGEST, lengths
from vitexp.errors import indivisible
from vitexp.metrics import METRICS

Config = Mapping[str, Any]

_SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")


def complaints(config: Config) -> Iterator[str]:
    """Yield one sentence for each broken rule. Each key must already have a valid value of its own."""
    yield from _folders(config)
    yield from _folds(config)
    yield from network_rules.complaints(config)
    yield from _augmentation(config)
    yield from _optimizer(config)
    yield from _task(config)
    yield from _choice_of_weights(config)
    yield from _lengths(config)
    yield from _devices(config)
    yield from _no_effect(config)
    yield from _known_sizes(config)


def direction(metric: str) -> str:
    """Return whether a larger or a smaller value of a logged metric is better: "max" or "min"."""
    return METRICS[name].direction if (name := metric.partition("/")[2]) in METRICS else "max"


def monitored(config: Mapping[str, Any]) -> tuple[str | None, str]:
    """Return checkpoint.monitor and checkpoint.mode; "auto" is resolved by the task and the direction of the metric."""
    monitor, mode = config["checkpoint"]["monitor"], config["checkpoint"]["mode"]
    if monitor == "auto":
        monitor = facts(config["task"]).get("monitor", "val/loss")
    return monitor, direction(str(monitor)) if mode == "auto" else mode


def _folders(config: Config) -> Iterator[str]:
    written = ("log_dir", f"{config['log_dir']}/{config['name']}", True)
    if config["resume"] not in (None, "auto"):  # the run may have been copied from a machine with other folders
        written = ("resume", config["resume"], True)
    for key, path, must_write in (
        written,
        ("data.cache_dir", config["data"]["cache_dir"], False),
    ):
        try:
            folder = Path(path).expanduser().absolute()
            found = next(part for part in (folder, *folder.parents) if part.exists())
            usable = found.is_dir() and (os.access(found, os.W_OK | os.X_OK) or (found == folder and not must_write))
        except (OSError, RuntimeError) as error:  # the name is too long, or there is no home directory
            reason = getattr(error, "strerror", None) or error
            yield f"{key}: {as_typed(path)} cannot be a folder ({reason}); choose another."
        else:
            if not usable:
                yield f"{key}: {as_typed(path)} cannot be written: {found} is not a writable folder; choose another."


def _folds(config: Config) -> Iterator[str]:
    data = config["data"]
    folds, fold, fraction = data.get("folds"), data.get("fold", 0), data["val_fraction"]
    if folds is None:
        return
    if fold >= folds:
        yield f"data.fold={fold} must be from 0 to {folds - 1}, because data.folds={folds}."
    if fraction not in _in_conf("data.val_fraction"):
        yield (
            f"data.val_fraction={fraction} and data.folds={folds} both choose the validation images; remove one, or "
            "set data.val_fraction=0.1 if it comes from an experiment."
        )


def _augmentation(config: Config) -> Iterator[str]:
    augment, image_size = config["augment"], config["data"]["image_size"]
    sigma = argument(augment, "blur_sigma") if argument(augment, "blur_prob") else None
    if sigma and (reach := math.ceil(2 * sigma[1])) >= image_size:
        yield (
            f"augment.blur_sigma={list(sigma)} reaches {reach} pixels, beyond data.image_size={image_size}; reduce "
            "it, or set augment.blur_prob=0."
        )


def _optimizer(config: Config) -> Iterator[str]:
    optim, schedule = config["optim"], config["schedule"]
    if optim.get("nesterov") and (not argument(optim, "momentum") or optim.get("dampening")):
        yield "optim.nesterov=true needs optim.momentum above 0 and no dampening; otherwise set optim.nesterov=false."
    if (min_lr := argument(schedule, "min_lr") or 0) > optim["lr"]:
        yield f"schedule.min_lr={min_lr} must be between 0 and optim.lr={optim['lr']}."


def _task(config: Config) -> Iterator[str]:
    """Check a task that reconstructs images from some of their patches."""
    task, model = config["task"], config["model"]
    if "mask_ratio" not in task or "decoder_dim" not in task:
        return
    if not facts(model).get("has_patches"):
        yield f"this task hides patches, which {model['name']} cannot leave out; choose a plain ViT, such as vit_tiny."
    if argument(model, "mlp_conv"):
        yield "model.mlp_conv=true needs the whole grid of patches, and this task hides some; set model.mlp_conv=false."
    dim, heads, ratio = task["decoder_dim"], task.get("decoder_heads", 1), task["mask_ratio"]
    if dim % 4:
        yield f"task.decoder_dim={dim} must be a multiple of 4 for its sine-cosine position embedding."
    if problem := indivisible("task.decoder_heads", heads, "task.decoder_dim", dim):
        yield problem
    patches = ((argument(model, "upsample") or config["data"]["image_size"]) // argument(model, "patch_size")) ** 2
    if not 0 < (visible := round(patches * (1 - ratio))) < patches:
        hidden = "all" if visible == 0 else "none"
        yield f"task.mask_ratio={ratio} hides {hidden} of the {patches} patches; change it, or model.patch_size."
    hidden_side = argument(model, "patch_size") * math.isqrt(max(visible, 0))
    if argument(model, "lsa") and network_rules.tokens(model, hidden_side) < 2:
        yield f"task.mask_ratio={ratio} leaves one token, but model.lsa=true needs two; reduce it."


def _choice_of_weights(config: Config) -> Iterator[str]:
    """Check the settings of validation, which chooses the weights that are tested."""
    checkpoint, trainer, patience = config["checkpoint"], config["trainer"], config["training"]["patience"]
    monitor, mode = checkpoint["monitor"], checkpoint["mode"]
    measured = facts(config["task"]).get("metrics")
    if monitor not in (None, "auto"):
        name = monitor.partition("/")[2]
        if measured is not None and name not in measured:
            possible = listed([f"val/{each}" for each in measured])
            yield f"checkpoint.monitor={monitor} is not measured by this task; use {possible}."
        if mode not in ("auto", better := direction(monitor)) and name in METRICS:
            yield f"checkpoint.mode={mode} would choose the worst {monitor}; use checkpoint.mode={better}."
    if monitor is None and patience is not None:
        yield "training.patience waits for checkpoint.monitor to improve, but it is null; use auto, for example."
    if patience is not None and trainer["limit_val_batches"] == 0:
        yield "training.patience needs validation, which trainer.limit_val_batches=0 turns off; remove one of them."


def _lengths(config: Config) -> Iterator[str]:
    trainer = config["trainer"]
    if trainer["check_val_every_n_epoch"] is None and isinstance(trainer["val_check_interval"], float):
        yield "trainer.check_val_every_n_epoch=null needs a trainer.val_check_interval in batches or time."
    if trainer["max_steps"] != -1 and (trainer["min_steps"] or 0) > trainer["max_steps"]:
        yield f"trainer.min_steps={trainer['min_steps']} must not exceed trainer.max_steps={trainer['max_steps']}."
    if trainer["max_epochs"] != AUTO:
        yield from _epochs(config, trainer["max_epochs"])


def _epochs(config: Config, epochs: int) -> Iterator[str]:
    """Check what must not exceed the number of epochs."""
    trainer = config["trainer"]
    if (warmup := argument(config["schedule"], "warmup_epochs") or 0) > epochs:
        yield f"schedule.warmup_epochs={warmup} must be between 0 and trainer.max_epochs={epochs}."
    if (trainer["min_epochs"] or 0) > epochs:
        yield f"trainer.min_epochs={trainer['min_epochs']} must not exceed trainer.max_epochs={epochs}."
    every = trainer["check_val_every_n_epoch"] or 1
    if trainer["limit_val_batches"] != 0 and every > epochs:
        yield (
            f"trainer.check_val_every_n_epoch={every} must not exceed trainer.max_epochs={epochs}; "
            "trainer.limit_val_batches=0 turns validation off."
        )


def _devices(config: Config) -> Iterator[str]:
    trainer, batch, devices = config["trainer"], config["data"]["batch_size"], config["trainer"]["devices"]
    strategy = trainer["strategy"]
    named = str(strategy["_target_"] if isinstance(strategy, dict) else strategy)
    if named.rpartition(".")[2] in _SHARDING:
        yield (
            f"trainer.strategy={named} shards the network over the devices, which vitexp does not support, because its "
            "networks fit on one GPU; use trainer.strategy=ddp."
        )
    if trainer["precision"] == "16-mixed" and trainer["accelerator"] == "cpu":
        yield "trainer.precision=16-mixed needs a GPU; on the CPU use bf16-mixed or 32-true."
    if trainer["accelerator"] == "cpu" and (devices in (-1, "-1") or isinstance(devices, list) or "," in str(devices)):
        yield f"trainer.devices={as_typed(devices)} selects GPUs; on the CPU, use a number of processes, such as 1."
    accumulated = trainer["accumulate_grad_batches"]
    shares = accumulated * _count(devices) * trainer["num_nodes"]
    if batch == AUTO:
        if LARGEST % shares:
            yield (
                f"data.batch_size=auto chooses a power of two up to {LARGEST}, which cannot be split evenly over "
                f"trainer.accumulate_grad_batches={accumulated} and trainer.devices={as_typed(devices)}; set "
                f"data.batch_size to a multiple of {shares}."
            )
        return
    yield from mixing_complaints(config["training"], batch=batch, shares=shares)
    if batch % shares:
        yield (
            f"data.batch_size={batch} is the batch of one optimizer step and cannot be split evenly over "
            f"trainer.accumulate_grad_batches={accumulated} and trainer.devices={as_typed(devices)}; use a multiple of "
            f"{shares}."
        )


def mixing_complaints(training: Config, *, batch: int, shares: int) -> Iterator[str]:
    """Check that the images of each of the `shares` of a batch can be mixed with each other."""
    is_mixed = training["mixup_alpha"] > 0 or training["cutmix_alpha"] > 0
    if is_mixed and 0 not in (training["mix_prob"], training["mix_until"]) and batch // shares == 1:
        yield (
            f"data.batch_size={batch} leaves one image per forward pass, which mixup and CutMix would mix with itself; "
            f"use data.batch_size={2 * shares} or more, or training.mixup_alpha=0 and training.cutmix_alpha=0."
        )


def _count(devices: Any) -> int:
    """Return the number of devices per node; 1 if it depends on the machine."""
    if isinstance(devices, str):
        named = [part for part in devices.split(",") if part.isdigit()]
        return len(named) if "," in devices else int(named[0]) if named else 1
    return len(devices) if isinstance(devices, list) else max(devices, 1)


# --- keys without effect ---------------------------------------------------------------------------------------------


def _no_effect(config: Config) -> Iterator[str]:
    """Yield a sentence for each key that has no effect because of another. Values found in conf/ are not reported."""
    model, task, training, trainer = (config[key] for key in ("model", "task", "training", "trainer"))
    source = facts(config["data"]["source"])
    mixed = sum(training[key] > 0 for key in ("mixup_alpha", "cutmix_alpha"))
    no_validation = trainer["limit_val_batches"] == 0 and not trainer["fast_dev_run"]
    is_chosen = trainer["enable_checkpointing"] or training["patience"] is not None
    no_labels = facts(task).get("uses_labels") is False
    takes = component(str(config["data"]["source"]["_target_"]))
    unread = () if takes is None or takes.is_open else {"root", "download"} - set(takes.options)
    rules: list[tuple[str, bool, str]] = [
        ("training.mix_switch_prob", mixed < 2, "mixup and CutMix are not both on"),
        (
            "training.mix_prob training.mix_until",
            mixed == 0,
            "neither training.mixup_alpha nor training.cutmix_alpha is on",
        ),
        (
            "training.mixup_alpha training.cutmix_alpha",
            0 in (training["mix_prob"], training["mix_until"]),
            "training.mix_prob=0 or training.mix_until=0 mixes no batch",
        ),
        (
            "training.distillation training.teacher_weight training.temperature",
            training.get("teacher") is None,
            "there is no training.teacher",
        ),
        (
            "training.temperature",
            training.get("distillation", "hard") == "hard",
            "training.distillation=hard uses the teacher's class only",
        ),
        ("training.layer_decay", facts(model).get("has_blocks") is False, "this model has no blocks"),
        (
            "loss.label_smoothing loss.class_weights training.mixup_alpha training.cutmix_alpha "
            "training.layer_decay training.teacher",
            no_labels,
            "this task uses no labels and has no classifier",
        ),
        ("data.fold", config["data"].get("folds") is None, "data.folds=null makes no folds"),
        (
            "data.root",
            "root" in unread,
            "this data set has no folder; for images in class folders, write "
            + shlex.join(["data=folder", f"data.root={config['data']['root']}"]),
        ),
        ("data.download", "download" in unread, "this data set has nothing to download"),
        ("data.on_broken", source.get("reads_files") is False, "this data set has no image files that could be broken"),
        (
            "checkpoint.monitor checkpoint.mode",
            config["checkpoint"]["monitor"] is not None and (not is_chosen or no_validation),
            "trainer.enable_checkpointing or trainer.limit_val_batches leaves nothing to choose from",
        ),
        ("checkpoint.mode", config["checkpoint"]["monitor"] is None, "checkpoint.monitor=null uses the last weights"),
        (
            "checkpoint.every_n_steps checkpoint.every_n_minutes",
            not trainer["enable_checkpointing"],
            "trainer.enable_checkpointing=false writes no checkpoint",
        ),
        (
            "trainer.val_check_interval trainer.check_val_every_n_epoch",
            no_validation,
            "trainer.limit_val_batches=0 turns validation off",
        ),
        ("trainer.gradient_clip_algorithm", not trainer["gradient_clip_val"], "trainer.gradient_clip_val is off"),
        (
            "model.drop_path",
            argument(model, "depth") == 1,
            "it rises from 0 at the first block, which is the only one with model.depth=1",
        ),
        (
            "model.mlp_conv",
            argument(model, "depth") == 1 and argument(model, "pool") == "cls",
            "model.pool=cls does not use the patches of the last block, which is the only one",
        ),
        ("augment.blur_sigma", argument(config["augment"], "blur_prob") == 0, "augment.blur_prob=0 blurs no image"),
        (
            "augment.erase_area augment.erase_aspect",
            argument(config["augment"], "erase_prob") == 0,
            "augment.erase_prob=0 erases nothing",
        ),
        (
            "augment.num_ops augment.magnitude",
            argument(config["augment"], "policy") not in (None, "randaugment"),
            "only augment.policy=randaugment uses it",
        ),
    ]
    for name, node in config["callbacks"].items():
        options = " ".join(f"callbacks.{name}.{key}" for key in node if key != "_target_")
        lacking = unmet_needs(node, model=model, task=task)
        rules.append((options, bool(lacking), f"this model or task has no {' or '.join(lacking)}".replace("_", " ")))
        is_idle = facts(node).get("uses_labels") is False and not no_labels
        rules.append((options, is_idle, "this task uses labels"))
    of_task, loss = component(str(task["_target_"])), config["loss"]["_target_"]
    if of_task is not None and not of_task.is_open and "loss" not in of_task.options and loss != _default_loss():
        yield f"loss._target_={loss} has no effect because this task has a loss of its own; drop loss=."
    for keys, is_dead, because in rules:
        for key in keys.split() if is_dead else ():
            value = _value(config, key)
            if value is not MISSING and value not in _in_conf(key):
                yield f"{key}={as_typed(value)} has no effect because {because}."


def unmet_needs(callback: Mapping[str, Any], *, model: Mapping[str, Any], task: Mapping[str, Any]) -> list[str]:
    """Return the `needs` of a callback that neither the model nor the task meets (`has_<need>` is False)."""
    return [
        need
        for need in facts(callback).get("needs", ())
        if facts(model).get(f"has_{need}", facts(task).get(f"has_{need}")) is False
    ]


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return MISSING
        config = config[part]
    return config


def _in_conf(key: str) -> list[Any]:
    """Return the values that the files of conf/ give to a key."""
    group, _, inside = key.partition(".")
    values = [_value(_read(CONF / "train.yaml"), key)]
    return [*values, *(_value(_read(file), inside) for file in sorted((CONF / group).glob("*.yaml")))]


def _default_loss() -> Any:
    return _read(CONF / "loss" / "cross_entropy.yaml")["_target_"]


@cache
def _read(file: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(file))


# --- numbers of images -----------------------------------------------------------------------------------------------


def _known_sizes(config: Config) -> Iterator[str]:
    """Check the lengths of a data set whose size follows from its options, before it is generated."""
    source = config["data"]["source"]
    classes, train, test = (
        facts(source).get("classes_made"),
        argument(source, "train_per_class"),
        argument(source, "test_per_class"),
    )
    if None in (classes, train, test):
        return
    if (folds := config["data"].get("folds")) is None:  # as vitexp.data.split does
        val = classes * min(max(math.ceil(config["data"]["val_fraction"] * train - 0.5), 1), train - 1)
    else:
        val = len(range(config["data"]["fold"], classes * train, folds))
    batch, _ = lengths(config, images=(images := classes * train - val))
    if batch > images:
        yield f"data.batch_size={batch} is larger than the training part of {images:,} images; use a smaller one."
    yield from length_complaints(config, train=images, val=val, test=classes * test)


def length_complaints(config: Config, *, train: int, val: int, test: int) -> Iterator[str]:
    """Yield a sentence for each limit or interval that does not fit this many images."""
    trainer = config["trainer"]
    if trainer["fast_dev_run"]:  # Lightning then sets the limits itself
        return
    batch, epochs = lengths(config, images=train)
    if trainer["max_epochs"] == AUTO and trainer["max_steps"] == -1:
        yield from _epochs(config, epochs)
    batch //= trainer["accumulate_grad_batches"]
    batches = {"train": train // batch, "val": math.ceil(val / batch), "test": math.ceil(test / batch)}
    for part, available in batches.items():
        key = f"limit_{part}_batches"
        limit = trainer[key]
        if isinstance(limit, float):
            batches[part] = int(available * limit)
            if limit > 0 and not batches[part]:
                yield (
                    f"trainer.{key}={limit} of {available} batches is less than one; "
                    f"use {math.ceil(100 / available) / 100} or more, or a number of batches."
                )
        else:
            batches[part] = min(available, limit)
    interval, total = trainer["val_check_interval"], batches["train"]
    over = "an epoch; trainer.check_val_every_n_epoch=null counts across epochs"
    if trainer["check_val_every_n_epoch"] is None:
        total *= epochs
        over = "the whole training run; trainer.limit_val_batches=0 turns validation off"
    if isinstance(interval, int) and interval > total and batches["val"]:
        yield f"trainer.val_check_interval={interval} must not exceed the {total:,} batches of {over}."
