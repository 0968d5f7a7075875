"""A finished run, to be looked at or measured again; and the weights that a run leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from yaml import YAMLError

from vitexp.config.conf import CONF
from vitexp.data.datamodule import ImageDataModule
from vitexp.data.imagefile import read_image
from vitexp.data.transforms import build_transforms
from vitexp.errors import ConfigError, UserError, one_line
from vitexp.models.trained_net import TrainedNet
from vitexp.runs.build import build_datamodule, build_net
from vitexp.runs.record import is_pretraining
from vitexp.runs.shipped import run_folder
from vitexp.runs.weights import uses_labels
from vitexp.system.hardware import resolve_precision

_CACHE = "VITEXP_CACHE"


@dataclass(frozen=True, kw_only=True)
class FinishedRun(TrainedNet):
    """The net of a run folder with its weights.

    config: what the run was started with; keys that have come since then have today's defaults.
    """

    folder: Path
    config: DictConfig
    result: dict[str, Any]

    @property
    def precision(self) -> str:
        """Lightning's name for the precision in which the run's test computes on this device."""
        precision = resolve_precision(self.config.trainer.precision, self.device)
        return "32-true" if precision == "16-mixed" and self.device.type != "cuda" else precision

    @torch.inference_mode()
    def logits(self, images: NDArray[np.uint8] | Tensor) -> Tensor:
        """float32 [B, C] of images uint8 [B, S, S, 3], in the precision of the run's test.

        In batches of its size, on the same kind of device and not compiled, they are the same to the last bit.
        """
        prepared = self.prepared(images).contiguous(memory_format=torch.channels_last)
        with self._autocast():
            return self.net(prepared).float()  # type: ignore[no-any-return]

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    @cached_property
    def transforms(self) -> list[Any]:
        """The deterministic transforms of the run's data, as callables of Albumentations."""
        return build_transforms(OmegaConf.to_container(self.config.data.prepare, resolve=True))  # type: ignore[arg-type]

    @cached_property
    def data(self) -> ImageDataModule:
        """The data set of the run, set up. Raises UserError where it is not there."""
        datamodule, _ = build_datamodule(self.config)
        datamodule.setup()
        return datamodule


def load_run(folder: Path | str, *, device: torch.device | str = "cpu") -> FinishedRun:
    """Load a run folder from its config.yaml, result.json and model.safetensors.

    The weights are read as numbers only; the net is built from the class that config.yaml names, as training would.
    Raises UserError where `folder` is no completed run, or its parts do not belong together.
    """
    folder = Path(folder).expanduser().resolve()
    try:
        config = OmegaConf.load(folder / "config.yaml")
        result = json.loads((folder / "result.json").read_text())
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            header = json.loads(file.metadata()["vitexp"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        classes, image_size = list(header["classes"]), int(header["image_size"])
        mean, std = torch.tensor(header["mean"]), torch.tensor(header["std"])
        status = result["status"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{folder} is no finished run: config.yaml, result.json and model.safetensors are needed ({error})."
        ) from error
    if status != "completed":
        raise UserError(f"the run {folder} is {status}, not completed; train.py resume={folder} goes on with it.")
    if not isinstance(config, DictConfig) or "model" not in config or "data" not in config:
        raise UserError(f"{folder / 'config.yaml'} is no configuration of train.py: it has no model and data.")
    if not uses_labels(config):
        raise UserError(
            f"the run {folder} is a pretraining, which has no classifier; train one that starts from it with "
            f"train.py model.weights={folder}."
        )
    config = _with_todays_defaults(config)
    net = build_net(config, num_classes=len(classes))
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = one_line(str(error).partition("\n")[2] or str(error))
        raise UserError(f"the weights in {folder} do not fit the model of its config.yaml: {reason}") from error
    return FinishedRun(
        folder=folder,
        config=config,
        result=result,
        net=net.to(device).eval(),
        classes=classes,
        image_size=image_size,
        mean=mean,
        std=std,
    )


def prepared_image(run: FinishedRun, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image, uint8 [H, W, 3], prepared as the run prepared its own: uint8 [S, S, 3]."""
    for transform in run.transforms:
        image = transform(image=image)["image"]
    return image


def read_prepared(run: FinishedRun, path: Path) -> NDArray[np.uint8]:
    """Return an image file as the run prepares it: uint8 [1, S, S, 3]. Raises BrokenImage, a UserError."""
    return prepared_image(run, read_image(path))[None]


def write_weights(folder: Path, weights: Mapping[str, Tensor], *, header: dict[str, Any]) -> None:
    """Write what load_run reads, replaced in one step. header: model, image_size, classes, mean and std."""
    path = folder / "model.safetensors"
    unfinished = path.with_name(f".{path.name}")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    try:
        # one entry only: safetensors writes several in random order, and equal runs would differ in their bytes
        save_file(tensors, unfinished, metadata={"vitexp": json.dumps(header)})
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _with_todays_defaults(config: DictConfig) -> DictConfig:
    """`config`, and beneath it what conf says now of keys that an older version of train.py did not know.

    Prepared images are cached where VITEXP_CACHE says, if it does: the run may come from another machine.
    """
    today = OmegaConf.load(CONF / "train.yaml")
    assert isinstance(today, DictConfig)
    defaults = {section: today[section] for section in ("data", "training", "checkpoint")}
    defaults["trainer"] = OmegaConf.load(CONF / "trainer" / "auto.yaml")
    defaults["task"] = OmegaConf.load(CONF / "task" / "classification.yaml")
    if "loss" not in config:
        defaults["loss"] = OmegaConf.load(CONF / "loss" / "cross_entropy.yaml")
    merged = OmegaConf.merge(OmegaConf.create({"seed": 0, **defaults}), config)
    assert isinstance(merged, DictConfig)
    merged.data.cache_dir = os.environ.get(_CACHE) or merged.data.cache_dir
    return merged


def requested_run(typed: str | None) -> Path:
    """Return the folder of the run that a command names; the newest finished one under logs/ if it names none."""
    return newest_run() if typed is None else run_folder(typed)


def newest_run(log_dir: Path | str = "logs") -> Path:
    """The folder of the run under `log_dir` that was completed last. Raises ConfigError where there is none."""
    completed = completed_runs(log_dir)
    if not completed:
        raise ConfigError(
            f"there is no finished run under {log_dir}; python train.py makes one in a few minutes, and "
            "run=pretrained is one that comes with vitexp."
        )
    return completed[0]


def completed_runs(log_dir: Path | str = "logs") -> list[Path]:
    """The folders of all completed runs of classifiers under `log_dir`, the last one first."""
    completed = []
    logs = Path(log_dir).expanduser()
    for file in (*logs.glob("*/*/result.json"), *logs.glob("*/*/*/result.json")):  # a name may be paper/table1
        try:
            result = json.loads(file.read_text())
            usable = (file.parent / "model.safetensors").exists() and not is_pretraining(result)
            if result["status"] == "completed" and usable:
                completed.append((str(result["finished_at"]), file.parent.name, file.parent))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [folder for *_, folder in sorted(completed, reverse=True)]
