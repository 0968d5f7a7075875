"""Read the config.yaml of a run, including one written by an earlier version of vitexp.

The tables below are the only place that knows former names and defaults. Any other key that the file lacks was added
later and gets its current default, which keeps the behavior.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.config.conf import CONF
from vitexp.config.files import load_file
from vitexp.errors import ConfigError
from vitexp.system.disk import typed

_MISSING = object()  # not None, which is a value

# Old and new prefixes of `_target_`. The first match wins, so longer prefixes come first.
TARGETS = {
    "vitexp.callbacks.pruning.": "vitexp.sweeps.search.pruning.",
    "vitexp.callbacks.": "vitexp.training.callbacks.",
    "vitexp.loggers.": "vitexp.training.loggers.",
    "vitexp.models.resnet18": "vitexp.models.resnet.ResNet18",
    "vitexp.training.schedule.": "vitexp.training.schedules.",
}
# Old and new dotted keys.
MOVED = {
    "training.label_smoothing": "loss.label_smoothing",
    **{
        f"pretrain.{key}": f"task.{key}"
        for key in ("mask_ratio", "decoder_dim", "decoder_depth", "decoder_heads", "normalize_targets")
    },
}
# Dotted keys that nothing reads any more; a section is removed with all its keys.
REMOVED = (
    "pretrain",
    "hydra",
    "trainer.limit_predict_batches",
    "trainer.overfit_batches",
    "trainer.use_distributed_sampler",
    "trainer.barebones",
    "optim._partial_",
)
# Renamed arguments, by the current name of the class.
ARGUMENTS = {
    "vitexp.data.signs.Signs": {"seed": "draw_seed"},
    "vitexp.data.folder.Folder": {"seed": "split_seed"},
}

# What an absent key stands for, if not its current default: "trainer.KEY" or, for components, "_target_.ARGUMENT".
# When you change a default, or add a key whose default changes results, record the former behavior here.
FORMER_DEFAULTS: dict[str, Any] = {
    "checkpoint.monitor": "auto",
    "data.batch_size": 128,
    "trainer.float32_matmul_precision": "highest",
    "trainer.max_epochs": 8,
}


def read_config(path: Path) -> DictConfig:
    """Return the configuration of a run with current names; missing keys get the defaults at the time of the run.

    Raises ConfigError if the file is not the configuration of a run, and FileNotFoundError if there is none.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    loaded = load_file(path)
    sections = ("model", "data", *filter(loaded.__contains__, ("trainer", "training", "checkpoint")))
    if wrong := [name for name in sections if not isinstance(loaded.get(name), DictConfig)]:
        raise ConfigError(f"{typed(path)} is not the configuration of a run: {wrong[0]} must be a mapping.")
    config = with_recorded_defaults(loaded)
    # The cache folder of this machine takes precedence over the recorded one.
    config.data.cache_dir = os.environ.get("VITEXP_CACHE") or config.data.cache_dir
    return config


def with_recorded_defaults(config: DictConfig) -> DictConfig:
    """Return a run's config.yaml with current names; missing keys get the defaults at the time of the run."""
    whole = OmegaConf.merge(_defaults(config), upgrade(config))
    assert isinstance(whole, DictConfig)
    return whole


def upgrade(config: DictConfig) -> DictConfig:
    """Return the configuration with current names."""
    plain: Any = OmegaConf.to_container(config)
    was_pretraining = bool(plain.get("pretrain"))
    _rename(plain)
    for old, new in MOVED.items():
        if (value := _pop(plain, old)) is not _MISSING:
            set_dotted(plain, new, value)
    for key in REMOVED:
        _pop(plain, key)
    if was_pretraining:
        plain.setdefault("task", {})["_target_"] = "vitexp.training.masked_autoencoding.MaskedAutoencoding"
    upgraded = OmegaConf.create(plain)
    assert isinstance(upgraded, DictConfig)
    return upgraded


def upgrade_overrides(overrides: Iterable[str]) -> list[str]:
    """Return the recorded overrides of a run with current names; arguments in ARGUMENTS are not renamed."""
    upgraded = []
    for override in overrides:
        key, equals, value = override.partition("=")
        name = key.lstrip("+~")
        if name.endswith("_target_"):
            value = _current_target(value)
        if override == "pretrain=mae":
            upgraded.append("task=mae")
        elif override != "callbacks=pretraining" and name not in REMOVED:
            upgraded.append(key.replace(name, MOVED.get(name, name)) + equals + value)
    return upgraded


@cache
def section_defaults() -> dict[str, dict[str, Any]]:
    """Return what absent keys of the sections of a configuration stand for."""
    sections = deepcopy(_current_defaults())
    for key, value in FORMER_DEFAULTS.items():
        section, _, name = key.partition(".")
        if section in sections:
            sections[section][name] = value
    return sections


@cache
def changed_defaults() -> dict[str, tuple[Any, Any]]:
    """Return the former and the current default of each key of a section whose default was changed."""
    current = _current_defaults()
    return {
        key: (former, current[section][name])
        for key, former in FORMER_DEFAULTS.items()
        for section, _, name in [key.partition(".")]
        if section in current
    }


@cache
def _current_defaults() -> dict[str, dict[str, Any]]:
    train = OmegaConf.load(CONF / "train.yaml")
    trainer = OmegaConf.load(CONF / "trainer" / "auto.yaml")
    assert isinstance(train, DictConfig)
    sections: dict[str, Any] = {
        name: OmegaConf.to_container(train[name]) for name in ("data", "training", "checkpoint")
    }
    sections["trainer"] = OmegaConf.to_container(trainer)
    return sections


def _defaults(config: DictConfig) -> DictConfig:
    """Return the defaults of the sections, and of task and loss if the configuration has none."""
    defaults: dict[str, Any] = dict(section_defaults())
    if "loss" not in config:
        defaults["loss"] = OmegaConf.load(CONF / "loss" / "cross_entropy.yaml")
    if "task" not in config and "pretrain" not in config:
        defaults["task"] = OmegaConf.load(CONF / "task" / "classification.yaml")
    return OmegaConf.create({"seed": 0, **defaults})


def _rename(node: Any) -> None:
    """Replace old names of classes and arguments in `node` and everything below it, and add former defaults."""
    if isinstance(node, list):
        for child in node:
            _rename(child)
    if not isinstance(node, dict):
        return
    if isinstance(target := node.get("_target_"), str):
        target = node["_target_"] = _current_target(target)
    for old, new in ARGUMENTS.get(str(target), {}).items():
        if old in node:
            node[new] = node.pop(old)
    for key, value in FORMER_DEFAULTS.items():
        name, _, argument = key.rpartition(".")
        if name == target:
            node.setdefault(argument, value)
    for child in node.values():
        _rename(child)


def _current_target(target: str) -> str:
    """Return the current name of a class."""
    for old, new in TARGETS.items():
        if target.startswith(old):
            return new + target.removeprefix(old)
    return target


def _pop(plain: dict[str, Any], key: str) -> Any:
    *parents, last = key.split(".")
    node: Any = plain
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    return node.pop(last, _MISSING) if isinstance(node, dict) else _MISSING


def set_dotted(plain: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings, creating missing ones."""
    *parents, last = key.split(".")
    node = plain
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
