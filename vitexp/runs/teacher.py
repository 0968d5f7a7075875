"""Load the finished run that training distills, and check that it may be used."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vitexp.errors import ConfigError, UserError
from vitexp.models.trained_net import TrainedNet
from vitexp.runs.find import run_path
from vitexp.runs.finished import load_run
from vitexp.runs.inputs import check_teacher
from vitexp.system.disk import checksum
from vitexp.system.hardware import flops_per_image

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Teacher(TrainedNet):
    """A network to distill. name: as it was typed. info: for result.json."""

    name: str
    info: dict[str, Any]

    def refuse_other_classes(self, classes: list[str]) -> None:
        """Raise ConfigError if the student has different classes, or the same ones in a different order."""
        if self.classes == classes:
            return
        if len(self.classes) != len(classes):
            difference = f"{len(self.classes)} classes, and this data set has {len(classes)}"
        else:
            mine, theirs = next(pair for pair in zip(self.classes, classes, strict=True) if pair[0] != pair[1])
            difference = f"a class {mine!r} where this data set has {theirs!r}"
        raise ConfigError(
            f"training.teacher={self.name} has {difference}; teacher and student need the same classes in the same "
            "order."
        )


def load_teacher(config: DictConfig, *, resumed: Mapping[str, Any] | None) -> Teacher | None:
    """Return the network of the run that config.training.teacher names; None without one.

    resumed: result.json of a resumed run, which needs the same teacher as before. Raises ConfigError if the teacher is
    not a finished run, has changed, or was trained on validation images of this run.
    """
    name = config.training.get("teacher")
    if name is None:
        return None
    folder = run_path(name, config.log_dir)
    check_teacher(name, config)
    try:
        run = load_run(folder)
        digest = checksum(folder / "model.safetensors")
    except (UserError, OSError) as error:
        raise ConfigError(f"training.teacher={name}: {error}") from error
    if resumed is not None and (before := resumed["model"]["teacher"]["sha256"]) != digest:
        raise ConfigError(
            f"training.teacher={name} has different weights (SHA-256 {digest[:8]}) than when this run started "
            f"({before[:8]}); restore them, or start a new run."
        )
    if _preparation(config) != _preparation(run.config):
        log.warning("training.teacher=%s was trained on images that were prepared differently (data.prepare)", name)
    info = {
        "from": name,
        "run_id": run.result["run_id"],
        "model": run.config.model.name,
        "test_accuracy": run.result["metrics"]["test"]["accuracy"],
        "flops_per_image": flops_per_image(run.net, run.image_size),
        "sha256": digest,
    }
    network = {each.name: getattr(run, each.name) for each in fields(TrainedNet)}
    return Teacher(name=name, info=info, **network)


def _preparation(config: DictConfig) -> list[dict[str, Any]]:
    """Return the preparation of the images, without their size."""
    transforms: Any = OmegaConf.to_container(config.data.prepare, resolve=True)
    return [{key: value for key, value in each.items() if key not in ("height", "width")} for each in transforms]
