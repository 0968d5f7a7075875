"""Load a finished run to inspect it or measure it again; write the weights of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vitexp.data.datamodule import ImageDataModule
from vitexp.data.length import AUTO
from vitexp.data.prepare import Prepared
from vitexp.data.transforms import build_transforms
from vitexp.errors import UserError, one_line
from vitexp.models.mae import remove_classifier
from vitexp.models.timm_names import weights_from_timm
from vitexp.models.trained_net import TrainedNet
from vitexp.models.vit import ViT
from vitexp.runs.build import build_datamodule, build_net
from vitexp.runs.find import read_finished
from vitexp.runs.record import is_pretraining
from vitexp.system.disk import write_atomically
from vitexp.system.hardware import float32_matmul_precision, resolve_precision

Change: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]  # of a batch, uint8 [B, S, S, 3]


@dataclass(frozen=True, kw_only=True)
class FinishedRun(TrainedNet):
    """The network of a run folder with its weights.

    config: the configuration that the run started with; keys added later have their current defaults.
    """

    folder: Path
    config: DictConfig
    result: dict[str, Any]

    @property
    def precision(self) -> str:
        """Lightning's name for the precision of the run's test on this device."""
        precision = resolve_precision(self.config.trainer.precision, self.device)
        return "32-true" if precision == "16-mixed" and self.device.type != "cuda" else precision

    @property
    def batch_size(self) -> int:
        """The images per step of the run."""
        given = self.config.data.batch_size
        return int(self.result["training"]["batch_size"] if given == AUTO else given)

    @torch.inference_mode()
    def logits(self, images: NDArray[np.uint8] | Tensor) -> Tensor:
        """Return logits, float32 [B, C], for images uint8 [B, S, S, 3], in the precision of the run's test.

        They are bitwise equal to those of the test for the same batches on the same kind of device, uncompiled.
        """
        prepared = self.prepared(images).contiguous(memory_format=torch.channels_last)
        products = float32_matmul_precision(self.config.trainer.float32_matmul_precision, self.device)
        with products, self._autocast():
            return self.net(prepared).float()  # type: ignore[no-any-return]

    def all_logits(self, images: Prepared, *, change: Change | None = None) -> Tensor:
        """Return logits, float32 [N, C] on the CPU, in the batches of the run's own test.

        change: applied to the images of each batch.
        """
        size, logits = self.batch_size, []
        for start in range(0, len(images), size):
            batch = images.images(np.arange(start, min(start + size, len(images))))
            logits.append(self.logits(batch if change is None else change(batch)).cpu())
        return torch.cat(logits)

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision)
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def prepare_image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image, uint8 [H, W, 3], prepared as the run prepared its own: uint8 [S, S, 3]."""
        for transform in self._transforms:
            image = transform(image=image)["image"]
        return image

    @cached_property
    def _transforms(self) -> list[Any]:
        return build_transforms(OmegaConf.to_container(self.config.data.prepare, resolve=True))  # type: ignore[arg-type]

    @cached_property
    def data(self) -> ImageDataModule:
        """The data set of the run, set up. Raises UserError if it is missing or has different classes."""
        datamodule, _ = build_datamodule(self.config)
        datamodule.setup()
        if datamodule.classes != self.classes:
            raise UserError(f"the data set {datamodule.name} does not have the classes of the run {self.folder}.")
        return datamodule

    @property
    def fingerprints(self) -> dict[str, str]:
        """The recorded fingerprints of the images in train and test; empty if vitexp was older."""
        return dict((self.result.get("data") or {}).get("fingerprints") or {})

    @property
    def data_changed(self) -> bool:
        """Whether `data` is known to contain other images than those that the run was trained and tested on."""
        found = {"train": self.data.fingerprint, "test": self.data.test.fingerprint(self.data.classes)}
        return bool(self.fingerprints) and found != self.fingerprints


def load_run(
    folder: Path | str, *, device: torch.device | str = "cpu", accept_pretraining: bool = False
) -> FinishedRun:
    """Load a run folder from its config.yaml, result.json and model.safetensors.

    The weights are read as numbers only; the network is built from the class that config.yaml names, as in training.
    accept_pretraining: also load a pretraining run, whose classifier was never trained.
    Raises UserError if `folder` is not a completed run, or if its files do not match.
    """
    run = read_finished(folder, accept_pretraining=accept_pretraining)
    with safe_open(run.folder / "model.safetensors", framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        names = json.loads(file.metadata()["vitexp"]).get("names")
    net = build_net(run.config, num_classes=len(run.classes))
    if names == "timm":  # export=hub writes one file for both libraries
        weights = weights_from_timm(net, weights)
    if is_pretraining(run.result) and isinstance(net, ViT):
        remove_classifier(net)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        reason = one_line(str(error).partition("\n")[2] or str(error))
        raise UserError(f"the weights in {run.folder} do not fit the model of its config.yaml: {reason}") from error
    return FinishedRun(
        folder=run.folder,
        config=run.config,
        result=run.result,
        net=net.to(device).eval(),
        classes=run.classes,
        image_size=run.image_size,
        mean=torch.tensor(run.mean),
        std=torch.tensor(run.std),
    )


def classes_of(folder: Path) -> list[str]:
    """Return the classes of a run from the header of its weights; none if they cannot be read."""
    try:
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            return list(json.loads(file.metadata()["vitexp"])["classes"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return []


def write_weights(
    folder: Path,
    weights: Mapping[str, Tensor],
    *,
    model: DictConfig,
    image_size: int,
    classes: Sequence[str],
    mean: Tensor | NDArray[np.float32],
    std: Tensor | NDArray[np.float32],
    are_timms: bool = False,
) -> None:
    """Write model.safetensors atomically, with what is needed to use the network in its header.

    are_timms: whether the weights have timm's names (vitexp.models.timm_names).
    """
    header = {
        "model": OmegaConf.to_container(model, resolve=True),
        "image_size": image_size,
        "classes": list(classes),
        "mean": mean.tolist(),
        "std": std.tolist(),
        **({"names": "timm"} if are_timms else {}),
    }
    # Cloned, because safetensors refuses tensors that share memory, as tied layers do.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    # A single metadata entry: safetensors writes several in random order, so the files of equal runs would differ.
    write_atomically(folder / "model.safetensors", save(tensors, metadata={"vitexp": json.dumps(header)}))
