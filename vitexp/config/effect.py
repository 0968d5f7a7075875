"""No key is set that the others leave without effect.

What the files of conf say never counts: options go together freely. A key is complained about where its value is one
that somebody must have set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vitexp.config.components import facts
from vitexp.config.conf import CONF
from vitexp.config.kinds import shown
from vitexp.config.targets import HANDED_ON, TARGETS

_WITHOUT_FILES = ("vitexp.data.signs.Signs", "vitexp.data.cifar.CIFAR")
_ONLY_OF_VIT = ("vitexp.training.callbacks.AttentionMaps", "vitexp.training.callbacks.PositionEmbedding")
_WITHOUT_BLOCKS = ("vitexp.models.SimpleCNN", "vitexp.models.resnet.ResNet18")
_ABSENT = object()

Config = dict[str, Any]


@dataclass(frozen=True)
class _Rule:
    """`keys` do nothing in a configuration where `dead` holds, `because` of what the sentence then says."""

    keys: str
    dead: Callable[[Config], bool]
    because: str


def complaints(config: Config) -> Iterator[str]:
    """Keys that were set, and do nothing."""
    rules = [*_RULES, *_of_callbacks(config)]
    for rule in rules:
        for key in rule.keys.split():
            value = _value(config, key)
            if value is not _ABSENT and rule.dead(config) and value not in _in_conf(key):
                yield f"{key}={shown(value)} has no effect, for {rule.because}."


def _mixed(config: Config) -> int:
    return sum(config["training"][key] > 0 for key in ("mixup_alpha", "cutmix_alpha"))


def _never_mixed(config: Config) -> bool:
    return 0 in (config["training"]["mix_prob"], config["training"]["mix_until"])


def _not_handed_on(key: str) -> Callable[[Config], bool]:
    def dead(config: Config) -> bool:
        target = config["data"]["source"]["_target_"]
        return target in HANDED_ON and key not in HANDED_ON[target]

    return dead


def _no_validation(config: Config) -> bool:
    trainer = config["trainer"]
    return trainer["limit_val_batches"] == 0 and not trainer["fast_dev_run"]


def _nothing_is_chosen(config: Config) -> bool:
    """Although something is to choose: the last weights can always be had."""
    if config["checkpoint"]["monitor"] is None:
        return False
    unused = not config["trainer"]["enable_checkpointing"] and config["training"]["patience"] is None
    return unused or _no_validation(config)


def _never_early(config: Config) -> bool:
    """Whether nothing stops a training before its epochs or steps are over."""
    known = all(
        callback["_target_"] in TARGETS["callbacks"] and not callback["_target_"].endswith("Pruning")
        for callback in config["callbacks"].values()
    )
    return known and config["training"]["patience"] is None and config["trainer"]["max_time"] is None


def _one_device(config: Config) -> bool:
    return config["trainer"]["devices"] in (1, "1") and config["trainer"]["num_nodes"] == 1


def _augment(key: str, *values: Any) -> Callable[[Config], bool]:
    """Where augment has the key, with one of these values."""
    return lambda config: config["augment"].get(key, _ABSENT) in values


def _unmoved(config: Config) -> bool:
    augment = config["augment"]
    moves = ("rotation", "translation", "shear")
    return augment["_target_"].endswith("SignsAugment") and not (
        any(augment.get(key) for key in moves) or augment.get("scale", [1, 1]) != [1, 1]
    )


_RULES = (
    _Rule(
        "training.mix_switch_prob",
        lambda config: _mixed(config) < 2,
        "it chooses between mixup and CutMix, and not both are on (training.mixup_alpha, training.cutmix_alpha)",
    ),
    _Rule(
        "training.mix_prob training.mix_until",
        lambda config: _mixed(config) == 0,
        "neither mixup nor CutMix is on (training.mixup_alpha, training.cutmix_alpha)",
    ),
    _Rule(
        "training.mixup_alpha training.cutmix_alpha",
        _never_mixed,
        "training.mix_prob=0 or training.mix_until=0 mixes no batch",
    ),
    _Rule("data.root", _not_handed_on("root"), "this data set has no folder"),
    _Rule("data.download", _not_handed_on("download"), "this data set has nothing to fetch"),
    _Rule(
        "data.on_broken",
        lambda config: config["data"]["source"]["_target_"] in _WITHOUT_FILES,
        "this data set has no image files that could be broken",
    ),
    _Rule(
        "checkpoint.monitor checkpoint.mode",
        _nothing_is_chosen,
        "no checkpoint is chosen (trainer.enable_checkpointing, trainer.limit_val_batches)",
    ),
    _Rule(
        "checkpoint.mode",
        lambda config: config["checkpoint"]["monitor"] is None,
        "checkpoint.monitor=null takes the last weights",
    ),
    _Rule(
        "checkpoint.every_n_steps checkpoint.every_n_minutes",
        lambda config: not config["trainer"]["enable_checkpointing"],
        "trainer.enable_checkpointing=false writes no checkpoint",
    ),
    _Rule(
        "trainer.gradient_clip_algorithm",
        lambda config: not config["trainer"]["gradient_clip_val"],
        "trainer.gradient_clip_val is off",
    ),
    _Rule("trainer.limit_predict_batches", lambda config: True, "a run trains, validates and tests only"),
    _Rule(
        "trainer.val_check_interval trainer.check_val_every_n_epoch trainer.num_sanity_val_steps",
        _no_validation,
        "trainer.limit_val_batches=0 turns validation off",
    ),
    _Rule(
        "trainer.min_epochs trainer.min_steps",
        _never_early,
        "nothing ends this training early (training.patience, trainer.max_time)",
    ),
    _Rule(
        "trainer.benchmark",
        lambda config: config["trainer"]["accelerator"] == "cpu",
        "cuDNN alone has kernels to choose from, and trainer.accelerator=cpu has none",
    ),
    _Rule("trainer.sync_batchnorm", _one_device, "there is one device only (trainer.devices)"),
    _Rule(
        "trainer.sync_batchnorm",
        lambda config: config["model"]["_target_"] == "vitexp.models.ViT",
        "this model has no batch norm",
    ),
    _Rule(
        "training.distillation training.teacher_weight training.temperature",
        lambda config: config["training"].get("teacher") is None,
        "there is no training.teacher to learn from",
    ),
    _Rule(
        "training.temperature",
        lambda config: config["training"].get("distillation", "hard") == "hard",
        "training.distillation=hard looks at the teacher's choice alone",
    ),
    _Rule(
        "training.layer_decay",
        lambda config: config["model"]["_target_"] in _WITHOUT_BLOCKS,
        "this model has no blocks",
    ),
    _Rule(
        "loss.label_smoothing loss.class_weights training.mixup_alpha training.cutmix_alpha training.layer_decay "
        "training.teacher",
        lambda config: not facts(config["task"]).get("uses_labels", True),
        "pretraining looks at no label, and has no classifier",
    ),
    _Rule("augment.blur_sigma", _augment("blur_prob", 0), "augment.blur_prob=0 blurs no image"),
    _Rule("augment.erase_area augment.erase_aspect", _augment("erase_prob", 0), "augment.erase_prob=0 erases no box"),
    _Rule("augment.padding", _unmoved, "no image is moved (augment.rotation, translation, scale, shear)"),
    _Rule("augment.crop_border", _augment("crop_padding", 0), "augment.crop_padding=0 crops no image"),
    _Rule(
        "augment.num_ops augment.magnitude",
        _augment("policy", "none", "autoaugment", "trivialaugment"),
        "they belong to augment.policy=randaugment",
    ),
    _Rule("augment.fill", _augment("policy", "none"), "augment.policy=none moves no image"),
    _Rule(
        "model.drop_path",
        lambda config: config["model"].get("depth") == 1,
        "the rate rises from 0 at the first block, and model.depth=1 has no other",
    ),
    _Rule(
        "model.mlp_conv",
        lambda config: config["model"].get("depth") == 1 and config["model"].get("pool", "cls") == "cls",
        "of the last block, here the only one, model.pool=cls reads no patch",
    ),
)


def _of_callbacks(config: Config) -> Iterator[_Rule]:
    model = config["model"]
    no_vit = model["_target_"] in _WITHOUT_BLOCKS
    no_positions = no_vit or model.get("position_embedding") == "none"
    for name, node in config["callbacks"].items():
        keys = " ".join(f"callbacks.{name}.{key}" for key in node if key != "_target_")
        if node["_target_"] in _ONLY_OF_VIT:
            yield _Rule(keys, lambda config: no_vit, "the figure is one of Vision Transformers")
        if node["_target_"] == "vitexp.training.callbacks.PositionEmbedding":
            yield _Rule(keys, lambda config: no_positions, "model.position_embedding=none leaves nothing to draw")
        if node["_target_"] in TARGETS["callbacks"]:
            yield _Rule(
                f"callbacks.{name}.every_n_epochs", _no_validation, "trainer.limit_val_batches=0 turns validation off"
            )


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return _ABSENT
        config = config[part]
    return config


def _in_conf(key: str) -> list[Any]:
    """The values that the files of conf give to a key."""
    group, _, inside = key.partition(".")
    values = [_value(_read(CONF / "train.yaml"), key)]
    return [*values, *(_value(_read(file), inside) for file in sorted((CONF / group).glob("*.yaml")))]


@cache
def _read(file: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(file))
