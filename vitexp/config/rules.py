"""Values that are each right, and do not fit together."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitexp.config.components import facts
from vitexp.config.kinds import is_int, shown
from vitexp.data.gtsrb_classes import GTSRB_CLASSES
from vitexp.errors import indivisible

_TOKENS = 65_536  # of one image; attention compares each with each
_PARAMETERS = 10**11
SMALLER_IS_BETTER = ("val/loss", "val/ece")


def complaints(config: dict[str, Any]) -> Iterator[str]:
    """What does not fit together. Each key by itself has a value of its kind."""
    yield from _folders(config)
    model, data = config["model"], config["data"]
    if model["_target_"] == "vitexp.models.ViT":
        yield from _vit(model, data["image_size"])
        yield from _distillation_token(model, config["training"])
    yield from _sizes(config["training"].get("image_sizes") or [], model)
    yield from _augment(config["augment"], data)
    yield from _optimizer(config)
    yield from _choice_of_checkpoint(config)
    yield from _trainer(config)


def _folders(config: dict[str, Any]) -> Iterator[str]:
    for key, path, must_write in (
        ("log_dir", f"{config['log_dir']}/{config['name']}", True),
        ("data.cache_dir", config["data"]["cache_dir"], False),
    ):
        try:
            folder = Path(path).expanduser().absolute()
            found = next(part for part in (folder, *folder.parents) if part.exists())
            usable = found.is_dir() and (os.access(found, os.W_OK | os.X_OK) or (found == folder and not must_write))
        except (OSError, RuntimeError) as error:  # a name that is too long, a home of nobody
            reason = getattr(error, "strerror", None) or error
            yield f"{key}: {shown(path)} cannot be a folder ({reason}); take another."
        else:
            if not usable:
                yield f"{key}: {shown(path)} cannot be written, for {found} is no folder that can; take another."


def _vit(model: dict[str, Any], image_size: int) -> Iterator[str]:
    patch_size, dim = model.get("patch_size", 4), model.get("dim", 192)
    num_heads, depth, mlp_ratio = model.get("num_heads", 3), model.get("depth", 6), model.get("mlp_ratio", 4.0)
    upsample = model.get("upsample")
    if upsample is not None and upsample < image_size:
        yield f"model.upsample={upsample} must be at least data.image_size={image_size}, or null for no enlargement."
    side, key = (image_size, "data.image_size") if upsample is None else (upsample, "model.upsample")
    if side % patch_size:
        yield indivisible("model.patch_size", patch_size, key, side)
    if dim % num_heads:
        yield indivisible("model.num_heads", num_heads, "model.dim", dim)
    tokens = (side // patch_size) ** 2
    if tokens > _TOKENS:
        yield (
            f"model.patch_size={patch_size} cuts {key}={side} into {tokens:,} tokens, more than "
            f"{_TOKENS:,}; take larger patches."
        )
    if dim * mlp_ratio < 1:
        yield f"model.mlp_ratio={mlp_ratio} of model.dim={dim} leaves the MLP no channel; take more."
    if (parameters := depth * dim**2 * (4 + 2 * mlp_ratio)) > _PARAMETERS:
        yield f"the model would have {parameters:.0e} parameters; take a smaller model.dim, depth or mlp_ratio."
    if model.get("lsa") and tokens + model.get("registers", 0) + (model.get("pool", "cls") == "cls") < 2:
        yield "model.lsa=true lets no token see itself, and there is one only; take a smaller model.patch_size."


def _distillation_token(model: dict[str, Any], training: dict[str, Any]) -> Iterator[str]:
    if not model.get("distillation_token"):
        return
    if (pool := model.get("pool", "cls")) != "cls":
        yield f"model.distillation_token=true stands beside a class token, and model.pool={pool} has none; take cls."
    if training.get("teacher") is None and model.get("weights") is None:
        yield "model.distillation_token=true learns from a teacher; say training.teacher=<folder of a finished run>."


def _sizes(sizes: list[int], model: dict[str, Any]) -> Iterator[str]:
    if sizes and model["_target_"] != "vitexp.models.ViT":
        yield "training.image_sizes is for Vision Transformers, whose positions can be interpolated; leave it null."
    if sizes and model.get("upsample"):
        yield "model.upsample makes images one size, and training.image_sizes several; leave one of them null."
    patch_size = model.get("patch_size", 4)
    for size in sizes:
        if size % patch_size:
            yield f"model.patch_size={patch_size} does not divide {size} of training.image_sizes; take multiples of it."
        if (tokens := (size // patch_size) ** 2) > _TOKENS:
            yield f"{size} of training.image_sizes makes {tokens:,} tokens, more than {_TOKENS:,}; take less."
        if model.get("lsa") and tokens + model.get("registers", 0) + (model.get("pool", "cls") == "cls") < 2:
            yield f"{size} of training.image_sizes leaves model.lsa=true one token, which cannot see itself; take more."


def _augment(augment: dict[str, Any], data: dict[str, Any]) -> Iterator[str]:
    if augment.get("blur_prob") and "blur_sigma" in augment:
        reach = math.ceil(2 * augment["blur_sigma"][1])
        if reach >= data["image_size"]:
            yield (
                f"augment.blur_sigma={augment['blur_sigma']} reaches {reach} pixels, beyond "
                f"data.image_size={data['image_size']}; take less, or augment.blur_prob=0."
            )


def _optimizer(config: dict[str, Any]) -> Iterator[str]:
    optim, schedule, epochs = config["optim"], config["schedule"], config["trainer"]["max_epochs"]
    if optim.get("nesterov") and (not optim.get("momentum") or optim.get("dampening")):
        yield "optim.nesterov=true needs optim.momentum above 0, and no dampening; else optim.nesterov=false."
    if optim.get("foreach") and optim.get("fused"):
        yield "optim.foreach and optim.fused are two ways of the same; leave one of them true."
    if optim["_target_"] == "vitexp.training.muon.Muon" and "fsdp" in str(config["trainer"]["strategy"]).lower():
        yield "optim=muon needs whole matrices, which trainer=fsdp cuts up; take trainer=ddp or optim=adamw."
    if schedule.get("warmup_epochs", 0) > epochs:
        yield f"schedule.warmup_epochs={schedule['warmup_epochs']} must lie between 0 and trainer.max_epochs={epochs}."
    if schedule.get("min_lr", 0) > optim.get("lr", math.inf):
        yield f"schedule.min_lr={schedule['min_lr']} must lie between 0 and optim.lr={optim['lr']}."


def _choice_of_checkpoint(config: dict[str, Any]) -> Iterator[str]:
    monitor, mode = config["checkpoint"]["monitor"], config["checkpoint"]["mode"]
    monitor = facts(config["task"]).get("monitor") if monitor == "auto" else monitor
    if monitor is None and config["training"]["patience"] is not None:
        yield "training.patience waits for a better checkpoint.monitor, which is null; take val/accuracy for it."
    better = "min" if monitor in SMALLER_IS_BETTER else "max"
    if monitor is not None and mode not in ("auto", better):
        yield f"checkpoint.mode={mode} would choose the worst {monitor}; take checkpoint.mode={better}."
    trainer = config["trainer"]
    if config["training"]["patience"] is not None and trainer["limit_val_batches"] == 0:
        yield "training.patience waits for validation, which trainer.limit_val_batches=0 turns off; leave one away."
    if trainer["limit_val_batches"] != 0 and (trainer["check_val_every_n_epoch"] or 1) > trainer["max_epochs"]:
        yield (
            f"trainer.check_val_every_n_epoch={trainer['check_val_every_n_epoch']} must not exceed "
            f"trainer.max_epochs={trainer['max_epochs']}; trainer.limit_val_batches=0 turns validation off."
        )


def _trainer(config: dict[str, Any]) -> Iterator[str]:
    trainer, batch = config["trainer"], config["data"]["batch_size"]
    if trainer["precision"] == "16-mixed" and trainer["accelerator"] == "cpu":
        yield "trainer.precision=16-mixed needs a GPU; on the CPU take bf16-mixed or 32-true."
    if trainer["check_val_every_n_epoch"] is None and isinstance(trainer["val_check_interval"], float):
        yield "trainer.check_val_every_n_epoch=null needs trainer.val_check_interval as a number of batches or a time."
    for least, most in (("min_epochs", "max_epochs"), ("min_steps", "max_steps")):
        if trainer[most] >= 0 and (trainer[least] or 0) > trainer[most]:
            yield f"trainer.{least}={trainer[least]} must not exceed trainer.{most}={trainer[most]}."
    accumulated, devices = trainer["accumulate_grad_batches"], trainer["devices"]
    if trainer["accelerator"] == "cpu" and (devices in (-1, "-1") or isinstance(devices, list) or "," in str(devices)):
        yield f"trainer.devices={shown(devices)} chooses GPUs; on the CPU it is a number of processes, such as 1."
    shares = accumulated * _count(devices) * trainer["num_nodes"]
    if batch % shares:
        yield (
            f"data.batch_size={batch} is what one optimizer step sees, and cannot be shared out evenly over "
            f"trainer.accumulate_grad_batches={accumulated} and trainer.devices={shown(devices)}; "
            f"take a multiple of {shares}."
        )
    # Its last layer sees an eighth of the side, and batch norm needs two values to learn from.
    if (
        config["model"]["_target_"] == "vitexp.models.resnet.ResNet18"
        and batch == shares
        and config["data"]["image_size"] < 16
    ):
        yield "resnet18 cannot learn from one image of less than 16 pixels at a time; take a larger data.batch_size."
    for name, callback in config["callbacks"].items():
        if callback.get("right") == 0 == callback.get("wrong"):
            yield f"callbacks.{name} has neither right nor wrong ones to show; ~callbacks.{name} leaves it away."


def _count(devices: Any) -> int:
    """How many devices of a node; 1 where only the machine knows."""
    if is_int(devices):
        return max(int(devices), 1)
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part])
    if isinstance(devices, str) and devices.isdigit():
        return max(int(devices), 1)
    return len(devices) if isinstance(devices, list) else 1


_MAE = {"mask_ratio": 0.75, "decoder_dim": 96, "decoder_heads": 3}
_RECONSTRUCTIONS = "vitexp.training.callbacks.Reconstructions"
_PRUNING = "vitexp.sweeps.search.pruning.Pruning"
_OF_BOTH = ("vitexp.training.callbacks.LearningCurves", "vitexp.training.callbacks.PositionEmbedding", _PRUNING)


def pretraining_complaints(config: dict[str, Any]) -> Iterator[str]:
    """What does not go together with pretraining, or without it."""
    figures = {name: callback["_target_"] for name, callback in config["callbacks"].items()}
    task = config["task"]
    if facts(task).get("uses_labels", True):
        for name, target in figures.items():
            if target == _RECONSTRUCTIONS:
                yield f"callbacks.{name} shows what a pretraining draws, and this is none; take callbacks=default."
        return
    model, pretrain = config["model"], {**_MAE, **task}
    if model["_target_"] != "vitexp.models.ViT":
        yield f"task=mae leaves patches out, and {model['name']} has none; take a Vision Transformer."
    if model.get("mlp_conv"):
        yield "model.mlp_conv=true goes over whole grids of patches, of which task=mae shows the blocks a part."
    if config["training"].get("image_sizes"):
        yield "training.image_sizes has no effect, for pretraining takes images of data.image_size; leave it null."
    dim, heads = pretrain["decoder_dim"], pretrain["decoder_heads"]
    if dim % 4:
        yield f"task.decoder_dim={dim} must be a multiple of 4, for the sines and cosines of its positions."
    if dim % heads:
        yield indivisible("task.decoder_heads", heads, "task.decoder_dim", dim)
    side = model.get("upsample") or config["data"]["image_size"]
    patches, ratio = (side // model.get("patch_size", 4)) ** 2, pretrain["mask_ratio"]
    if not 0 < (seen := round(patches * (1 - ratio))) < patches:
        yield (
            f"task.mask_ratio={ratio} of {patches} patches covers {'all' if seen == 0 else 'none'}; take another "
            "share, or a smaller model.patch_size."
        )
    if model.get("lsa") and seen + model.get("registers", 0) + (model.get("pool", "cls") == "cls") < 2:
        yield f"task.mask_ratio={ratio} leaves model.lsa=true one token, which cannot see itself; take less."
    if (monitor := config["checkpoint"]["monitor"]) not in ("auto", "val/loss"):
        said = shown(monitor)
        yield f"checkpoint.monitor={said} is of classifiers; a pretraining has checkpoint.monitor=val/loss alone."
    for name, target in figures.items():
        if target == _PRUNING and (metric := config["callbacks"][name]["metric"]) != "val/loss":
            yield f"callbacks.{name}.metric={metric} is of classifiers; a search over pretrainings takes val/loss."
        if target.startswith("vitexp.training.callbacks.") and target not in (_RECONSTRUCTIONS, *_OF_BOTH):
            yield f"callbacks.{name} shows what a classifier does, and this is none; take callbacks=mae."


def complaints_of_drawn(config: dict[str, Any]) -> Iterator[str]:
    """Those of the drawn set, whose size is known before it is drawn."""
    data = config["data"]
    if data["source"]["_target_"] != "vitexp.data.signs.Signs":
        return
    each = data["source"].get("train_per_class", 200)
    val = min(max(math.ceil(data["val_fraction"] * each - 0.5), 1), each - 1)  # as vitexp.data.split cuts it
    train = len(GTSRB_CLASSES) * (each - val)
    if data["batch_size"] > train:
        yield (
            f"data.batch_size={data['batch_size']} is larger than the training part of {train:,} images; "
            "choose a smaller one."
        )
    counts = {"val": len(GTSRB_CLASSES) * val, "test": len(GTSRB_CLASSES) * data["source"].get("test_per_class", 50)}
    yield from length_complaints(config, train=train, **counts)


def length_complaints(config: dict[str, Any], *, train: int, val: int, test: int) -> Iterator[str]:
    """What asks for less than one batch, or for more than there are, of so many images."""
    trainer = config["trainer"]
    if trainer["fast_dev_run"]:  # Lightning then sets what is checked here
        return
    batch = config["data"]["batch_size"] // trainer["accumulate_grad_batches"]
    batches = {"train": train // batch, "val": math.ceil(val / batch), "test": math.ceil(test / batch)}
    for part, there in batches.items():
        key = f"limit_{part}_batches"
        limit = trainer[key]
        if isinstance(limit, float):
            batches[part] = int(there * limit)
            if limit > 0 and not batches[part]:
                yield (
                    f"trainer.{key}={limit} of {there} batches is less than one; "
                    f"take {math.ceil(100 / there) / 100} or more, or their number."
                )
        else:
            batches[part] = min(there, limit)
    interval, total = trainer["val_check_interval"], batches["train"]
    over = "an epoch; trainer.check_val_every_n_epoch=null counts over epochs"
    if trainer["check_val_every_n_epoch"] is None:
        total *= trainer["max_epochs"]
        over = "the whole training; trainer.limit_val_batches=0 turns validation off"
    if isinstance(interval, int) and interval > total and batches["val"]:
        yield f"trainer.val_check_interval={interval} must not exceed the {total:,} batches of {over}."
