"""The finished run whose net teaches that of another: which one it is, and whether it may."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.errors import ConfigError, UserError
from vitexp.finished_run import load_run
from vitexp.hardware import flops_per_image
from vitexp.trained_net import TrainedNet

log = logging.getLogger(__name__)

# What tells apart data sets of one class; those of other classes by their folder. All else cuts the same images.
_IDENTITY = {
    "vitexp.data.signs.Signs": ("seed",),
    "vitexp.data.cifar.CIFAR": ("kind",),
    "vitexp.data.gtsrb.GTSRB": (),
}
_NO_CUT = ("root", "download", "base_url", "draw_size", "test_per_class")


@dataclass(frozen=True, kw_only=True)
class Teacher(TrainedNet):
    """name: as it was typed. told: for result.json."""

    name: str
    told: dict[str, Any]

    def refuse_other_classes(self, classes: list[str]) -> None:
        """Raise ConfigError where the student is to learn others, or in another order."""
        if self.classes == classes:
            return
        if len(self.classes) != len(classes):
            shown = f"{len(self.classes)} classes, and these data have {len(classes)}"
        else:
            mine, theirs = next(pair for pair in zip(self.classes, classes, strict=True) if pair[0] != pair[1])
            shown = f"a class {mine!r} where these data have {theirs!r}"
        raise ConfigError(
            f"training.teacher={self.name} knows {shown}; teacher and student need the same classes in the same order."
        )


def load_teacher(config: DictConfig, *, going_on: Mapping[str, Any] | None) -> Teacher | None:
    """The run that config.training.teacher names; None without one.

    going_on: result.json of a run that goes on, which needs the very teacher that it began with.
    Raises ConfigError for what is no finished run, is another one, or has learned from validation images of this run.
    """
    name = config.training.get("teacher")
    if name is None:
        return None
    folder = Path(os.path.expanduser(name))  # which does not mind a home of nobody
    try:
        run = load_run(folder)
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    except (UserError, OSError) as error:
        raise ConfigError(f"training.teacher={name}: {error}") from error
    if going_on is not None and (began := going_on["model"]["teacher"]["sha256"]) != digest:
        raise ConfigError(
            f"training.teacher={name} holds other weights (SHA-256 {digest[:8]}) than those that this run began "
            f"with ({began[:8]}); put them back, or begin a new run."
        )
    _refuse_another_cut(config, run.config, name)
    if _preparation(config) != _preparation(run.config):
        log.warning("training.teacher=%s was trained on images that were prepared otherwise (data.prepare)", name)
    told = {
        "from": name,
        "run_id": run.result["run_id"],
        "model": run.config.model.name,
        "test_accuracy": run.result["metrics"]["test"]["accuracy"],
        "flops_per_image": flops_per_image(run.net, run.image_size),
        "sha256": digest,
    }
    return Teacher(
        name=name,
        told=told,
        net=run.net,
        classes=run.classes,
        image_size=run.image_size,
        mean=run.mean,
        std=run.std,
    )


def _refuse_another_cut(config: DictConfig, teachers: DictConfig, name: str) -> None:
    """The same images, cut otherwise into training and validation: the teacher has learned some that validate here."""
    (images, mine), (its_images, its) = _cut(config), _cut(teachers)
    other = [key for key in mine if mine[key] != its.get(key)]
    if images != its_images or not other:
        return
    here, there = (" ".join(f"{key}={cut.get(key)}" for key in other) for cut in (mine, its))
    raise ConfigError(
        f"training.teacher={name} was trained with {there} and so on images that validate this run of {here}; train "
        "teacher and student on the same part of the data."
    )


def _cut(config: DictConfig) -> tuple[list[Any], dict[str, Any]]:
    """Which images there are, and what decides over the part that validates."""
    source: Any = OmegaConf.to_container(config.data.source, resolve=True)
    identity = _IDENTITY.get(source["_target_"], ("root",))
    images = [source["_target_"], *(_where(key, source.get(key)) for key in identity)]
    cut = {f"data.source.{key}": value for key, value in source.items() if key not in (*identity, *_NO_CUT, "_target_")}
    return images, {"seed": config.seed, "data.val_fraction": config.data.val_fraction, **cut}


def _where(key: str, value: Any) -> Any:
    return Path(value).expanduser().resolve() if key == "root" and value is not None else value


def _preparation(config: DictConfig) -> list[dict[str, Any]]:
    """What is done to the images, but for their size."""
    transforms: Any = OmegaConf.to_container(config.data.prepare, resolve=True)
    return [{key: value for key, value in each.items() if key not in ("height", "width")} for each in transforms]
