"""The weights that a training starts from: where they come from, how they are read, and what they ask for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from safetensors import safe_open
from torch import Tensor, nn
from yaml import YAMLError

from vitexp.config.components import facts
from vitexp.config.renames import read_config
from vitexp.data.download import fetch, one_at_a_time
from vitexp.errors import ConfigError, one_line
from vitexp.models import ViT
from vitexp.models.checkpoint_names import heads_of, in_our_names, publisher_of
from vitexp.models.pretrained import Misfit, load_pretrained
from vitexp.runs.leaks import refuse_other_split
from vitexp.system.disk import checksum

Normalization = tuple[Sequence[float], Sequence[float]]

# Mean and standard deviation of values in [0, 1], by the names of data.normalize.
NORMALIZATIONS: Mapping[str, Normalization] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
_OF_PUBLISHER = {"torchvision": "imagenet", "google": "half"}  # timm's models differ among themselves


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file on the network. sha256: as many of its first digits as are published."""

    url: str
    sha256: str
    normalize: str
    num_heads: int


# By dim, depth and patch_size. Both publishers put the first eight digits of the SHA-256 into the file's name.
PUBLISHED: Mapping[str, Mapping[tuple[int, int, int], Published]] = {
    # torchvision's, trained from scratch on ImageNet-1k: 81.07 % there for vit_b16.
    "imagenet1k": {
        (dim, depth, patch_size): Published(
            url=f"https://download.pytorch.org/models/{name}-{digits}.pth",
            sha256=digits,
            normalize="imagenet",
            num_heads=dim // 64,
        )
        for dim, depth, patch_size, name, digits in (
            (768, 12, 16, "vit_b_16", "c867db91"),
            (768, 12, 32, "vit_b_32", "d86f8d99"),
            (1024, 24, 16, "vit_l_16", "852ce7e3"),
            (1024, 24, 32, "vit_l_32", "c7638314"),
        )
    },
    # Google's of Dosovitskiy et al. 2021, trained on ImageNet-21k, as timm converted them.
    "imagenet21k": {
        (768, 12, 16): Published(
            url="https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-vitjx/"
            "jx_vit_base_patch16_224_in21k-e5005f0a.pth",
            sha256="e5005f0a",
            normalize="half",
            num_heads=12,
        )
    },
}


@dataclass(kw_only=True)
class StartingWeights:
    """Weights that a net starts from, under our names.

    name: as it was typed. normalization: mean and std of the images that they were trained on, None where nobody says.
    classes: what the outputs of their head stand for, None where nobody says. known: keys of the model that tensors do
    not show. told: for result.json, once they are loaded.
    """

    name: str
    sha256: str
    tensors: Mapping[str, Tensor]
    normalization: Normalization | None
    classes: list[str] | None = None
    known: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)

    def load_into(self, net: nn.Module, *, classes: list[str]) -> None:
        """Load them; the head too where it knows these very `classes`. Raises ConfigError where they do not fit."""
        assert isinstance(net, ViT)
        try:
            loaded = load_pretrained(net, self.tensors, keep_head=self.classes == classes, known=self.known)
        except Misfit as misfit:
            raise ConfigError(f"model.weights={self.name} does not fit: {misfit}.") from misfit
        self.told = {"from": self.name, "sha256": self.sha256, **vars(loaded), "normalization": self.normalization}


class _AlreadyLoaded(StartingWeights):
    """Those of a run that goes on: its checkpoint holds what became of them."""

    def load_into(self, net: nn.Module, *, classes: list[str]) -> None:
        """Leave the net to the checkpoint."""


def starting_weights(config: DictConfig, *, going_on: Mapping[str, Any] | None) -> StartingWeights | None:
    """What config.model.weights names, read; None for a net that starts at random.

    going_on: result.json of a run that goes on, whose checkpoint has its weights: nothing is read or fetched then.
    Raises ConfigError for what is no file of weights or has learned from validation images of this run, DataError where
    published ones cannot be fetched.
    """
    name = config.model.get("weights")
    if name is None or not accepts_weights(config):
        return None
    if going_on is not None:
        told = going_on["model"]["weights"]
        return _AlreadyLoaded(
            name=name, sha256=told["sha256"], tensors={}, normalization=told["normalization"], told=told
        )
    if name in PUBLISHED:
        published = _published(name, config.model)
        path = _fetched(published, Path(config.data.cache_dir).expanduser() / "weights")
        weights = read_weights(path, name=name)
        weights.normalization = NORMALIZATIONS[published.normalize]
        weights.known["num_heads"] = published.num_heads
        return weights
    path = Path(os.path.expanduser(name))
    weights = read_weights(path, name=name)
    with suppress(OSError, YAMLError, OmegaConfBaseException, KeyError):  # a file of weights alone is no run
        run = read_config(path / "config.yaml")
        if facts(run.task).get("uses_labels", True):
            refuse_other_split(config, run, key=f"model.weights={name}")
    return weights


def accepts_weights(config: DictConfig) -> bool:
    """Return whether the class of config.model can start from weights."""
    return bool(facts(config.model).get("accepts_weights"))


def normalization(choice: str, weights: StartingWeights | None) -> Normalization | None:
    """Mean and std of data.normalize=`choice`; None for those of the training images.

    Raises ConfigError for "auto" where the net starts from weights that do not say what they were trained with.
    """
    if choice in NORMALIZATIONS:
        return NORMALIZATIONS[choice]
    if choice == "train" or weights is None:
        return None
    if weights.normalization is None:
        raise ConfigError(
            f"model.weights={weights.name} does not say its normalization; say data.normalize=half (timm's "
            "augreg models), imagenet (DeiT and most others) or train."
        )
    return weights.normalization


def read_weights(path: Path, *, name: str) -> StartingWeights:
    """Read a file of weights, or the one of a run's folder, as numbers only: no code that it may hold is run.

    Raises ConfigError, in which it is called `name`, for what is none or is not there.
    """
    path = path / "model.safetensors" if os.path.isdir(path) else path
    if not os.path.isfile(path):  # os.path's do not mind what can be no name at all
        raise ConfigError(
            f"model.weights={name}: there is no {path}; give {', '.join(PUBLISHED)}, a file of weights "
            "(.pth, .safetensors, .npz) or the folder of a finished run."
        )
    try:
        tensors, header = _read(path)
        digest = checksum(path)
    except Exception as error:  # readers of damaged files raise anything
        raise ConfigError(f"model.weights={name} cannot be read as weights: {one_line(str(error))}") from error
    publisher = publisher_of(tensors)
    if publisher is None:
        shown = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise ConfigError(
            f"model.weights={name} holds no ViT of torchvision, timm, Google or vitexp, but {shown} and the like."
        )
    weights = StartingWeights(
        name=name,
        sha256=digest,
        tensors=in_our_names(tensors, publisher),
        normalization=NORMALIZATIONS.get(_OF_PUBLISHER.get(publisher, "")),
    )
    if (heads := heads_of(tensors)) is not None:
        weights.known["num_heads"] = heads
    if beside := _told_beside(path):
        weights.normalization = beside
    if header:
        weights.normalization, weights.classes = (header["mean"], header["std"]), header["classes"]
        weights.known.update(
            {key: header["model"][key] for key in ("num_heads", "position_embedding") if key in header["model"]}
        )
    return weights


def _published(name: str, model: DictConfig) -> Published:
    wanted = tuple(model.get(key) for key in ("dim", "depth", "patch_size"))
    if found := PUBLISHED[name].get(wanted):
        return found
    sizes = "; ".join(
        f"model.dim={dim} model.depth={depth} model.patch_size={patch_size}"
        for dim, depth, patch_size in PUBLISHED[name]
    )
    raise ConfigError(
        f"model.weights={name} is published for {sizes} (model=vit_b16 is the first), not for this model."
    )


def _fetched(published: Published, folder: Path) -> Path:
    path = folder / published.url.rpartition("/")[2]
    with one_at_a_time(folder):
        fetch(published.url, path, sha256=published.sha256)
    return path


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file, and what vitexp wrote beside its own."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}, {}
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("vitexp", "{}"))
            return {key: file.get_tensor(key) for key in file.keys()}, header  # noqa: SIM118 - no dict
    found = torch.load(path, map_location="cpu", weights_only=True)
    for wrapped in ("state_dict", "model"):  # as training scripts save them
        if isinstance(found.get(wrapped), Mapping):
            found = found[wrapped]
    return {key: value for key, value in found.items() if isinstance(value, Tensor)}, {}


def _told_beside(path: Path) -> Normalization | None:
    """Mean and std in the config.json of a model folder of timm's."""
    try:
        told = json.loads((path.parent / "config.json").read_text())["pretrained_cfg"]
        return tuple(map(float, told["mean"])), tuple(map(float, told["std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
