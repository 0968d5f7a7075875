"""A finished run, to be looked at or measured again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vitexp.build import build_datamodule, build_net
from vitexp.data.datamodule import ImageDataModule
from vitexp.errors import ConfigError, UserError


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """The net of a run folder with its weights, in evaluation mode, and what is needed to feed it.

    mean, std: float32 [3], of values in [0, 1].
    """

    folder: Path
    config: DictConfig
    result: dict[str, Any]
    net: nn.Module
    classes: list[str]
    image_size: int
    mean: Tensor
    std: Tensor

    def prepared(self, images: NDArray[np.uint8] | Tensor) -> Tensor:
        """Images uint8 [B, S, S, 3] as the net takes them: float [B, 3, S, S], normalized, on the device of the net."""
        device = next(self.net.parameters()).device
        unit = torch.as_tensor(images, device=device).permute(0, 3, 1, 2).contiguous().float() / 255.0
        return (unit - self.mean.to(device).view(3, 1, 1)) / self.std.to(device).view(3, 1, 1)

    @cached_property
    def data(self) -> ImageDataModule:
        """The data set of the run, set up. Raises UserError where it is not there."""
        datamodule, _ = build_datamodule(self.config)
        datamodule.setup()
        return datamodule


def load_run(folder: Path | str, *, device: torch.device | str = "cpu") -> FinishedRun:
    """Load a run folder from its config.yaml, result.json and model.safetensors; nothing of it is executed.

    Raises UserError where `folder` is no completed run.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        config = OmegaConf.load(folder / "config.yaml")
        result = json.loads((folder / "result.json").read_text())
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            header = json.loads(file.metadata()["vitexp"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise UserError(
            f"{folder} is no finished run: config.yaml, result.json and model.safetensors are needed ({error})."
        ) from error
    assert isinstance(config, DictConfig)
    net = build_net(config, num_classes=len(header["classes"]))
    net.load_state_dict(weights)
    return FinishedRun(
        folder=folder,
        config=config,
        result=result,
        net=net.to(device).eval(),
        classes=header["classes"],
        image_size=header["image_size"],
        mean=torch.tensor(header["mean"]),
        std=torch.tensor(header["std"]),
    )


def newest_run(log_dir: Path | str = "logs") -> Path:
    """The folder of the run under `log_dir` that was completed last. Raises ConfigError where there is none."""
    completed = []
    for file in Path(log_dir).expanduser().glob("*/*/result.json"):
        try:
            result = json.loads(file.read_text())
        except (OSError, ValueError):
            continue
        if result.get("status") == "completed" and (file.parent / "model.safetensors").exists():
            completed.append((result["finished_at"], file.parent))
    if not completed:
        raise ConfigError(f"there is no finished run under {log_dir}; python train.py makes one in a few minutes.")
    return max(completed)[1]
