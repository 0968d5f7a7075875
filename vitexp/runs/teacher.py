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
from vitexp.models.trained_net import TrainedNet
from vitexp.runs.finished import load_run
from vitexp.runs.leaks import refuse_other_split
from vitexp.system.hardware import flops_per_image

log = logging.getLogger(__name__)


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
    refuse_other_split(config, run.config, key=f"training.teacher={name}")
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


def _preparation(config: DictConfig) -> list[dict[str, Any]]:
    """What is done to the images, but for their size."""
    transforms: Any = OmegaConf.to_container(config.data.prepare, resolve=True)
    return [{key: value for key, value in each.items() if key not in ("height", "width")} for each in transforms]
