"""Cross-checks of a configuration, before torch is imported or any data is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vitexp.credentials import refuse_secrets
from vitexp.errors import ConfigError
from vitexp.records import METRICS


def check(config: DictConfig) -> None:
    """Raise ConfigError for the first thing that cannot work, in one sentence."""
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    refuse_secrets(plain)
    # lazily: a check may rely on those before it
    for complaint in chain(_general(plain), _data(plain["data"]), _model(plain), _training(plain)):
        raise ConfigError(complaint)


def _general(config: dict[str, Any]) -> Iterator[str]:
    if not _is_int(config["seed"]) or config["seed"] < 0:
        yield f"seed={config['seed']} must be an integer of 0 or more."
    name = config["name"]
    if not isinstance(name, str) or not name or name.startswith(("/", ".")):
        yield f"name={name} must be the name of a folder under log_dir={config['log_dir']}."


def _data(data: dict[str, Any]) -> Iterator[str]:
    for key in ("image_size", "batch_size"):
        yield from _positive_int(f"data.{key}", data[key])
    if not _is_number(data["val_fraction"]) or not 0 < data["val_fraction"] < 1:
        yield (
            f"data.val_fraction={data['val_fraction']} must lie between 0 and 1, both excluded: the checkpoint to test "
            "is chosen on validation images, for example data.val_fraction=0.1."
        )
    workers = data["num_workers"]
    if workers != "auto" and (not _is_int(workers) or workers < 0):
        yield f"data.num_workers={workers} must be auto or an integer of 0 or more."
    if data["resident"] not in ("auto", "device", "memory"):
        yield f"data.resident={data['resident']} must be auto, device or memory."
    if data["on_broken"] not in ("refuse", "skip"):
        yield f"data.on_broken={data['on_broken']} must be refuse or skip."
    if data.get("source") is None or data.get("name") is None:
        yield "no data set is chosen; say data=signs, for example."
    if "root" in data["source"] and data["root"] is None:
        yield f"data={data['name']} needs data.root, the folder of the images."


def _model(config: dict[str, Any]) -> Iterator[str]:
    model, image_size = config["model"], config["data"]["image_size"]
    for key in ("patch_size", "dim", "depth", "num_heads"):
        if key in model:
            yield from _positive_int(f"model.{key}", model[key])
    for key in ("dropout", "attention_dropout", "drop_path"):
        if key in model and (not _is_number(model[key]) or not 0 <= model[key] < 1):
            yield f"model.{key}={model[key]} must be at least 0 and below 1."
    if "patch_size" in model and image_size % model["patch_size"]:
        fitting = [size for size in range(2, image_size // 2 + 1) if image_size % size == 0] or [image_size]
        yield (
            f"model.patch_size={model['patch_size']} does not divide data.image_size={image_size}; "
            f"{_listed(fitting)} would."
        )
    if "num_heads" in model and model["dim"] % model["num_heads"]:
        fitting = [heads for heads in range(1, min(model["dim"], 16) + 1) if model["dim"] % heads == 0]
        yield (
            f"model.num_heads={model['num_heads']} does not divide model.dim={model['dim']}; {_listed(fitting)} would."
        )


def _training(config: dict[str, Any]) -> Iterator[str]:
    training, trainer, schedule = config["training"], config["trainer"], config["schedule"]
    for key in ("mixup_alpha", "cutmix_alpha"):
        if not _is_number(training[key]) or training[key] < 0:
            yield f"training.{key}={training[key]} must be 0 (off) or more."
    for key in ("label_smoothing", "ema_decay"):
        if not _is_number(training[key]) or not 0 <= training[key] < 1:
            yield f"training.{key}={training[key]} must be at least 0 (off) and below 1."
    for key in ("mix_prob", "mix_switch_prob", "mix_until"):
        if not _is_number(training[key]) or not 0 <= training[key] <= 1:
            yield f"training.{key}={training[key]} must lie between 0 and 1."
    for key in ("lr", "weight_decay"):
        value = config["optim"][key]
        if not _is_number(value) or value < 0 or (key == "lr" and value == 0):
            yield (
                f"optim.{key}={value} must be a number above 0."
                if key == "lr"
                else (f"optim.{key}={value} must be 0 or more.")
            )
    epochs = trainer["max_epochs"]
    if not _is_int(epochs) or epochs < 1:
        yield f"trainer.max_epochs={epochs} must be an integer of 1 or more."
    yield from _positive_int("trainer.accumulate_grad_batches", trainer["accumulate_grad_batches"])
    if not _is_number(schedule["warmup_epochs"]) or not 0 <= schedule["warmup_epochs"] <= epochs:
        yield (
            f"schedule.warmup_epochs={schedule['warmup_epochs']} must lie between 0 and trainer.max_epochs={epochs}."
        )
    patience = training["patience"]
    if patience is not None and (not _is_int(patience) or patience < 1):
        yield f"training.patience={patience} must be null (never stop early) or an integer of 1 or more."
    monitor, mode = config["checkpoint"]["monitor"], config["checkpoint"]["mode"]
    if monitor not in (scalars := [f"val/{name}" for name in METRICS]):
        yield f"checkpoint.monitor={monitor} must be a validation scalar: {', '.join(scalars)}."
    if mode not in ("max", "min"):
        yield f"checkpoint.mode={mode} must be max or min."
    if "min_lr" in schedule and not 0 <= schedule["min_lr"] <= config["optim"]["lr"]:
        yield f"schedule.min_lr={schedule['min_lr']} must lie between 0 and optim.lr={config['optim']['lr']}."
    if trainer["compile"] not in ("auto", "on", "off", True, False):
        yield f"trainer.compile={trainer['compile']} must be auto, on or off."
    batch, accumulated, devices = config["data"]["batch_size"], trainer["accumulate_grad_batches"], trainer["devices"]
    shares = accumulated * (devices if _is_int(devices) and devices > 0 else 1)
    if batch % shares:
        yield (
            f"data.batch_size={batch} is what one optimizer step sees, and cannot be shared out evenly over "
            f"trainer.accumulate_grad_batches={accumulated} and trainer.devices={devices}; take a multiple of {shares}."
        )


def _positive_int(key: str, value: Any) -> Iterator[str]:
    if not _is_int(value) or value < 1:
        yield f"{key}={value} must be an integer of 1 or more."


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _listed(numbers: list[int]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} or {last}" if most else last
